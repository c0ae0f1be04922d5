"""A house whose clock is set by hand: what is due is planned and fired as the leader would."""

from datetime import UTC, datetime, timedelta

import pytest
from fix_runs import Runs
from psycopg.types.json import Jsonb

from kirby.server import cron
from kirby.server.ticks import Planner

SET_CLOCK = """
    create table kirby.test_clock (at timestamptz not null);
    insert into kirby.test_clock values ('2026-11-20 12:00+00');
    create or replace function kirby.now() returns timestamptz language sql volatile
      as 'select at from kirby.test_clock';
    grant select on kirby.test_clock to public;
"""
NEXT = """
    select least((select min(coalesce(fire_at, at)) from kirby.tick
                   where status = 'planned' and coalesce(fire_at, at) > kirby.now()),
                 (select min(plan_at) from kirby.deployment where plan_at > kirby.now()),
                 (select min(due_at) from kirby.deadline where status = 'open' and due_at > kirby.now()))
"""  # noqa: E501


class House(Runs):
    """Deployments, exceptions and runs; the clock stands until it is moved."""

    def __init__(self, conn):
        super().__init__(conn)
        self.planner = Planner()
        self.conn.execute(SET_CLOCK)

    def now(self):
        return self.value("select kirby.now()").astimezone(UTC)

    def set(self, text, tz="UTC"):
        """Put the clock to a time, without doing what was due on the way."""
        at = datetime.fromisoformat(text).replace(tzinfo=cron.zone(tz))
        self.conn.execute("update kirby.test_clock set at = %s", [at])

    def look(self):
        """What the leader does in one round; how many runs were queued."""
        self.planner.plan(self.conn)
        return self.value("select kirby.fire_ticks()")

    def go(self, until, tz="UTC", end="run_succeeded"):
        """Let the time pass, from one thing that is due to the next; runs end as they begin."""
        stop = until
        if isinstance(until, str):
            stop = datetime.fromisoformat(until).replace(tzinfo=cron.zone(tz))
        elif isinstance(until, timedelta):
            stop = self.now() + until
        while True:
            while self.look() and end:
                self.finish(end)
            due = self.value(NEXT)
            if due is None or due > stop:
                break
            self.conn.execute("update kirby.test_clock set at = %s", [due])
        self.conn.execute("update kirby.test_clock set at = greatest(at, %s)", [stop])
        self.look()

    def finish(self, how="run_succeeded"):
        """End every run that is queued and may start."""
        while found := self.ask("select id from kirby.run where status = 'queued'"
                                " and not_before <= kirby.now() order by id"):  # fmt: skip
            for each in found:
                self.start_run(each["id"])
                self.end_run(each["id"], how)

    def start_run(self, run_id):
        for step in ("run_claimed", "run_started"):
            self.ask("select kirby.record_run(%s, %s)", run_id, step)

    def end_run(self, run_id, how="run_succeeded"):
        self.ask("select kirby.record_run(%s, %s, %s)", run_id, how, Jsonb({"exit_code": 1}))

    def schedule(self, *lines, name="report", environment="dev", **options):
        """Deploy a scheduled job, and look at it."""
        deployment = self.deploy(
            "pass", name=name, kind="scheduled", schedules=list(lines), environment=environment,
            **options,
        )  # fmt: skip
        self.look()
        return deployment

    def add(self, actor="ann", **document):
        """An exception in dev, unless it says otherwise."""
        environment = self.value("select id from kirby.environment where name = 'dev'")
        said = {"environment_id": environment, "reason": "because", "effect": "pause", **document}
        return self.value("select kirby.add_exception(%s, %s)", Jsonb(said), actor)

    def ticks(self, deployment, status=None):
        return self.ask("select * from kirby.tick where deployment_id = %s"
                        " and (%s::text is null or status = %s) order by at",
                        deployment, status, status)  # fmt: skip

    def ran(self, deployment, tz="UTC"):
        """The instants whose ticks were run, as walls of the zone show them."""
        return [f"{tick['at'].astimezone(cron.zone(tz)):%a %H:%M}"
                for tick in self.ticks(deployment, "queued")]  # fmt: skip

    def skipped(self, deployment, tz="UTC"):
        return [(f"{tick['at'].astimezone(cron.zone(tz)):%a %H:%M}", tick["reason"])
                for tick in self.ticks(deployment, "skipped")]  # fmt: skip

    def events(self, type):
        said = "select data from kirby.job_event where type = %s order by position"
        return [row["data"] for row in self.ask(said, type)]


@pytest.fixture(name="house")
def house_fixture(db):
    return House(db)

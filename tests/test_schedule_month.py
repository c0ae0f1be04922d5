"""A month of busy schedules in seconds, with leaders that die: nothing is lost or doubled."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fix_schedules import House

from kirby.server import schedules
from kirby.server.ticks import Planner

BEGIN = datetime(2026, 10, 10, tzinfo=UTC)
END = datetime(2026, 11, 10, tzinfo=UTC)  # summer time ends in between
JOBS = {
    "often": (["*/30 * * * *"], "UTC", {}),
    "hourly": (["5 * * * *"], "Europe/Brussels", {"catch_up": "all", "catch_up_most": 20}),
    "nightly": (["30 2 * * *"], "Europe/Brussels", {"catch_up": "all"}),
    "twice": (["0 6 * * *", "every 5h from 2026-10-10T00:30"], "America/New_York", {}),
    "weekdays": (["0 9-17 * * mon-fri"], "Asia/Kathmandu", {"jitter": 120}),
    "beside": (["20 */2 * * *"], "Australia/Lord_Howe", {"concurrency": "allow"}),
    "never late": (["45 * * * *"], "UTC", {"catch_up": "none", "start_by": 300}),
    "monthly": (["0 0 l * *"], "Africa/Casablanca", {"catch_up": "all"}),
    "every": (["every 40m"], "Pacific/Apia", {"concurrency": "queue"}),
}
NEXT = """
    select least((select min(coalesce(fire_at, at)) from kirby.tick
                   where status = 'planned' and coalesce(fire_at, at) > kirby.now()),
                 (select min(plan_at) from kirby.deployment where plan_at > kirby.now()))
"""
END_RUNS = """
    update kirby.run set status = 'cancelled', ended_at = kirby.now()
     where status = 'queued' and (id %% 7 < 6 or queued_at < kirby.now() - %s::interval)
"""


class Crash(Exception):
    """A leader died."""


class Mortal:
    """A connection that breaks now and then, before a statement or after it."""

    def __init__(self, conn, chance, odds):
        self._conn, self._chance, self._odds = conn, chance, odds

    def execute(self, *args, **options):
        before, after = (self._chance.random() < self._odds for _ in range(2))
        if before:
            raise Crash
        result = self._conn.execute(*args, **options)
        if after:
            raise Crash
        return result

    def __getattr__(self, name):
        return getattr(self._conn, name)


@pytest.fixture
def house(dsn):
    """Of a database of its own: what is committed can be cleaned away."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set synchronous_commit = off")
        yield House(conn)


@pytest.fixture
def chance():
    return random.Random(8)


def live(house, chance):
    """Until the month is over; how often a leader died."""
    deaths = 0
    while house.now() < END:
        mortal = Mortal(house.conn, chance, 0.01)
        try:
            house.planner.plan(mortal)
            mortal.execute("select kirby.fire_ticks()")
            finish(house)
            due = house.value(NEXT)
        except Crash:
            deaths += 1
            house.planner = Planner()
            silent = chance.choice([0, 1, 60, 600, 3 * 3600, 40 * 3600])
            due = house.now() + timedelta(seconds=silent * chance.random())
        house.set(min(due, END).astimezone(UTC).replace(tzinfo=None).isoformat())
    finish(house, "-1 s")
    while house.look():
        finish(house, "-1 s")
    return deaths


def finish(house, longest="1 hour"):
    """Most runs end at once, some go on for a while; what they do is not the matter here."""
    house.conn.execute(END_RUNS, [longest])


def test_a_month_with_leaders_that_die(house, chance):
    house.set("2026-10-10T00:00")
    ids = {name: house.schedule(*lines, name=name.replace(" ", "_"), tz=tz, **options)
           for name, (lines, tz, options) in JOBS.items()}  # fmt: skip

    deaths = live(house, chance)

    assert deaths >= 20
    for name, (lines, tz, _) in JOBS.items():
        check_all_there(house, ids[name], schedules.parse(lines, tz))
    assert house.ask("select * from kirby.verify_ticks()") == []


def check_all_there(house, deployment, schedule):
    """Each instant of the month is one decided row with one run at most, or was told as missed."""
    wanted = {tick.at for tick in schedule.ticks(BEGIN, until=END)}
    rows = [tick for tick in house.ticks(deployment) if tick["at"] <= END]
    found = {tick["at"].astimezone(UTC) for tick in rows}
    assert found <= wanted
    assert len(found) == len(rows)
    gaps = house.ask("select data from kirby.job_event where type = 'ticks_missed'"
                     " and deployment_id = %s", deployment)  # fmt: skip
    assert len(wanted - found) == sum(gap["data"]["count"] for gap in gaps)
    for at in wanted - found:
        assert any(datetime.fromisoformat(gap["data"]["from"]) < at
                   < datetime.fromisoformat(gap["data"]["until"]) for gap in gaps)  # fmt: skip

    late = [tick for tick in rows if tick["status"] == "planned"]
    assert [tick for tick in late if (tick["fire_at"] or tick["at"]) <= END] == []
    assert all(tick["reason"] for tick in rows if tick["status"] == "skipped")
    runs = Counter(run["tick_at"] for run in house.of(deployment))
    assert set(runs) == {tick["at"] for tick in rows if tick["status"] == "queued"}
    assert set(runs.values()) <= {1}

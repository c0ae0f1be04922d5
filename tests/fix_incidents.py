"""What tests of marks and incidents are made of: jobs, their ticks and runs, a clock, a channel."""

import json
import uuid

import pytest
from fix_runs import Runs
from fix_subscription import CLOCK

NOTICES = """
    select m.payload ->> 'event' as event, m.payload ->> 'title' as title,
           m.payload ->> 'job' as job, m.payload ->> 'kind' as kind,
           (m.payload ->> 'incident')::bigint as incident,
           jsonb_array_length(m.payload -> 'told') as told
      from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name = 'kirby.notices' order by m.position
"""


class House(Runs):
    """A Kirby whose clock stands still unless it is moved, and whose leader works when asked to."""

    def __init__(self, conn):
        super().__init__(conn)
        conn.execute(CLOCK)
        self.round()

    # Time

    def now(self):
        return self.value("select kirby.now()")

    def down(self, interval):
        """Time in which nobody does anything: Kirby itself is down."""
        self.conn.execute("update kirby.test_clock set shift = shift + %s::interval", [interval])
        self.conn.execute("update kirby.supervisor set lease_until = lease_until + %s::interval"
                          " where ended_at is null", [interval])  # fmt: skip

    def later(self, interval):
        """Time in which the leader did its duties all along; then one round."""
        self.down(interval)
        self.conn.execute("update kirby.pulse set at = kirby.now()")
        self.round()

    def round(self):
        """What the leader does every second, as far as it is about marks and incidents."""
        self.conn.execute("select kirby.fire_ticks()")
        self.conn.execute("select kirby.watch_deadlines()")
        self.conn.execute("select kirby.announce_incidents()")

    # Jobs

    def scheduled(self, name, **options):
        return self.deploy("pass", name=name, kind="scheduled", **options)

    def daemon(self, name, **options):
        return self.deploy("pass", name=name, kind="daemon", **options)

    def tick(self, deployment, *, ago="0 s"):
        """Plan a tick, due so long ago (or negative: still to come); its instant."""
        return self.value(
            "insert into kirby.tick (deployment_id, at, local)"
            " select %s, kirby.now() - %s::interval, '02:00 CET' returning at",
            deployment, ago,
        )  # fmt: skip

    def supervisor(self, host="web-1", labels=(), slots=20):
        found = uuid.uuid4()
        self.conn.execute(
            "select kirby.register_supervisor(%s, %s, %s, 1, %s, '1 day', %s, '3', 2)",
            [found, host, str(found), slots, list(labels)],
        )
        return found

    def claim(self, supervisor, slots=20):
        rows = self.ask("select kirby.claim_runs(%s, %s) as id", supervisor, slots)
        return [row["id"] for row in rows]

    def record(self, run_id, step, **data):
        self.conn.execute("select kirby.record_run(%s, %s, %s)", [run_id, step, json.dumps(data)])

    def start(self, supervisor):
        """Claim what is queued, and start it; the runs."""
        started = self.claim(supervisor)
        for run_id in started:
            self.record(run_id, "run_started", pid=1)
        return started

    def fail(self, run_id, *stderr, reason="it ended with exit code 1"):
        self.say(run_id, *stderr)
        self.record(run_id, "run_failed", exit_code=1, reason=reason)

    def say(self, run_id, *texts, stream="stderr"):
        for text in texts:
            self.conn.execute(
                "insert into kirby.log_line (position, run_id, stream, level, text, at)"
                " values (nextval('kirby.position'), %s, %s, 'error', %s, kirby.now())",
                [run_id, stream, text],
            )

    def ran(self, deployment, *, fails=None, supervisor=None):
        """A run of it from the beginning to the end; its id."""
        supervisor = supervisor or self.at_work
        run_id = self.trigger(deployment)
        while self.claim(supervisor):
            pass
        self.record(run_id, "run_started", pid=1)
        if fails is None:
            self.record(run_id, "run_succeeded", exit_code=0)
        else:
            self.fail(run_id, fails)
        return run_id

    @property
    def at_work(self):
        """A supervisor without anything special, the same one each time."""
        if not hasattr(self, "_at_work"):
            self._at_work = self.supervisor()
        return self._at_work

    def pause(self, job, *, until="1 day", effect="pause"):
        return self.value(
            "select kirby.add_exception(jsonb_build_object("
            " 'environment_id', 1, 'scope', 'job', 'target', %s::text, 'effect', %s::text,"
            " 'from_at', kirby.now(), 'until_at', kirby.now() + %s::interval,"
            " 'reason', 'the source is being rebuilt'), 'alice')",
            job, effect, until,
        )  # fmt: skip

    def publish(self, topic):
        """A message of now, by the clock that is moved."""
        self.conn.execute(
            "insert into kirby.message (position, topic_id, lane, payload, recorded_at)"
            " values (nextval('kirby.position'), kirby.open_topic(%s), 0, '1', kirby.now())",
            [topic],
        )

    # What people see and hear

    def channel(self, events=("opened", "updated", "resolved")):
        channel = self.value(
            "insert into kirby.channel (name, url, created_by)"
            " values ('mail', 'mailto://localhost', 'test') returning id"
        )
        self.conn.execute(
            "insert into kirby.route (channel_id, scope, events, created_by)"
            " values (%s, 'everything', %s, 'test')",
            [channel, list(events)],
        )

    def told(self):
        """The notices since the last time it was asked."""
        notices = self.ask(NOTICES)
        fresh = notices[getattr(self, "_heard", 0) :]
        self._heard = len(notices)
        return fresh

    def incidents(self, status="open"):
        return self.ask(
            "select i.*, j.name as job from kirby.incident i"
            " left join kirby.deployment d on d.id = i.deployment_id"
            " left join kirby.job j on j.id = d.job_id where i.status = %s order by i.id",
            status,
        )  # fmt: skip

    def marks(self, deployment):
        rows = self.ask(
            "select kind, status from kirby.deadline where deployment_id = %s"
            " order by kind desc, due_at",
            deployment,
        )  # fmt: skip
        return [(row["kind"], row["status"]) for row in rows]


@pytest.fixture(name="house")
def house_fixture(db):
    """Everything in it is rolled back."""
    return House(db)

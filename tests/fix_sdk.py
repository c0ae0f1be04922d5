"""What tests of the SDK are made of: this process as a script, and scripts as processes."""

import os
import signal
import subprocess
import sys
import textwrap

import psycopg
import pytest

from kirby.sdk import session, streams, tasks

TOKEN = "only-for-tests"
FOREIGN = "of-preprod"
BACKLOG = """
    select count(*) from kirby.message m
      join kirby.topic t on t.id = m.topic_id and t.name = %s
      join kirby.subscription s on s.topic_id = t.id
      join kirby.cursor c on c.subscription_id = s.id and c.lane = m.lane
     where m.position > c.position
        or exists (select from kirby.claim l where l.subscription_id = s.id
                    and l.lane = m.lane and m.position between l.first and l.last)
"""
PRELUDE = """
import datetime, os, signal, sys
import kirby
from kirby.core import subscriptions
from kirby.sdk import loop
subscriptions.LEASE = datetime.timedelta(seconds=float(os.environ.get("LEASE", "15")))
loop.SLICE = float(os.environ.get("SLICE", "0.25"))

def say(*words):
    print(*words, flush=True)
"""


class House:
    """A database as its administrator sees it, and what a script needs to reach it."""

    def __init__(self, dsn, worker_dsn):
        self.dsn = dsn
        self.environ = {
            "KIRBY_DSN": worker_dsn,
            "KIRBY_TOKEN": TOKEN,
            "KIRBY_ENVIRONMENT": "dev",
            "KIRBY_JOB": "job",
        }
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.give_token(TOKEN, "dev")

    def give_token(self, token, environment, run_id=None):
        self.conn.execute(
            "insert into kirby.token (hash, environment_id, run_id, name)"
            " select sha256(%s::text::bytea), id, %s, 'test' from kirby.environment"
            " where name = %s",
            [token, run_id, environment],
        )

    def ask(self, query, *params):
        return self.conn.execute(query, params).fetchall()

    def value(self, query, *params):
        [[value]] = self.ask(query, *params)
        return value

    def values(self, topic):
        """The payloads that are committed, by position; unlike a reader, with no horizon."""
        rows = self.ask(
            "select m.payload from kirby.message m join kirby.topic t on t.id = m.topic_id"
            " where t.name = %s order by m.position",
            topic,
        )
        return [value for (value,) in rows]

    def publish(self, topic, *values, key=None):
        """From outside, as psql would."""
        for value in values:
            self.conn.execute(
                "select kirby.publish(%s, %s, key => %s)",
                [topic, psycopg.types.json.Jsonb(value), key],
            )

    def backlog(self, topic="orders"):
        """How many messages of a topic its subscriptions have not settled."""
        return self.value(BACKLOG, topic)

    def topic_id(self, topic):
        return self.value("select id from kirby.topic where name = %s", topic)

    def terminate(self):
        """Cut the connections of all scripts; how many there were."""
        return self.value(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
            " where datname = current_database() and usename = 'kirby_worker'"
        )


class Script:
    """A script that runs as a process of its own."""

    def __init__(self, source, environ):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def line(self):
        """The next line that it says; fails with its errors if it says no more."""
        line = self.process.stdout.readline()
        assert line, f"the script ended: {self.process.stderr.read()}"
        return line.rstrip("\n")

    def tell(self, line=""):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def end(self, timeout=30):
        """Wait for its end: exit code, and what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(name="house")
def house_fixture(dsn, as_role):
    house = House(dsn, as_role(dsn, "kirby_worker"))
    yield house
    house.conn.close()


@pytest.fixture(name="sdk")
def sdk_fixture(house, monkeypatch):
    """This process is a script of job `job` in environment dev, with the rights of a worker."""
    for name, value in house.environ.items():
        monkeypatch.setenv(name, value)
    session.close()
    monkeypatch.setattr(streams, "REGISTERED", streams.REGISTERED)
    streams.REGISTERED.clear()
    tasks.REGISTERED.clear()
    yield house
    streams.REGISTERED.clear()
    tasks.REGISTERED.clear()
    session.close()


@pytest.fixture(name="scripts")
def scripts_fixture(house):
    """Start scripts as processes: `scripts(source, LEASE="1")`."""
    started = []

    def start(source, **environ):
        started.append(Script(source, {**house.environ, **environ}))
        return started[-1]

    yield start
    for script in started:
        if script.process.poll() is None:
            script.process.send_signal(signal.SIGCONT)
            script.kill()
        for stream in (script.process.stdin, script.process.stdout, script.process.stderr):
            stream.close()


def stop_after(count):
    """Call it once for each message: at the last one this process gets a SIGTERM."""
    left = [count]

    def seen():
        left[0] -= 1
        if left[0] <= 0:
            signal.raise_signal(signal.SIGTERM)

    return seen

"""The server of a storm, those who work on it, and who publishes."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from kirby.core import db, protocol, topics
from kirby.core.errors import KirbyError
from kirby.sdk import work
from kirby.server.postgres import Postgres
from kirby.server.schema import migrate

PIPELINE = Path(__file__).parent / "pipeline.py"
KEYS = 20
GROWN = 5.0  # seconds until a process has certainly come to serve
PATIENCE = 40  # seconds for something to happen that should take a few
RETRY_SOON = """
    create or replace function kirby.retry_pause(p_attempt integer) returns interval
      language sql as $$ select make_interval(secs => random() * 0.1) $$
"""
UNSETTLED = """
    select (select count(*) from kirby.claim)
         + (select count(*) from kirby.due where reason <> 'done')
         + (select count(*) from kirby.cursor c
              join kirby.subscription s on s.id = c.subscription_id
              join kirby.message m on m.topic_id = s.topic_id and m.lane = c.lane
                                  and m.position > c.position)
"""
VALUES = """
    select m.payload::int, m.key from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name = %s order by m.position
"""


class Stuck(Exception):
    """It did not happen in time; the text says what."""


def until(true, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise Stuck(f"{what}: not within {patience} s")
        time.sleep(0.02)
    return answer


class House:
    """A durable PostgreSQL in a temporary folder, which may be killed at any time."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="kirby-chaos-"))
        self.postgres = Postgres(self.folder / "pg")
        self.token = secrets.token_hex(16)
        self.password = secrets.token_hex(16)

    def __enter__(self):
        self.postgres.start()
        migrate(self.dsn)
        with self.admin() as conn:
            conn.execute(f"alter role kirby_worker login password '{self.password}'")
            conn.execute(
                "insert into kirby.token (hash, environment_id, name)"
                " select sha256(%s::text::bytea), id, 'storm' from kirby.environment"
                " where name = 'dev'",
                [self.token],
            )
            conn.execute(RETRY_SOON)
        return self

    def __exit__(self, *_):
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def dsn(self):
        return self.postgres.dsn()

    @property
    def worker_dsn(self):
        return make_conninfo(self.dsn, user="kirby_worker", password=self.password)

    def admin(self):
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=5)

    def ask(self, query, *params):
        """The rows, as soon as there is a server to give them."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with self.admin() as conn:
                    return conn.execute(query, params or None).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def unsettled(self):
        [[count]] = self.ask(UNSETTLED)
        return count

    def values(self, topic):
        return self.ask(VALUES, topic)


class Workers:
    """Pools and plain scripts that serve the pipeline; one that is gone is started again."""

    def __init__(self, house, *, pools, plain, lease, work, failing):
        self.environ = {
            **os.environ,
            "KIRBY_DSN": house.worker_dsn,
            "KIRBY_TOKEN": house.token,
            "KIRBY_ENVIRONMENT": "dev",
            "KIRBY_JOB": "storm",
            "STORM_LEASE": str(lease),
            "STORM_WORK": str(work),
            "STORM_FAILING": str(failing),
        }
        self.log = (house.folder / "workers.log").open("ab")
        worker = [sys.executable, "-m", "kirby", "worker", str(PIPELINE)]
        pool = [*worker, "--processes", "2", "--threads", "2"]
        self.commands = [pool] * pools + [[sys.executable, str(PIPELINE)]] * plain
        self.born = [0.0] * len(self.commands)
        self.processes = [self._start(index) for index in range(len(self.commands))]

    def _start(self, index):
        self.born[index] = time.monotonic()
        return subprocess.Popen(
            self.commands[index], env=self.environ, stdout=self.log, stderr=self.log
        )

    def revive(self):
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[index] = self._start(index)

    @property
    def parents(self):
        return [each.pid for each in self.processes if each.poll() is None]

    @property
    def hands(self):
        """The processes that handle messages: children of pools, and plain scripts."""
        found = []
        for process, command in zip(self.processes, self.commands, strict=True):
            if process.poll() is None:
                found += children(process.pid) if "worker" in command else [process.pid]
        return found

    def stop(self):
        """Let all finish what is at hand; who did not end well, and how."""
        grown = [born < time.monotonic() - GROWN for born in self.born]
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        bad = []
        for process, command, old in zip(self.processes, self.commands, grown, strict=True):
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                code = "no end"
            # One that was still being started has no handler for the signal yet.
            if code not in ((0,) if old else (0, -signal.SIGTERM)):
                bad.append(f"{' '.join(command[1:3])} ended with {code}")
        self.log.close()
        return bad

    def kill(self):
        for process in self.processes:
            for pid in [*children(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def children(pid):
    found = []
    with contextlib.suppress(OSError):
        for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in tasks.read_text().split()]
    return found


class Producer(threading.Thread):
    """Publishes numbers one after the other, each under an id, until it knows that it is there."""

    def __init__(self, house, ahead):
        super().__init__(name="producer", daemon=True)
        self.house, self.ahead = house, ahead
        self.published = 0
        self._end = threading.Event()

    def run(self):
        conn = None
        while not self._end.is_set():
            try:
                if conn is None:
                    conn = db.connect(self.house.worker_dsn)
                    protocol.greet(conn, token=self.house.token, environment="dev")
                self._publish(conn)
            except (KirbyError, psycopg.Error):
                if conn is not None:
                    conn.close()
                conn = None
                self._end.wait(0.1)
        if conn is not None:
            conn.close()

    def _publish(self, conn):
        numbers = range(self.published, self.published + 20)
        items = [work.message(n, str(n % KEYS), None, (), id=str(n)) for n in numbers]
        _, written = topics.write(conn, work.document({"inputs": items}), "{}")
        topics.notify(conn, written)
        self.published += len(numbers)
        while self.house.unsettled() > self.ahead and not self._end.wait(0.05):
            pass

    def end(self):
        self._end.set()
        self.join()

"""How long after a kill -9 everything that was in somebody's hands is settled."""

import contextlib
import os
import signal
import sys
import time

import psycopg

from benchmarks import children
from benchmarks.rows import Row
from benchmarks.subjects.memory import family

GROUP = "Recovery"
NAME = "recovery"
SERVER = "PostgreSQL to be killed"  # syncing and replaying what others wrote is not our figure
PROCESSES = 2
BACKLOG = 3000  # messages of ten milliseconds
PATIENCE = 60
HELD = """
    select array_agg(c.id) from kirby.claim c
      join kirby.subscription s on s.id = c.subscription_id
      join kirby.topic t on t.id = s.topic_id and t.name = %s
"""
LEFT = "select count(*) from kirby.claim where id = any(%s)"


def measure(bench):
    env = bench.kirby(bench.house.kirby(NAME, SERVER))
    figures = bench.rounds({
        "worker": lambda: seconds(bench, env, kill_worker),
        "postgres": lambda: seconds(bench, env, kill_postgres),
    }, most=3)  # fmt: skip
    for name, what in (
        ("worker", "a process of a worker"),
        ("postgres", "PostgreSQL, started again"),
    ):
        yield Row(
            GROUP, f"kill -9 of {what}", figures[name], unit="s", target=10, better="lower",
            note="until all that was claimed at that moment is settled",
        )  # fmt: skip


def seconds(bench, env, kill):
    """From the kill until the claims of that moment are gone."""
    topic = bench.house.fresh("slow")
    bench.call("kirby_streams", "fill", env, topic=topic, count=BACKLOG)
    asked(bench, "checkpoint")
    with working(bench, env, topic) as worker:
        held = await_claims(bench, topic)
        started = time.monotonic()
        kill(bench, worker)
        until(lambda: asked(bench, LEFT, [held]) == 0)
        return time.monotonic() - started


@contextlib.contextmanager
def working(bench, env, topic):
    """A ``kirby worker`` of two processes."""
    command = [sys.executable, "-m", "kirby", "worker", "benchmarks.peers.kirby_slow"]
    command += ["--processes", PROCESSES]
    worker = children.spawn(command, bench.log, env | {"BENCH_TOPIC": topic})
    try:
        yield worker
    finally:
        children.stop(worker)


def await_claims(bench, topic):
    """What the worker holds, once each process has something."""
    until(lambda: len(asked(bench, HELD, [topic]) or ()) >= PROCESSES)
    return asked(bench, HELD, [topic])


def kill_worker(bench, worker):
    os.kill(family(worker.pid)[-1], signal.SIGKILL)


def kill_postgres(bench, worker):
    server = bench.house.postgres(SERVER)
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.alive)
    server.start()


def asked(bench, query, params=()):
    """One value; None while there is no server."""
    with contextlib.suppress(psycopg.OperationalError), bench.house.admin(NAME, SERVER) as conn:
        found = conn.execute(query, params)
        return found.fetchone()[0] if found.description else None


def until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise children.Failed(f"it has not recovered after {PATIENCE} s")
        time.sleep(0.05)

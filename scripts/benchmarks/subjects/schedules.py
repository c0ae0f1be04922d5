"""What schedules cost: planned a day ahead, and a round of the leader with little or much to do.

A database for each number of schedules. A round is what the leader asks about ticks: plan what is
to be planned, fire what is due.
"""

import time

from benchmarks.rows import Row
from kirby.server.ticks import Planner

GROUP = "Schedules"
FEW, MANY = 100, 10_000
ROUNDS = 10

JOBS = "insert into kirby.job (name, kind) select 'job-' || n, 'scheduled' from generate_series(1, %s) n"  # noqa: E501
RELEASE = """
    insert into kirby.release (name, filename, source, sha256, requirements, lock_hash, python,
                               created_by)
    values ('job', 'job.py', 'pass', 'x', '', 'x', '3.11', 'bench') returning id
"""
DEPLOYMENTS = """
    insert into kirby.deployment (job_id, environment_id, version)
    select j.id, e.id, 0 from kirby.job j, kirby.environment e where e.name = 'dev'
"""
VERSIONS = """
    insert into kirby.deployment_version (deployment_id, version, actor, release_id, schedules, tz)
    select id, 1, 'bench', %s, array[case id %% 4
             when 0 then (id %% 60) || ' * * * *'
             when 1 then (id %% 60) || ' ' || (id %% 24) || ' * * *'
             when 2 then 'every 45m'
             else (id %% 60) || ' 2 * * mon-fri' end],
           (array['UTC', 'Europe/Brussels', 'Asia/Kathmandu', 'America/New_York'])[1 + id %% 4]
      from kirby.deployment
"""
MAKE_DUE = """
    insert into kirby.tick (deployment_id, at, local)
    select id, now() - interval '1 s', '' from kirby.deployment order by id limit %s
"""
END = """
    update kirby.run set status = 'cancelled', ended_at = now() where status = 'queued'
"""


def measure(bench):
    figures = bench.rounds({"many": lambda: probe(bench, bench.count(MANY, FEW)),
                            "few": lambda: probe(bench, FEW)})  # fmt: skip
    count = bench.count(MANY, FEW)
    yield Row(
        GROUP, f"planning a day ahead, {count:,} schedules", figures["many plan"], unit="s",
        target=10, better="lower", note="as after a migration: none of them was planned before",
    )  # fmt: skip
    yield Row(
        GROUP, f"a round, {count:,} schedules, nothing due", figures["many idle"], unit="ms",
        target=100, better="lower",
    )  # fmt: skip
    yield Row(
        GROUP, f"a round, {count:,} schedules, 20 due", figures["many due"], unit="ms",
        target=100, better="lower",
    )  # fmt: skip
    yield Row(
        GROUP, f"a tick that is fired, {count:,} schedules", figures["many each"],
        figures["few each"], peer=f"itself, {FEW} schedules", unit="ms", target=2, better="lower",
        note="of 100 that are due at once",
    )  # fmt: skip


def probe(bench, count):
    name = f"schedules_{count}_{time.monotonic_ns()}"
    bench.house.kirby(name)
    with bench.house.admin(name) as conn:
        deploy(conn, count)
        planner = Planner()
        seconds, _ = timed(lambda: planner.plan(conn))
        conn.execute("analyze")
        idle = [timed(lambda: look(planner, conn))[0] for _ in range(ROUNDS)]
        due = [fire(planner, conn, 20) for _ in range(3)]
        each = fire(planner, conn, 100) / 100
    return {
        "plan": seconds,
        "idle": 1000 * sorted(idle)[ROUNDS // 2],
        "due": 1000 * sorted(due)[1],
        "each": 1000 * each,
    }


def deploy(conn, count):
    conn.execute(JOBS, [count])
    [release] = conn.execute(RELEASE).fetchone()
    conn.execute(DEPLOYMENTS)
    conn.execute(VERSIONS, [release])
    conn.execute("update kirby.deployment set version = 1")
    conn.execute("analyze")


def fire(planner, conn, count):
    conn.execute(MAKE_DUE, [count])
    seconds, fired = timed(lambda: look(planner, conn))
    assert fired == count, f"{fired} of {count} ticks were fired"
    conn.execute(END)
    return seconds


def look(planner, conn):
    planner.plan(conn)
    return conn.execute("select kirby.fire_ticks()").fetchone()[0]


def timed(work):
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result

"""How fast a state is at an old moment: `.venv/bin/python -m scripts.benchmarks.state_history`.

Mutations are generated in a database of its own: one key with a million versions, and 100,000 keys
that change 30 times in two years. Then they are counted and written down as the leader does it.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from kirby.server.postgres import Postgres
from kirby.server.schema import migrate

SPAN = "interval '2 years'"
GENERATE = """
    insert into kirby.state_mutation (position, state_id, key, version, op, value, recorded_at)
    select nextval('kirby.position'), %(state)s, (n %% %(keys)s)::text, n / %(keys)s + 1, 'set',
           jsonb_build_object('flights', n, 'minutes', n %% 977, 'carrier', 'UA',
                              'note', md5(n::text)),
           now() - interval '2 years' + interval '2 years' * n / %(count)s
      from generate_series(0, %(count)s - 1) n
"""
PROJECT = """
    insert into kirby.state_entry (state_id, key, version, op, value, position, updated_at)
    select distinct on (key) state_id, key, version, op, value, position, recorded_at
      from kirby.state_mutation where state_id = %s order by key, position desc
"""


def timed(conn, query, *params, times=5):
    """The median in ms, and the slowest, of some calls; the first of all does not count."""
    took = []
    for _ in range(times + 1):
        began = time.perf_counter()
        conn.execute(query, params).fetchall()
        took.append((time.perf_counter() - began) * 1000)
    slowest = max(took[1:])
    return f"{statistics.median(took[1:]):8.2f} ms (slowest {slowest:.1f}, first {took[0]:.1f})"


def state(conn, name, keys, count):
    [[found]] = conn.execute("select kirby.state_id(1::smallint, %s)", [name]).fetchall()
    began = time.perf_counter()
    conn.execute(GENERATE, {"state": found, "keys": keys, "count": count})
    conn.execute(PROJECT, [found])
    print(f"{name}: {keys:,} keys, {count:,} mutations in {time.perf_counter() - began:.0f} s")
    return found


def keep(conn):
    began = time.perf_counter()
    slowest = 0.0
    more = True
    while more:
        step = time.perf_counter()
        [[more]] = conn.execute("select kirby.keep_states()").fetchall()
        slowest = max(slowest, time.perf_counter() - step)
    took = time.perf_counter() - began
    [shots] = conn.execute("select count(*), sum(keys) from kirby.state_snapshot").fetchall()
    print(f"counted in {took:.1f} s, a step {slowest:.2f} s at most; snapshots, entries: {shots}")


YEAR = "now() - interval '1 year'"
AT = "select count(*) from kirby.state_at('dev', "
DIFF = f"select count(*) from kirby.state_diff('dev', 'many', {YEAR}"
BLAME = "select count(*) from kirby.state_blame('dev', "
PAGE = f"select count(*) from kirby.entries_at(%s, null, {YEAR}, null, '', '5', 50)"
MEASURED = {
    "one key of a million versions, a year ago": f"{AT}'one', {YEAR}, for_key => '0')",
    "one key of 100,000, a year ago": f"{AT}'many', {YEAR}, for_key => '77')",
    "the whole state, a year ago": f"{AT}'many', {YEAR})",
    "diff with now": f"{DIFF})",
    "diff with an hour later": f"{DIFF}, {YEAR} + interval '1 hour')",
    "blame of a key of 30 versions": f"{BLAME}'many', '77')",
    "blame of a key of a million": f"{BLAME}'one', '0')",
}


def measure(conn, whole):
    for name, query in MEASURED.items():
        print(f"{name:42}", timed(conn, query, times=50 if "one key" in name else 5))
    print(f"{'a page of it':42}", timed(conn, PAGE, whole))


def main(count):
    folder = Path(tempfile.mkdtemp(prefix="kirby-states-"))
    postgres = Postgres(folder)
    try:
        postgres.start()
        migrate(postgres.dsn("postgres"))
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
            conn.execute("alter table kirby.state_mutation disable trigger project_state_entries")
            state(conn, "one", 1, count)
            whole = state(conn, "many", count // 10, count * 3)
            conn.execute("vacuum analyze kirby.state_mutation")
            keep(conn)
            conn.execute(
                "vacuum analyze kirby.state_mutation, kirby.state_snapshot_entry, kirby.state_entry"
            )
            measure(conn, whole)
    finally:
        postgres.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)

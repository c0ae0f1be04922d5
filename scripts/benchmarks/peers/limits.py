"""What driver and server can do at best with the same rows. Each has a process of its own."""

import time
from collections import Counter

import psycopg

from benchmarks import payloads
from benchmarks.pace import knock, paced
from benchmarks.watch import Tally

TABLE = """
    create table if not exists message (
      position bigint generated always as identity,
      topic_id integer not null, lane smallint not null, key text, payload jsonb not null,
      recorded_at timestamptz not null default clock_timestamp(),
      primary key (topic_id, lane, position));
    create table if not exists place (name text primary key, position bigint not null)
"""
INSERT = "insert into message (topic_id, lane, key, payload) values (%s, %s, %s, %s)"
COPY = "copy message (topic_id, lane, key, payload) from stdin"
PAGE = """
    select position, key, payload, recorded_at from message
     where topic_id = %s and lane = 0 and position > %s order by position limit %s
"""
MOVE = "update place set position = %s where name = %s"
CHANNEL = "bench"


def prepare(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(TABLE)


def insert_each(dsn, count):
    """INSERT in autocommit: one message a commit."""
    items = payloads.values(count)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as conn:
        for _ in range(3):
            conn.execute(INSERT, [1, 0, None, payloads.dumps(items[0])])
        started = time.monotonic()
        for item in items:
            conn.execute(INSERT, [1, 0, None, payloads.dumps(item)])
        return count / (time.monotonic() - started)


def copy_batches(dsn, count, batch):
    """COPY: ``batch`` messages a commit."""
    pages = payloads.pages(payloads.values(count), batch)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for page in pages[:3]:
            _copy(conn, 1, page)
        started = time.monotonic()
        for page in pages:
            _copy(conn, 1, page)
        return count / (time.monotonic() - started)


def _copy(conn, topic, page):
    with conn.cursor().copy(COPY) as copy:
        for item in page:
            copy.write_row((topic, 0, None, payloads.dumps(item)))


def fill(dsn, topic, count):
    """Rows for a reader; not measured."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for first in range(0, count, 1000):
            _copy(conn, topic, payloads.values(min(1000, count - first), first))


def read_pages(dsn, topic, page):
    """Read page after page, decode it, and commit how far it went."""
    name, position, total = f"reader-{topic}", 0, 0
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as conn:
        conn.execute("insert into place values (%s, 0)", [name])
        started = time.monotonic()
        while True:
            with conn.transaction():
                rows = conn.execute(PAGE, [topic, position, page]).fetchall()
                if not rows:
                    return total / (time.monotonic() - started)
                position = rows[-1][0]
                conn.execute(MOVE, [position, name])
            total += len(rows)


def receive(dsn, count, tally):
    """Wait for notifications that carry the time when they were sent; the seconds each took."""
    seconds, seen = [], Tally(tally)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"listen {CHANNEL}")
        for notification in conn.notifies():
            now = time.monotonic()
            seen.add()
            if notification.payload:
                seconds.append(now - float(notification.payload))
            if len(seconds) == count:
                return seconds


def send(dsn, count, pause, tally):
    """Notify with the time, about every ``pause`` seconds, once somebody listens."""
    with psycopg.connect(dsn, autocommit=True) as conn:

        def notify(payload=""):
            conn.execute("select pg_notify(%s, %s)", [CHANNEL, payload])

        knock(tally, notify)
        paced(count, pause, lambda: notify(str(time.monotonic())))


LOG_TABLE = """
    create table if not exists line (
      position bigint generated always as identity, run_id bigint not null, stream text not null,
      level text not null, text text not null, at timestamptz not null default clock_timestamp(),
      primary key (run_id, position))
"""
LOG_BATCH = 10_000  # rows a commit: a megabyte


def copy_lines(dsn, count):
    """COPY: lines of a hundred bytes into a table like that of the log."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(LOG_TABLE)
        conn.execute("truncate line")
        started = time.monotonic()
        for first in range(0, count, LOG_BATCH):
            rows = (
                f"1\tstdout\tinfo\t{n:099}\n" for n in range(first, min(first + LOG_BATCH, count))
            )
            with conn.cursor().copy("copy line (run_id, stream, level, text) from stdin") as copy:
                copy.write("".join(rows))
        return count / (time.monotonic() - started)


COUNTS = "create table if not exists tally (name text, key text, n bigint, primary key (name, key))"
UPSERT = """
    insert into tally select %s, key, n from unnest(%s::text[], %s::bigint[]) as t (key, n)
        on conflict (name, key) do update set n = tally.n + excluded.n
"""


def tally_pages(dsn, topic, page, keys):
    """Read page after page, count by key in a table that is updated in place, and commit both."""
    name, position, total = f"tally-{topic}", 0, 0
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as conn:
        conn.execute(COUNTS)
        conn.execute("insert into place values (%s, 0)", [name])
        started = time.monotonic()
        while True:
            with conn.transaction():
                rows = conn.execute(PAGE, [topic, position, page]).fetchall()
                if not rows:
                    return total / (time.monotonic() - started)
                position = rows[-1][0]
                counts = Counter(str(row[0] % keys) for row in rows)
                conn.execute(UPSERT, [name, list(counts), list(counts.values())])
                conn.execute(MOVE, [position, name])
            total += len(rows)

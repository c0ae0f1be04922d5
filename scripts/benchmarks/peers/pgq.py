"""PgQ: batches between ticks, in SQL. Every function runs in a process of its own."""

import json
import time

import psycopg

from benchmarks import payloads

CONSUMER = "bench"
NEVER = "1 hour"
EVENTS = "select ev_id, ev_time, ev_type, ev_data from pgq.get_batch_events(%s)"
INSERT = "select pgq.insert_event(%s, 'order', event) from unnest(%s::text[]) event"


def fill(dsn, queue, count, batch):
    """A queue with a tick after every ``batch`` events, as if the ticker came just in time."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create extension if not exists pgq")
        conn.execute("select pgq.create_queue(%s)", [queue])
        settings = {"max_count": batch, "max_lag": NEVER, "idle_period": NEVER}
        for name, value in settings.items():
            conn.execute(
                "select pgq.set_queue_config(%s, %s, %s)", [queue, f"ticker_{name}", str(value)]
            )
        conn.execute("select pgq.ticker(%s)", [queue])
        conn.execute("select pgq.register_consumer(%s, %s)", [queue, CONSUMER])
        for page in payloads.pages(payloads.values(count), batch):
            conn.execute(INSERT, [queue, [payloads.dumps(item) for item in page]])
            conn.execute("select pgq.ticker(%s)", [queue])
        [version] = conn.execute("select pgq.version()").fetchone()
        return version


def consume(dsn, queue, count):
    """Take batch after batch, decode it, and finish it: one transaction each."""
    done = 0
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as conn:
        started = time.monotonic()
        while done < count:
            done += _next_batch(conn, queue)
        return done / (time.monotonic() - started)


def _next_batch(conn, queue):
    with conn.transaction():
        [batch] = conn.execute("select pgq.next_batch(%s, %s)", [queue, CONSUMER]).fetchone()
        events = conn.execute(EVENTS, [batch]).fetchall()
        for *_, data in events:
            json.loads(data)
        conn.execute("select pgq.finish_batch(%s)", [batch])
    return len(events)

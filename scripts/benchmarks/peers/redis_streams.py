"""Redis Streams: XADD, XREADGROUP, XACK. Every function runs in a process of its own."""

import json
import time

import redis

from benchmarks import payloads

GROUP, CONSUMER = "bench", "one"


def connect(port):
    return redis.Redis(port=port)


def append(port, stream, count, batch):
    """XADD in pipelines of ``batch``."""
    conn, pages = connect(port), payloads.pages(payloads.values(count), batch)
    started = time.monotonic()
    for page in pages:
        _append(conn, stream, page)
    return count / (time.monotonic() - started)


def _append(conn, stream, page):
    pipeline = conn.pipeline(transaction=False)
    for item in page:
        pipeline.xadd(stream, {"v": payloads.dumps(item)})
    pipeline.execute()


def fill(port, stream, count):
    conn = connect(port)
    conn.xgroup_create(stream, GROUP, id="0", mkstream=True)
    for page in payloads.pages(payloads.values(count), 1000):
        _append(conn, stream, page)


def consume(port, stream, count, batch):
    """Read ``batch`` messages, decode them, acknowledge them; all of a group's bookkeeping."""
    conn, done = connect(port), 0
    started = time.monotonic()
    while done < count:
        [[_, entries]] = conn.xreadgroup(GROUP, CONSUMER, {stream: ">"}, count=batch)
        for _, fields in entries:
            json.loads(fields[b"v"])
        conn.xack(stream, GROUP, *[number for number, _ in entries])
        done += len(entries)
    return done / (time.monotonic() - started)

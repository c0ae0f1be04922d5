"""What a worker asks of the database, call by call, on a topic with a history."""

import random
import statistics
import time
from datetime import datetime

from benchmarks import payloads
from kirby.core import subscriptions, topics
from kirby.sdk import session, work

BATCH = 100
LAG = "select * from kirby.lag(%s)"


def probe(topic, count, first, last):
    """Medians in milliseconds. ``first`` and ``last``: when the history was recorded."""
    conn = session.get().connection
    first, last = datetime.fromisoformat(first), datetime.fromisoformat(last)
    at_end, _ = subscriptions.subscribe(conn, topic, "at-the-end")
    document = work.document({topic: [work.message(v, None, None, ()) for v in payloads.values(BATCH)]})
    taken = {"claim": [], "settle": [], "claim, all unread": [], "read by time": [], "lag": []}
    for number in range(count + 3):  # the first ones are for the plans
        topics.write(conn, document, "{}")
        batch = timed(taken["claim"], lambda: subscriptions.claim(conn, at_end, BATCH))
        timed(taken["settle"], lambda: subscriptions.settle(conn, batch, upto=batch.positions[-1]))
        while rest := subscriptions.claim(conn, at_end, BATCH):
            subscriptions.settle(conn, rest, upto=rest.positions[-1])
        unread, _ = subscriptions.subscribe(conn, topic, f"unread-{random.getrandbits(60)}")
        timed(taken["claim, all unread"], lambda: subscriptions.claim(conn, unread, BATCH))
        timed(taken["lag"], lambda: conn.execute(LAG, [unread]).fetchone())
        since = first + random.random() * (last - first)
        timed(taken["read by time"], lambda: topics.read(conn, topic, since=since, limit=BATCH))
    return {name: statistics.median(values[3:]) for name, values in taken.items()}


def timed(taken, act):
    started = time.perf_counter()
    answer = act()
    taken.append(1000 * (time.perf_counter() - started))
    return answer


def work_off(topic, tally):
    """One of many workers of a queue, until SIGTERM."""
    import kirby
    from benchmarks.watch import Tally

    seen = Tally(tally)

    @kirby.stream(topic, name="workers", batch=BATCH, ordered=False)
    def handle(values):
        seen.add(len(values))

    kirby.run()

"""What a worker asks of the database, call by call, on a topic with a history."""

import random
import statistics
import time
from datetime import datetime

import kirby
from benchmarks import payloads
from benchmarks.watch import Tally
from kirby.core import subscriptions, topics
from kirby.sdk import session, work

BATCH = 100
LANES = 8
WARM = 2  # rounds for the plans
PATIENCE = 3000  # milliseconds for one kind of call
LAG = "select * from kirby.lag(%s)"


def probe(topic, count, first, last):
    """Medians in milliseconds. ``first`` and ``last``: when the history was recorded."""
    asked = Probe(topic, datetime.fromisoformat(first), datetime.fromisoformat(last))
    for number in range(WARM + count):
        if number == WARM:
            asked.taken.clear()
        asked.follow()
        asked.begin()
        asked.read_by_time()
    return {name: statistics.median(values) for name, values in asked.taken.items()}


class Probe:
    """Asks one thing after the other, and notes how long each took."""

    def __init__(self, topic, first, last):
        self.topic, self.first, self.last = topic, first, last
        self.conn = session.get().connection
        self.at_end, _ = subscriptions.subscribe(self.conn, topic, "at-the-end")
        items = [work.message(value, None, None, ()) for value in payloads.values(BATCH * LANES)]
        self.news = work.document({topic: items})
        self.taken = {}

    def timed(self, name, act):
        taken = self.taken.setdefault(name, [])
        if sum(taken) > PATIENCE:
            return None
        started = time.perf_counter()
        answer = act()
        taken.append(1000 * (time.perf_counter() - started))
        return answer

    def follow(self):
        """A subscription that has read everything gets a batch of every lane."""
        topics.write(self.conn, self.news, "{}")
        for _ in range(LANES):
            batch = self.timed("claim", lambda: subscriptions.claim(self.conn, self.at_end, BATCH))
            if batch is not None:
                self.timed("settle", lambda done=batch: self.settle(done))
        while (batch := subscriptions.claim(self.conn, self.at_end, BATCH)) is not None:
            self.settle(batch)

    def settle(self, batch):
        subscriptions.settle(self.conn, batch, upto=batch.positions[-1])

    def begin(self):
        """One that has read nothing gets its first batch, and is asked how far behind it is."""
        name = f"unread-{random.getrandbits(60)}"
        new, _ = subscriptions.subscribe(self.conn, self.topic, name)
        self.timed("claim, all unread", lambda: subscriptions.claim(self.conn, new, BATCH))
        self.timed("lag", lambda: self.conn.execute(LAG, [new]).fetchone())

    def read_by_time(self):
        since = self.first + random.random() * (self.last - self.first)
        self.timed(
            "read by time", lambda: topics.read(self.conn, self.topic, since=since, limit=BATCH)
        )


def work_off(topic, tally):
    """One of many workers of a queue, until SIGTERM."""
    seen = Tally(tally)

    @kirby.stream(topic, name="workers", batch=BATCH, ordered=False)
    def handle(values):
        seen.add(len(values))

    kirby.run()

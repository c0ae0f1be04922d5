"""Whether anything grows with what is stored, or with the number of workers.

A database for each size; its history is loaded in one statement and then counted as the leader
would have done, so that it is exactly what publishing it would have left.
"""

import contextlib
import functools
import time

from benchmarks import children
from benchmarks.rows import Row
from benchmarks.subjects.tasks import await_count

GROUP = "Growth"
TOPIC = "history"
SMALL, MIDDLE = 1000, 100_000
WORKERS = (1, 4, 16)
CALLS = {"claim": 10, "claim, all unread": 10, "settle": None, "read by time": 10, "lag": 10}  # ms
PATIENCE = 60  # seconds for all workers to start

STORED = '{"order": 1}'  # short, so that ten million fit into a minute: nobody reads them

LOAD = """
    insert into kirby.message (position, topic_id, lane, payload, recorded_at)
    select n, %(topic_id)s, n %% t.lanes, %(payload)s,
           now() - interval '1 day' * (%(last)s - n) / %(count)s
      from kirby.topic t, generate_series(%(first)s::bigint, %(last)s::bigint) n
     where t.id = %(topic_id)s
"""
SPAN = """
    select min(recorded_at), max(recorded_at) from kirby.message where position >= %(first)s
"""
SUBSCRIBE = "select subscription_id, topic_id from kirby.subscribe(%s, %s, %s)"
WAKE = "select pg_notify('kirby_topic_' || id, '') from kirby.topic where name = %s"
WAITING = """
    select count(*) from pg_stat_activity
     where application_name like 'kirby%' and datname = current_database()
       and state = 'idle' and state_change < now() - interval '0.2 seconds'
"""
REPAIR = """
    select setval('kirby.position', %(last)s); select kirby.open_partitions()
"""
AT_THE_END = """
    update kirby.cursor c set position = n.position, delivered = n.messages
      from kirby.topic_count n where n.topic_id = %(topic_id)s and n.lane = c.lane
"""


def measure(bench):
    sizes = sorted({SMALL, min(MIDDLE, bench.size.stored), bench.size.stored})
    stores = {size: Store(bench, size) for size in sizes}
    figures = bench.rounds({f"{size}": store.probe for size, store in stores.items()})
    least, most = sizes[0], sizes[-1]
    for call, bound in CALLS.items():
        for size in sizes[1:]:
            yield Row(
                GROUP, f"{call}, {size:,} stored", figures[f"{size} {call}"],
                figures[f"{least} {call}"], peer=f"itself, {least:,} stored", unit="ms",
                target=1.5 if size == most else None, better="lower",
            )  # fmt: skip
        if bound:
            yield Row(
                GROUP, f"{call}, {most:,} stored, in time", figures[f"{most} {call}"], unit="ms",
                target=bound, better="lower",
            )  # fmt: skip
    yield from by_workers(bench, stores[most])


def by_workers(bench, store):
    count = bench.count(60_000, 1000)
    figures = bench.rounds(
        {f"{workers}": functools.partial(store.drain, workers, count) for workers in WORKERS},
        most=3,  # sixteen processes take their time to start
    )
    for workers in WORKERS[1:]:
        yield Row(
            GROUP, f"consume with {workers} workers, {store.size:,} stored", figures[f"{workers}"],
            figures["1"], peer="itself, 1 worker",
        )  # fmt: skip


class Store:
    """A database whose topic has so many messages."""

    def __init__(self, bench, size):
        self.bench, self.size = bench, size
        self.name = f"growth_{size}"
        self.env = bench.kirby(bench.house.kirby(self.name))
        started = time.monotonic()
        with bench.house.admin(self.name) as conn:
            self.load(conn)
        bench.say(f"    {size:,} messages stored in {time.monotonic() - started:.0f} s")

    def load(self, conn):
        _, topic_id = conn.execute(SUBSCRIBE, [TOPIC, "at-the-end", "ordered"]).fetchone()
        [taken] = conn.execute("select last_value from kirby.position").fetchone()
        facts = {
            "topic_id": topic_id, "first": taken + 1, "last": taken + self.size,
            "count": self.size, "payload": STORED,
        }  # fmt: skip
        conn.execute(LOAD, facts)
        for statement in REPAIR.split(";"):
            conn.execute(statement, facts)
        while conn.execute("select kirby.count_messages()").fetchone()[0]:
            pass
        conn.execute(AT_THE_END, facts)
        conn.execute("vacuum (analyze) kirby.message")
        conn.execute("checkpoint")
        moments = conn.execute(SPAN, facts).fetchone()
        self.first, self.last = (moment.isoformat() for moment in moments)

    def probe(self):
        return self.bench.call(
            "kirby_growth", "probe", self.env, topic=TOPIC, count=self.bench.count(15),
            first=self.first, last=self.last,
        )  # fmt: skip

    def drain(self, workers, count):
        """Messages a second of so many workers that all wait when the queue is opened."""
        topic, tally = self.bench.house.fresh("queue"), self.bench.tally()
        self.bench.call("kirby_streams", "fill", self.env, topic=topic, count=count)
        given = {"topic": topic, "tally": str(tally.path)}
        with self.bench.house.admin(self.name) as conn, closed(conn, topic) as let_in:
            running = [
                self.bench.start("kirby_growth", "work_off", self.env, **given)
                for _ in range(workers)
            ]
            try:
                self.await_workers(conn, workers)
                let_in()
                await_count(tally, count, running)
            finally:
                for each in running:
                    children.stop(each)
        return tally.rate

    def await_workers(self, conn, workers):
        """Return when all of them wait: they have looked into the queue and found it closed."""
        deadline = time.monotonic() + PATIENCE
        while conn.execute(WAITING).fetchone()[0] < workers:
            if time.monotonic() > deadline:
                raise children.Failed(f"{workers} workers did not start")
            time.sleep(0.05)


@contextlib.contextmanager
def closed(conn, topic):
    """A queue that gives nothing to anybody until the function that this yields is called."""
    queue, _ = conn.execute(SUBSCRIBE, [topic, "workers", "shared"]).fetchone()

    def let_in():
        conn.execute("select kirby.pause_subscription(%s, false, 'bench')", [queue])
        conn.execute(WAKE, [topic])

    conn.execute("select kirby.pause_subscription(%s, true, 'bench')", [queue])
    yield let_in

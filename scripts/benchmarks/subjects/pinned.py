"""A steady rate beside an old snapshot that nobody lets go of, and the same without one.

Both databases are on one server and work at the same time; a snapshot holds up the clean-up of its
own database only.
"""

import functools
import time

import psycopg

from benchmarks import children
from benchmarks.rows import Row

GROUP = "Pinned snapshot"
TOPIC = "steady"
RATE = 1000  # messages a second for each database
COMMIT = 10  # messages: a hundred commits a second, and as many settles
GRACE = 0.2  # seconds for the last messages to be handled
WITHOUT = "itself without"


def measure(bench):
    seconds = max(3, round(bench.size.pinned * min(1, 2.5 * bench.size.scale)))
    dsns = {name: bench.house.kirby(f"steady_{name}") for name in ("pinned", "free")}
    with psycopg.connect(bench.house.postgres().dsn("steady_pinned")) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from kirby.topic")  # from here on it sees nothing new
        steady = run_side_by_side(bench, dsns, seconds)
        yield Row(
            GROUP, f"{RATE:,} messages a second for {seconds} s", steady["pinned"], steady["free"],
            peer=WITHOUT, target=0.95, note=f"{COMMIT} a commit, both at the same time",
        )  # fmt: skip
        count = bench.count(20_000, 1000)
        drained = bench.rounds(
            {name: functools.partial(drain, bench, dsn, count) for name, dsn in dsns.items()}
        )
        yield Row(
            GROUP, "and then a backlog, in batches of 100", drained["pinned"], drained["free"],
            peer=WITHOUT, target=0.95,
        )  # fmt: skip


def run_side_by_side(bench, dsns, seconds):
    """How many messages a second each handled, while each was sent the same."""
    tallies = {name: bench.tally() for name in dsns}
    sent = {"topic": TOPIC, "count": RATE * seconds, "batch": COMMIT, "rate": RATE}
    handlers, senders = [], []
    for name, dsn in dsns.items():
        env, tally = bench.kirby(dsn), str(tallies[name].path)
        handlers.append(bench.start("kirby_streams", "serve", env, topic=TOPIC, tally=tally))
        senders.append(bench.start("kirby_streams", "publish_paced", env, **sent))
    for sender in senders:
        children.answer(sender)
    time.sleep(GRACE)
    rates = {name: [tally.rate] for name, tally in tallies.items()}  # what is late does not count
    for handler in handlers:
        children.stop(handler)
    return bench.figures(rates)


def drain(bench, dsn, count):
    keep_house(dsn)
    env = bench.kirby(dsn)
    bench.call("kirby_streams", "fill", env, topic=TOPIC, count=count)
    return bench.call("kirby_streams", "consume", env, topic=TOPIC, count=count, batch=100)


def keep_house(dsn):
    """What the leader of a running house does every few seconds (supervisor.housekeeping)."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for (subscription,) in conn.execute("select kirby.low_claim_floors()").fetchall():
            conn.execute("select kirby.raise_claim_floor(%s)", [subscription])

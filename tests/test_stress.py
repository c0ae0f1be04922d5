"""Many of everything: what one of them costs must not grow with how many there are."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core import db, protocol, subscriptions, topics
from kirby.core.payload import MAX_BYTES
from kirby.sdk import work
from kirby.server.postgres import Postgres
from kirby.server.schema import migrate

CLAIM = "explain (analyze, buffers, format json) select * from kirby.claim(%s, 10)"
FEW = 5


def pages(conn, subscription_id):
    """How many pages a claim looks at: the median of some that are taken back."""
    looks = sorted(_pages(conn, subscription_id) for _ in range(FEW))
    return looks[FEW // 2]


def _pages(conn, subscription_id):
    with conn.transaction(force_rollback=True):
        [[[plan]]] = conn.execute(CLAIM, [subscription_id]).fetchall()
    return sum(plan["Plan"].get(f"Shared {kind} Blocks", 0) for kind in ("Hit", "Read"))


def subscribe(conn, topic, name):
    return subscriptions.subscribe(conn, topic, name, "shared")[0]


def drain(conn, subscription_id, size=1000):
    done = []
    batch = subscriptions.claim(conn, subscription_id, size)
    while batch:
        done += batch.positions
        batch = subscriptions.settle(conn, batch, next=size).next
    return done


@pytest.fixture
def conn(dsn):
    with db.connect(dsn) as conn:
        protocol.greet(conn, token=None, environment="dev")
        yield conn


def test_five_hundred_subscriptions_of_a_topic(conn, kirby):
    items = [work.message(number, str(number % 10), None, ()) for number in range(50)]
    positions, _ = topics.write(conn, work.document({"orders": items}), "{}")
    first = subscribe(conn, "orders", "s0")
    alone = pages(conn, first)

    ids = [first, *(subscribe(conn, "orders", f"s{number}") for number in range(1, 500))]

    assert pages(conn, ids[-1]) <= alone + 20
    for each in ids:
        assert sorted(drain(conn, each)) == positions
    listed = json.loads(kirby("subscription", "list", "--json").out)
    assert {(each["name"], each["behind"]) for each in listed} == {(f"s{n}", 0) for n in range(500)}


def test_a_thousand_topics(conn, kirby):
    def write(*names):
        message = [work.message(1, None, None, ())]
        return topics.write(conn, work.document({name: message for name in names}), "{}")

    write("t0")
    alone = pages(conn, subscribe(conn, "t0", "job"))
    for hundred in range(10):
        positions, ids = write(*(f"t{100 * hundred + number}" for number in range(100)))
        assert len(set(positions)) == len(set(ids)) == 100

    last = subscribe(conn, "t999", "job")
    assert pages(conn, last) <= alone + 20
    assert len(drain(conn, last)) == 1
    assert len(json.loads(kirby("topic", "list", "--json").out)) == 1000
    assert kirby("db", "check").code == 0


# Connections


@pytest.fixture
def roomy(tmp_path):
    """A server of its own, since those of the tests take 200 connections at the most."""
    server = Postgres(tmp_path / "pg", settings={"max_connections": 260, "fsync": "off"})
    server.start()
    try:
        migrate(server.dsn())
        yield server.dsn()
    finally:
        server.stop()


def test_two_hundred_connections_at_once(roomy):
    """All publish one by one, then all take from one subscription."""
    count, each = 200, 5
    connections = [db.connect(roomy) for _ in range(count)]
    together = threading.Barrier(count)
    for one in connections:
        protocol.greet(one, token=None, environment="dev")
    orders = subscribe(connections[0], "orders", "job")

    def publish(one):
        together.wait()
        message = [work.message(1, None, None, ())]
        return [
            position
            for _ in range(each)
            for position in topics.write(one, work.document({"orders": message}), "{}")[0]
        ]

    def take(one):
        together.wait()
        return drain(one, orders, size=3)

    try:
        with ThreadPoolExecutor(count) as pool:
            published = [p for found in pool.map(publish, connections) for p in found]
            taken = [p for found in pool.map(take, connections) for p in found]
        taken += drain(connections[0], orders)
    finally:
        for one in connections:
            one.close()
    assert len(published) == count * each
    assert sorted(taken) == sorted(published)


# Sizes

READER = """
    import resource

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    seen = 0

    @kirby.stream("orders", ordered=False)
    def weigh(value):
        global seen
        seen += 1
        if seen in (EARLY, ALL):
            say(peak())

    kirby.run()
"""


def test_payloads_of_one_byte_to_sixteen_megabytes_in_flat_memory(house, sdk, scripts):
    sizes = [1, 100, 10_000, 1_000_000, MAX_BYTES - 2]
    early, rounds = 3 * len(sizes), 12
    for _ in range(rounds):
        for size in sizes:
            kirby.topic("orders").publish("x" * size if size > 1 else 1)

    source = READER.replace("EARLY", str(early)).replace("ALL", str(rounds * len(sizes)))
    script = scripts(source)
    first, last = int(script.line()), int(script.line())

    assert last < 1.25 * first, f"{first:,} kB after {early}, {last:,} kB after all"
    script.signal()
    assert script.end()[0] == 0


def test_a_list_handler_gets_large_messages_in_bounded_batches(house, sdk, scripts):
    """A batch of 500 that were of 1 MB each would be half a gigabyte, several times over."""
    text = "x" * 1_000_000
    kirby.topic("orders").publish_many([text] * 60)
    script = scripts(
        """
        @kirby.stream("orders", batch=500)
        def weigh(values):
            say(len(values))

        kirby.run()
        """
    )
    counts = []
    while sum(counts) < 60:
        counts.append(int(script.line()))

    assert max(counts) * len(text) <= 8 * 1024 * 1024
    script.signal()
    assert script.end()[0] == 0


def test_the_server_refuses_what_is_larger(sdk):
    with pytest.raises(kirby.Invalid, match="16 MB"):
        kirby.topic("orders").publish("x" * (MAX_BYTES - 1))

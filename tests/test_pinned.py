"""Old snapshots and idle writers elsewhere: nobody is delayed, and no claim does more work."""

import json

import psycopg
import pytest
from fix_sdk import TOKEN, house_fixture  # noqa: F401

from kirby.core import db, protocol, subscriptions, topics

SETTLE = "select topics from kirby.settle(%s, %s, p_next => 1)"
CLAIM = "select claim_id from kirby.claim(%s, 1)"


class Worker:
    """A worker that takes messages one by one, and can tell how many pages that costs."""

    def __init__(self, house, mode="ordered", topic="orders"):
        self.house = house
        self.conn = db.connect(house.environ["KIRBY_DSN"])
        protocol.greet(self.conn, token=TOKEN, environment=None)
        self.id, _ = subscriptions.subscribe(self.conn, topic, "job", mode)
        self.batch = None
        self.taken = []

    def take(self, count, *, fail=False):
        """Settle one after the other, each with the next one claimed in the same round trip.

        Meanwhile the leader does what it does every few seconds.
        """
        for number in range(count):
            if number % 100 == 0:
                self.house.conn.execute("select kirby.raise_claim_floor(%s)", [self.id])
            if self.batch is None:
                self.batch = subscriptions.claim(self.conn, self.id, 1)
            else:
                failures = [self.failure()] if fail else []
                done = subscriptions.settle(self.conn, self.batch, next=1, failures=failures)
                self.batch = done.next
            if self.batch is None:
                return
            self.taken += self.batch.payloads

    def failure(self):
        return subscriptions.Failure(self.batch.positions[0], "retry", "no", 0)

    def pages(self):
        """How many pages of tables and indexes a settle that claims the next one looks at."""
        looks = [self._explained() for _ in range(5)]
        return sorted(looks)[2]

    def _explained(self):
        if self.batch is None:
            self.batch = subscriptions.claim(self.conn, self.id, 1)
        explain = "explain (analyze, buffers, format json) "
        params = [self.batch.claim_id, self.batch.fence]
        with self.conn.transaction(force_rollback=True):
            [[[plan]]] = self.conn.execute(explain + SETTLE, params).fetchall()
        return sum(plan["Plan"].get(f"Shared {kind} Blocks", 0) for kind in ("Hit", "Read"))


@pytest.fixture
def worker(house):
    made = []

    def worker(*arguments, **options):
        made.append(Worker(house, *arguments, **options))
        return made[-1]

    yield worker
    for each in made:
        each.conn.close()


def publish(house, count, topic="orders"):
    items = [{"v": n, "k": f"k{n % 100}"} for n in range(count)]
    house.conn.execute("select kirby.write(%s)", [json.dumps({topic: items})])


@pytest.fixture
def pinned(house):
    """A snapshot that was taken now, and stays open. It has seen the tables of claims."""
    with psycopg.connect(house.dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from kirby.claim, kirby.cursor, kirby.due")
        yield conn


# Idle writers


@pytest.fixture(params=["another topic", "another database", "no topic at all"])
def idle(request, house, dsn, empty_dsn):
    """A transaction that has written, and does nothing any more."""
    house.publish("elsewhere", "first")
    where = empty_dsn if request.param == "another database" else dsn
    with psycopg.connect(where) as conn:
        if request.param == "another topic":
            conn.execute("select kirby.publish('elsewhere', '1')")
        else:
            conn.execute("create table written as select 1 as a")
        yield conn


def test_an_idle_writer_elsewhere_delays_no_reader(house, idle, worker):
    publish(house, 50)
    reader = worker(topic="orders")
    reader.take(51)

    assert sorted(reader.taken) == list(range(50))
    read = topics.read(reader.conn, "orders")
    assert [entry.value for entry in read] == list(range(50))


def test_an_idle_writer_delays_the_readers_of_its_own_topic_only(house, worker):
    publish(house, 1, "orders")
    publish(house, 1, "others")
    orders, others = worker(topic="orders"), worker(topic="others")
    with psycopg.connect(house.dsn) as idle:
        idle.execute("select kirby.publish('orders', '\"idle\"')")
        publish(house, 2, "orders")
        publish(house, 2, "others")
        orders.take(10)
        others.take(10)
        assert (orders.taken, sorted(others.taken)) == ([0], [0, 0, 1])

    orders.take(10)
    assert sorted(map(str, orders.taken)) == ["0", "0", "1", "idle"]


def test_an_idle_writer_of_another_database_holds_no_announcement(house, empty_dsn):
    """The advisory locks of another database may be the same numbers."""
    publish(house, 1)
    topic = house.topic_id("orders")
    with psycopg.connect(empty_dsn) as idle:
        lock = house.value("select kirby.topic_lock(%s)", topic)
        idle.execute("select pg_advisory_xact_lock_shared(%s, 1)", [lock])
        horizon, last = house.ask(
            "select kirby.horizon(%s), last_value from kirby.position", topic
        )[0]
        assert horizon == last


# Old snapshots


def test_an_old_snapshot_delays_no_reader(house, pinned, worker):
    publish(house, 50)
    reader = worker()
    reader.take(51)

    assert sorted(reader.taken) == list(range(50))
    assert pinned.execute("select count(*) from kirby.message").fetchone() == (0,)


LEAST, MANY = 50, 2000


@pytest.mark.parametrize("mode", ["ordered", "shared"])
def test_under_an_old_snapshot_a_claim_looks_at_no_more_pages(house, pinned, worker, mode):
    publish(house, 2 * MANY)  # so that no lane is empty at the end
    reader = worker(mode)
    reader.take(LEAST)
    before = reader.pages()
    reader.take(MANY)

    assert len(reader.taken) == LEAST + MANY
    assert reader.pages() <= 2 * before + 20


def test_a_claim_looks_at_what_it_takes_and_not_at_all_that_is_unread(house, worker):
    """All of it is in one lane, so the other ones are looked at and found to be empty."""
    reader = worker("shared")
    with house.conn.transaction():
        house.conn.execute(
            "select kirby.publish('orders', to_jsonb(n), 'one') from generate_series(1, 20000) n"
        )
    house.conn.execute("analyze kirby.message")
    reader.take(LEAST)

    assert reader.pages() < 150


@pytest.mark.parametrize("mode", ["ordered", "shared"])
def test_without_one_it_does_not_either_though_vacuum_is_late(house, worker, mode):
    for table in ("claim", "cursor", "due"):
        house.conn.execute(f"alter table kirby.{table} set (autovacuum_enabled = off)")
    publish(house, 2 * MANY)  # so that no lane is empty at the end
    reader = worker(mode)
    reader.take(LEAST)
    before = reader.pages()
    reader.take(MANY)

    assert reader.pages() <= 2 * before + 20


def test_under_an_old_snapshot_retries_stay_cheap(house, pinned, worker):
    """Each leaves entries in the indexes of kirby.due, but several of them share a page."""
    publish(house, 400)
    reader = worker("shared")
    house.conn.execute("update kirby.subscription set max_attempts = 1000")
    reader.take(LEAST, fail=True)
    before = reader.pages()
    reader.take(1000, fail=True)

    assert reader.pages() <= before + 400

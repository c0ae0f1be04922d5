"""What becomes of messages that fail, or that kill whoever handles them."""

import threading

import psycopg
import pytest

from kirby.core import db, subscriptions
from kirby.core.subscriptions import Failure

CLOCK = """
    create table kirby.test_clock (shift interval not null);
    insert into kirby.test_clock values ('0');
    create or replace function kirby.now() returns timestamptz language sql volatile
      as 'select clock_timestamp() + shift from kirby.test_clock';
    grant select on kirby.test_clock to public;
"""
DUE = "select position, reason, parked_at is not null from kirby.due order by position"


class House:
    """A topic with one lane, a subscription of it, and a clock that can be moved."""

    def __init__(self, conn):
        self.conn = conn
        self.done = []

    def publish(self, *keys):
        """Messages whose value is their number, counted from the first."""
        return [
            db.scalar(self.conn, "select kirby.publish('orders', '0', key => %s)", [key])
            for key in keys
        ]

    def subscribe(self, **options):
        self.id, _ = subscriptions.subscribe(self.conn, "orders", "job", **options)

    def claim(self, limit=100):
        return subscriptions.claim(self.conn, self.id, limit)

    def settle(self, batch, *failures, next=0):
        failed = {failure.position for failure in failures}
        settled = subscriptions.settle(self.conn, batch, failures=failures, next=next)
        self.done += [position for position in batch.positions if position not in failed]
        return settled.next

    def drain(self):
        """Settle all that can be had now; in the order in which it was done."""
        self.done = []
        while batch := self.claim():
            self.settle(batch)
        return self.done

    def later(self, interval="1 hour"):
        self.conn.execute("update kirby.test_clock set shift = shift + %s::interval", [interval])

    def die(self):
        """The holder of every claim goes away without a word; the leases end."""
        self.later("1 minute")

    def due(self):
        return self.conn.execute(DUE).fetchall()


@pytest.fixture
def house(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(CLOCK)
        conn.execute(
            "insert into kirby.topic (environment_id, name, lanes)"
            " select id, 'orders', 1 from kirby.environment where name = 'dev'"
        )
        house = House(conn)
        house.subscribe()
        yield house


def retry(position, pause=60.0):
    return Failure(position, "retry", "boom", pause)


def test_a_failed_message_comes_again_after_its_pause(house):
    [one] = house.publish("a")
    house.settle(house.claim(), retry(one))

    assert house.claim() is None
    house.later("2 minutes")
    assert house.drain() == [one]
    assert house.due() == []


def test_only_the_key_of_a_failed_message_waits(house):
    a1, _, a2 = house.publish("a", "b", "a")
    house.settle(house.claim(), retry(a1), Failure(a2, "wait"))
    a3, b2 = house.publish("a", "b")

    assert house.drain() == [b2]
    assert house.due() == [(a1, "failed", False), (a2, "waiting", False), (a3, "waiting", False)]

    house.later()
    assert house.drain() == [a1, a2, a3]
    [a4] = house.publish("a")
    assert house.drain() == [a4]


def test_after_its_last_attempt_it_is_parked_and_holds_its_key(house):
    a1, _ = house.publish("a", "b")
    house.settle(house.claim(), retry(a1))
    for _ in range(2):
        house.later()
        house.settle(house.claim(), retry(a1))
    [a2, b2] = house.publish("a", "b")
    house.later()

    assert house.drain() == [b2]
    assert house.due() == [(a1, "failed", True), (a2, "waiting", False)]


def test_with_park_the_key_goes_on(house):
    house.subscribe(on_failure="park", max_attempts=2)
    [a1] = house.publish("a")
    house.settle(house.claim(), retry(a1))
    [a2, a3] = house.publish("a", "a")
    assert house.drain() == []

    house.later()
    batch = house.claim()
    assert batch.positions == [a1]
    house.settle(batch, retry(a1))

    assert house.drain() == [a2, a3]
    assert house.due() == [(a1, "failed", True)]


def test_parked_at_once_in_a_batch_frees_what_waits_in_the_same_batch(house):
    house.subscribe(on_failure="park", max_attempts=1)
    a1, a2 = house.publish("a", "a")
    house.settle(house.claim(), retry(a1), Failure(a2, "wait"))

    assert house.drain() == [a2]


def test_unparked_it_is_tried_again_and_its_key_goes_on(house):
    a1, a2 = house.publish("a", "a")
    house.settle(house.claim(), Failure(a1, "park", "bad"), Failure(a2, "wait"))
    house.later()
    assert house.drain() == []

    assert db.scalar(house.conn, "select kirby.unpark(%s, null, 'test')", [house.id]) == 1
    assert house.drain() == [a1, a2]


def test_dropped_it_is_gone_and_its_key_goes_on(house):
    a1, a2 = house.publish("a", "a")
    house.settle(house.claim(), Failure(a1, "park", "bad"), Failure(a2, "wait"))

    assert db.scalar(house.conn, "select kirby.drop_parked(%s, %s, 'test')", [house.id, [a1]]) == 1
    assert house.drain() == [a2]


def test_a_message_that_kills_is_parked_and_the_others_are_done(house):
    positions = house.publish(*"abcdefghij")
    killer = positions[4]
    deaths, done = 0, []
    while batch := house.claim():
        if killer in batch.positions:
            deaths += 1
            house.die()
            continue
        house.settle(batch)
        done += batch.positions

    assert deaths == 3
    assert done == [position for position in positions if position != killer]
    assert house.due() == [(killer, "killed", True)]


def test_a_retried_message_that_kills_is_parked_too(house):
    one, _ = house.publish("a", "b")
    house.settle(house.claim(), retry(one))
    house.later()
    deaths = 0
    while house.claim():
        deaths += 1
        house.die()

    assert deaths == 2  # the failure was the first of three attempts
    assert house.due() == [(one, "killed", True)]


def test_a_released_range_is_delivered_whole_again_and_not_counted(house):
    positions = house.publish(*"abc")
    for _ in range(10):
        batch = house.claim()
        assert batch.positions == positions
        subscriptions.release(house.conn, batch)

    assert house.drain() == positions


def test_a_range_whose_handling_broke_off_comes_message_by_message(house):
    positions = house.publish(*"abc")
    subscriptions.release(house.conn, house.claim(), suspect=True)

    for position in positions:
        batch = house.claim()
        assert batch.positions == [position]
        house.settle(batch)
    assert house.claim() is None


def test_the_rest_of_a_suspect_range_comes_with_the_settle(house):
    positions = house.publish(*"abc")
    house.claim()
    house.die()
    batch = house.claim()
    seen = []
    while batch:
        seen.append(batch.positions)
        batch = house.settle(batch, next=100)

    assert seen == [[position] for position in positions]


def test_held_messages_of_a_range_taken_over_keep_their_turn(house):
    """A worker files a failure, then dies with the rest of its range in its hands."""
    a1, b1, a2 = house.publish("a", "b", "a")
    batch = house.claim()
    subscriptions.settle(house.conn, batch, upto=a1, failures=[retry(a1, 600)])
    house.die()

    assert house.drain() == [b1]
    house.later()
    assert house.drain() == [a1, a2]


def test_what_was_done_by_itself_does_not_come_again_with_a_range_that_covers_it(house):
    """A worker holds a range while others finish what was held back of it; then it dies."""
    [a1] = house.publish("a")
    house.settle(house.claim(), retry(a1, 10))
    b1, a2, b2 = house.publish("b", "a", "b")
    held = house.claim()
    assert held.positions == [b1, b2]  # a2 waits for a1
    house.later("12 seconds")
    assert house.drain() == [a1, a2]
    house.die()

    assert house.drain() == [b1, b2]
    assert house.due() == []


def test_what_was_dropped_does_not_come_again_with_a_range_that_covers_it(house):
    a1 = house.publish("a")[0]
    house.settle(house.claim(), Failure(a1, "park", "bad"))
    a2, b1 = house.publish("a", "b")
    assert house.claim().positions == [b1]
    house.conn.execute("select kirby.unpark(%s, null, 'test')", [house.id])
    assert house.drain() == [a1, a2]
    house.die()

    assert house.drain() == [b1]
    assert house.due() == []


def test_a_paused_subscription_hands_out_nothing(house):
    [one] = house.publish("a")
    house.conn.execute("select kirby.pause_subscription(%s, true, 'test')", [house.id])
    assert house.claim() is None

    house.conn.execute("select kirby.pause_subscription(%s, false, 'test')", [house.id])
    assert house.drain() == [one]


def test_shared_subscriptions_hand_out_several_ranges_of_a_lane(house):
    house.id, _ = subscriptions.subscribe(house.conn, "orders", "queue", "shared")
    positions = house.publish("a", "a", "a", "a")

    batches = [house.claim(2), house.claim(2)]

    assert sorted(batches[0].positions + batches[1].positions) == positions
    house.settle(batches[0], retry(batches[0].positions[0]))
    house.settle(batches[1])
    house.later()
    assert house.drain() == [positions[0]]


def test_filing_what_waits_while_its_holder_is_being_finished_loses_nobody(house, dsn, until):
    """Two transactions at once: one files a2 behind a1, the other finishes a1."""
    a1, a2 = house.publish("a", "a")
    batch = house.claim()
    subscriptions.settle(house.conn, batch, upto=a1, failures=[retry(a1, 0)])
    again = house.claim()
    assert again.positions == [a1]
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"
    with psycopg.connect(dsn) as finisher, psycopg.connect(dsn, autocommit=True) as filer:
        subscriptions.settle(finisher, again)  # and does not commit yet
        filing = threading.Thread(
            target=lambda: subscriptions.settle(filer, batch, failures=[Failure(a2, "wait")])
        )
        filing.start()
        until(lambda: house.conn.execute(waits, [filer.info.backend_pid]).fetchall())
        finisher.commit()
        filing.join()

    assert house.drain() == [a2]
    assert house.due() == []

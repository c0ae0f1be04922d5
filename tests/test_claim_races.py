"""Two workers, or a worker and a person, at the same messages at the same moment.

Each test holds one transaction open in the middle while another goes on, so that what happens
between their steps is not a matter of luck.
"""

import threading
from contextlib import contextmanager
from datetime import UTC, timedelta

import psycopg
import pytest

from kirby.core import db, subscriptions, topics
from kirby.core.errors import Fenced
from kirby.core.subscriptions import Failure
from kirby.sdk.work import message
from kirby.server import lanes

WAITS = "select from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"


def at(reader, **after):
    now = reader.conn.execute("select kirby.now()").fetchone()[0]
    return now.astimezone(UTC) + timedelta(**after)


def delayed(reader, *keys, **after):
    items = [message(key, key, None, (), id=f"d{n}", deliver_at=at(reader, **after))
             for n, key in enumerate(keys)]  # fmt: skip
    return reader.write(*items)


class Other:
    """Another connection, which can be in a transaction, or wait for the first one in a thread."""

    def __init__(self, dsn, reader):
        self.conn = psycopg.connect(dsn)
        self.reader = reader
        self._thread = None
        self.answer = None

    def claim(self, limit=100):
        return subscriptions.claim(self.conn, self.reader.id, limit)

    def settle(self, batch, *failures, next=0, upto=None):
        return subscriptions.settle(self.conn, batch, failures=failures, next=next, upto=upto)

    def begin(self, act):
        """Start something that has to wait for somebody else's lock; returns once it waits."""

        def run():
            try:
                self.answer = act()
            except Exception as error:
                self.answer = error

        self._thread = threading.Thread(target=run)
        self._thread.start()
        while self._thread.is_alive() and not self._waits():
            self._thread.join(0.01)
        return self._thread.is_alive()

    def _waits(self):
        return self.reader.conn.execute(WAITS, [self.conn.info.backend_pid]).fetchall()

    def end(self):
        self._thread.join()
        self.conn.commit()
        return self.answer


@pytest.fixture
def others(dsn, reader):
    """As many connections as are asked for: `one, two = others(2)`."""
    opened = []

    def open(count):
        opened.extend(Other(dsn, reader) for _ in range(count))
        return opened[-count:]

    yield open
    for other in opened:
        other.conn.close()


def shared(reader):
    reader.id, _ = subscriptions.subscribe(reader.conn, "orders", "queue", "shared")


def topic_id(reader):
    return db.scalar(reader.conn, "select id from kirby.topic where name = 'orders'")


def unpark(conn, reader):
    conn.execute("select kirby.unpark(%s, null, 'test')", [reader.id])


def everything(reader):
    """Drain, moving the clock for what comes later; in the order in which it was done."""
    done = []
    for _ in range(20):
        done += reader.drain()
        reader.later("1 hour")
    return done


# Whose claim it is


def test_who_comes_back_late_changes_nothing(reader):
    """It was stopped for longer than its lease, and another one has what it had."""
    reader.publish(*"ab")
    late = reader.claim()
    reader.die()
    held = reader.claim()
    assert held.positions == late.positions[:1]

    with pytest.raises(Fenced):
        subscriptions.settle(reader.conn, late)
    with pytest.raises(Fenced):
        subscriptions.settle(reader.conn, late, upto=late.positions[0])
    with pytest.raises(Fenced):
        subscriptions.renew(reader.conn, late)
    subscriptions.release(reader.conn, late)
    assert reader.claim() is None
    assert reader.settle(held, next=10).positions == late.positions[1:]


def test_what_was_given_back_is_not_settled(reader):
    reader.publish("a")
    held = reader.claim()
    subscriptions.release(reader.conn, held)
    with pytest.raises(Fenced):
        subscriptions.settle(reader.conn, held)
    assert reader.drain() == held.positions


def test_what_is_not_committed_is_not_passed_over(reader, others):
    [one] = others(1)
    one.conn.execute("select kirby.publish('orders', '1', key => 'a')")
    [second] = reader.publish("a")
    assert reader.claim() is None
    one.conn.commit()
    assert reader.claim().positions[1:] == [second]


def test_one_range_of_a_lane_at_a_time(reader):
    positions = reader.publish(*"abcd")
    held = reader.claim(2)
    assert reader.claim(2) is None
    reader.settle(held)
    assert reader.claim(2).positions == positions[2:]


def test_a_floor_is_below_every_claim(reader):
    """Claims are looked up from a floor on (kirby.raise_claim_floor)."""
    reader.publish(*"abc")
    reader.settle(reader.claim(1))
    held = reader.claim(1)
    reader.conn.execute("select kirby.raise_claim_floor(%s)", [reader.id])
    reader.die()
    assert reader.claim(1).positions == held.positions


# One key, two hands


def test_one_of_a_key_is_freed_at_a_time(reader):
    first, second, third = reader.publish("a", "a", "a")
    waiting = [Failure(second, "wait"), Failure(third, "wait")]
    reader.settle(reader.claim(), Failure(first, "retry", "boom", 60.0), *waiting)
    assert reader.claim() is None, "the first one holds the key"
    reader.later("2 minutes")
    for position in (first, second, third):
        held = reader.claim()
        assert held.positions == [position]
        assert reader.claim() is None
        reader.settle(held)


def test_what_is_over_the_rate_of_its_key_waits_for_the_one_before(reader):
    """Its time comes while the one before is still in hands."""
    subscriptions.limit(reader.conn, reader.id, {"key_rate": 1})
    first, second = reader.publish("a", "a")
    held = reader.claim()
    assert held.positions == [first]
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    reader.later("1 minute")
    assert reader.claim() is None
    reader.settle(held, Failure(first, "retry", "boom", 60.0))
    reader.later("1 second")
    assert reader.claim() is None, "the one before is tried again first"
    assert everything(reader) == [first, second]


def test_two_delayed_messages_of_a_key_that_are_claimed_at_once(reader, others):
    first, second = delayed(reader, "a", "a", hours=1)
    assert reader.claim() is None
    reader.later("2 hours")
    one, two = others(2)

    mine, theirs = one.claim(), two.claim()
    assert mine.positions == [first]
    assert theirs is None, "the key is in the hands of the other worker"
    one.conn.commit()
    two.conn.commit()
    reader.settle(mine)
    assert everything(reader) == [second]


def test_a_delayed_message_that_is_being_claimed_holds_its_key(reader, others):
    """A range is claimed while the delayed message of its key is on its way out."""
    delayed(reader, "a", hours=1)
    assert reader.claim() is None
    reader.later("2 hours")
    one, two = others(2)
    mine = one.claim()
    reader.publish("a", "b")

    assert two.begin(two.claim), "it has to wait: is the key held or not?"
    one.conn.commit()
    assert two.end().keys == ["b"]
    assert mine.keys == ["a"]


def test_what_is_unparked_while_its_key_is_being_claimed(reader, others):
    reader.subscribe(on_failure="park")
    [parked] = reader.publish("a")
    reader.settle(reader.claim(), Failure(parked, "park", "boom"))
    reader.publish("a")
    one, two = others(2)
    held = one.claim()
    assert held.keys == ["a"]

    waits = two.begin(lambda: unpark(two.conn, reader))
    if waits:
        one.conn.commit()
    two.end()
    found = reader.claim()
    one.conn.commit()
    assert found is None, "the key is in the hands of the first worker"
    reader.settle(held)
    assert everything(reader) == [parked]


def test_a_queued_message_and_a_failed_one_of_its_key(reader):
    """One that is due waits for its key in a range; the range comes back with a failure."""
    [early] = delayed(reader, "a", hours=1)
    assert reader.claim() is None
    [failed] = reader.publish("a")
    held = reader.claim()
    reader.later("2 hours")
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    assert reader.claim() is None
    reader.settle(held, Failure(failed, "retry", "boom", 0.0))
    reader.later("1 second")

    first = reader.claim()
    assert reader.claim() is None, "they are of one key"
    reader.settle(first)
    assert sorted([*first.positions, *everything(reader)]) == [early, failed]


def test_what_is_unparked_after_the_policy_changed(reader):
    [parked] = reader.publish("a")
    reader.subscribe(on_failure="park")
    reader.settle(reader.claim(), Failure(parked, "park", "boom"))
    reader.publish("a")
    held = reader.claim()
    reader.subscribe(on_failure="block")
    unpark(reader.conn, reader)

    assert reader.claim() is None, "its key is in somebody's hands"
    reader.settle(held)
    assert everything(reader) == [parked]


# Nobody waits for nothing


def test_a_message_is_filed_as_waiting_while_its_holder_is_being_finished(reader, others):
    first, second = reader.publish("a", "a")
    batch = reader.claim()
    subscriptions.settle(
        reader.conn, batch, upto=first, failures=[Failure(first, "retry", "boom", 0.0)]
    )
    again = reader.claim()
    one, two = others(2)
    one.settle(again)
    two.begin(lambda: two.settle(batch, Failure(second, "wait")))
    one.conn.commit()
    two.end()
    assert everything(reader) == [second]


def test_a_killer_that_is_parked_lets_its_key_go_on(reader):
    reader.subscribe(on_failure="park")
    first, second = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(first, "retry", "boom", 0.0), Failure(second, "wait"))
    reader.later("1 second")
    for _ in range(2):
        assert reader.claim().positions == [first]
        reader.die()
    assert everything(reader) == [second]
    assert reader.due() == [(first, "killed", True)]


def test_a_delayed_message_that_is_put_off_while_its_holder_is_being_finished(reader, others):
    [early] = delayed(reader, "a", minutes=1)
    assert reader.claim() is None
    [failed] = reader.publish("a")
    reader.settle(reader.claim(), Failure(failed, "retry", "boom", 0.0))
    held = reader.claim()
    assert held.positions == [failed]
    reader.later("2 minutes")
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    one, two = others(2)

    one.settle(held)
    two.begin(two.claim)
    one.conn.commit()
    found = two.end()
    done = found.positions if found else []
    if found:
        reader.settle(found)
    assert done + everything(reader) == [early]
    assert reader.due() == []


def test_what_waits_goes_on_when_the_policy_becomes_park(reader):
    first, second = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(first, "park", "boom"), Failure(second, "wait"))
    assert reader.drain() == []

    reader.subscribe(on_failure="park")
    assert reader.drain() == [second]
    assert reader.due() == [(first, "failed", True)]


def test_a_key_limit_is_freed_by_a_message_that_expired_in_dead_hands(reader):
    shared(reader)
    subscriptions.limit(reader.conn, reader.id, {"key_in_flight": 1})
    reader.write(message(1, "a", None, (), expires_at=at(reader, minutes=10)))
    assert reader.claim()
    [second] = reader.publish("a")
    assert reader.claim() is None

    reader.later("20 minutes")
    assert everything(reader) == [second]
    assert reader.due() == []


def test_what_was_freed_and_claimed_meanwhile_is_not_freed_again(reader, others):
    """Two free the same message; before the second one has done so, it is in somebody's hands."""
    first, second = reader.publish("a", "a")
    subscriptions.limit(reader.conn, reader.id, {"key_rate": 1000})
    reader.settle(reader.claim(), Failure(first, "park", "boom"), Failure(second, "wait"))
    reader.later("1 minute")
    one, two = others(2)
    two.conn.execute("select from kirby.key_rate for update")  # the time of a turn is booked there

    dropping = "select kirby.drop_parked(%s, null, 'me')"
    assert one.begin(lambda: one.conn.execute(dropping, [reader.id]))
    freed = "update kirby.due set reason = 'ready', due_at = kirby.now() where position = %s"
    reader.conn.execute(freed, [second])
    held = reader.claim()
    assert held.positions == [second]
    two.conn.commit()
    one.end()
    reader.later("1 second")
    assert reader.claim() is None


# Limits of a key


def limited(reader, **limits):
    shared(reader)
    subscriptions.limit(reader.conn, reader.id, limits)


def test_what_was_freed_counts_on_the_limit_of_its_key(reader):
    limited(reader, key_in_flight=2)
    reader.publish(*"aaaaa")
    first, second = reader.claim(1), reader.claim(1)
    assert reader.claim() is None
    reader.settle(first)
    reader.settle(second)

    held = []
    while batch := reader.claim():
        held += batch.positions
    assert len(held) == 2


def test_a_retry_counts_on_the_limit_of_its_key(reader):
    limited(reader, key_in_flight=1)
    first, second = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(first, "retry", "boom", 60.0))
    held = reader.claim()
    assert held.positions == [second]
    reader.later("2 minutes")
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")

    assert reader.claim() is None
    reader.settle(held)
    assert everything(reader) == [first]


def test_delayed_messages_count_on_the_limit_of_their_key(reader):
    limited(reader, key_in_flight=1)
    positions = delayed(reader, "a", "a", "a", hours=1)
    assert reader.claim() is None
    reader.later("2 hours")

    held = reader.claim()
    assert reader.claim() is None
    reader.settle(held)
    assert sorted([*held.positions, *everything(reader)]) == positions
    assert reader.due() == []


def test_delayed_messages_keep_the_rate_of_their_key(reader):
    reader.conn.execute(
        "create or replace function kirby.now() returns timestamptz language sql volatile as"
        " $$ select '2026-01-01 12:00+00'::timestamptz + shift from kirby.test_clock $$"
    )
    limited(reader, key_rate=1)
    delayed(reader, "a", "a", "a", hours=1)
    assert reader.claim() is None
    reader.later("2 hours")

    counts = []
    for _ in range(4):
        counts.append(len(reader.drain()))
        reader.later("1 second")
    assert counts == [1, 1, 1, 0]


def test_limits_hold_while_a_range_comes_message_by_message(reader):
    limited(reader, max_in_flight=4)
    reader.publish(*"abcdefgh")
    reader.claim(4)
    reader.die()
    held = [reader.claim(4)]
    assert len(held[0].positions) == 1
    while batch := reader.claim(4):
        held.append(batch)
    subscriptions.release(reader.conn, held[0])
    held[0] = reader.claim(4)
    while batch := reader.claim(4):
        held.append(batch)

    assert sum(len(batch.positions) for batch in held) <= 4


def test_the_limit_of_a_key_holds_while_a_range_comes_message_by_message(reader):
    limited(reader, key_in_flight=2)
    reader.publish(*"aaaa")
    first, _ = reader.claim(2).positions
    reader.die()
    held = reader.claim()
    assert held.positions == [first]
    others = []
    while batch := reader.claim():
        others += batch.positions
    others += reader.settle(held, next=1).positions
    while batch := reader.claim():
        others += batch.positions
    assert len(others) <= 2


# Attempts


def test_every_delivery_of_a_message_by_itself_counts(reader):
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "retry", "boom", 0.0))
    reader.later("1 second")
    assert reader.claim().attempt == 2
    reader.die()
    assert reader.claim().attempt == 3
    reader.die()
    assert reader.claim() is None
    assert reader.due() == [(one, "killed", True)]


def test_a_parked_message_stays_where_it_is(reader):
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "park", "boom"))
    reader.later()
    assert reader.claim() is None


def test_what_is_parked_was_tried_as_often_as_it_may_be(reader):
    """A range comes message by message, is given back, and one that was never alone fails."""
    _, last = reader.publish("a", "b")
    reader.claim()
    reader.die()
    reader.claim()
    reader.die()
    alone = reader.claim()
    assert (alone.attempt, len(alone.positions)) == (3, 1)
    subscriptions.release(reader.conn, alone)

    batch = reader.claim()
    if last in batch.positions:
        reader.settle(batch, Failure(last, "retry", "boom", 60.0))
    else:
        batch = reader.settle(batch, next=100)
        reader.settle(batch, Failure(last, "retry", "boom", 60.0))
    assert reader.due() == [(last, "failed", False)], "it had its second try of three"


def test_giving_back_is_no_attempt_of_a_message_that_comes_alone(reader):
    positions = reader.publish("a", "b")
    reader.claim()
    reader.die()
    for _ in range(10):
        batch = reader.claim()
        assert batch.attempt == 2
        subscriptions.release(reader.conn, batch)

    assert reader.drain() == positions
    assert reader.due() == []


def test_attempts_are_those_of_the_message_that_comes(reader):
    """The first of a range has killed twice, and expires: the next one was not alone yet."""
    reader.write(
        message(1, "a", None, (), expires_at=at(reader, minutes=10)), message(2, "b", None, ())
    )
    for _ in range(3):
        reader.claim()
        reader.die()
    reader.later("1 hour")

    assert (reader.claim().payloads, reader.due()[0][1]) == ([2], "done")


def test_an_expired_message_is_not_handed_out_again(reader):
    """It was due by itself, and its worker died."""
    reader.write(
        message(1, "a", None, (), deliver_at=at(reader, minutes=1), expires_at=at(reader, hours=1))
    )
    assert reader.claim() is None
    reader.later("2 minutes")
    assert reader.claim().payloads == [1]
    reader.later("2 hours")

    assert reader.claim() is None
    assert reader.due() == []


# Passing over


@pytest.mark.parametrize("why", ["expired", "delayed", "held"])
def test_one_look_passes_over_all_that_is_not_to_be_had(reader, why):
    if why == "held":
        [parked] = reader.publish("a")
        reader.settle(reader.claim(), Failure(parked, "park", "boom"))
        reader.publish(*["a"] * 500)
    elif why == "expired":
        reader.write(*[message(n, None, None, (), expires_at=at(reader)) for n in range(500)])
    else:
        items = [message(n, None, None, (), deliver_at=at(reader, days=9)) for n in range(500)]
        reader.write(*items)
    [wanted] = reader.publish("b")

    assert reader.claim(10).positions == [wanted]


def test_a_paused_subscription_hands_out_nothing_more_of_a_range_in_pieces(reader):
    reader.publish(*"abc")
    reader.claim()
    reader.die()
    piece = reader.claim()
    reader.conn.execute("select kirby.pause_subscription(%s, true, 'test')", [reader.id])

    assert reader.settle(piece, next=10) is None
    reader.conn.execute("select kirby.pause_subscription(%s, false, 'test')", [reader.id])
    assert len(reader.drain()) == 2


# Taken back


def retract(conn, id):
    return topics.retract(conn, "orders", id)


def test_what_is_being_handed_out_cannot_be_taken_back(reader, others):
    delayed(reader, "a", hours=1)
    assert reader.claim() is None
    reader.later("2 hours")
    one, two = others(2)
    held = one.claim()
    assert held.positions

    assert two.begin(lambda: retract(two.conn, "d0"))
    one.conn.commit()
    assert two.end() is False
    reader.settle(held)
    assert reader.due() == []


def test_what_cannot_be_taken_back_from_all_is_taken_back_from_nobody(reader):
    ids = [reader.id, subscriptions.subscribe(reader.conn, "orders", "queue", "shared")[0]]
    delayed(reader, "a", hours=1)
    for reader.id in ids:
        assert reader.claim() is None
    reader.later("2 hours")
    held = reader.claim()
    assert held.positions

    assert retract(reader.conn, "d0") is False
    for reader.id in ids:
        assert len(reader.drain()) == (reader.id == ids[0])


def test_what_was_taken_back_stays_taken_back(reader):
    reader.write(message(1, "a", None, (), id="x"), message(2, "b", None, ()))
    assert retract(reader.conn, "x") is True
    assert len(reader.drain()) == 1
    assert retract(reader.conn, "x") is True


# Lanes


def test_a_subscription_that_is_opened_while_lanes_are_added_has_all_of_them(reader, others):
    one, two = others(2)
    one.conn.execute("select kirby.change_lanes(%s, 8, 'me')", [topic_id(reader)])
    two.begin(lambda: subscriptions.subscribe(two.conn, "orders", "new"))
    one.conn.commit()
    opened, _ = two.end()

    found = "select count(*) from kirby.cursor where subscription_id = %s"
    assert reader.conn.execute(found, [opened]).fetchone() == (8,)


def test_lanes_are_added_while_a_subscription_is_opened(reader, others):
    one, two = others(2)
    opened, _ = subscriptions.subscribe(one.conn, "orders", "new")
    two.begin(
        lambda: two.conn.execute("select kirby.change_lanes(%s, 8, 'me')", [topic_id(reader)])
    )
    one.conn.commit()
    two.end()

    found = "select count(*) from kirby.cursor where subscription_id = %s"
    assert reader.conn.execute(found, [opened]).fetchone() == (8,)


# Deadlocks


@contextmanager
def patient(*conns):
    """A deadlock is an error after a second, so it would be hard to miss."""
    for conn in conns:
        conn.execute("set deadlock_timeout = '100ms'")
        conn.commit()
    yield


def test_the_limits_of_a_subscription_and_what_expires(reader, others):
    """One settles a range; the other finds that a message held back from it has expired."""
    [first] = reader.publish("a")
    subscriptions.limit(reader.conn, reader.id, {"max_in_flight": 100})
    reader.settle(reader.claim(), Failure(first, "retry", "boom", 60.0))
    reader.publish("b")
    reader.write(message(1, "a", None, (), expires_at=at(reader, minutes=30)))
    held = reader.claim()
    assert held.keys == ["b"]
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    reader.later("5 minutes")
    reader.settle(reader.claim())
    reader.later("1 hour")
    one, two = others(2)

    with patient(one.conn, two.conn):
        one.conn.execute("select kirby.own_subscription(%s)", [reader.id])  # as a claim begins
        assert two.begin(lambda: two.settle(held))
        assert one.claim() is None
        one.conn.commit()
        assert not isinstance(two.end(), Exception)
    assert reader.due() == []


def test_a_change_of_lanes_that_one_claim_comes_to_pass(reader):
    """All below it has expired: what lies above is handed out at once, not at the next look."""
    reader.write(message(1, "a", None, (), expires_at=at(reader, minutes=10)))
    lanes.change(reader.conn, topic_id(reader), 4, actor="me")
    [second] = reader.publish("a")
    reader.later("1 hour")

    assert reader.claim().positions == [second]


def test_a_change_of_lanes_that_is_passed_while_a_lane_is_being_claimed(reader, others):
    """Who claims a lane waits for whoever settles; who settles looks for all lanes."""
    reader.publish("x")
    lanes.change(reader.conn, topic_id(reader), 4, actor="me")
    reader.drain()
    [failed] = reader.publish("a")
    reader.settle(reader.claim(), Failure(failed, "retry", "boom", 0.0))
    reader.later("1 second")
    held = reader.claim()
    assert held.positions == [failed]
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    lanes.change(reader.conn, topic_id(reader), 8, actor="me")
    reader.conn.execute("update kirby.cursor set position = 0 where lane > 3")
    reader.publish("a")
    one, two = others(2)

    with patient(one.conn, two.conn):
        two.conn.execute("select from kirby.cursor where lane = 0 for update")
        one.settle(held)
        waits = two.begin(lambda: two.conn.execute("select from kirby.due for update"))
        assert waits
        said = one.conn.execute(
            "select kirby.barrier(s, 9e15::bigint) from kirby.subscription s where s.id = %s",
            [reader.id],
        )
        assert said.fetchone()
        one.conn.commit()
        assert not isinstance(two.end(), Exception)


def test_ids_are_published_in_any_order(reader, others):
    one, two = others(2)
    with patient(one.conn, two.conn):

        def write(conn, *ids):
            document = ",".join(f'{{"v": 1, "i": "{id}"}}' for id in ids)
            return topics.write(conn, f'{{"orders": {{"m": [{document}]}}}}', "{}")

        pace = "select set_config('kirby.announced', '', true)"
        one.conn.execute(pace)
        write(one.conn, "x")
        waits = two.begin(lambda: write(two.conn, "y", "x"))
        assert waits
        answer = None
        try:
            write(one.conn, "x", "y")
        except Exception as error:
            answer = error
        one.conn.commit()
        assert not isinstance(two.end(), Exception)
    assert answer is None

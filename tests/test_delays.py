"""Messages with a time: not before, not after; and those that are taken back."""

from datetime import UTC, datetime, timedelta

import pytest

from kirby.core import db, topics
from kirby.core.errors import NotFound
from kirby.core.subscriptions import Failure
from kirby.sdk.work import message


def at(reader, **after):
    """A moment of the database's clock, which the tests move."""
    now = reader.conn.execute("select kirby.now()").fetchone()[0]
    return now.astimezone(UTC) + timedelta(**after)


def test_a_delayed_message_comes_when_it_is_due(reader):
    soon, now = reader.write(
        message(1, "a", None, (), deliver_at=at(reader, hours=1)), message(2, "a", None, ())
    )

    assert reader.drain() == [now]
    assert reader.due() == [(soon, "delayed", False)]
    reader.later("61 minutes")
    assert reader.drain() == [soon]
    assert reader.due() == []


def test_one_whose_time_has_come_before_it_is_claimed_is_like_any_other(reader):
    positions = reader.write(
        message(1, "a", None, (), deliver_at=at(reader, hours=1)), message(2, "a", None, ())
    )
    reader.later("2 hours")

    assert reader.claim().positions == positions


def test_one_that_is_due_waits_for_what_holds_its_key(reader):
    delayed, failed = reader.write(
        message(1, "a", None, (), deliver_at=at(reader, minutes=1)), message(2, "a", None, ())
    )
    reader.settle(reader.claim(), Failure(failed, "retry", "boom", 3600.0))

    reader.later("30 minutes")
    assert reader.drain() == []
    assert reader.due() == [(delayed, "waiting", False), (failed, "failed", False)]
    reader.later("1 hour")
    assert reader.drain() == [failed, delayed]


def test_one_that_is_due_waits_for_its_key_in_somebodys_hands(reader):
    [delayed] = reader.write(message(1, "a", None, (), deliver_at=at(reader, minutes=1)))
    assert reader.claim() is None
    [later] = reader.publish("a")
    held = reader.claim()
    assert held.positions == [later]

    reader.later("2 minutes")
    reader.conn.execute("update kirby.claim set lease_until = 'infinity'")
    assert reader.claim() is None
    assert reader.due() == [(delayed, "queued", False)]
    [after] = reader.publish("a")
    reader.settle(held)

    reader.later("1 second")
    assert reader.drain() == [delayed, after]


def test_while_it_is_in_hands_its_key_waits(reader):
    [delayed] = reader.write(message(1, "a", None, (), deliver_at=at(reader, minutes=1)))
    assert reader.claim() is None
    reader.later("2 minutes")
    held = reader.claim()
    assert held.positions == [delayed]

    [a, b] = reader.publish("a", "b")
    assert reader.claim().positions == [b]
    assert (a, "waiting", False) in reader.due()
    reader.settle(held)
    assert reader.claim().positions == [a]


def test_an_expired_message_is_never_handed_out(reader):
    old, new = reader.write(
        message(1, "a", None, (), expires_at=at(reader, hours=1)), message(2, "a", None, ())
    )
    late, *_ = reader.write(
        message(3, "b", None, (), deliver_at=at(reader, hours=2), expires_at=at(reader, hours=3))
    )
    reader.later("90 minutes")
    assert reader.drain() == [new]
    assert reader.due() == [(late, "delayed", False)]

    reader.later("1 day")
    assert reader.drain() == []
    assert reader.due() == []
    assert old not in reader.done


def test_a_range_of_nothing_but_expired_ones_is_passed_over(reader):
    reader.write(*[message(n, "a", None, (), expires_at=at(reader, hours=1)) for n in range(5)])
    reader.later("2 hours")
    assert reader.claim() is None

    [one] = reader.publish("a")
    assert reader.drain() == [one]
    assert reader.due() == []


def test_psql_may_delay_too(reader):
    reader.conn.execute(
        "select kirby.publish('orders', '1', deliver_at => kirby.now() + '1 hour', id => 'x')"
    )
    again = "select kirby.publish('orders', '2', id => 'x')"
    assert db.scalar(reader.conn, again) == db.scalar(reader.conn, again)
    assert reader.claim() is None
    reader.later("2 hours")
    assert reader.claim().payloads == [1]


# Producer ids


def test_the_same_id_again_is_the_same_message(reader):
    [first] = reader.write(message(1, "a", None, (), id="order 1"))
    again = reader.write(
        message("other", "a", None, (), id="order 1"),
        message(2, "a", None, ()),
        message(3, "a", None, (), id="order 3"),
        message(4, "a", None, (), id="order 3"),
    )

    assert again[0] == first
    assert again[1] < again[2] == again[3]
    assert reader.claim().payloads == [1, 2, 3]


def test_the_same_id_in_another_topic_is_another_message(reader):
    reader.write(message(1, None, None, (), id="x"))
    assert reader.write(message(1, None, None, (), id="x"), topic="bills") != []
    assert db.scalar(reader.conn, "select count(*) from kirby.message") == 2


def test_two_who_publish_the_same_id_at_once(reader, dsn):
    """The second waits for the first, and finds out."""
    with db.connect(dsn) as other:
        with other.transaction():
            topics.write(other, '{"orders": {"m": [{"v": 1, "i": "x"}]}}', "{}")
            reader.conn.execute("set lock_timeout = '50ms'")
            with pytest.raises(Exception, match="lock timeout"):
                reader.write(message(2, None, None, (), id="x"))
        reader.write(message(2, None, None, (), id="x"))
    assert reader.claim().payloads == [1]


def test_positions_are_in_the_order_given_with_and_without_ids(reader):
    items = [message(n, "a", None, (), id=f"{n}" if n % 2 else None) for n in range(10)]
    positions = reader.write(*items)
    assert positions == sorted(positions)
    assert reader.claim().payloads == list(range(10))


# Taken back


def retract(reader, id):
    return topics.retract(reader.conn, "orders", id)


def test_taken_back_before_it_is_handed_out(reader):
    reader.write(*[message(n, "a", None, (), id=f"{n}") for n in range(3)])
    assert retract(reader, "1") is True
    assert retract(reader, "1") is True

    assert reader.claim().payloads == [0, 2]


def test_a_later_subscription_does_not_get_it_either(reader):
    reader.write(message(1, "a", None, (), id="x"))
    assert retract(reader, "x") is True
    [(late,)] = reader.conn.execute(
        "select subscription_id from kirby.subscribe('orders', 'late')"
    ).fetchall()
    reader.id = late
    assert reader.claim() is None


def test_taken_back_while_it_is_delayed(reader):
    reader.write(message(1, "a", None, (), id="x", deliver_at=at(reader, hours=1)))
    assert reader.claim() is None
    assert retract(reader, "x") is True
    reader.later("2 hours")
    assert reader.claim() is None
    assert reader.due() == []


def test_too_late_to_take_back(reader):
    reader.write(message(1, "a", None, (), id="x"))
    batch = reader.claim()
    assert retract(reader, "x") is False
    reader.settle(batch)
    assert retract(reader, "x") is False
    assert reader.done == batch.positions


def test_what_nobody_published_cannot_be_taken_back(reader):
    with pytest.raises(NotFound, match="topic orders has no message with id nothing"):
        retract(reader, "nothing")


def test_a_time_is_a_time(reader):
    naive = datetime(2000, 1, 1)
    assert '"d":"2000-01-01T00:00:00' in message(1, None, None, (), deliver_at=naive)

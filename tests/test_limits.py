"""Limits of a subscription: how many at once, how many a second, as a whole and by key."""

import threading

import pytest

from kirby.core import db, subscriptions
from kirby.core.errors import Invalid
from kirby.core.subscriptions import Failure


def limit(reader, **limits):
    subscriptions.limit(reader.conn, reader.id, limits)


def shared(reader):
    """Another subscription of the topic, without order."""
    found = subscriptions.subscribe(reader.conn, "orders", "queue", "shared")
    reader.id = found[0]


def freeze(reader):
    """A clock that only moves when it is told to."""
    reader.conn.execute(
        "create or replace function kirby.now() returns timestamptz language sql volatile as"
        " $$ select '2026-01-01 12:00+00'::timestamptz + shift from kirby.test_clock $$"
    )


def test_so_many_in_hands_at_once(reader):
    shared(reader)
    limit(reader, max_in_flight=5)
    positions = reader.publish(*"abcdefgh")

    first, second = reader.claim(3), reader.claim(3)
    assert (len(first.positions), len(second.positions)) == (3, 2)
    assert reader.claim(3) is None
    assert reader.settle(first, next=3).positions == positions[5:8]


def test_a_failed_one_is_in_nobodys_hands(reader):
    limit(reader, max_in_flight=2)
    one, two, three = reader.publish("a", "b", "c")
    batch = reader.claim()
    assert batch.positions == [one, two]
    reader.settle(batch, Failure(one, "retry", "boom", 60.0))
    reader.later("2 minutes")
    assert reader.drain() in ([one, three], [three, one])


def test_those_who_claim_at_once_keep_the_limit_together(reader, dsn):
    shared(reader)
    limit(reader, max_in_flight=10)
    reader.publish(*[f"{n}" for n in range(100)])
    claimed = []

    def work():
        with db.connect(dsn) as conn:
            while batch := subscriptions.claim(conn, reader.id, 3):
                claimed.append(batch)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(batch.positions) for batch in claimed) == 10


def test_so_many_a_second(reader):
    freeze(reader)
    limit(reader, rate=8)
    reader.publish(*[f"{n}" for n in range(40)])
    done = len(reader.drain())
    assert done == 2  # what a quarter of a second brings

    counts = []
    for _ in range(16):
        reader.later("0.25 seconds")
        counts.append(len(reader.drain()))
    assert counts == [2] * 16


def test_a_slow_rate_is_kept_over_a_day(reader):
    freeze(reader)
    limit(reader, rate=0.01)
    reader.publish(*"abc")
    assert len(reader.drain()) == 1
    reader.later("99 seconds")
    assert reader.drain() == []
    reader.later("2 seconds")
    assert len(reader.drain()) == 1


def test_retries_count_as_well(reader):
    freeze(reader)
    limit(reader, rate=1)
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "retry", "boom", 0.0))
    assert reader.claim() is None
    reader.later("1 second")
    assert reader.claim().positions == [one]


def test_a_rate_for_each_key_keeps_its_order(reader):
    freeze(reader)
    limit(reader, key_rate=1)
    a1, a2, b1, a3 = reader.publish("a", "a", "b", "a")

    assert reader.drain() == [a1, b1]
    assert reader.due() == [(a2, "limited", False), (a3, "waiting", False)]
    [b2] = reader.publish("b")
    assert reader.drain() == []
    reader.later("1 second")
    assert set(reader.drain()) == {a2, b2}
    reader.later("1 second")
    assert reader.drain() == [a3]
    assert reader.due() == []


def test_a_rate_for_each_key_of_a_queue(reader):
    freeze(reader)
    shared(reader)
    limit(reader, key_rate=1)
    a1, a2, a3 = reader.publish("a", "a", "a")
    assert reader.drain() == [a1]
    reader.later("1 second")
    assert reader.drain() == [a2]
    reader.later("1 second")
    assert reader.drain() == [a3]


def test_so_many_of_a_key_in_hands(reader):
    shared(reader)
    limit(reader, key_in_flight=2)
    a1, a2, a3, b1 = reader.publish("a", "a", "a", "b")
    [a4] = reader.publish("a")

    batch = reader.claim(4)
    assert batch.positions == [a1, a2, b1]
    assert reader.claim() is None
    reader.settle(batch)
    assert {reader.claim().positions[0], reader.claim().positions[0]} == {a3, a4}
    assert reader.due() == [(a3, "ready", False), (a4, "ready", False)]


def test_a_failure_of_a_key_makes_room(reader):
    shared(reader)
    limit(reader, key_in_flight=1)
    a1, a2 = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(a1, "retry", "boom", 3600.0))
    assert reader.drain() == [a2]


def test_a_limit_that_is_taken_away_frees_what_waits(reader):
    shared(reader)
    limit(reader, key_in_flight=1)
    a1, a2, a3 = reader.publish("a", "a", "a")
    held = reader.claim()
    limit(reader, key_in_flight=None)
    assert {*reader.drain()} == {a2, a3}
    reader.settle(held)
    assert reader.due() == []
    assert held.positions == [a1]


def test_what_is_not_named_stays(reader):
    limit(reader, rate=5, max_in_flight=3)
    limit(reader, rate=None)
    found = "select rate, max_in_flight from kirby.subscription"
    assert reader.conn.execute(found).fetchall() == [(None, 3)]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"rate": 0}, "rate is 0: a number above zero, or null for no limit"),
        ({"rate": -1}, "rate is -1: a number above zero"),
        ({"max_in_flight": 1.5}, "max_in_flight is 1.5: a whole number above zero"),
        ({"key_rate": "fast"}, 'key_rate is "fast": a number above zero'),
        ({"speed": 1}, "'speed' is not a limit: max_in_flight, rate, key_in_flight or key_rate"),
    ],
)
def test_limits_that_make_no_sense_are_refused(reader, bad, said):
    with pytest.raises(Invalid, match=said):
        limit(reader, **bad)


def test_when_to_look_again(reader):
    def seconds():
        return subscriptions.next_due(reader.conn, [reader.id])

    freeze(reader)
    assert seconds() is None
    [one, _] = reader.publish("a", "b")
    reader.settle(reader.claim(), Failure(one, "retry", "boom", 30.0))
    assert seconds() == 30.0
    reader.later("10 seconds")
    assert seconds() == 20.0
    limit(reader, rate=0.1)
    reader.publish("c")
    reader.settle(reader.claim())
    assert seconds() == 10.0

"""Rewinds of keys: each message by itself, in the order of its key; other keys never wait."""

import contextlib
import random
from dataclasses import replace
from typing import ClassVar

import pytest
from fix_rewind import flag, rewinder_fixture  # noqa: F401
from test_rewind_states import House

from kirby.core import subscriptions
from kirby.core.errors import Conflict, Fenced
from kirby.core.subscriptions import Failure


def test_the_key_comes_again_in_order_before_its_live_messages(rewinder):
    a1, b1, a2, b2 = rewinder.publish("a", "b", "a", "b")
    rewinder.drain()
    again = rewinder.rewind(keys=["a"])
    a3, b3 = rewinder.publish("a", "b")

    assert (again.total, again.done) == (2, 0)
    assert rewinder.wrong() == []
    came = rewinder.drain()
    assert [each for each in came if each[0] in (a1, a2, a3)] == [
        (a1, again.id), (a2, again.id), (a3, None)
    ]  # fmt: skip
    assert [each for each in came if each[0] in (b1, b2, b3)] == [(b3, None)]
    assert rewinder.end() == 1
    found = rewinder.get(again.id)
    assert (found.status, found.done) == ("done", 2)
    assert rewinder.due() == []
    assert rewinder.wrong() == []


def test_other_keys_never_wait(rewinder):
    rewinder.publish("a", "a")
    rewinder.drain()
    again = rewinder.rewind(keys=["a"])
    batch = rewinder.claim()  # the first of a
    assert flag(batch, 0) == again.id
    live = rewinder.publish("b", "a", "c")

    assert rewinder.drain() == [(live[0], None), (live[2], None)]


def test_what_is_in_hands_of_the_key_is_given_back_with_another_fence(rewinder):
    old = rewinder.publish("a")
    rewinder.drain()
    b, a = rewinder.publish("b", "a")
    held = rewinder.claim()
    again = rewinder.rewind(keys=["a"])

    assert held.positions == [b, a]
    with pytest.raises(Fenced):
        rewinder.settle(held)
    assert rewinder.wrong() == []
    assert sorted(rewinder.drain()) == [(old[0], again.id), (b, None), (a, None)]
    assert [p for p, _ in rewinder.came if p != b] == [old[0], a]
    assert rewinder.wrong() == []


def test_a_failed_a_waiting_and_a_parked_one_join_in_their_turn(rewinder):
    a = rewinder.publish("a", "a", "a")
    rewinder.settle(rewinder.claim(1))
    rewinder.settle(rewinder.claim(1), Failure(a[1], "park", "no"))
    rewinder.drain()
    assert [reason for _, reason, _ in rewinder.due()] == ["failed", "waiting"]
    again = rewinder.rewind(keys=["a"])

    assert rewinder.wrong() == []
    assert rewinder.drain() == [(a[0], again.id), (a[1], None), (a[2], None)]
    assert rewinder.due() == []


def test_a_part_of_a_key(rewinder):
    a = rewinder.publish(*"aaaaa")
    rewinder.drain()
    again = rewinder.rewind(to=a[1], until=a[3], keys=["a"])

    assert rewinder.drain() == [(position, again.id) for position in a[1:4]]
    assert rewinder.plan(1, keys=["a", "x"]).subscriptions[0].messages == 5


def test_paused_and_aborted(rewinder):
    old = rewinder.publish("a", "a", "b")
    rewinder.drain()
    again = rewinder.rewind(keys=["a"])
    rewinder.act("pause", again.id)
    live = rewinder.publish("b", "a")
    assert rewinder.drain() == [(live[0], None)]
    rewinder.act("resume", again.id)
    rewinder.later("5 seconds")
    batch = rewinder.claim()
    assert batch.positions == old[:1]
    rewinder.act("abort", again.id)
    rewinder.settle(batch)

    assert rewinder.drain() == [(live[1], None)]
    assert rewinder.due() == []
    assert rewinder.wrong() == []


def test_its_rate_is_kept(rewinder):
    rewinder.publish(*["a"] * 10)
    rewinder.drain()
    rewinder.rewind(keys=["a"], rate=1)
    assert len(rewinder.drain()) == 1
    rewinder.later("2.1 seconds")
    assert len(rewinder.drain()) == 1
    rewinder.later("2.1 seconds")
    assert len(rewinder.drain()) == 1


def test_a_shared_subscription(rewinder):
    shared, _ = subscriptions.subscribe(rewinder.conn, "orders", "shared", "shared")
    old = rewinder.publish("a", "b", "a")
    rewinder.drain()
    subscriptions.settle(rewinder.conn, subscriptions.claim(rewinder.conn, shared, 10))
    again = rewinder.rewind(keys=["a"], only=["shared"])
    found = []
    while batch := subscriptions.claim(rewinder.conn, shared, 10):
        found += [(batch.positions[0], flag(batch, 0))]
        subscriptions.settle(rewinder.conn, batch)

    assert sorted(found) == [(old[0], again.id), (old[2], again.id)]
    assert rewinder.wrong() == []


def test_twice_the_same_key(rewinder):
    old = rewinder.publish("a", "a")
    rewinder.drain()
    first = rewinder.rewind(keys=["a"])
    rewinder.settle(rewinder.claim())
    second = rewinder.rewind(keys=["a"])

    assert rewinder.wrong() == []
    assert rewinder.drain() == [(old[0], second.id), (old[1], first.id)]
    assert rewinder.end() == 2


def test_the_states_of_the_key_alone_are_set_back(rewinder):
    house = House(rewinder)
    house.order(("a", 1), ("b", 2), ("a", 3))
    house.run()
    house.wrong = False
    again = house.rewinder.rewind(states=True, keys=["a"])
    assert house.totals() == {"b": 4}
    house.run()

    assert house.totals() == {"a": 4, "b": 4}
    rewinder.end()
    with pytest.raises(Conflict, match="is done already"):
        rewinder.act("abort", again.id)


class Shelves(House):
    """What lies on a shelf is counted together, so that keys change one another's figures."""

    SHELVES: ClassVar = {"a": "x", "b": "x", None: "x", "c": "y"}

    def count(self, limit=100, batch=None):
        batch = batch or subscriptions.claim(self.conn, self.tally, limit)
        if batch is None:
            return False
        return super().count(batch=replace(batch, keys=[self.SHELVES[key] for key in batch.keys]))

    def wanted(self):
        found = {}
        for item, amount in self.orders:
            found[self.SHELVES[item]] = found.get(self.SHELVES[item], 0) + amount
        return found


@pytest.mark.parametrize("seed", range(8))
def test_aborted_in_the_middle_figures_are_what_they_would_be_without_it(rewinder, seed):
    chance = random.Random(seed)
    house = Shelves(rewinder)
    house.wrong = False

    def orders(count):
        keys = ["a", "b", "c", None]
        return [(chance.choice(keys), chance.randrange(1, 100)) for _ in range(count)]

    def work(steps):
        for _ in range(chance.randrange(steps)):
            chance.choice([house.make, house.count])(3)

    house.order(*orders(20))
    house.run(3)
    house.order(*orders(5))
    held = subscriptions.claim(house.conn, house.job, 2)
    again = rewinder.rewind(keys=["a"], states=True, inexact=True)
    work(12)
    house.order(*orders(6))
    work(12)
    if chance.random() < 0.5 and held:
        with contextlib.suppress(Fenced):
            house.make(batch=held)
    rewinder.act("abort", again.id)
    house.order(*orders(3))
    while rewinder.status(again.id) == "aborting":
        house.make(3)
        house.count(3)
        rewinder.end()
    assert rewinder.status(again.id) == "aborted"
    assert rewinder.wrong() == []
    house.run(3)
    for _ in range(3):
        rewinder.later("10 minutes")
        house.run(3)
    assert house.totals() == house.wanted()
    assert rewinder.due() == []
    assert rewinder.wrong() == []


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_key_is_in_order_and_once(rewinder, seed):
    chance = random.Random(seed)
    rewinder.subscribe(max_attempts=1000)

    def keys(count):
        return [chance.choice(["a", "b", "c", None]) for _ in range(count)]

    old = rewinder.publish(*keys(20))
    rewinder.drain(3)
    more = rewinder.publish(*keys(6))
    held = rewinder.claim(3)
    again = rewinder.rewind(keys=["a", "b"])
    live = rewinder.publish(*keys(6))
    names = dict(rewinder.log.ask("select position, key from kirby.message"))
    came, order = [], []
    while (batch := rewinder.claim(3)) or rewinder.log.value(
        "select (select count(*) from kirby.claim) + (select count(*) from kirby.due)"
    ):
        if batch is None:
            rewinder.later("10 minutes")
            continue
        failed = [
            Failure(batch.positions[0], "retry", "no", 1)
            for _ in range(chance.random() < 0.2 and len(batch.positions) == 1)
        ]
        if chance.random() < 0.8:
            rewinder.came = []
            rewinder.settle(batch, *failed)
            came += rewinder.came
        assert rewinder.wrong() == []
    order = [position for position, _ in came]
    assert held
    assert sorted(came, key=lambda each: each[0]) == sorted(
        [(p, again.id) for p in old if names[p] in ("a", "b")] + [(p, None) for p in [*more, *live]]
    )
    for key in ("a", "b", "c"):
        mine = [p for p in order if names[p] == key]
        assert mine == sorted(mine)


def test_aborted_live_messages_of_other_keys_count_too(rewinder):
    """A figure that is set back, and was changed since by a key that is not rewound."""
    house = Shelves(rewinder)
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run(1)
    again = rewinder.rewind(keys=["a"], states=True, inexact=True)
    house.order(("b", 4), (None, 8))
    house.run()
    rewinder.act("abort", again.id)
    house.run(1)

    assert house.totals() == house.wanted() == {"x": 15}

"""Rewinds that set states back first: the figures come out exact, whatever was on its way."""

import json
import random

import pytest
from fix_rewind import rewinder_fixture  # noqa: F401

from kirby.core import subscriptions
from kirby.core.errors import Conflict, Fenced

TOTAL = "select key, value from kirby.state_entry where op = 'set' order by key"


class House:
    """orders -> job -> parts -> tally -> state totals, each step settled by hand.

    An order says how much; the total of each item is what all orders of it come to. ``wrong``:
    the tally has a bug, and counts everything double.
    """

    def __init__(self, rewinder):
        self.rewinder, self.conn, self.log = rewinder, rewinder.conn, rewinder.log
        self.job = rewinder.id
        self.log.value("select kirby.open_topic('parts', 4)")
        self.tally, _ = subscriptions.subscribe(self.conn, "parts", "tally")
        self.wrong = True
        self.orders = []
        self.came = []

    def order(self, *orders):
        for item, amount in orders:
            self.log.value(
                "select kirby.publish('orders', %s::jsonb, key => %s)", json.dumps(amount), item
            )
        self.orders += orders

    def make(self, limit=100, batch=None):
        """One batch of orders becomes parts; false: there was none."""
        batch = batch or subscriptions.claim(self.conn, self.job, limit)
        if batch is None:
            return False
        parts = [
            {"v": value, "k": key, "h": self.headers(batch, n, "job", "orders"), "p": [position]}
            for n, (position, key, value) in enumerate(
                zip(batch.positions, batch.keys, batch.payloads, strict=True)
            )
        ]
        subscriptions.settle(self.conn, batch, messages=json.dumps({"parts": parts}))
        return True

    def headers(self, batch, number, job, topic):
        given = (batch.headers and batch.headers[number]) or {}
        replay = {"replay": given["replay"]} if "replay" in given else {}
        return {"via": [[job, None, topic, batch.positions[number], "2026-01-01"]], **replay}

    def count(self, limit=100, batch=None):
        """One batch of parts is added up, a version for each key; false: there was none."""
        batch = batch or subscriptions.claim(self.conn, self.tally, limit)
        if batch is None:
            return False
        now = dict(self.log.ask(TOTAL))
        changes = {}
        for n, (position, key, value) in enumerate(
            zip(batch.positions, batch.keys, batch.payloads, strict=True)
        ):
            now[key] = now.get(key, 0) + value * (2 if self.wrong else 1)
            change = changes.setdefault(key, {"k": key, "o": "set", "p": []})
            change["v"] = now[key]
            change["p"].append(position)
            change["h"] = self.headers(batch, n, "tally", "parts")
        mutations = json.dumps({"totals": list(changes.values())})
        subscriptions.settle(self.conn, batch, mutations=mutations)
        return True

    def run(self, limit=100):
        while self.make(limit) or self.count(limit):
            pass

    def totals(self):
        return dict(self.log.ask(TOTAL))

    def wanted(self):
        found = {}
        for item, amount in self.orders:
            found[item] = found.get(item, 0) + amount
        return found


@pytest.fixture(name="house")
def house_fixture(rewinder):
    return House(rewinder)


def test_the_figures_are_exact_after_a_fix(house):
    house.order(("a", 1), ("b", 2), ("a", 3))
    house.run()
    assert house.totals() == {"a": 8, "b": 4}
    house.wrong = False
    again = house.rewinder.rewind(states=True)
    house.order(("a", 10), ("c", 5))

    assert again.status == "running"
    assert house.totals() == {}
    assert house.rewinder.wrong() == []
    house.run()
    assert house.totals() == house.wanted() == {"a": 14, "b": 2, "c": 5}
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "done"
    assert house.rewinder.wrong() == []


def test_without_states_they_count_twice_and_the_plan_says_so(house):
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run()
    plan = house.rewinder.plan(1)
    assert plan.warnings == [
        "state totals will count these messages twice: it is not set back first (--states does it)"
    ]
    assert house.rewinder.plan(1, states=True).warnings == []
    house.rewinder.rewind()
    house.run()
    assert house.totals() == {"a": 2, "b": 4}


def test_what_was_there_before_the_point_stays(house):
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run()
    house.order(("a", 3), ("c", 1))
    point = house.log.there("orders")[2]
    house.run()
    house.rewinder.rewind(to=point, states=True)

    assert house.totals() == {"a": 1, "b": 2}
    house.run()
    assert house.totals() == house.wanted()
    headers = house.log.ask(
        "select key, headers -> 'restored' from kirby.state_mutation"
        " where headers ? 'restored' order by key"
    )
    assert [(key, each["version"]) for key, each in headers] == [("a", 1), ("c", 0)]


def test_it_waits_for_what_is_on_its_way_downstream(house):
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run()
    house.order(("a", 3), ("b", 4))
    house.make()  # parts lie unread
    again = house.rewinder.rewind(states=True)

    assert again.status == "preparing"
    assert [each.partition(" up to ")[0] for each in again.waits] == ["tally of parts"]
    house.order(("a", 5))
    assert not house.make()
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "preparing"
    batch = subscriptions.claim(house.conn, house.tally, 100)
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "preparing"
    house.count(batch=batch)
    while house.count():
        pass
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "running"
    assert house.totals() == {}
    house.run()
    assert house.totals() == house.wanted()
    assert house.rewinder.wrong() == []


def test_aborted_while_it_is_prepared_nothing_has_happened(house):
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run()
    house.order(("a", 3))
    house.make()
    again = house.rewinder.rewind(states=True)
    house.rewinder.act("abort", again.id)

    house.order(("a", 5))
    house.run()
    assert house.totals() == house.wanted()
    assert house.rewinder.status(again.id) == "aborted"
    assert house.rewinder.wrong() == []


def test_in_hands_at_that_moment_it_is_fenced_and_counts_once(house):
    house.wrong = False
    house.order(("a", 1))
    house.run()
    house.order(("a", 2))
    batch = subscriptions.claim(house.conn, house.job, 100)
    house.rewinder.rewind(states=True)

    with pytest.raises(Fenced):
        house.make(batch=batch)
    house.run()
    assert house.totals() == house.wanted()


@pytest.mark.parametrize("seed", range(6))
def test_aborted_in_the_middle_the_figures_are_exact_all_the_same(house, seed):
    chance = random.Random(seed)
    house.wrong = False

    def orders(count):
        return [(chance.choice("abcd"), chance.randrange(100)) for _ in range(count)]

    house.order(*orders(20))
    house.run(3)
    house.order(*orders(5))
    held = subscriptions.claim(house.conn, house.job, 2)  # never settled
    again = house.rewinder.rewind(states=True)
    for _ in range(chance.randrange(12)):
        (house.make if chance.random() < 0.6 else house.count)(3)
    house.order(*orders(5))
    for _ in range(chance.randrange(12)):
        (house.make if chance.random() < 0.6 else house.count)(3)
    held = held and subscriptions.claim(house.conn, house.job, 2)
    house.rewinder.act("abort", again.id)
    house.order(*orders(3))
    while house.rewinder.status(again.id) == "aborting":
        assert not house.make()
        assert house.count()
        house.rewinder.end()
    if held:
        with pytest.raises(Fenced):
            house.make(batch=held)
    assert house.rewinder.status(again.id) == "aborted"
    assert house.rewinder.wrong() == []
    house.run(3)

    assert house.totals() == house.wanted()
    assert house.rewinder.wrong() == []


def test_aborted_with_live_messages_the_figures_are_exact(house):
    house.wrong = False
    house.order(("a", 1), ("b", 2))
    house.run()
    again = house.rewinder.rewind(states=True)
    house.order(("a", 4))
    house.run()  # replays and the live one
    house.wrong = True
    house.rewinder.act("abort", again.id)

    assert house.rewinder.status(again.id) == "aborted"
    assert house.totals() == {"a": 1, "b": 2}
    house.wrong = False
    house.run()
    assert house.totals() == house.wanted()
    assert house.rewinder.wrong() == []


def test_an_aborted_one_says_how_far_it_was(house):
    house.wrong = False
    house.order(*[("a", 1)] * 10)
    house.run()
    again = house.rewinder.rewind(states=True)
    house.make(3)
    house.rewinder.act("abort", again.id)
    while house.rewinder.status(again.id) == "aborting":
        house.count()
        house.rewinder.end()

    found = house.rewinder.get(again.id)
    assert (found.status, found.total, found.done) == ("aborted", 10, 3)


def test_a_plan_warns_of_what_was_set_back_by_hand(house):
    house.wrong = False
    house.order(("a", 1), ("a", 2), ("b", 1))
    house.run()
    assert house.rewinder.plan(0, states=True).warnings == []
    sums, position = house.rewinder.conn.execute(
        "select state_id, max(position) from kirby.state_mutation where key = 'a' group by 1"
    ).fetchone()
    house.rewinder.conn.execute(
        "select kirby.restore_state(%s, %s, null, '{a}', '', 'ann', 'why')", [sums, position - 1]
    )
    [warning] = house.rewinder.plan(0, states=True).warnings
    assert "from elsewhere" in warning


@pytest.mark.parametrize("seed", range(4))
def test_killed_all_the_way_it_ends_exact(house, seed):
    chance = random.Random(seed)
    subscriptions.subscribe(house.conn, "orders", "job", max_attempts=1000)
    subscriptions.subscribe(house.conn, "parts", "tally", max_attempts=1000)
    house.order(*[(chance.choice("abcd"), chance.randrange(100)) for _ in range(30)])
    house.run(4)
    house.wrong = False
    again = house.rewinder.rewind(states=True)
    house.order(*[(chance.choice("abcd"), chance.randrange(100)) for _ in range(10)])
    idle = 0
    while idle < 3:
        subscription, work = chance.choice([(house.job, house.make), (house.tally, house.count)])
        batch = subscriptions.claim(house.conn, subscription, 4)
        if batch is None:
            house.rewinder.die()
            open_ = house.log.value("select count(*) from kirby.claim")
            idle = 0 if open_ or house.make(1) or house.count(1) else idle + 1
        elif chance.random() < 0.7:
            work(batch=batch)
    assert house.totals() == house.wanted()
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "done"


def test_two_that_set_states_back_do_not_meet(house):
    house.order(("a", 1))
    house.run()
    first = house.rewinder.rewind(states=True)

    with pytest.raises(Conflict, match=f"rewind {first.id} of the same subscriptions is not over"):
        house.rewinder.rewind(states=True)


def test_versions_that_come_from_elsewhere_are_named(house):
    house.wrong = False
    house.order(("a", 1))
    house.run()
    house.log.ask(
        'select * from kirby.write(\'{}\', \'{"totals": [{"k": "a", "o": "set", "v": 7}]}\')'
    )

    [warning] = house.rewinder.plan(1, states=True).warnings
    assert warning.startswith("there is one version of these keys of state totals from elsewhere")

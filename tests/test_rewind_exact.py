"""From where a rewind that sets states back comes out exact, against a model that counts once."""

import json
import random

import pytest
from fix_rewind import rewinder_fixture  # noqa: F401
from test_rewind_states import House

from kirby.core import subscriptions
from kirby.core.errors import Invalid


@pytest.fixture(name="house")
def house_fixture(rewinder):
    house = House(rewinder)
    house.wrong = False
    return house


def orders(chance, count):
    return [(chance.choice("abcd"), chance.randrange(1, 100)) for _ in range(count)]


def work(house, chance, steps):
    """Steps of both jobs in any order, batches of any size."""
    for _ in range(steps):
        chance.choice([house.make, house.count])(chance.randrange(1, 8))


def go_on(house, id):
    """Handle what is on its way until the rewind runs, or is over if it is aborted."""
    while house.rewinder.status(id) in ("preparing", "aborting"):
        house.make(3)
        house.count(3)
        house.rewinder.end()


def both_sides(house):
    """One version of two orders; returns the position of the second."""
    house.order(("a", 1), ("a", 2))
    batch = subscriptions.claim(house.conn, house.job, 100)
    mutations = {"totals": [{"k": "a", "o": "set", "v": 3, "p": batch.positions}]}
    subscriptions.settle(house.conn, batch, mutations=json.dumps(mutations))
    return batch.positions[1]


def test_a_version_of_both_sides_is_refused_and_named(house):
    point = both_sides(house)
    plan = house.rewinder.plan(point, states=True)

    assert plan.inexact.text in plan.warnings
    assert (plan.inexact.versions, plan.inexact.after, plan.inexact.messages) == (1, point - 2, 1)
    assert plan.inexact.text.startswith(
        "not exact from here: 1 version was made from messages of both sides;"
        f" exact from {point - 1} ("
    )
    assert plan.inexact.text.endswith("), 1 message earlier; add --exact to start there")
    with pytest.raises(Invalid, match="not exact from here"):
        house.rewinder.rewind(point, states=True)
    assert house.log.value("select count(*) from kirby.rewind") == 0
    assert house.rewinder.plan(point).inexact is None


def test_exact_starts_earlier_and_inexact_starts_here(house):
    point = both_sides(house)
    exact = house.rewinder.plan(point, states=True, exact=True)
    assert (exact.after, exact.messages, exact.inexact, exact.warnings) == (point - 2, 2, None, [])
    with pytest.raises(Invalid, match="either exact or inexact"):
        house.rewinder.plan(point, states=True, exact=True, inexact=True)

    here = house.rewinder.rewind(point, states=True, inexact=True)
    assert (here.status, here.after, here.total) == ("running", point - 1, 1)


def test_a_message_before_the_point_that_was_counted_after_one_behind_it(house):
    house.order(("a", 1), ("a", 2))
    first, second = house.log.there("orders")
    for position, value in ((second, 2), (first, 3)):
        house.log.ask(
            "select kirby.write('{}', %s)",
            json.dumps({"totals": [{"k": "a", "o": "set", "v": value, "p": [position],
                                    "h": {"via": [["job", None, "orders", position, ""]]}}]}),
        )  # fmt: skip
    house.rewinder.drain()

    assert house.rewinder.plan(second, states=True).inexact.after == first - 1


def test_an_end_or_keys_that_cut_versions_apart_are_refused(house):
    house.order(("a", 1), ("a", 2), ("b", 3))
    first, second, _ = house.log.there("orders")
    batch = subscriptions.claim(house.conn, house.job, 100)
    change = {"k": "all", "o": "set", "v": 6, "p": batch.positions}
    mutations = json.dumps({"totals": [change]})
    subscriptions.settle(house.conn, batch, mutations=mutations)

    with pytest.raises(Invalid, match=r"not exact up to there: 1 version .*; leave --until out"):
        house.rewinder.rewind(first, until=second, states=True)
    with pytest.raises(Invalid, match="not exact for these keys alone: 1 version"):
        house.rewinder.rewind(first, keys=["a"], states=True, exact=True)


def test_what_retention_has_removed_is_said(house):
    house.log.old("orders", 2, "2 hours")
    [first, second] = house.log.there("orders")
    batch = subscriptions.claim(house.conn, house.job, 100)
    change = {"k": "a", "o": "set", "v": 3, "p": batch.positions}
    subscriptions.settle(house.conn, batch, mutations=json.dumps({"totals": [change]}))
    house.log.value(
        "insert into kirby.topic_retention (topic_id, gone_to, gone_at)"
        " select id, %s, now() from kirby.topic where name = 'orders' returning 1", first,
    )  # fmt: skip

    with pytest.raises(Invalid, match="and retention has removed what would have to come again"):
        house.rewinder.rewind(second, states=True, exact=True)


@pytest.mark.parametrize("seed", range(12))
def test_from_any_point_in_the_middle_of_things_figures_are_exact(house, seed):
    chance = random.Random(seed)
    points = []
    for _ in range(3):
        house.order(*orders(chance, 12))
        work(house, chance, 8)
    house.run(5)
    house.order(*orders(chance, 6))
    work(house, chance, 4)  # some are on their way, or unread
    for round in range(2):
        point = chance.choice(house.log.there("orders")[:36])
        again = house.rewinder.rewind(point, states=True, exact=True)
        assert again.after < point
        house.order(*orders(chance, 3))
        go_on(house, again.id)
        assert house.rewinder.status(again.id) == "running", round
        points.append((point, house.rewinder.get(again.id).after))
        assert house.rewinder.wrong() == []
        work(house, chance, 6)
        house.run(4)
        house.rewinder.end()
        assert house.totals() == house.wanted(), points
        assert house.rewinder.status(again.id) == "done"


@pytest.mark.parametrize("seed", range(6))
def test_the_point_is_the_nearest_one(house, seed):
    """Every point between the one asked for and the one that is offered is inexact."""
    chance = random.Random(seed)
    for _ in range(3):
        house.order(*orders(chance, 8))
        work(house, chance, 6)
    house.run(5)
    there = house.log.there("orders")
    point = chance.choice(there[6:])
    offered = house.rewinder.plan(point, states=True, exact=True).after + 1
    between = [each for each in there if offered < each <= point]
    for each in between:
        assert house.rewinder.plan(each, states=True).inexact is not None
    assert house.rewinder.plan(offered, states=True).inexact is None


def test_after_a_fix_a_second_rewind_does_not_bring_the_old_figures_back(house):
    house.wrong = True
    house.order(("a", 1), ("a", 2))
    house.run(1)
    house.order(("a", 4))
    point = house.log.there("orders")[-1]
    house.run(1)
    house.wrong = False
    house.rewinder.rewind(states=True)
    house.run(1)
    house.rewinder.end()
    assert house.totals() == {"a": 7}

    house.rewinder.rewind(point, states=True)
    assert house.totals() == {"a": 3}
    house.run(1)
    assert house.totals() == house.wanted()


def test_what_settled_while_it_was_prepared_moves_the_point(house):
    """A version of both sides comes into being after the plan was made."""
    house.order(("a", 1))
    house.run()
    house.log.value("select kirby.count_flow()")
    house.order(("a", 2), ("a", 3))
    point = house.log.there("orders")[2]
    house.make()
    again = house.rewinder.rewind(point, states=True)
    assert again.status == "preparing"
    house.count()  # one version of the parts of both
    house.rewinder.end()

    found = house.rewinder.get(again.id)
    assert (found.status, found.after) == ("running", house.log.there("orders")[1] - 1)
    assert house.totals() == {"a": 1}
    house.run()
    assert house.totals() == house.wanted()


def test_what_was_on_its_way_when_it_began_is_not_lost_if_it_is_aborted(house):
    house.order(("a", 1), ("b", 2))
    house.run()
    house.order(("a", 4))
    house.make()
    again = house.rewinder.rewind(states=True)
    go_on(house, again.id)
    house.make(1)
    house.rewinder.act("abort", again.id)
    go_on(house, again.id)
    house.run()

    assert house.totals() == house.wanted()


def test_a_first_version_of_these_is_waited_for(house):
    """Nothing was made of what lies downstream yet; that the job makes something is known."""
    house.order(("a", 1))
    house.run()
    house.log.value("select kirby.count_flow()")
    house.order(("a", 2))
    point = house.log.there("orders")[-1]
    house.make()
    again = house.rewinder.rewind(point, states=True)

    assert [each.partition(" up to ")[0] for each in again.waits] == ["tally of parts"]
    go_on(house, again.id)
    house.run()
    assert house.totals() == house.wanted()


def test_while_it_waits_a_look_computes_nothing(house):
    house.order(("a", 1))
    house.run()
    house.order(("a", 2))
    house.make()
    again = house.rewinder.rewind(states=True)
    assert again.status == "preparing"
    row = "select xmin::text from kirby.rewind"
    before = house.log.value(row)
    house.rewinder.end()
    assert house.log.value(row) == before  # nothing was found anew
    house.count()
    house.rewinder.end()
    assert house.rewinder.status(again.id) == "running"

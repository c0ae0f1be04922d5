"""Plans of rewinds: exact counts, of what comes again and of what was made from it."""

from datetime import UTC, datetime

import pytest
from fix_rewind import rewinder_fixture  # noqa: F401
from test_rewind_states import House

from kirby.core import subscriptions
from kirby.core.errors import Conflict, Invalid, NotFound
from kirby.core.subscriptions import Failure
from kirby.server import rewinds
from kirby.server.rewinds import Changed, Downstream, Reader


def test_counts_are_exact(rewinder):
    house = House(rewinder)
    house.order(("a", 1), ("b", 2), ("a", 3), ("c", 1))
    house.run(2)
    house.order(("d", 1), ("e", 1))
    held = rewinder.claim(1)

    plan = rewinder.plan(1)
    assert held
    assert (plan.messages, plan.jobs, plan.effects) == (5, ["job", "tally"], [])
    assert plan.subscriptions == [Reader("job", "ordered", "process", 4, 1, 1, False)]
    assert plan.topics == [Downstream("parts", 4, ["job"])]
    mutations = house.log.value("select count(*) from kirby.state_mutation")
    assert plan.states == [Changed("totals", mutations, 3, ["tally"], 0, [])]
    assert plan.seconds is not None
    assert (plan.earliest, plan.earliest_at) == (1, None)


def test_it_is_what_comes(rewinder):
    old = rewinder.publish(*"abcd")
    rewinder.settle(rewinder.claim(), Failure(old[1], "retry", "no", 600))
    rewinder.log.value("select kirby.publish('orders', '0', expires_at => kirby.now() + '1 hour')")
    rewinder.drain()
    rewinder.later("2 hours")
    [reader] = rewinder.plan(1).subscriptions
    assert (reader.messages, reader.fresh) == (3, 1)

    again = rewinder.rewind()
    came = rewinder.drain()
    assert sorted(came) == [
        (old[0], again.id), (old[1], None), (old[2], again.id), (old[3], again.id)
    ]  # fmt: skip
    found = rewinder.get(again.id)
    assert (found.total, found.done) == (3, 3)


def test_replays_are_not_counted_as_made_again(rewinder):
    house = House(rewinder)
    house.order(("a", 1), ("b", 2))
    house.run()
    before = rewinder.plan(1)
    rewinder.rewind(states=True)
    house.run()
    rewinder.end()
    after = rewinder.plan(1)

    assert (after.topics, after.states) == (before.topics, before.states)


def test_a_moment_and_a_position(rewinder):
    rewinder.log.old("orders", 3, "2 hours")
    moment = rewinder.log.value("select now() - interval '1 hour'")
    late = rewinder.log.old("orders", 2, "1 minute")
    rewinder.drain()

    assert rewinder.plan(moment).messages == 2
    assert rewinder.plan(1, until=moment).messages == 3
    assert rewinder.plan(late[1]).messages == 1
    assert rewinder.plan(datetime(2020, 1, 1, tzinfo=UTC)).messages == 5


def test_nothing_moves_before_it_is_approved(rewinder):
    old = rewinder.publish("a", "b")
    rewinder.drain()
    with rewinder.unit() as (conn, dev):
        plan = rewinds.plan(conn, dev, "orders", to=1)
        proposed = rewinds.propose(conn, plan, actor="one", reason="why")
    assert (proposed.status, proposed.total) == ("planned", 0)
    assert rewinder.drain() == []
    assert rewinds.of_document(proposed.plan) == plan

    begun = rewinder.act("approve", proposed.id)
    assert begun.status == "running"
    with pytest.raises(Conflict, match="is running already"):
        rewinder.act("approve", proposed.id)
    assert rewinder.drain() == [(position, proposed.id) for position in old]


def test_a_proposal_can_be_turned_down(rewinder):
    rewinder.publish("a")
    rewinder.drain()
    with rewinder.unit() as (conn, dev):
        plan = rewinds.plan(conn, dev, "orders", to=1)
        proposed = rewinds.propose(conn, plan, actor="one")
    assert rewinder.act("abort", proposed.id).status == "aborted"
    assert rewinder.drain() == []


def test_what_cannot_be_is_said_in_one_line(rewinder):
    with pytest.raises(Invalid, match="nothing to rewind: no subscription of topic orders was gi"):
        rewinder.rewind()
    with pytest.raises(Invalid, match="the end of the rewind, position 3, lies before its begin"):
        rewinder.plan(5, until=3)
    with pytest.raises(Invalid, match="the rate is 0"):
        rewinder.plan(1, rate=0)
    with pytest.raises(NotFound):
        rewinder.act("approve", 99)
    with pytest.raises(NotFound):
        rewinder.get(99)
    subscriptions.subscribe(rewinder.conn, "empty", "job")
    rewinder.log.value("select kirby.open_topic('alone')")
    with pytest.raises(Invalid, match="topic alone has no subscriptions"):
        rewinder.plan(1, topic="alone")

"""Rewinds of a whole topic: what comes again, what comes for the first time, and in which order."""

import random

import psycopg
import pytest
from fix_rewind import flag, rewinder_fixture  # noqa: F401

from kirby.core import subscriptions
from kirby.core.errors import Conflict, Fenced, Invalid, NotFound
from kirby.core.subscriptions import Failure


def flagged(rewind, *positions):
    return [(position, rewind.id) for position in positions]


def plain(*positions):
    return [(position, None) for position in positions]


def lanes(rewinder, count):
    """Another topic of that name, with so many lanes."""
    rewinder.conn.execute("update kirby.topic set name = 'old' where name = 'orders'")
    rewinder.log.value("select kirby.open_topic('orders', %s)", count)


def test_everything_comes_again_once_flagged_and_live_messages_after_it(rewinder):
    old = rewinder.publish("a", "b", None, "a")
    assert rewinder.drain() == plain(*old)
    again = rewinder.rewind()
    live = rewinder.publish("a", None)

    assert rewinder.wrong() == []
    assert rewinder.drain() == [*flagged(again, *old), *plain(*live)]
    assert rewinder.wrong() == []
    assert rewinder.end() == 1
    assert rewinder.status(again.id) == "done"
    assert rewinder.drain() == []
    assert rewinder.wrong() == []


def test_a_batch_is_all_replay_or_all_live(rewinder):
    old = rewinder.publish("a", "b")
    rewinder.drain()
    again = rewinder.rewind()
    rewinder.publish("a")

    batch = rewinder.claim()
    assert batch.positions == old
    assert [flag(batch, n) for n in range(2)] == [again.id] * 2


def test_to_a_position_in_the_middle(rewinder):
    old = rewinder.publish("a", "a", "a", "a")
    rewinder.drain()
    again = rewinder.rewind(to=old[2])

    assert rewinder.drain() == flagged(again, *old[2:])


def test_what_was_never_settled_comes_unflagged(rewinder):
    done = rewinder.publish("a", "b")
    rewinder.drain()
    inhands = rewinder.publish("a", "c")
    batch = rewinder.claim()
    unread = rewinder.publish("d")
    again = rewinder.rewind()

    assert rewinder.wrong() == []
    came = rewinder.drain()
    assert came == [*flagged(again, *done), *plain(*inhands, *unread)]
    with pytest.raises(Fenced):
        rewinder.settle(batch)
    rewinder.end()
    assert rewinder.status(again.id) == "done"
    assert rewinder.log.value("select count(*) from kirby.rewind_fresh") == 0
    assert rewinder.wrong() == []


def test_what_is_in_hands_is_fenced_off_and_has_no_effect(rewinder):
    rewinder.publish("a")
    batch = rewinder.claim()
    rewinder.rewind()

    with pytest.raises(Fenced):
        subscriptions.settle(rewinder.conn, batch, messages='{"out": [{"v": 1}]}')
    assert rewinder.log.there("out") == []
    with pytest.raises(Fenced):
        subscriptions.renew(rewinder.conn, batch)


def test_a_failure_of_a_replay_stays_flagged_and_one_of_a_first_delivery_does_not(rewinder):
    first, second = rewinder.publish("a", "b")
    batch = rewinder.claim()
    rewinder.settle(batch, Failure(second, "retry", "no", 1))
    again = rewinder.rewind()

    batch = rewinder.claim()
    assert batch.positions == [first, second]
    failures = [Failure(first, "retry", "no", 1), Failure(second, "retry", "no", 1)]
    rewinder.settle(batch, *failures)
    assert rewinder.end() == 0
    assert rewinder.wrong() == []
    rewinder.later("1 minute")
    assert sorted(rewinder.drain()) == [*flagged(again, first), *plain(second)]
    assert rewinder.end() == 1


def test_what_waits_for_a_failed_replay_is_a_replay_too(rewinder):
    first, second, third = rewinder.publish("a", "a", "a")
    rewinder.drain()
    again = rewinder.rewind()
    batch = rewinder.claim(1)
    rewinder.settle(batch, Failure(first, "retry", "no", 1))
    live = rewinder.publish("a")
    assert rewinder.drain() == []
    assert rewinder.wrong() == []

    rewinder.later("1 minute")
    assert rewinder.drain() == [*flagged(again, first, second, third), *plain(*live)]
    rewinder.end()
    assert rewinder.status(again.id) == "done"


def test_a_parked_message_comes_unflagged_and_a_parked_replay_keeps_nothing_open(rewinder):
    rewinder.subscribe(on_failure="park")
    first, second = rewinder.publish("a", "b")
    rewinder.settle(rewinder.claim(), Failure(second, "park", "no"))
    again = rewinder.rewind()
    assert rewinder.due() == []

    batch = rewinder.claim()
    assert [flag(batch, n) for n in range(2)] == [again.id, None]
    rewinder.settle(batch, Failure(first, "park", "no"))
    assert rewinder.end() == 1
    found = rewinder.get(again.id)
    assert (found.status, found.total, found.done, found.failed) == ("done", 1, 0, 1)
    rewinder.log.value("select kirby.unpark(%s, null, 'test')", rewinder.id)
    assert rewinder.drain() == flagged(again, first)


def test_a_parked_message_that_somebody_edited_stays_parked(rewinder):
    rewinder.subscribe(on_failure="park")
    first, second = rewinder.publish("a", "a")
    rewinder.settle(rewinder.claim(), Failure(first, "park", "no"))
    rewinder.log.value("select kirby.edit_parked(%s, %s, '\"better\"', 'test')", rewinder.id, first)
    again = rewinder.rewind()

    assert rewinder.drain() == flagged(again, second)
    assert rewinder.due() == [(first, "failed", True)]
    rewinder.log.value("select kirby.unpark(%s, null, 'test')", rewinder.id)
    batch = rewinder.claim()
    assert batch.payloads == ["better"]
    rewinder.settle(batch)
    assert rewinder.came[-1] == (first, None)
    assert rewinder.wrong() == []


def test_a_delayed_message_comes_when_it_is_due_and_once(rewinder):
    [first] = rewinder.publish("a")
    later = rewinder.log.value(
        "select kirby.publish('orders', '0', key => 'b', deliver_at => kirby.now() + '5 seconds')"
    )
    [last] = rewinder.publish("c")
    rewinder.drain()
    again = rewinder.rewind()

    held = rewinder.claim(1)  # so the lane has not come to it yet
    rewinder.later("6 seconds")
    batch = rewinder.claim()
    assert (held.positions, batch.positions, flag(batch, 0)) == ([first], [later], None)
    rewinder.settle(batch)
    assert rewinder.wrong() == []
    rewinder.settle(held)
    assert rewinder.drain() == flagged(again, last)
    assert rewinder.due() == []
    assert rewinder.wrong() == []


def test_dense_says_whether_something_was_left_out(rewinder):
    positions = rewinder.publish("a", "b", "c")
    ask = "select positions, dense from kirby.claim(%s, 100)"
    batch = rewinder.claim(1)
    rewinder.settle(batch, Failure(positions[0], "retry", "no", 600))
    [(found, dense)] = rewinder.log.ask(ask, rewinder.id)
    assert (found, dense) == (positions[1:], True)
    rewinder.rewind()
    rewinder.log.ask(
        "insert into kirby.due (subscription_id, position, lane, key, due_at, reason)"
        " values (%s, %s, 0, 'b', 'infinity', 'done')", rewinder.id, positions[1],
    )  # fmt: skip
    [(found, dense)] = rewinder.log.ask(ask, rewinder.id)
    assert (found, dense) == ([positions[0], positions[2]], False)


@pytest.mark.parametrize("mode", ["ordered", "shared"])
@pytest.mark.parametrize("count", [1, 8])
def test_many_lanes_and_workers_that_die(rewinder, mode, count):
    chance = random.Random(f"{mode} {count}")
    lanes(rewinder, count)
    rewinder.subscribe(mode=mode, max_attempts=1000)
    old = rewinder.publish(*(f"k{chance.randrange(20)}" for _ in range(200)))
    settled = dict.fromkeys(position for position, _ in rewinder.drain(7))
    open_ = rewinder.publish(*(f"k{chance.randrange(20)}" for _ in range(30)))
    held = [rewinder.claim(5) for _ in range(3)]
    again = rewinder.rewind()
    live = rewinder.publish(*(f"k{chance.randrange(20)}" for _ in range(50)))
    assert rewinder.wrong() == []

    came = []
    while (batch := rewinder.claim(7)) or rewinder.log.ask("select 1 from kirby.claim"):
        if batch is None:
            rewinder.die()
        elif chance.random() < 0.3:
            continue  # killed: it comes again when its lease ends
        else:
            rewinder.came = []
            rewinder.settle(batch)
            came += rewinder.came
        assert rewinder.wrong() == []
    assert held
    assert sorted(came) == sorted(
        (p, again.id if p in settled else None) for p in [*old, *open_, *live]
    )
    if mode == "ordered":
        keys = dict(rewinder.log.ask("select position, key from kirby.message"))
        for key in set(keys.values()):
            mine = [position for position, _ in came if keys[position] == key]
            assert mine == sorted(mine)
    rewinder.end()
    assert rewinder.status(again.id) == "done"


def test_two_rewinds_over_each_other(rewinder):
    old = rewinder.publish(*"abcdef")
    rewinder.drain()
    fresh = rewinder.publish("g", "h")
    held = rewinder.claim()
    first = rewinder.rewind(to=old[2])
    rewinder.settle(rewinder.claim(2))
    in_hands = rewinder.claim(1)
    second = rewinder.rewind(to=old[1])

    assert in_hands.positions == [old[4]]
    assert held.positions == fresh
    assert rewinder.wrong() == []
    assert rewinder.drain() == [*flagged(second, *old[1:]), *plain(*fresh)]
    assert rewinder.end() == 2
    assert {rewinder.status(first.id), rewinder.status(second.id)} == {"done"}
    assert rewinder.wrong() == []


def test_what_a_first_rewind_settled_for_the_first_time_is_a_replay_of_the_second(rewinder):
    old = rewinder.publish("a", "b", "c")
    batch = rewinder.claim(2)
    rewinder.rewind()
    assert rewinder.drain() == plain(*old)
    again = rewinder.rewind()
    assert batch.positions == old[:2]

    assert rewinder.drain() == flagged(again, *old)


def test_paused_and_resumed(rewinder):
    old = rewinder.publish("a", "b", "c")
    rewinder.drain()
    again = rewinder.rewind()
    batch = rewinder.claim(1)
    rewinder.act("pause", again.id)
    assert rewinder.claim() is None
    rewinder.settle(batch, Failure(old[0], "retry", "no", 0))
    assert rewinder.claim() is None
    assert rewinder.end() == 0
    with pytest.raises(Conflict, match="is paused"):
        rewinder.act("pause", again.id)

    rewinder.act("resume", again.id)
    rewinder.later("1 minute")
    assert sorted(rewinder.drain()) == flagged(again, *old)


def test_aborted_it_goes_on_where_it_was_and_loses_nothing(rewinder):
    old = rewinder.publish("a", "b", "c", "d")
    rewinder.settle(rewinder.claim(3))
    held = rewinder.claim()
    again = rewinder.rewind()
    live = rewinder.publish("d", "e")
    batch = rewinder.claim(1)
    found = rewinder.act("abort", again.id)

    assert (found.status, found.total, found.done) == ("aborted", 3, 0)
    assert rewinder.wrong() == []
    rewinder.settle(batch)
    rest = rewinder.drain()
    assert sorted(rest) == plain(old[3], *live)
    assert held.positions == old[3:]
    assert rewinder.wrong() == []
    with pytest.raises(Conflict, match="aborted already"):
        rewinder.act("abort", again.id)


def test_aborted_with_a_failed_replay(rewinder):
    first, second, third = rewinder.publish("a", "a", "b")
    rewinder.drain()
    again = rewinder.rewind()
    rewinder.settle(rewinder.claim(1), Failure(first, "retry", "no", 600))
    live = rewinder.publish("a")
    assert rewinder.drain() == flagged(again, third)
    rewinder.act("abort", again.id)

    assert second
    assert rewinder.drain() == plain(*live)
    assert rewinder.due() == []
    assert rewinder.wrong() == []


def test_a_delayed_message_is_taken_back_while_its_lane_is_behind_it(rewinder):
    [first] = rewinder.publish("a")
    ask = """
        select kirby.publish('orders', '0', key => 'b', id => 'x',
                             deliver_at => kirby.now() + '5 seconds')
    """
    rewinder.log.value(ask)
    rewinder.drain()
    again = rewinder.rewind()
    assert rewinder.log.value("select kirby.retract('orders', 'x')")
    rewinder.later("6 seconds")

    assert rewinder.drain() == flagged(again, first)
    assert rewinder.due() == []


def test_until_it_comes_again_and_then_the_lane_goes_on_where_it_was(rewinder):
    old = rewinder.publish(*"abcdefgh")
    rewinder.drain()
    again = rewinder.rewind(to=old[1], until=old[3])
    live = rewinder.publish("a")

    assert rewinder.log.lag(rewinder.id) == 4
    assert rewinder.drain(2) == [*flagged(again, *old[1:4]), *plain(*live)]
    assert rewinder.end() == 1
    assert rewinder.wrong() == []


def test_until_within_what_is_in_hands_keeps_the_order_of_a_key(rewinder):
    old = rewinder.publish(*"aaaaaa")
    rewinder.settle(rewinder.claim(2))
    held = rewinder.claim()
    again = rewinder.rewind(until=old[3])

    assert held.positions == old[2:]
    assert rewinder.wrong() == []
    assert rewinder.drain() == [*flagged(again, *old[:2]), *plain(*old[2:])]


def test_only_one_subscription(rewinder):
    other, _ = subscriptions.subscribe(rewinder.conn, "orders", "other")
    old = rewinder.publish("a", "b")
    rewinder.drain()
    subscriptions.settle(rewinder.conn, subscriptions.claim(rewinder.conn, other, 100))
    again = rewinder.rewind(only=["job"])

    assert subscriptions.claim(rewinder.conn, other, 100) is None
    assert rewinder.drain() == flagged(again, *old)
    with pytest.raises(NotFound, match="orders has no subscription nobody"):
        rewinder.rewind(only=["nobody"])


def test_all_subscriptions_in_one_transaction(rewinder):
    other, _ = subscriptions.subscribe(rewinder.conn, "orders", "other")
    old = rewinder.publish("a", "b")
    rewinder.drain()
    again = rewinder.rewind()

    assert rewinder.drain() == flagged(again, *old)
    batch = subscriptions.claim(rewinder.conn, other, 100)
    assert batch.headers is None
    assert batch.positions == old


def test_live_messages_and_a_change_of_lanes_behind_which_it_goes_back(rewinder):
    rewinder.conn.execute(rewinder.log.value(
        "select replace(pg_get_functiondef('kirby.change_lanes'::regproc), '1000000', '3')"
    ))  # fmt: skip
    old = rewinder.publish(*(f"k{n % 6}" for n in range(20)))
    rewinder.log.value("select kirby.change_lanes(%s, 4, 'test')", rewinder.log.topic_id("orders"))
    rewinder.log.jump(rewinder.log.value("select last_value + 5 from kirby.position"))
    old += rewinder.publish(*(f"k{n % 6}" for n in range(20)))
    rewinder.drain(3)
    again = rewinder.rewind(to=old[5])
    live = rewinder.publish(*(f"k{n % 6}" for n in range(10)))

    came = rewinder.drain(3)
    assert sorted(came) == [*flagged(again, *old[5:]), *plain(*live)]
    keys = dict(rewinder.log.ask("select position, key from kirby.message"))
    for key in set(keys.values()):
        mine = [position for position, _ in came if keys[position] == key]
        assert mine == sorted(mine)
    assert rewinder.wrong() == []


def test_beyond_retention_it_is_refused_with_the_earliest_point(rewinder):
    rewinder.log.old("orders", 10, "10 days")
    rewinder.log.old("orders", 10, "1 hour")
    rewinder.drain()
    rewinder.log.keep("orders", "1 day")
    rewinder.log.retain()
    [(first, at)] = rewinder.log.ask(
        "select position, at from kirby.earliest(%s)", rewinder.log.topic_id("orders")
    )

    with pytest.raises(Invalid, match=f"position {first}, or a moment after 20"):
        rewinder.rewind(to=1)
    with pytest.raises(Invalid, match=f"position {first}"):
        rewinder.rewind(to=at)
    again = rewinder.rewind(to=first)
    assert len(rewinder.drain()) == 10
    assert again.status == "running"
    assert rewinder.wrong() == []


def test_its_rate_is_kept(rewinder):
    rewinder.publish(*["a"] * 100)
    rewinder.drain()
    rewinder.rewind(rate=20)
    live = rewinder.publish("b")

    assert len(rewinder.drain()) == 5
    due = rewinder.log.value("select kirby.next_due(array[%s]::integer[])", rewinder.id)
    assert 0 < due <= 0.3
    rewinder.later("1 second")
    assert len(rewinder.drain()) == 5
    for _ in range(30):
        rewinder.later("1 second")
        rewinder.drain()
    assert rewinder.came == plain() or rewinder.came == plain(*live)
    assert rewinder.log.lag(rewinder.id) == 0


def test_who_settles_at_that_moment_is_either_done_or_fenced(rewinder):
    old = rewinder.publish("a", "b")
    batch = rewinder.claim()
    with psycopg.connect(rewinder.dsn) as slow:
        subscriptions.settle(slow, batch)  # and does not commit yet
        with pytest.raises(Conflict, match="does not end"):
            rewinder.rewind()
        slow.commit()
    again = rewinder.rewind()
    assert rewinder.drain() == flagged(again, *old)


def test_lanes_of_a_canary_come_again_to_the_canary(rewinder):
    lanes(rewinder, 8)
    rewinder.subscribe()
    old = rewinder.publish(*(f"k{n}" for n in range(60)))
    rewinder.drain()
    rewinder.conn.execute("update kirby.subscription set canary_share = 0.25")
    again = rewinder.rewind()
    own = "select position from kirby.message where lane not in (0, 1) order by 1"
    mine = [position for (position,) in rewinder.log.ask(own)]

    assert sorted(rewinder.drain()) == flagged(again, *mine)
    assert rewinder.end() == 0
    rewinder.conn.execute("update kirby.subscription set canary_share = 0")
    rest = sorted(set(old) - set(mine))
    assert sorted(rewinder.drain()) == flagged(again, *rest)
    assert rewinder.end() == 1


def test_the_server_may_and_a_worker_may_not(rewinder, as_role):
    rewinder.publish("a")
    rewinder.drain()
    with (
        psycopg.connect(as_role(rewinder.dsn, "kirby_worker")) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("select kirby.begin_rewind(1, 'me')")
    rewinder.dsn = as_role(rewinder.dsn, "kirby_server")
    again = rewinder.rewind()
    rewinder.act("pause", again.id)
    rewinder.act("resume", again.id)
    with psycopg.connect(rewinder.dsn, autocommit=True) as conn:
        conn.execute("select kirby.end_rewinds()")
    assert rewinder.act("abort", again.id).status == "aborted"


def test_it_says_who_did_it_and_why(rewinder):
    rewinder.publish("a")
    rewinder.drain()
    again = rewinder.rewind(reason="a bug")
    rewinder.act("abort", again.id, reason="not now")

    assert rewinder.log.ask(
        "select verb, actor, object, reason from kirby.audit_event"
        " where object = %s order by position",
        f"rewind/{again.id}",
    ) == [
        ("rewind_planned", "test", f"rewind/{again.id}", "a bug"),
        ("rewind_begun", "test", f"rewind/{again.id}", "a bug"),
        ("rewind_aborted", "test", f"rewind/{again.id}", "not now"),
    ]

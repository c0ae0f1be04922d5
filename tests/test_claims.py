"""Claims: nobody else has these messages, and what is settled is settled once."""

import psycopg
import pytest
from fix_runs import Runs
from fix_sdk import FOREIGN, TOKEN, house_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core import db, protocol, subscriptions
from kirby.core.errors import Conflict, Denied, Fenced, Invalid, NotFound, Taken
from kirby.sdk import session

orders = kirby.Topic("orders")


@pytest.fixture
def claimed(sdk):
    """Two connections of workers, and what the first one claimed."""
    orders.publish_many(range(5), key="a")
    workers = [worker(sdk), worker(sdk)]
    subscription_id, _ = subscriptions.subscribe(workers[0], "orders", "job")
    yield *workers, subscription_id, subscriptions.claim(workers[0], subscription_id, 100)
    for each in workers:
        each.close()


def worker(house, token="only-for-tests"):
    conn = db.connect(house.environ["KIRBY_DSN"])
    protocol.greet(conn, token=token, environment=None)
    return conn


def expire(house):
    house.conn.execute("update kirby.claim set lease_until = now() - interval '1 second'")


RESULT = {
    "messages": '{"invoices": [{"v": 1}]}',
    "mutations": '{"sums": [{"k": "a", "o": "set", "v": 1}]}',
}


def test_while_a_claim_is_held_nobody_else_gets_its_messages(claimed):
    first, second, subscription_id, batch = claimed

    assert batch.payloads == list(range(5))
    assert subscriptions.claim(second, subscription_id, 100) is None
    assert subscriptions.claim(first, subscription_id, 100) is None


def test_after_the_lease_another_takes_over_and_the_first_is_fenced(sdk, claimed):
    first, second, subscription_id, batch = claimed
    expire(sdk)

    again = subscriptions.claim(second, subscription_id, 100)

    assert (again.positions, again.attempt) == (batch.positions[:1], 2)
    assert again.fence > batch.fence
    with pytest.raises(Fenced, match="the claim was lost to another worker: its lease ended"):
        subscriptions.settle(first, batch, **RESULT)
    with pytest.raises(Fenced):
        subscriptions.settle(first, batch, upto=batch.positions[0], **RESULT)
    with pytest.raises(Fenced):
        subscriptions.renew(first, batch)
    subscriptions.release(first, batch)
    assert sdk.values("invoices") == []
    assert sdk.ask("select * from kirby.state_mutation") == []

    subscriptions.settle(second, again, **RESULT)
    assert sdk.values("invoices") == [1]


def test_a_claim_whose_lease_ended_is_good_as_long_as_nobody_took_it(sdk, claimed):
    first, _, _, batch = claimed
    expire(sdk)

    subscriptions.settle(first, batch, **RESULT)

    assert sdk.values("invoices") == [1]


def test_a_renewed_claim_is_kept(sdk, claimed):
    first, second, subscription_id, batch = claimed
    expire(sdk)
    subscriptions.renew(first, batch)

    assert subscriptions.claim(second, subscription_id, 100) is None


def test_a_released_claim_is_free_at_once(claimed):
    first, second, subscription_id, batch = claimed
    subscriptions.release(first, batch)

    again = subscriptions.claim(second, subscription_id, 100)

    assert again.positions == batch.positions
    assert again.attempt == 1, "nobody failed"
    with pytest.raises(Fenced):
        subscriptions.settle(first, batch)


def test_a_settled_part_is_not_delivered_again(sdk, claimed):
    first, second, subscription_id, batch = claimed
    subscriptions.settle(first, batch, upto=batch.positions[1], **RESULT)
    subscriptions.release(first, batch)

    assert subscriptions.claim(second, subscription_id, 100).payloads == [2, 3, 4]


def test_a_part_that_is_settled_twice_counts_once(sdk, claimed):
    """The answer was lost with the connection, so the worker asks again."""
    first, _, _, batch = claimed
    subscriptions.settle(first, batch, upto=batch.positions[1], **RESULT)

    again = subscriptions.settle(first, batch, upto=batch.positions[1], **RESULT)

    assert again == subscriptions.Settled([], None)
    assert sdk.values("invoices") == [1]
    subscriptions.settle(first, batch, upto=batch.positions[2], **RESULT)
    assert sdk.values("invoices") == [1, 1]


def test_a_whole_claim_that_is_settled_twice_counts_once(sdk, claimed):
    first, _, _, batch = claimed
    subscriptions.settle(first, batch, **RESULT)

    with pytest.raises(Fenced):
        subscriptions.settle(first, batch, **RESULT)
    assert sdk.values("invoices") == [1]


def test_a_settle_that_conflicts_keeps_the_claim(sdk, claimed):
    first, _, _, batch = claimed
    stale = '{"sums": [{"k": "a", "o": "set", "v": 1, "e": 5}]}'

    with pytest.raises(Conflict, match="key a of state sums was changed by somebody else since"):
        subscriptions.settle(first, batch, messages=RESULT["messages"], mutations=stale)

    assert sdk.values("invoices") == []
    subscriptions.settle(first, batch, **RESULT)
    assert sdk.values("invoices") == [1]


def test_settling_can_claim_the_next_batch(sdk, claimed):
    first, _, _, batch = claimed
    orders.publish_many([5, 6], key="a")

    settled = subscriptions.settle(first, batch, next=1, **RESULT)

    assert settled.topics == [sdk.topic_id("invoices")]
    assert settled.next.payloads == [5]
    assert subscriptions.settle(first, settled.next, next=100).next.payloads == [6]


def test_the_end_of_a_run_frees_its_claims(sdk, claimed):
    first, second, subscription_id, batch = claimed
    runs = Runs(sdk.conn)
    run_id = runs.start("")
    sdk.conn.execute("update kirby.claim set run_id = %s", [run_id])
    sdk.conn.execute("select kirby.record_run(%s, 'run_cancelled')", [run_id])

    assert subscriptions.claim(second, subscription_id, 100).positions == batch.positions
    with pytest.raises(Fenced):
        subscriptions.settle(first, batch, **RESULT)


def test_a_token_of_a_run_that_ended_opens_nothing(sdk):
    runs = Runs(sdk.conn)
    run_id = runs.start("")
    sdk.give_token("of-the-run", "dev", run_id)
    with worker(sdk, "of-the-run") as conn:
        subscription_id, _ = subscriptions.subscribe(conn, "orders", "job")
        sdk.conn.execute("select kirby.record_run(%s, 'run_cancelled')", [run_id])

        with pytest.raises(Denied, match="it was revoked, has expired, its run has ended"):
            subscriptions.claim(conn, subscription_id, 1)


def test_a_subscription_of_another_environment_is_not_found(sdk, claimed):
    _, _, subscription_id, batch = claimed
    sdk.give_token(FOREIGN, "preprod")
    with worker(sdk, FOREIGN) as foreign:
        with pytest.raises(NotFound, match=f"no subscription {subscription_id} in this enviro"):
            subscriptions.claim(foreign, subscription_id, 1)
        with pytest.raises(NotFound):
            subscriptions.settle(foreign, batch, **RESULT)
        with pytest.raises(Fenced):
            subscriptions.renew(foreign, batch)
        subscriptions.release(foreign, batch)

    assert sdk.value("select lease_until > now() from kirby.claim")


def test_what_is_not_committed_is_not_claimed_and_not_passed_over(sdk, claimed):
    first, _, subscription_id, batch = claimed
    sdk.publish("orders", 5, key="a")
    with psycopg.connect(sdk.dsn) as slow:
        slow.execute("select kirby.publish('orders', '6', key => 'a')")
        sdk.publish("orders", 7, key="a")
        settled = subscriptions.settle(first, batch, next=100)
        assert settled.next.payloads == [5]
        assert subscriptions.settle(first, settled.next, next=100).next is None
        slow.commit()

    assert subscriptions.claim(first, subscription_id, 100).payloads == [6, 7]


def test_lanes_are_claimed_one_by_one_by_several_workers(sdk, claimed):
    first, second, subscription_id, batch = claimed
    orders.publish_many(kirby.Out(number, key=str(number)) for number in range(100))

    held = [batch]
    for conn in [first, second] * 10:
        if (more := subscriptions.claim(conn, subscription_id, 100)) is not None:
            held.append(more)

    assert len(held) == 8
    positions = [position for each in held for position in each.positions]
    assert len(positions) == len(set(positions))


def test_a_subscription_keeps_its_mode(sdk):
    conn = session.get().connection
    subscriptions.subscribe(conn, "orders", "job", "shared")

    with pytest.raises(Taken, match="subscription job of topic orders is shared, not ordered"):
        subscriptions.subscribe(conn, "orders", "job")
    with pytest.raises(Invalid, match="'random' is not a mode of a subscription"):
        subscriptions.subscribe(conn, "orders", "job", "random")

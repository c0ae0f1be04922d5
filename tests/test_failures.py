"""Handlers that raise, or that take their process with them: what the worker makes of it."""

import pytest
from fix_sdk import (  # noqa: F401
    house_fixture,
    scripts_fixture,
    sdk_fixture,
    stop_after,
)

import kirby
from kirby.core.errors import Invalid
from kirby.sdk import loop

orders, invoices = kirby.Topic("orders"), kirby.Topic("invoices")

# Retries at once: their pause is a matter of SQL (tests/test_retries.py).
NO_PAUSE = """
    create or replace function kirby.retry_pause(p_attempt integer) returns interval
      language sql as $$ select interval '0' $$
"""


@pytest.fixture(autouse=True)
def no_pause(house):
    house.conn.execute(NO_PAUSE)


def parked(house):
    return house.ask(
        "select m.payload, d.attempt, d.reason from kirby.due d"
        " join kirby.message m on m.position = d.position"
        " where d.parked_at is not null order by d.position"
    )


def run_until(monkeypatch, done):
    """Serve the streams until `done()`, looked at whenever there is nothing to do."""

    def idle(mine, stop, *_):
        stop.asked = done()

    monkeypatch.setattr(loop, "idle", idle)
    kirby.run()


def finished(house):
    """Nothing is due, nothing is claimed, everything was handed out."""
    return lambda: house.value(
        """
        select not exists (select from kirby.claim)
           and not exists (select from kirby.due where parked_at is null and reason <> 'waiting')
           and not exists (select from kirby.message m
                             join kirby.subscription s on s.topic_id = m.topic_id
                             join kirby.cursor c on c.subscription_id = s.id and c.lane = m.lane
                            where m.position > c.position)
        """
    )


def test_a_message_that_fails_is_tried_again_with_nothing_left_of_the_first_try(
    sdk, monkeypatch, capfd
):
    orders.publish_many(range(20), key="a")
    sums, tries = kirby.state("sums"), []

    @kirby.stream("orders", to="invoices")
    def handle(value):
        sums["all"] = sums.get("all", 0) + value
        if value == 7:
            tries.append(value)
            if len(tries) < 3:
                kirby.topic("copies").publish(value)
                raise ZeroDivisionError("seven")
        return value

    run_until(monkeypatch, finished(sdk))

    assert [message.value for message in invoices.read()] == list(range(20))
    assert sums["all"] == sum(range(20))
    assert len(tries) == 3
    assert sdk.values("copies") == []
    assert parked(sdk) == []
    errors = capfd.readouterr().err
    assert "ZeroDivisionError: seven" in errors
    assert "kirby/sdk" not in errors, "the traceback begins in the handler"


@pytest.mark.parametrize("policy", ["block", "park"])
def test_one_that_always_fails_is_parked_and_other_keys_never_wait(sdk, monkeypatch, policy):
    for number in range(300):
        orders.publish(number, key=f"k{number % 3}")
    done = []

    @kirby.stream("orders", on_failure=policy)
    def handle(value):
        if value == 10:  # of k1
            raise ValueError("always")
        done.append(value)

    run_until(monkeypatch, finished(sdk))

    for key in range(3):
        mine = [number for number in range(300) if number % 3 == key]
        if key == 1:
            held = policy == "block"
            mine = [number for number in mine if number < 10 or (number > 10 and not held)]
        assert [number for number in done if number % 3 == key] == mine
    assert parked(sdk) == [(10, 3, "failed")]


def test_what_waited_goes_on_in_order_when_the_parked_one_is_done(sdk, monkeypatch):
    orders.publish_many(range(10), key="a")
    broken, done = [True], []

    @kirby.stream("orders")
    def handle(value):
        if value == 3 and broken[0]:
            raise ValueError("broken")
        done.append(value)

    run_until(monkeypatch, finished(sdk))
    assert done == [0, 1, 2]

    broken[0] = False
    assert sdk.value("select kirby.unpark(id, null, 'test') from kirby.subscription") == 1
    run_until(monkeypatch, finished(sdk))

    assert done == list(range(10))
    assert sdk.ask("select * from kirby.due") == []


def test_errors_may_be_parked_at_once_or_ignored(sdk, monkeypatch):
    orders.publish_many(range(6), key="a")
    tries = []

    @kirby.stream("orders", on_failure="park", park=(KeyError,), ignore=(ValueError,))
    def handle(value):
        tries.append(value)
        if value == 1:
            raise ValueError("not for us")
        if value == 3:
            raise KeyError("hopeless")

    run_until(monkeypatch, finished(sdk))

    assert tries == list(range(6))
    assert parked(sdk) == [(3, 1, "failed")]


def test_a_list_that_fails_is_tried_message_by_message(sdk, monkeypatch):
    orders.publish_many(range(20), key="a")
    done = []

    @kirby.stream("orders", batch=20, on_failure="park")
    def handle(values):
        if 7 in values:
            raise ValueError("seven")
        done.extend(values)

    run_until(monkeypatch, finished(sdk))

    assert done == [number for number in range(20) if number != 7]
    assert [value for value, _, _ in parked(sdk)] == [7]


def test_an_error_that_postgresql_cannot_store_is_filed_all_the_same(sdk, monkeypatch):
    orders.publish_many([1, 2], key="a")

    @kirby.stream("orders", on_failure="park", max_attempts=1)
    def handle(value):
        if value == 1:
            raise ValueError("NUL \0 and half a character \ud800")

    run_until(monkeypatch, finished(sdk))

    assert parked(sdk) == [(1, 1, "failed")]
    assert "NUL \u2400 and half a character ?" in sdk.value("select error from kirby.due")


def test_without_order_a_failure_holds_nobody(sdk, monkeypatch):
    orders.publish_many(range(50), key="a")
    done = []

    @kirby.stream("orders", ordered=False)
    def handle(value):
        if value == 7:
            raise ValueError("seven")
        done.append(value)

    run_until(monkeypatch, finished(sdk))

    assert sorted(done) == [number for number in range(50) if number != 7]
    assert [value for value, _, _ in parked(sdk)] == [7]


def test_a_database_that_goes_away_in_a_handler_is_not_the_messages_fault(sdk, monkeypatch):
    orders.publish_many(range(5), key="a")
    sums, cuts = kirby.state("sums"), []

    @kirby.stream("orders", max_attempts=1)
    def handle(value):
        if value == 3 and not cuts:
            cuts.append(sdk.terminate())
        sums[str(value)] = sums.get(str(value), 0) + 1

    run_until(monkeypatch, finished(sdk))

    assert cuts == [1]
    assert dict(sums.items()) == {str(number): 1 for number in range(5)}
    assert sdk.ask("select * from kirby.due") == []


@pytest.mark.parametrize("ordered", [True, False])
def test_a_message_that_segfaults_is_parked_and_the_9999_around_it_are_done(
    house, scripts, until, ordered
):
    count, killer = 10_000, 6_543
    house.conn.execute(
        "select kirby.write(jsonb_build_object('orders', jsonb_agg("
        "         jsonb_build_object('v', n, 'k', 'k' || n %% 100) order by n)))"
        "  from generate_series(0, %s) n",
        [count - 1],
    )
    deaths = 0

    def done():
        return len(house.values("invoices")) == count - 1

    while True:
        script = scripts(
            f"""
            import faulthandler
            @kirby.stream("orders", to="invoices", on_failure="park", ordered={ordered})
            def handle(value):
                if value == {killer}:
                    faulthandler._sigsegv()
                return value

            kirby.run()
            """,
            LEASE="0.5",
        )
        ended = script.process.poll
        until(lambda ended=ended: ended() is not None or done(), timeout=60)
        if done():
            break
        script.end()
        deaths += 1

    assert deaths == 3
    assert sorted(house.values("invoices")) == [n for n in range(count) if n != killer]
    assert [(value, reason) for value, _, reason in parked(house)] == [(killer, "killed")]


@pytest.mark.parametrize("bad", [{"on_failure": "explode"}, {"max_attempts": 0}])
def test_policies_that_do_not_exist_are_refused(bad):
    with pytest.raises(Invalid):
        kirby.stream("orders", **bad)

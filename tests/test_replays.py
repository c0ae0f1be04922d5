"""What becomes of what a rewind delivers again: process, ignore, divert, dry_run."""

import pytest
from fix_sdk import house_fixture, sdk_fixture, stop_after  # noqa: F401

import kirby
from kirby.core.errors import Invalid

orders = kirby.Topic("orders")
REPLAY = {"replay": 7}


def given(*replays):
    """One key, so one after the other: a replay where it says so."""
    orders.publish_many(
        [kirby.Out(n, headers=REPLAY if again else None) for n, again in enumerate(replays)],
        key="a",
    )


def policy(house, topic="orders"):
    return house.value(
        "select s.on_replay from kirby.subscription s join kirby.topic t on t.id = s.topic_id"
        " where t.name = %s",
        topic,
    )


def handle(house, **options):
    """Serve what was given by a handler that publishes, counts, and sends a task."""
    state, called = kirby.state("counts"), []

    @kirby.task(name="other")
    def other(value):
        pass

    @kirby.stream("orders", to="invoices", **options)
    def handler(message: kirby.Message):
        called.append(message.value)
        kirby.topic("beside").publish(message.value)
        state["n"] = state.get("n", 0) + 1
        if message.value == 3:
            raise ValueError
        return message.value

    end = stop_when_done(house)
    kirby.run()
    end.join()
    return called


def stop_when_done(house):
    import os
    import signal
    import threading
    import time

    def look():
        import psycopg

        with psycopg.connect(house.dsn, autocommit=True) as conn:
            query = (
                "select not exists (select from kirby.message m"
                "  join kirby.topic t on t.id = m.topic_id and t.name = 'orders'"
                "  left join kirby.subscription s on s.topic_id = t.id"
                "  left join kirby.cursor c on c.subscription_id = s.id and c.lane = m.lane"
                "  where m.position > coalesce(c.position, 0))"
                " and not exists (select from kirby.claim)"
            )
            until = time.monotonic() + 20
            while not conn.execute(query).fetchone()[0] and time.monotonic() < until:
                time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def test_by_default_a_replay_is_handled_as_any_other(sdk):
    given(False, True)

    assert handle(sdk) == [0, 1]

    assert sdk.values("invoices") == [0, 1]
    assert sdk.values("beside") == [0, 1]
    assert policy(sdk) == "process"


def test_ignored_replays_are_done_without_a_call(sdk):
    given(False, True, False)

    assert handle(sdk, on_replay="ignore") == [0, 2]

    assert sdk.values("invoices") == [0, 2]
    assert sdk.backlog() == 0
    assert policy(sdk) == "ignore"


def test_replays_are_diverted_beside_and_leave_states_alone(sdk):
    given(False, True, False)

    assert handle(sdk, on_replay="divert") == [0, 1, 2]

    assert sdk.values("invoices") == [0, 2]
    assert sdk.values("beside") == [0, 2]
    assert sdk.values("invoices.replay") == [1]
    assert sdk.values("beside.replay") == [1]
    assert sdk.value("select value from kirby.state_mutation order by version desc limit 1") == 2
    assert sdk.value(
        "select m.headers -> 'replay' from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'invoices.replay'"
    ) == 7  # fmt: skip
    assert policy(sdk) == "divert"


def test_a_dry_run_calls_the_handler_and_writes_nothing(sdk):
    given(False, True, False)

    assert handle(sdk, on_replay="dry_run") == [0, 1, 2]

    assert sdk.values("invoices") == sdk.values("beside") == [0, 2]
    assert sdk.value("select max(value::int) from kirby.state_mutation") == 2
    assert sdk.value("select count(*) from kirby.topic where name like '%%replay'") == 0


@pytest.mark.parametrize("on_replay", ["divert", "dry_run"])
def test_a_replay_that_fails_is_tried_again_and_leaves_nothing(sdk, on_replay):
    given(False, False, False, True)

    assert handle(sdk, on_replay=on_replay, max_attempts=1) == [0, 1, 2, 3]

    assert sdk.ask("select reason, parked_at is not null from kirby.due") == [("failed", True)]
    assert sdk.values("beside") == [0, 1, 2]
    assert sdk.value("select count(*) from kirby.topic where name like '%%replay'") == 0


def test_lists_of_replays_are_diverted(sdk):
    given(False, True, True, False)
    seen = stop_after(3)

    @kirby.stream("orders", to="invoices", batch=10, on_replay="divert")
    def handler(values):
        seen()
        return values

    kirby.run()

    assert sdk.values("invoices") == [[0], [3]]
    assert sdk.values("invoices.replay") == [[1, 2]]


def test_tasks_have_the_same_policies(sdk):
    called = []

    @kirby.task(name="double", on_replay="ignore")
    def double(number):
        called.append(number)
        seen()

    double.apply_async([1], headers=REPLAY, key="a")
    double.apply_async([2], key="a")
    seen = stop_after(1)
    kirby.run()

    assert called == [2]
    assert policy(sdk, "task.double") == "ignore"
    assert len(sdk.values("task.double.results")) == 1


def test_the_policy_is_that_of_the_newest_code(sdk):
    given(False)
    handle(sdk, on_replay="ignore")
    kirby.sdk.streams.REGISTERED.clear()
    given(False)
    handle(sdk)

    assert policy(sdk) == "process"


@pytest.mark.parametrize("declare", [lambda **o: kirby.stream("orders", **o), kirby.task])
def test_other_policies_are_refused(sdk, declare):
    with pytest.raises(Invalid, match="on_replay is 'later': process, ignore, divert or dry_run"):
        declare(on_replay="later")


def test_what_the_code_says_of_itself_is_noted(sdk, monkeypatch):
    monkeypatch.setenv("KIRBY_RELEASE", "job 2")
    given(False)
    state = kirby.state("counts")

    @kirby.stream("orders", to="invoices", on_replay="ignore")
    def handler(value):
        """Counts orders.

        In words.
        """
        state["n"] = value
        seen()

    seen = stop_after(1)
    kirby.run()

    assert sdk.ask("select job, release, document from kirby.declaration") == [
        (
            "job",
            "job 2",
            {
                "job": "job",
                "release": "job 2",
                "to": ["invoices"],
                "states": ["counts"],
                "on_replay": "ignore",
                "doc": "Counts orders.\n\nIn words.",
            },
        )
    ]

"""Partitions: dropped as a whole when all of them is past its policy, opened ahead, never many."""

import itertools

import psycopg
import pytest
from fix_log import actions, full_partition, log_fixture  # noqa: F401
from psycopg import errors

# Dropped


def test_a_partition_is_dropped_when_all_of_it_is_past_its_policy(log):
    full_partition(log, "30 days", "20 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == [("message", "drop"), ("message", "drop")]

    assert log.partitions()[0] == "message_2"
    assert len(log.there("orders")) == 10
    assert log.wrong() == []
    assert log.ask(
        "select object, before ->> 'partition', before -> 'rows' from kirby.audit_event"
        " where verb = 'partition_dropped' order by position"
    ) == [("log/message", "message_0", 10), ("log/message", "message_1", 10)]
    job = log.subscribe("orders")
    assert log.lag(job) == 10
    log.publish("orders", 1)
    log.count()
    assert log.counted("orders") == 31
    assert log.wrong() == []


def test_a_partition_with_a_longer_lived_topic_loses_only_what_is_expired(log):
    kept = log.old("letters", 5, "30 days")
    full_partition(log, "30 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == [("message", "delete")]

    assert "message_0" in log.partitions()
    assert log.there("letters") == kept
    assert len(log.there("orders")) == 10
    assert log.wrong() == []
    assert actions(log.plan()) == []

    log.keep("letters", "20 days")
    assert actions(log.retain()) == [("message", "drop")]
    assert log.wrong() == []


def test_what_will_soon_go_as_a_whole_is_not_deleted_row_by_row(log):
    log.old("letters", 5, "101 hours")
    full_partition(log, "101 hours", "1 hour")
    log.keep("orders", "100 hours")
    log.keep("letters", "105 hours")
    assert actions(log.plan()) == [], "a tenth of 100 hours is waited for"

    log.keep("letters", "300 hours")
    assert actions(log.plan()) == [("message", "delete")]


def test_a_partition_is_not_dropped_before_what_lies_before_it(log):
    """The rows of orders in the first partition have to go first."""
    log.old("letters", 5, "30 days")
    full_partition(log, "30 days", "30 days", "1 day")
    log.keep("orders", "10 days")

    assert actions(log.plan()) == [("message", "delete"), ("message", "delete")]
    with pytest.raises(psycopg.Error, match="message_1 holds messages that are kept"):
        log.value("select kirby.drop_partition('message', 'message_1')")
    log.retain()
    assert actions(log.plan()) == [("message", "drop")]
    log.retain()
    assert log.wrong() == []


def test_an_unread_message_keeps_its_partition(log):
    full_partition(log, "30 days", "1 day")
    log.subscribe("orders")
    log.keep("orders", "10 days")

    assert actions(log.retain()) == []
    with pytest.raises(psycopg.Error, match="message_0 holds messages that are kept"):
        log.value("select kirby.drop_partition('message', 'message_0')")


def test_an_open_writer_keeps_the_partition_it_may_write_to(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('others', '1')")
        log.jump(10_000_000)
        log.old("orders", 10, "1 hour")
        log.keep("orders", "10 days")
        log.later("30 days")
        log.count()
        assert ("message", "drop") not in actions(log.plan())
        assert not log.value("select kirby.drop_partition('message', 'message_0')")


@pytest.mark.parametrize("name", ["message_default", "message_77", "message", "topic"])
def test_only_partitions_can_be_dropped(log, name):
    with pytest.raises(psycopg.Error, match=f"log message has no partition {name}"):
        log.value("select kirby.drop_partition('message', %s)", name)


def test_nobody_queues_behind_a_drop(log):
    """A long query holds the log; the drop gives up at once, and publishers go on."""
    full_partition(log, "30 days", "1 day")
    log.keep("orders", "10 days")
    with psycopg.connect(log.dsn) as reader:
        reader.execute("select count(*) from kirby.message")
        with pytest.raises(errors.LockNotAvailable):
            log.value("select kirby.drop_partition('message', 'message_0')")
        log.ask("set lock_timeout = '1s'")
        log.publish("orders", 1)
    assert log.value("select kirby.drop_partition('message', 'message_0')")
    assert log.wrong() == []


# How much room there is


def test_partitions_get_wider_so_that_there_are_never_many(log):
    def partitions():
        return log.ask(
            "select first, last from kirby.partitions('message') where first is not null"
        )

    counts = {}
    for goal in (300, 1_000, 5_000):
        while partitions()[-1][1] < goal * 10**6:
            log.jump(partitions()[-1][1])
        counts[goal] = len(partitions())

    assert counts[300] <= 34
    assert counts[1_000] <= 50
    assert counts[5_000] <= 62
    for before, after in itertools.pairwise(partitions()):
        assert before[1] + 1 == after[0], "they leave no gap"


def test_rows_of_the_default_partition_get_their_own(log):
    log.publish("orders", *range(5))
    log.value("select setval('kirby.position', 95000000)")
    late = log.publish("orders", *range(5))
    log.value("select kirby.write(p_mutations => %s::jsonb)",
              '{"sums": [{"k": "a", "o": "set", "v": 1}]}')  # fmt: skip
    overflowed = log.value("select count(*) from kirby.message_default")

    log.value("select kirby.open_partitions()")

    assert overflowed == 5
    assert log.value("select count(*) from kirby.message_default") == 0
    assert log.value("select to_regclass('kirby.message_overflow')") is None
    assert log.value("select count(*) from kirby.message_9") == 5
    assert log.value("select count(*) from kirby.state_mutation_9") == 1
    assert log.there("orders")[-5:] == late
    with pytest.raises(psycopg.Error, match="message_9 is append-only"):
        log.ask("delete from kirby.message_9")
    with pytest.raises(psycopg.Error, match="message_default is append-only"):
        log.ask("delete from kirby.message_default")
    log.count()
    assert log.wrong() == []
    assert log.value("select kirby.open_partitions()") == 0

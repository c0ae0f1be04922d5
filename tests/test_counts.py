"""Counts of messages and lag: exact under racing writers, cheap, and right after retention."""

import random
import threading

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401

from kirby.core import subscriptions
from kirby.core.db import kirby_errors
from kirby.core.errors import WrongIsolation
from kirby.core.subscriptions import Failure
from kirby.server import database, environments, topics


def test_messages_are_counted_by_lane(log):
    for key in "abcdefgh":
        log.publish("orders", 1, 2, key=key)

    log.count()

    lanes = log.ask(
        "select lane, count(*), max(position) from kirby.message group by lane order by lane"
    )
    assert log.ask("select lane, messages, position from kirby.topic_count order by lane") == lanes
    assert log.value("select position = last_value from kirby.counted, kirby.position")


def test_what_was_counted_is_not_counted_again(log):
    log.publish("orders", *range(5))
    log.count()
    log.count()
    log.publish("orders", *range(3))
    log.count()

    assert log.counted("orders") == 8


def test_pieces_are_bounded(log):
    log.old("orders", 95, "1 hour")

    rounds = 1
    while log.value("select kirby.count_messages(10)"):
        rounds += 1

    assert rounds >= 9
    assert log.counted("orders") == 95


def test_an_open_writer_holds_up_its_own_topic_only(log):
    log.publish("orders", 1)
    log.publish("others", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('orders', '2')")
        log.publish("orders", 3)
        log.publish("others", 2)
        log.count()
        assert (log.counted("orders"), log.counted("others")) == (1, 2)
        assert log.value("select late from kirby.counted") == [log.topic_id("orders")]

        log.publish("orders", 4)
        log.publish("others", 3)
        log.count()
        assert (log.counted("orders"), log.counted("others")) == (1, 3)
    log.count()

    assert (log.counted("orders"), log.counted("others")) == (4, 3)
    assert log.value("select late from kirby.counted") == []
    assert log.wrong() == []


def test_a_late_topic_catches_up_in_pieces(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('orders', '2')")
        log.conn.execute(
            "insert into kirby.message (position, topic_id, lane, payload)"
            " select nextval('kirby.position'), 1, 0, '0' from generate_series(1, 100001)"
        )
        log.count()
        assert log.counted("orders") == 1
    assert log.value("select kirby.count_messages()")
    assert log.counted("orders") == 1 + 1 + 100_000
    assert log.wrong() == []
    log.count()

    assert log.counted("orders") == 2 + 100_001
    assert log.wrong() == []


@pytest.mark.parametrize("call", ["count_messages()", "position_at(now())"])
def test_the_horizon_needs_read_committed(log, call):
    with psycopg.connect(log.dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(WrongIsolation, match="READ COMMITTED only"), kirby_errors():
            conn.execute(f"select kirby.{call}")


def write(dsn, seed):
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(60):
            with conn.transaction():
                for _ in range(chance.randint(1, 3)):
                    topic = chance.choice(["orders", "invoices", "others"])
                    key = str(chance.randint(0, 20))
                    with conn.transaction():
                        conn.execute("select kirby.publish(%s, '1', key => %s)", [topic, key])
                        conn.execute("select pg_sleep(%s)", [chance.choice([0, 0, 0.001, 0.01])])
                        if chance.random() < 0.2:
                            raise psycopg.Rollback()
                if chance.random() < 0.2:
                    raise psycopg.Rollback()


def test_counts_are_exact_under_racing_writers_and_counters(log):
    for topic in ("orders", "invoices", "others"):
        log.publish(topic, 0)
    written = threading.Event()
    problems = []

    def count(pause):
        with psycopg.connect(log.dsn, autocommit=True) as conn:
            while not written.is_set():
                conn.execute("select kirby.count_messages(%s)", [pause])

    writers = [threading.Thread(target=write, args=(log.dsn, seed)) for seed in range(4)]
    counters = [threading.Thread(target=count, args=(most,)) for most in (7, 1000)]
    with psycopg.connect(log.dsn) as idle:
        idle.execute("select kirby.publish('others', '0')")  # and never commits
        for thread in writers + counters:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            problems += [row for row in log.wrong() if row[0] in ("topic_count", "time_index")]
        written.set()
        for thread in writers + counters:
            thread.join()
        idle.rollback()
    log.count()

    assert problems == []
    for topic in ("orders", "invoices", "others"):
        assert log.counted(topic) == len(log.there(topic)) > 20
    assert log.wrong() == []


# Lag


def test_lag_is_what_is_not_settled(log):
    job = log.subscribe("orders")
    assert log.lag(job) == 0

    log.publish("orders", *range(10), key="a")
    assert log.lag(job) == 10
    log.count()
    assert log.lag(job) == 10
    log.publish("orders", *range(5), key="b")
    assert log.lag(job) == 15

    batch = subscriptions.claim(log.conn, job, 4)
    assert log.lag(job) == 15
    subscriptions.settle(log.conn, batch)
    assert log.lag(job) == 11
    log.count()
    assert log.lag(job) == 11
    log.drain(job, limit=3)
    assert log.lag(job) == 0
    assert log.wrong() == []


def test_lag_has_what_is_retried_but_not_what_is_parked(log):
    job = log.subscribe("orders", max_attempts=5)
    first, second, *_ = log.publish("orders", *range(5), key="a")
    batch = subscriptions.claim(log.conn, job, 100)
    subscriptions.settle(log.conn, batch, failures=[Failure(first, "park", "bad")])
    log.count()

    assert log.value("select count(*) from kirby.due where reason = 'waiting'") == 0
    assert log.lag(job) == 0

    log.publish("orders", 5, key="b")
    batch = subscriptions.claim(log.conn, job, 100)
    subscriptions.settle(log.conn, batch, failures=[Failure(batch.positions[0], "retry", "bad")])
    assert log.lag(job) == 1
    assert second in log.there("orders")


def test_lag_has_what_is_delayed_only_when_it_is_due(log):
    job = log.subscribe("orders")
    log.value("select kirby.publish('orders', '1', deliver_at => now() + interval '1 hour')")
    log.drain(job)
    log.count()
    assert log.lag(job) == 0

    log.later("2 hours")
    assert log.lag(job) == 1
    [(_, seconds, _)] = log.ask("select * from kirby.lag(%s)", job)
    assert 3500 < seconds < 3700


def test_lag_in_seconds_is_the_age_of_the_oldest(log):
    log.old("orders", 1, "10 minutes")
    log.old("orders", 5, "1 minute")
    job = log.subscribe("orders")
    seconds = "select seconds from kirby.lag(%s)"

    assert 600 <= log.value(seconds, job) < 620
    batch = subscriptions.claim(log.conn, job, 1)
    assert log.value(seconds, job) >= 60
    subscriptions.settle(log.conn, batch)
    log.drain(job)
    assert log.value(seconds, job) == 0


def test_a_long_backlog_is_exact_once_it_is_counted(log):
    log.old("orders", 10_500, "1 hour")
    job = log.subscribe("orders")

    assert log.lag(job) == "10001+"
    log.count()
    assert log.lag(job) == 10_500
    log.publish("orders", *range(5))
    assert log.lag(job) == 10_505


def test_a_rank_is_the_same_from_either_side(log):
    positions = log.old("orders", 80, "1 hour")
    log.count()
    log.old("orders", 40, "1 minute")
    topic = log.topic_id("orders")

    for position in [0, *positions[::7], 10**9]:
        for lane in (0, 3):
            expected = log.value(
                "select count(*) from kirby.message where lane = %s and position <= %s",
                lane, position,
            )  # fmt: skip
            rank = log.value("select kirby.rank(%s, %s::smallint, %s)", topic, lane, position)
            assert rank == expected


def test_a_cursor_that_is_moved_with_its_rank_keeps_lag_right(log):
    positions = log.publish("orders", *range(20), key="a")
    job = log.subscribe("orders")
    log.drain(job)
    log.count()

    log.ask(
        "update kirby.cursor c set position = %s, delivered = kirby.rank(1, c.lane, %s)",
        positions[4], positions[4],
    )  # fmt: skip

    assert log.lag(job) == 15
    assert log.wrong() == []
    assert log.drain(job) == positions[5:]


def test_the_listing_of_topics_has_exact_numbers(log):
    log.old("orders", 10_500, "1 hour")
    log.count()
    log.publish("orders", *range(7))
    engine = database.engine(log.dsn, size=1)
    with database.unit(engine) as conn:
        [found] = topics.listing(conn, environments.get(conn, "dev"))
    engine.dispose()

    assert (found.messages, found.estimated) == (10_507, False)

"""What becomes of messages that fail, or that kill whoever handles them."""

import threading

import psycopg

from kirby.core import db, subscriptions
from kirby.core.subscriptions import Failure


def retry(position, pause=60.0):
    return Failure(position, "retry", "boom", pause)


def test_a_failed_message_comes_again_after_its_pause(reader):
    [one] = reader.publish("a")
    reader.settle(reader.claim(), retry(one))

    assert reader.claim() is None
    reader.later("2 minutes")
    assert reader.drain() == [one]
    assert reader.due() == []


def test_only_the_key_of_a_failed_message_waits(reader):
    a1, _, a2 = reader.publish("a", "b", "a")
    reader.settle(reader.claim(), retry(a1), Failure(a2, "wait"))
    a3, b2 = reader.publish("a", "b")

    assert reader.drain() == [b2]
    assert reader.due() == [(a1, "failed", False), (a2, "waiting", False), (a3, "waiting", False)]

    reader.later()
    assert reader.drain() == [a1, a2, a3]
    [a4] = reader.publish("a")
    assert reader.drain() == [a4]


def test_after_its_last_attempt_it_is_parked_and_holds_its_key(reader):
    a1, _ = reader.publish("a", "b")
    reader.settle(reader.claim(), retry(a1))
    for _ in range(2):
        reader.later()
        reader.settle(reader.claim(), retry(a1))
    [a2, b2] = reader.publish("a", "b")
    reader.later()

    assert reader.drain() == [b2]
    assert reader.due() == [(a1, "failed", True), (a2, "waiting", False)]


def test_with_park_the_key_goes_on(reader):
    reader.subscribe(on_failure="park", max_attempts=2)
    [a1] = reader.publish("a")
    reader.settle(reader.claim(), retry(a1))
    [a2, a3] = reader.publish("a", "a")
    assert reader.drain() == []

    reader.later()
    batch = reader.claim()
    assert batch.positions == [a1]
    reader.settle(batch, retry(a1))

    assert reader.drain() == [a2, a3]
    assert reader.due() == [(a1, "failed", True)]


def test_parked_at_once_in_a_batch_frees_what_waits_in_the_same_batch(reader):
    reader.subscribe(on_failure="park", max_attempts=1)
    a1, a2 = reader.publish("a", "a")
    reader.settle(reader.claim(), retry(a1), Failure(a2, "wait"))

    assert reader.drain() == [a2]


def test_unparked_it_is_tried_again_and_its_key_goes_on(reader):
    a1, a2 = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(a1, "park", "bad"), Failure(a2, "wait"))
    reader.later()
    assert reader.drain() == []

    assert db.scalar(reader.conn, "select kirby.unpark(%s, null, 'test')", [reader.id]) == 1
    assert reader.drain() == [a1, a2]


def test_dropped_it_is_gone_and_its_key_goes_on(reader):
    a1, a2 = reader.publish("a", "a")
    reader.settle(reader.claim(), Failure(a1, "park", "bad"), Failure(a2, "wait"))

    assert (
        db.scalar(reader.conn, "select kirby.drop_parked(%s, %s, 'test')", [reader.id, [a1]]) == 1
    )
    assert reader.drain() == [a2]


def test_a_message_that_kills_is_parked_and_the_others_are_done(reader):
    positions = reader.publish(*"abcdefghij")
    killer = positions[4]
    deaths, done = 0, []
    while batch := reader.claim():
        if killer in batch.positions:
            deaths += 1
            reader.die()
            continue
        reader.settle(batch)
        done += batch.positions

    assert deaths == 3
    assert done == [position for position in positions if position != killer]
    assert reader.due() == [(killer, "killed", True)]


def test_a_retried_message_that_kills_is_parked_too(reader):
    one, _ = reader.publish("a", "b")
    reader.settle(reader.claim(), retry(one))
    reader.later()
    deaths = 0
    while reader.claim():
        deaths += 1
        reader.die()

    assert deaths == 2  # the failure was the first of three attempts
    assert reader.due() == [(one, "killed", True)]


def test_a_released_range_is_delivered_whole_again_and_not_counted(reader):
    positions = reader.publish(*"abc")
    for _ in range(10):
        batch = reader.claim()
        assert batch.positions == positions
        subscriptions.release(reader.conn, batch)

    assert reader.drain() == positions


def test_a_range_whose_handling_broke_off_comes_message_by_message(reader):
    positions = reader.publish(*"abc")
    subscriptions.release(reader.conn, reader.claim(), suspect=True)

    for position in positions:
        batch = reader.claim()
        assert batch.positions == [position]
        reader.settle(batch)
    assert reader.claim() is None


def test_the_rest_of_a_suspect_range_comes_with_the_settle(reader):
    positions = reader.publish(*"abc")
    reader.claim()
    reader.die()
    batch = reader.claim()
    seen = []
    while batch:
        seen.append(batch.positions)
        batch = reader.settle(batch, next=100)

    assert seen == [[position] for position in positions]


def test_held_messages_of_a_range_taken_over_keep_their_turn(reader):
    """A worker files a failure, then dies with the rest of its range in its hands."""
    a1, b1, a2 = reader.publish("a", "b", "a")
    batch = reader.claim()
    subscriptions.settle(reader.conn, batch, upto=a1, failures=[retry(a1, 600)])
    reader.die()

    assert reader.drain() == [b1]
    reader.later()
    assert reader.drain() == [a1, a2]


def test_what_was_done_by_itself_does_not_come_again_with_a_range_that_covers_it(reader):
    """A worker holds a range while others finish what was held back of it; then it dies."""
    [a1] = reader.publish("a")
    reader.settle(reader.claim(), retry(a1, 10))
    b1, a2, b2 = reader.publish("b", "a", "b")
    held = reader.claim()
    assert held.positions == [b1, b2]  # a2 waits for a1
    reader.later("12 seconds")
    assert reader.drain() == [a1, a2]
    reader.die()

    assert reader.drain() == [b1, b2]
    assert reader.due() == []


def test_what_was_dropped_does_not_come_again_with_a_range_that_covers_it(reader):
    a1 = reader.publish("a")[0]
    reader.settle(reader.claim(), Failure(a1, "park", "bad"))
    a2, b1 = reader.publish("a", "b")
    assert reader.claim().positions == [b1]
    reader.conn.execute("select kirby.unpark(%s, null, 'test')", [reader.id])
    assert reader.drain() == [a1, a2]
    reader.die()

    assert reader.drain() == [b1]
    assert reader.due() == []


def test_a_paused_subscription_hands_out_nothing(reader):
    [one] = reader.publish("a")
    reader.conn.execute("select kirby.pause_subscription(%s, true, 'test')", [reader.id])
    assert reader.claim() is None

    reader.conn.execute("select kirby.pause_subscription(%s, false, 'test')", [reader.id])
    assert reader.drain() == [one]


def test_shared_subscriptions_hand_out_several_ranges_of_a_lane(reader):
    reader.id, _ = subscriptions.subscribe(reader.conn, "orders", "queue", "shared")
    positions = reader.publish("a", "a", "a", "a")

    batches = [reader.claim(2), reader.claim(2)]

    assert sorted(batches[0].positions + batches[1].positions) == positions
    reader.settle(batches[0], retry(batches[0].positions[0]))
    reader.settle(batches[1])
    reader.later()
    assert reader.drain() == [positions[0]]


def test_filing_what_waits_while_its_holder_is_being_finished_loses_nobody(reader, dsn, until):
    """Two transactions at once: one files a2 behind a1, the other finishes a1."""
    a1, a2 = reader.publish("a", "a")
    batch = reader.claim()
    subscriptions.settle(reader.conn, batch, upto=a1, failures=[retry(a1, 0)])
    again = reader.claim()
    assert again.positions == [a1]
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"
    with psycopg.connect(dsn) as finisher, psycopg.connect(dsn, autocommit=True) as filer:
        subscriptions.settle(finisher, again)  # and does not commit yet
        filing = threading.Thread(
            target=lambda: subscriptions.settle(filer, batch, failures=[Failure(a2, "wait")])
        )
        filing.start()
        until(lambda: reader.conn.execute(waits, [filer.info.backend_pid]).fetchall())
        finisher.commit()
        filing.join()

    assert reader.drain() == [a2]
    assert reader.due() == []

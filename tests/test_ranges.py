"""What one claim hands out, by size and by band; lanes that grow; claims that got lost."""

import json

import pytest

from kirby.core import db, subscriptions, topics
from kirby.core.errors import Conflict, Invalid, NotFound
from kirby.core.subscriptions import Failure
from kirby.sdk.work import message
from kirby.server import lanes

RANDOM = "x" * 10
BIG = 1_500_000


def noise(size):
    """Text that does not compress away, as large messages are stored compressed."""
    import random

    return "".join(random.Random(size).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


# Size


def test_a_batch_is_bounded_by_size(reader):
    text = noise(BIG)
    positions = reader.write(*[message(text, None, None, ()) for _ in range(8)])
    reader.write(message(1, None, None, ()))

    sizes = []
    while batch := reader.claim():
        sizes.append(len(batch.positions))
        reader.settle(batch)
    assert sum(sizes) == 9
    assert max(sizes) <= 5
    assert reader.done == [*positions, reader.done[-1]]


def test_one_message_is_handed_out_however_large(reader):
    first, second = reader.write(*[message(noise(6_000_000), None, None, ()) for _ in range(2)])
    assert reader.claim().positions == [first]
    assert second > first


# Bands


def test_the_first_band_goes_first(reader):
    topics.open(reader.conn, "urgent", lanes=6, bands=3)
    reader.id, _ = subscriptions.subscribe(reader.conn, "urgent", "queue", "shared")
    for band in (2, 1, 0):
        items = [message(band, None, None, (), band=band) for _ in range(20)]
        reader.write(*items, topic="urgent")
    reader.conn.execute("select setseed(0.5)")

    order = []
    while batch := reader.claim(5):
        order += [value for value in batch.payloads]
        reader.settle(batch)
    assert sorted(order) == [0] * 20 + [1] * 20 + [2] * 20
    first = {band: sum(at for at, each in enumerate(order) if each == band) for band in (0, 1, 2)}
    assert first[0] < first[1] < first[2]


def test_no_band_is_the_middle_one(reader):
    topics.open(reader.conn, "urgent", lanes=3, bands=3)
    reader.write(message(1, None, None, ()), topic="urgent")
    assert db.scalar(reader.conn, "select lane from kirby.message") == 1


def test_bands_are_of_equal_size(reader):
    with pytest.raises(Invalid, match="7 lanes in 3 bands are not possible"):
        topics.open(reader.conn, "urgent", lanes=7, bands=3)


# Lanes


def grow(reader, count, **options):
    topic_id = db.scalar(reader.conn, "select id from kirby.topic where name = 'orders'")
    return lanes.change(reader.conn, topic_id, count, actor="me", **options)


def test_every_key_stays_in_order_when_lanes_are_added(reader):
    before = reader.publish(*"abcdefgh")
    position = grow(reader, 8)
    after = reader.publish(*"abcdefgh")
    assert before[-1] < position < after[0]

    held = reader.claim(3)
    assert held.positions == before[:3]
    assert reader.claim() is None  # the only lane is taken, and nobody passes the change
    reader.settle(held)
    assert reader.drain()[:5] == before[3:]
    assert sorted(reader.done) == before[3:] + after
    used = "select count(distinct lane) from kirby.message where position > %s"
    assert reader.conn.execute(used, [position]).fetchone()[0] > 1


def test_what_failed_before_the_change_holds_its_key_after_it(reader):
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "retry", "boom", 3600.0))
    grow(reader, 16)
    two, three = reader.publish("a", "b")
    assert reader.drain() == [three]
    reader.later("2 hours")
    assert reader.drain() == [one, two]


def test_lanes_are_added_again(reader):
    wanted = reader.publish(*"abcd")
    for count in (2, 5, 16):
        grow(reader, count)
        wanted += reader.publish(*"abcd")
    assert sorted(reader.drain()) == wanted
    for key in range(4):
        mine = wanted[key::4]
        assert [each for each in reader.done if each in mine] == mine
    assert [e.position for e in topics.read(reader.conn, "orders")] == wanted


def test_a_new_subscription_reads_across_the_change_in_order(reader):
    wanted = reader.publish(*"abcd")
    grow(reader, 8)
    wanted += reader.publish(*"abcd")
    reader.id, _ = subscriptions.subscribe(reader.conn, "orders", "late")
    assert reader.drain()[:4] == wanted[:4]
    assert sorted(reader.done) == wanted


def test_who_wrote_before_the_change_is_waited_for(reader, dsn):
    with db.connect(dsn) as other, other.transaction():
        topics.write(other, '{"orders": [{"v": 1, "k": "a"}]}', "{}")
        with pytest.raises(Conflict, match=r"lanes stay as they are: the transaction of pid \d+"):
            grow(reader, 8, patience=0.2)
        topics.write(other, '{"orders": [{"v": 2, "k": "a"}]}', "{}")
    assert reader.claim().payloads == [1, 2]
    found = "select lanes, lanes_from, old_lanes from kirby.topic where name = 'orders'"
    assert reader.conn.execute(found).fetchall() == [(1, 0, None)]
    assert db.scalar(reader.conn, "select count(*) from kirby.cursor") == 1


@pytest.mark.parametrize("count", [1, 0, 1025])
def test_lanes_only_grow(reader, count):
    with pytest.raises(Invalid, match="topic orders has 1 lanes: it can get more, up to 1024"):
        grow(reader, count)


# Claims that got lost


def test_a_session_that_is_back_gives_back_what_it_does_not_know_of(reader, dsn):
    reader.conn.execute("update kirby.topic set lanes = 8")
    reader.subscribe()
    reader.publish(*"abcdefgh")
    reader.conn.execute("select set_config('kirby.holder', 'me', false)")
    known, lost = reader.claim(), reader.claim()
    with db.connect(dsn) as other:
        theirs = subscriptions.claim(other, reader.id, 100)

    given = db.scalar(reader.conn, "select kirby.resume(%s)", [[known.claim_id]])

    assert given == 1
    again = reader.claim()
    assert again.positions == lost.positions
    assert again.attempt == 1
    reader.settle(known)
    with db.connect(dsn) as other:
        subscriptions.settle(other, theirs)


# Edited by hand


def test_a_parked_message_is_edited_and_tried_again(reader):
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "park", "boom"))
    edit = "select kirby.edit_parked(%s, %s, %s, 'me', 'a typo')"
    reader.conn.execute(edit, [reader.id, one, json.dumps({"right": True})])
    reader.conn.execute("select kirby.unpark(%s, null, 'me')", [reader.id])

    assert reader.claim().payloads == [{"right": True}]
    assert [e.value for e in topics.read(reader.conn, "orders")] == [0]
    audit = "select verb, before -> 'payload', after -> 'payload', reason from kirby.audit_event"
    assert ("message_edited", 0, {"right": True}, "a typo") in reader.conn.execute(audit).fetchall()


def test_only_a_parked_message_is_edited(reader):
    [one] = reader.publish("a")
    with (
        pytest.raises(NotFound, match=f"no message is parked at position {one}"),
        db.kirby_errors(),
    ):
        reader.conn.execute("select kirby.edit_parked(%s, %s, '1', 'me')", [reader.id, one])


def test_unparked_out_of_turn_it_waits_for_its_key_in_hands(reader):
    """With 'park' its key went on meanwhile: the two must not be handled at once."""
    reader.subscribe(on_failure="park")
    [one] = reader.publish("a")
    reader.settle(reader.claim(), Failure(one, "park", "boom"))
    [two] = reader.publish("a")
    held = reader.claim()
    assert held.positions == [two]
    reader.conn.execute("select kirby.unpark(%s, null, 'me')", [reader.id])

    assert reader.claim() is None
    reader.settle(held)
    reader.later("1 second")
    assert reader.claim().positions == [one]

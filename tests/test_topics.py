"""Publish and read: in order, all or nothing, and whoever waits is woken after the commit."""

import contextlib
import datetime
import threading

import psycopg
import pytest
from fix_sdk import FOREIGN, house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core.errors import Invalid, NotFound
from kirby.sdk import session, topics, work

orders = kirby.Topic("orders")
UNIT = "select count(distinct xmin::text) from kirby.message"


def values(topic=orders, **how):
    return [message.value for message in topic.read(**how)]


def test_messages_are_read_in_the_order_of_their_positions(sdk):
    positions = [orders.publish(number, key=str(number % 3)) for number in range(50)]

    read = list(orders.read())

    assert [message.position for message in read] == positions == sorted(positions)
    assert [message.value for message in read] == list(range(50))
    assert [message.key for message in read] == [str(number % 3) for number in range(50)]


def test_a_message_is_read_with_all_that_was_published(sdk):
    before = datetime.datetime.now(datetime.UTC)
    position = orders.publish({"a": None}, key="k\u00e9y", headers={"h": [1]})
    orders.publish(None)

    first, second = orders.read()

    assert first == kirby.Message(
        "orders", position, "k\u00e9y", {"a": None}, {"h": [1]}, first.recorded_at
    )
    assert abs(first.recorded_at - before) < datetime.timedelta(minutes=5)
    assert (second.value, second.key, second.headers) == (None, None, {})


def test_the_same_key_always_has_the_same_lane_and_no_key_is_spread(sdk):
    orders.publish_many(kirby.Out(number, key=str(number % 10)) for number in range(100))
    orders.publish_many(range(100))

    keyed = sdk.ask("select count(distinct lane) from kirby.message group by key having key <> ''")
    spread = sdk.value("select count(distinct lane) from kirby.message where key is null")

    assert keyed == [(1,)] * 10
    assert spread == 8


def test_the_lane_of_a_key_never_changes(db):
    """It is part of what is stored: another hash would tear the order of a key apart."""
    lanes = [db.execute("select kirby.lane(%s, 1, 8::smallint)", [key]) for key in ("UA", "", "é")]

    assert [lane.fetchone()[0] for lane in lanes] == [0, 2, 6]


def test_psql_and_scripts_see_the_same(sdk):
    sdk.conn.execute("select kirby.publish('orders', '{\"a\": 1}', key => 'A', headers => '{}')")
    orders.publish({"a": 2}, key="B")

    read = sdk.ask("select payload, key from kirby.read('orders', after => 0, max => 100)")

    assert read == [({"a": 1}, "A"), ({"a": 2}, "B")]
    assert values() == [{"a": 1}, {"a": 2}]


def test_reading_goes_over_pages(sdk, monkeypatch):
    monkeypatch.setattr(topics, "PAGE", 7)
    orders.publish_many(range(30))

    assert values() == list(range(30))
    assert values(limit=10) == list(range(10))
    assert values(limit=14) == list(range(14))
    assert values(limit=0) == []


def test_reading_begins_after_a_position(sdk):
    positions = [orders.publish(number) for number in range(5)]

    assert values(after=positions[2]) == [3, 4]
    assert values(after=positions[4]) == []
    assert values(after=2**40) == []


@pytest.mark.parametrize("zone", [None, datetime.UTC])
def test_reading_is_bounded_by_the_time_of_recording(sdk, zone):
    """Without a zone a time is local, whatever the zone of the database's session."""
    orders.publish("early")
    between = sdk.value("select clock_timestamp()").astimezone(zone)
    if zone is None:
        between = between.replace(tzinfo=None)
    sdk.conn.execute("alter role kirby_worker in database current set timezone = 'Asia/Tokyo'"
                     .replace("database current", f"database {sdk.conn.info.dbname}"))  # fmt: skip
    session.get().drop()
    orders.publish("late")

    assert values(since=between) == ["late"]
    assert values(until=between) == ["early"]
    assert values(since=between, until=between) == []


def test_an_unknown_topic_is_not_found(sdk):
    with pytest.raises(NotFound, match="there is no topic orders in this environment"):
        values()


NAMES = ["", " ", "a b", "-a", ".a", "a" * 201, "ä", "a\0", "\ud800", "a\n", "a;drop", None, 5]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(Invalid, match="is not a name for a topic: letters, digits,") as caught:
        kirby.topic(name)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "-a", ".a", "a" * 201, "ä", "a\n", "a;drop"])
def test_a_name_that_is_none_is_refused_by_the_database(db, name):
    with pytest.raises(psycopg.Error, match="is not a name for a topic") as caught:
        db.execute("select kirby.publish(%s, '1')", [name])

    assert caught.value.sqlstate == "KB001"


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "9", "a" * 200])
def test_a_good_name_is_good_for_both(sdk, name):
    kirby.topic(name).publish(1)

    assert values(kirby.topic(name)) == [1]


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (5, "a key is a string, not of type int: 5"),
        (b"a", "a key is a string, not of type bytes"),
        ("a\0", "the key cannot be stored: value contains the NUL character"),
        ("\udfff", "the key cannot be stored: value contains a lone surrogate"),
        ("a" * 1025, "a key has at most 1024 bytes, this one has 1025"),
        ("\U0001f600" * 257, "a key has at most 1024 bytes, this one has 1028"),
    ],
)
def test_a_bad_key_is_refused(key, complaint):
    with pytest.raises(Invalid, match=complaint):
        orders.publish(1, key=key)


@pytest.mark.parametrize("key", ["", "a" * 1024, "\U0001f600" * 256, "\u00e9" * 512])
def test_a_good_key_comes_back(sdk, key):
    orders.publish(1, key=key)

    assert [message.key for message in orders.read()] == [key]


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ([1], "headers are a dictionary, not of type list"),
        ("a", "headers are a dictionary, not of type str"),
        ({"a": {1}}, "the headers cannot be stored: value\\['a'\\] is of type set"),
    ],
)
def test_bad_headers_are_refused(headers, complaint):
    with pytest.raises(Invalid, match=complaint):
        orders.publish(1, headers=headers)


def test_publish_many_takes_keys_and_headers_of_their_own(sdk):
    count = orders.publish_many(
        [1, kirby.Out(2, key="own"), kirby.Out(3, headers={"h": 1})], key="common"
    )

    read = [(message.value, message.key, message.headers) for message in orders.read()]
    assert count == 3
    assert read == [(1, "common", {}), (2, "own", {}), (3, "common", {"h": 1})]


def test_publishing_nothing_makes_nothing(sdk):
    assert orders.publish_many([]) == 0
    assert sdk.ask("select name from kirby.topic") == []


@pytest.mark.parametrize("good", [3, 999, 1000, 2500])
def test_publish_many_is_all_or_none_when_an_item_is_bad(sdk, good):
    with pytest.raises(Invalid, match="value is of type set"):
        orders.publish_many([*range(good), {1}])

    assert sdk.values("orders") == []


def test_publish_many_is_all_or_none_when_its_source_fails(sdk):
    def source():
        yield from range(2500)
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        orders.publish_many(source())

    assert sdk.values("orders") == []


def test_publish_many_is_all_or_none_when_the_database_refuses_a_page(sdk):
    sdk.conn.execute("alter table kirby.message add check (payload <> '2400')")

    with pytest.raises(psycopg.errors.CheckViolation):
        orders.publish_many(range(2500))

    assert sdk.values("orders") == []


def test_publish_many_is_all_or_none_when_a_value_cannot_be_stored(sdk):
    """What comes before it is on its way to the database by then."""
    with pytest.raises(kirby.Invalid, match="of type object"):
        orders.publish_many([*range(2000), object()])

    assert sdk.values("orders") == []
    assert orders.publish("after") > 0


@pytest.mark.parametrize("count", [1, 250, 251, 999, 1000, 1001, 2500])
def test_publish_many_is_one_transaction_and_in_order(sdk, count):
    assert orders.publish_many(range(count)) == count

    assert values() == list(range(count))
    assert sdk.value(UNIT) == 1


def test_publish_many_sends_large_messages_in_several_pages_of_one_transaction(sdk, monkeypatch):
    monkeypatch.setattr(topics, "CHUNK_BYTES", 1000)
    sent = []
    monkeypatch.setattr(topics.work, "document", spy(topics.work.document, sent))

    orders.publish_many(["a" * 300] * 20)

    assert len(sent) == 5
    assert sdk.value(UNIT) == 1
    assert len(values()) == 20


def spy(function, calls):
    def called(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return called


def test_publish_many_does_not_hold_back_readers_while_its_source_works(sdk):
    """The source may be slow, and it may publish itself: that is not part of the transaction."""

    def source():
        for number in range(2000):
            if number == 1500:
                orders.publish("meanwhile")
                assert values() == ["meanwhile"]
            yield number

    orders.publish_many(source())

    assert values() == ["meanwhile", *range(2000)]


def test_a_transaction_groups_what_is_published(sdk):
    with kirby.transaction():
        assert orders.publish(1) is None
        assert orders.publish_many([2, 3]) == 2
        kirby.topic("others").publish(4)
        assert sdk.values("orders") == []

    assert values() == [1, 2, 3]
    assert sdk.value(UNIT) == 1


def test_a_transaction_that_fails_publishes_nothing(sdk):
    with contextlib.suppress(RuntimeError), kirby.transaction():
        orders.publish(1)
        raise RuntimeError

    orders.publish(2)
    assert values() == [2]


def test_a_bad_item_in_a_transaction_leaves_nothing_of_its_publish_many(sdk):
    with kirby.transaction():
        orders.publish(1)
        with pytest.raises(Invalid):
            orders.publish_many([2, {3}])

    assert values() == [1]


def test_an_inner_transaction_that_fails_takes_back_its_own_part_only(sdk):
    state = kirby.state("sums")
    state["a"] = 0
    with kirby.transaction():
        orders.publish(1)
        state["a"] = 1
        with contextlib.suppress(RuntimeError), kirby.transaction():
            orders.publish(2)
            state["a"] = 2
            state["b"] = 2
            raise RuntimeError
        assert state["a"] == 1
        with kirby.transaction():
            orders.publish(3)

    assert values() == [1, 3]
    assert state.items() == [("a", 1)]


def test_more_than_a_transaction_can_hold_is_refused(sdk, monkeypatch):
    monkeypatch.setattr(work, "MAX_MESSAGES", 3 << 20)
    large = "a" * (1 << 20)

    with kirby.transaction():
        orders.publish_many([large, large])
        with pytest.raises(Invalid, match="at most 3 MB at once, not 4 MB: publish in smaller"):
            orders.publish_many([large, large])

    assert len(values()) == 2


def test_environments_do_not_see_each_other(sdk, monkeypatch):
    sdk.give_token(FOREIGN, "preprod")
    orders.publish("dev")

    session.get().close()
    monkeypatch.setenv("KIRBY_TOKEN", FOREIGN)
    monkeypatch.setenv("KIRBY_ENVIRONMENT", "preprod")
    session.close()

    with pytest.raises(NotFound):
        values()
    orders.publish("preprod")
    assert values() == ["preprod"]


def test_threads_publish_side_by_side(sdk):
    def publish(number):
        for part in range(20):
            orders.publish([number, part])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    read = values()
    assert len(read) == 160
    for number in range(8):
        assert [part for mine, part in read if mine == number] == list(range(20))

"""What every public call of the SDK promises, on a database and on a folder alike."""

import datetime
import itertools
import os
import signal
import time

import pytest
from fix_sdk import house_fixture  # noqa: F401

import kirby
from kirby.core import subscriptions
from kirby.core.errors import Conflict, Invalid, NotFound, Taken
from kirby.sdk import loop, session, streams, tasks, worker
from kirby.sdk.stop import Stop

orders, invoices = kirby.Topic("orders"), kirby.Topic("invoices")
sums = kirby.State("sums")
LATER = datetime.timedelta(days=30)


@pytest.fixture(name="place", params=["database", "folder"])
def place_fixture(request, tmp_path, monkeypatch):
    """Where the script of this process works: a database, or a folder."""
    if request.param == "database":
        environ = request.getfixturevalue("house").environ
    else:
        environ = {"KIRBY_DSN": f"folder:{tmp_path}", "KIRBY_JOB": "job"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    session.close()
    streams.REGISTERED.clear()
    tasks.REGISTERED.clear()
    yield request.param
    streams.REGISTERED.clear()
    tasks.REGISTERED.clear()
    session.close()


def drain():
    """Serve what is declared until nothing is left to do."""
    mine, stop = session.get(), Stop()
    found = worker.named(worker.registered(), mine.job)
    servers = [loop.Server(mine, each, name, stop) for each, name in found]
    ids = [server.consumer.id for server in servers]
    while True:
        if any([server.step() for server in servers]):
            continue
        soon = subscriptions.next_due(mine.connection, ids)
        if soon is None or soon == subscriptions.NEVER:
            return
        time.sleep(min(soon, 0.01))


def values(topic):
    return [message.value for message in topic.read()]


# Topics


@pytest.mark.parametrize(
    "value", [None, 0, "", False, [], {"a": [1, 2.5, None]}, 1e23, 2**70, "é\U0001f600\n\u2028"]
)
def test_what_is_published_is_read(place, value):
    position = orders.publish(value, key="ä", headers={"h": [1]})

    [found] = orders.read()
    assert (found.value, found.key, found.headers) == (value, "ä", {"h": [1]})
    assert found.position == position
    assert found.parents == ()
    assert abs(found.recorded_at - datetime.datetime.now(datetime.UTC)).total_seconds() < 60


def test_positions_grow_over_topics(place):
    found = [orders.publish(1), invoices.publish(2), orders.publish(3)]

    assert found == sorted(set(found))
    assert [message.value for message in orders.read(after=found[0])] == [3]


def test_many_are_published_in_order_and_read_in_pages(place):
    assert orders.publish_many(range(2500), key="a") == 2500
    assert orders.publish_many([kirby.Out("x", key="b", headers={"n": 1})]) == 1

    assert values(orders) == [*range(2500), "x"]
    assert len(list(orders.read(limit=7))) == 7
    assert [*orders.read()][-1].key == "b"


def test_reading_by_time(place):
    orders.publish(1)
    [first] = orders.read()

    assert values_of(orders.read(since=first.recorded_at)) == [1]
    assert values_of(orders.read(until=first.recorded_at)) == []


def values_of(messages):
    return [message.value for message in messages]


def test_there_is_no_topic_that_nobody_wrote(place):
    with pytest.raises(NotFound, match="there is no topic orders in this environment"):
        list(orders.read())


@pytest.mark.parametrize("name", ["", "a b", "/etc", "x" * 201, ".hidden"])
def test_bad_names(place, name):
    with pytest.raises(Invalid, match="is not a name for a topic"):
        kirby.topic(name)


def test_a_value_that_is_not_json_is_refused_and_nothing_is_written(place):
    orders.publish(0)
    with pytest.raises(Invalid, match="the payload cannot be stored: value"):
        orders.publish_many([1, {2}])
    assert values(orders) == [0]


def test_the_same_id_is_published_once(place):
    first = orders.publish(1, id="a")

    assert orders.publish(2, id="a") == first
    orders.publish_many([kirby.Out(3, id="b"), kirby.Out(4, id="b"), 5])
    assert values(orders) == [1, 3, 5]


# Transactions


@kirby.transaction()
def fail_at_the_end():
    orders.publish(2)
    sums["a"] = 2
    1 / 0  # noqa: B018


@kirby.transaction()
def publish_and_put():
    orders.publish(1)
    sums.put("a", 3, version=7)


def test_a_transaction_is_whole_or_nothing(place):
    with kirby.transaction():
        orders.publish(1)
        sums["a"] = 1
    with pytest.raises(ZeroDivisionError):
        fail_at_the_end()

    assert values(orders) == [1]
    assert dict(sums.items()) == {"a": 1}


def test_a_key_that_moved_on_is_a_conflict(place):
    sums["a"] = 1
    with pytest.raises(Conflict, match="key a of state sums was changed by somebody else"):
        sums.put("a", 3, version=7)
    with pytest.raises(Conflict):
        publish_and_put()

    assert sums["a"] == 1
    with pytest.raises(NotFound):
        list(orders.read())


# Streams


def test_a_handler_reads_and_what_it_returns_follows_with_its_parent(place):
    first = orders.publish(5, key="k")
    orders.publish(6, key="l")

    @kirby.stream("orders", to="invoices")
    def double(value, message: kirby.Message):
        return None if value == 6 else 2 * value

    drain()

    [found] = invoices.read()
    assert (found.value, found.key, found.parents) == (10, "k", (first,))
    assert [(hop.job, hop.topic, hop.position) for hop in found.via] == [("job", "orders", first)]


def test_a_chain_of_handlers_and_a_state(place):
    orders.publish_many([1, 2, 3], key="a")

    @kirby.stream("orders", to="invoices")
    def first(value):
        yield value
        yield kirby.Out(-value, key="neg", to="credits", headers={"by": "me"})

    @kirby.stream("invoices")
    def second(value):
        sums["total"] = sums.get("total", 0) + value
        sums.increment("count")

    drain()

    assert dict(sums.items()) == {"total": 6, "count": 3}
    credits = list(kirby.topic("credits").read())
    assert [(each.value, each.key, each.headers["by"]) for each in credits] == [
        (-1, "neg", "me"), (-2, "neg", "me"), (-3, "neg", "me"),
    ]  # fmt: skip
    assert len(credits[2].via) == 1
    assert sums.history("total")[0].parents[-1] == [*invoices.read()][-1].position


def test_lists(place):
    orders.publish_many(range(25), key="a")
    sizes = []

    @kirby.stream("orders", to="invoices", batch=10)
    def all_of(numbers, messages: list[kirby.Message]):
        assert [message.value for message in messages] == numbers
        sizes.append(len(numbers))
        return sum(numbers)

    drain()

    assert sum(values(invoices)) == sum(range(25))
    assert max(sizes) == 10


def test_a_replay_stays_marked(place):
    orders.publish(1, headers={"replay": 7}, key="a")
    orders.publish(2, key="a")

    @kirby.stream("orders", to="invoices")
    def copy(value, message: kirby.Message):
        return kirby.Out([value, message.replay], headers={"replay": "mine", "x": 1})

    drain()

    one, two = invoices.read()
    assert (one.value, one.replay, one.headers["x"]) == ([1, True], True, 1)
    assert two.value == [2, False]
    assert not two.replay


@pytest.mark.parametrize("policy", ["ignore", "divert", "dry_run"])
def test_policies_of_replays(place, policy):
    orders.publish(1, headers={"replay": 7})

    @kirby.stream("orders", to="invoices", on_replay=policy)
    def copy(value):
        sums["a"] = 1
        return value

    invoices.publish("before")
    drain()

    assert values(invoices) == ["before"]
    assert "a" not in sums
    if policy == "divert":
        assert values(kirby.topic("invoices.replay")) == [1]


def test_a_failed_message_is_tried_again_and_its_key_waits(place):
    for value, key in ((1, "a"), (2, "a"), (3, "b")):
        orders.publish(value, key=key)
    seen = []

    @kirby.stream("orders", to="invoices")
    def handler(value, message: kirby.Message):
        seen.append((value, message.attempt))
        sums["last"] = value
        if value == 1 and message.attempt < 3:
            raise kirby.Retry(countdown=0)
        return value

    drain()

    assert sorted(seen) == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert values(invoices).index(1) < values(invoices).index(2)
    assert sorted(values(invoices)) == [1, 2, 3]  # nobody waits for key a but what is of it


@pytest.mark.parametrize("on_failure", ["block", "park"])
def test_what_fails_for_good_is_parked(place, on_failure):
    for value, key in ((1, "a"), (2, "a"), (3, "b")):
        orders.publish(value, key=key)

    @kirby.stream("orders", to="invoices", on_failure=on_failure, max_attempts=2)
    def handler(value):
        sums["seen"] = value
        invoices.publish("not this")
        if value == 1:
            raise kirby.Retry(countdown=0)
        return value

    drain()

    kept = [value for value in values(invoices) if value != "not this"]
    assert sorted(kept) == ([3] if on_failure == "block" else [2, 3])
    assert values(invoices).count("not this") == len(kept)

    for value, key in ((4, "a"), (5, "b")):
        orders.publish(value, key=key)
    drain()
    late = [value for value in values(invoices) if value in (4, 5)]
    assert sorted(late) == ([5] if on_failure == "block" else [4, 5])


def test_errors_that_are_parked_at_once_or_ignored(place):
    orders.publish_many(["park", "ignore", "fine"])
    seen = []

    @kirby.stream("orders", to="invoices", park=(ValueError,), ignore=(KeyError,), ordered=False)
    def handler(value):
        seen.append(value)
        if value == "park":
            raise ValueError
        if value == "ignore":
            raise KeyError
        return value

    drain()

    assert sorted(seen) == ["fine", "ignore", "park"]
    assert values(invoices) == ["fine"]


def test_expired_and_retracted_messages_are_not_handed_out(place):
    now = datetime.datetime.now(datetime.UTC)
    orders.publish("late", expires_at=now - LATER)
    orders.publish("in time", expires_at=now + LATER)

    @kirby.stream("orders", to="invoices")
    def copy(value):
        return value

    drain()
    assert values(invoices) == ["in time"]


def test_a_subscription_has_one_mode(place):
    orders.publish(1)

    @kirby.stream("orders")
    def ordered(value):
        pass

    drain()
    streams.REGISTERED.clear()

    @kirby.stream("orders", ordered=False)
    def shared(value):
        pass

    with pytest.raises(Taken, match="subscription job of topic orders is ordered, not shared"):
        drain()


# The loop form


def test_a_loop_settles_when_the_next_message_is_asked_for(place):
    orders.publish_many([1, 2, 3], key="a")
    for message in orders.consume():
        invoices.publish(2 * message.value, key=message.key)
        if message.value == 3:
            break
        sums["last"] = message.value

    assert values(invoices) == [2, 4]
    assert sums["last"] == 2
    again = orders.consume()
    message = next(again)
    assert (message.value, message.attempt) == (3, 2)
    again.close()


# States


def test_a_state_is_a_mapping(place):
    sums.load({"b": 2, "a": None, "ab": [1], "c": {"x": 0}})
    del sums["b"]

    assert list(sums) == ["a", "ab", "c"]
    assert len(sums) == 3
    assert sums["a"] is None
    assert "b" not in sums
    assert sums.get("b", 9) == 9
    assert sums.pop("zz", 1) == 1
    with pytest.raises(KeyError):
        sums["b"]
    with pytest.raises(KeyError):
        del sums["b"]
    assert sums.update("n", lambda value: value + 1, 5) == 6


def test_ranges_of_keys(place):
    sums.load({key: key for key in ("a", "a1", "a2", "b", "c", "é")})

    assert dict(sums.items("a")) == {"a": "a", "a1": "a1", "a2": "a2"}
    assert [key for key, _ in sums.items(start="a2", stop="c")] == ["a2", "b"]
    assert [key for key, _ in sums.items(reverse=True, limit=2)] == ["é", "c"]
    with kirby.transaction():
        del sums["a"]
        sums["aa"] = 1
        assert [key for key, _ in sums.items("a", limit=2)] == ["a1", "a2"]


def test_merges(place):
    for by in (1, 2.5, {"x": 1}):
        sums.increment(f"k{by}", by)
        sums.increment(f"k{by}", by)
    sums.maximum("max", 3)
    sums.maximum("max", 2)
    sums.minimum("min", {"a": "b"})
    sums.minimum("min", {"a": "a", "c": 1})
    sums.merge("obj", {"a": 1, "b": 2})
    sums.merge("obj", {"b": 3})
    sums.append("list", 1, 2)
    sums.append("list", 2)
    sums.add("set", 1, True)
    sums.add("set", 1.0, 2)

    assert dict(sums.items()) == {
        "k1": 2, "k2.5": 5.0, "k{'x': 1}": {"x": 2}, "max": 3, "min": {"a": "a", "c": 1},
        "obj": {"a": 1, "b": 3}, "list": [1, 2, 2], "set": [1, True, 2],
    }  # fmt: skip
    with pytest.raises(Invalid, match="key list of state sums is of kind array"):
        sums.merge("list", {"a": 1})


def test_versions_and_the_past(place):
    before = orders.publish(0)
    sums["a"] = 1
    between = orders.publish(0)
    sums["a"] = 2
    sums["b"] = 1
    del sums["a"]

    assert sums.version("a") == 3
    assert sums.version("zz") == 0
    assert [(each.version, each.value, each.deleted) for each in sums.history("a")] == [
        (3, None, True), (2, 2, False), (1, 1, False),
    ]  # fmt: skip
    assert dict(sums.at(before)) == {}
    assert dict(sums.at(between)) == {"a": 1}
    assert dict(sums.at(between + 2)) in ({"a": 2}, {"a": 2, "b": 1})
    assert dict(sums.at(datetime.datetime.now(datetime.UTC))) == {"b": 1}
    assert sums.at(between).version("a") == 1


def test_results_are_cached(place):
    calls = []

    @sums.cached(ttl=3600)
    def square(number):
        calls.append(number)
        return number**2

    assert [square(3), square(3), square(4)] == [9, 9, 16]
    square.forget(3)
    assert square(3) == 9
    assert calls == [3, 4, 3]


def test_the_feed_of_a_state(place):
    sums["a"] = 1

    @kirby.stream("state.sums", to="invoices")
    def copy(change):
        return change

    drain()
    with kirby.transaction():
        sums["a"] = 2
        sums["b"] = 3
    del sums["a"]
    drain()

    found = [
        tuple(each[name] for name in ("op", "version", "value", "key")) for each in values(invoices)
    ]
    assert [each for each in found if each[3] == "a"] == [
        ("set", 1, 1, "a"), ("set", 2, 2, "a"), ("delete", 3, None, "a"),
    ]  # fmt: skip
    assert found.count(("set", 1, 3, "b")) == 1


# Tasks


def test_a_task_and_its_result(place):
    @kirby.task(name="add")
    def add(one, two=1):
        return one + two

    found = add.delay(2, two=3)
    many = add.map([1, 2])
    drain()

    assert found.get(timeout=5) == 5
    assert [each.get(timeout=5) for each in many] == [2, 3]
    assert found.status == "succeeded"
    assert kirby.result("add", found.id) == found
    [answer] = [each for each in kirby.topic("task.add.results").read() if each.value["value"] == 5]
    assert answer.parents


def test_a_task_that_fails_is_tried_again_and_then_tells(place):
    tries = []

    @kirby.task(name="bad", max_attempts=2)
    def bad(message: kirby.Message):
        tries.append((message.attempt, kirby.current_task().id))
        orders.publish("never")
        raise kirby.Retry("not yet", countdown=0)

    found = bad.delay()
    drain()

    assert tries == [(1, found.id), (2, found.id)]
    assert found.status == "failed"
    with pytest.raises(kirby.TaskFailed, match="not yet"):
        found.get(timeout=5)


def test_a_task_can_be_revoked_and_expire(place):
    @kirby.task(name="slow")
    def slow():
        raise AssertionError

    found, late = slow.delay(), slow.apply_async(eta=None, expires=0)
    assert found.status == "pending"
    assert found.revoke() is True
    assert found.revoke() is True
    drain()

    assert found.status == "revoked"
    assert late.status == "expired"
    with pytest.raises(kirby.Revoked):
        found.get(timeout=5)
    assert kirby.result("slow", "zz").status == "unknown"


def test_a_task_sent_by_a_handler_goes_with_it(place):
    orders.publish_many([1, 2], key="a")
    done = []

    @kirby.task(name="tell")
    def tell(value):
        done.append(value)

    @kirby.stream("orders", ignore=(ValueError,))
    def handler(value):
        tell.delay(value)
        if value == 1:
            raise ValueError

    drain()

    assert done == [2]
    [message] = kirby.topic("task.tell").read()
    assert message.parents == ([*orders.read()][1].position,)


def test_effects_of_a_replay_are_left_out(place):
    orders.publish(1, headers={"replay": 7})

    @kirby.stream("orders", to="invoices")
    def pay(value):
        for _ in kirby.effect("charge"):
            raise AssertionError
        return value

    drain()
    assert values(invoices) == [1]


# The whole


def test_run_serves_until_it_is_told_to_stop_and_progress_is_nothing_outside(place):
    orders.publish_many(range(3), key="a")
    kirby.progress(0.5, "half")

    @kirby.stream("orders", to="invoices")
    def copy(value):
        if value == 2:
            signal.raise_signal(signal.SIGTERM)
        return value

    kirby.run()

    assert sorted(values(invoices)) == [0, 1, 2]


def test_threads(place):
    orders.publish_many(kirby.Out(number, key=str(number % 7)) for number in range(200))
    invoices.publish("first")
    seen = itertools.count(1)

    @kirby.stream("orders", to="invoices")
    def copy(value):
        if next(seen) == 200:  # in one thread only: a second signal would break off
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    kirby.run(threads=3)

    found = values(invoices)[1:]
    assert sorted(found) == list(range(200))
    assert [number for number in found if number % 7 == 3] == [*range(3, 200, 7)]

"""States in a script: versions, history, ranges, bulk load, the past, the feed."""

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture, stop_after  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kirby
from kirby.core import states as core
from kirby.core.errors import Conflict, Invalid
from kirby.sdk import states

sums = kirby.State("sums")


def write(house, key, value, state="sums"):
    """What somebody else does."""
    change = '{"%s": [{"k": "%s", "o": "set", "v": %s}]}' % (state, key, value)  # noqa: UP031
    house.conn.execute("select kirby.write('{}', %s)", [change])


# Versions


def test_a_put_on_a_version_is_refused_once_the_key_moved_on(sdk):
    assert sums.version("a") == 0
    sums.put("a", 1, version=0)
    assert sums.version("a") == 1
    with pytest.raises(Conflict, match="key a of state sums was changed by somebody else"):
        sums.put("a", 2, version=0)
    sums.put("a", 2, version=1)
    sums.put("a", 3)

    assert (sums["a"], sums.version("a")) == (3, 3)
    del sums["a"]
    assert sums.version("a") == 4
    with pytest.raises(Conflict):
        sums.put("a", 1, version=0)
    sums.put("a", 1, version=4)


def test_versions_in_a_transaction(sdk):
    sums["a"] = 1
    with pytest.raises(Conflict), kirby.transaction():
        sums.put("a", 5, version=2)
    with kirby.transaction():
        sums.put("a", 5, version=1)
        assert sums["a"] == 5

    def unit():
        with kirby.transaction():
            sums["a"] = 6
            assert sums.version("a") == 2  # from here on it depends on it
            write(sdk, "a", 7)

    with pytest.raises(Conflict):
        unit()
    assert sums["a"] == 7


def test_history(sdk, monkeypatch):
    monkeypatch.setattr(core, "PAGE", 3)
    kirby.topic("orders").publish(1)
    for message in kirby.topic("orders").consume():
        sums["a"] = {"n": message.value}
        break
    for number in range(5):
        sums["a"] = number
    del sums["a"]

    found = sums.history("a")
    assert [(each.version, each.value, each.deleted) for each in found] == [
        (6, None, True), (5, 4, False), (4, 3, False), (3, 2, False), (2, 1, False), (1, 0, False),
    ]  # fmt: skip
    assert [each.version for each in sums.history("a", 4)] == [6, 5, 4, 3]
    assert sums.history("b") == []
    assert found[0].at <= datetime.now(UTC)
    assert found[0].position > found[1].position


def test_history_names_the_messages(sdk):
    kirby.topic("orders").publish(1)
    enough = stop_after(1)

    @kirby.stream("orders")
    def tally(value):
        sums["a"] = value
        enough()

    kirby.run()
    [message] = kirby.topic("orders").read()
    [version] = sums.history("a")
    assert version.parents == (message.position,)


# The past


def test_a_state_as_it_was(sdk):
    sums["a"] = {"n": 1}
    sums["b"] = None
    at = sums.history("b")[0]
    sums["a"] = 2
    del sums["b"]
    sums["c"] = 3

    for moment in (at.position, at.at, at.at.astimezone().replace(tzinfo=None)):
        then = sums.at(moment)
        assert dict(then) == {"a": {"n": 1}, "b": None}
        assert then.items("b") == [("b", None)]
        assert (len(then), list(then), then.values()) == (2, ["a", "b"], [{"n": 1}, None])
        assert "b" in then
        assert "c" not in then
        assert then.get("c", 5) == 5
        assert (then.version("a"), then.version("c")) == (1, 0)
        with pytest.raises(KeyError):
            then["c"]
        with pytest.raises(TypeError):
            then["a"] = 1
    assert dict(sums.at(0)) == {}
    assert dict(kirby.state("never").at(5)) == {}
    assert dict(sums.at(datetime.now(UTC) + timedelta(days=1))) == {"a": 2, "c": 3}


def test_the_past_goes_over_pages(sdk, monkeypatch):
    monkeypatch.setattr(core, "PAST_PAGE", 7)
    sums.load((f"{n:02}", n) for n in range(30))
    position = sums.history("29")[0].position
    sums.load((f"{n:02}", -n) for n in range(40))

    assert sums.at(position).items() == [(f"{n:02}", n) for n in range(30)]
    assert sums.at(position).items("1") == [(f"{n:02}", n) for n in range(10, 20)]


@pytest.mark.parametrize("moment", ["yesterday", None, 5.5, True])
def test_what_is_no_moment_is_refused(moment):
    with pytest.raises(Invalid, match="a state is asked for at a datetime, or at a position"):
        sums.at(moment)


# Ranges

KEYS = st.text("ab/\u00e9\U0001f600", max_size=3)
BOUNDS = st.one_of(st.none(), KEYS)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sets(KEYS, max_size=8), KEYS, BOUNDS, BOUNDS, st.booleans(),
    st.one_of(st.none(), st.integers(0, 4)), st.sets(KEYS, max_size=3), st.sets(KEYS, max_size=3),
)  # fmt: skip
def test_a_range_is_what_a_mapping_has_in_it(
    sdk, stored, prefix, start, stop, reverse, limit, changed, deleted
):
    monkey = pytest.MonkeyPatch()
    monkey.setattr(core, "PAGE", 2)
    for key in list(sums):
        del sums[key]
    sums.load((key, key) for key in stored)

    def expected(mapping):
        keys = [
            key
            for key in sorted(mapping, reverse=reverse)
            if key.startswith(prefix)
            and (start is None or key >= start)
            and (stop is None or key < stop)
        ]
        return [(key, mapping[key]) for key in keys[:limit]]

    def found():
        return sums.items(prefix, start=start, stop=stop, reverse=reverse, limit=limit)

    known = {key: key for key in stored}
    assert found() == expected(known)
    with kirby.transaction():
        for key in changed:
            sums[key] = known[key] = 1
        for key in deleted & known.keys():
            del sums[key]
            del known[key]
        assert found() == expected(known)
    assert found() == expected(known)
    monkey.undo()


def test_a_bad_limit_is_refused(sdk):
    with pytest.raises(Invalid, match="limit is -1: how many keys at the most"):
        sums.items(limit=-1)


def test_only_what_was_shown_is_checked(sdk):
    sums.load({"a": 1, "b": 2, "c": 3})
    with kirby.transaction():
        assert sums.items(limit=2) == [("a", 1), ("b", 2)]
        write(sdk, "c", 5)
        sums["d"] = 4

    def unit():
        with kirby.transaction():
            assert sums.items(limit=2, reverse=True) == [("d", 4), ("c", 5)]
            write(sdk, "c", 6)
            sums["d"] = 5

    with pytest.raises(Conflict):
        unit()


# Bulk load


def test_load_is_all_or_none(sdk, monkeypatch):
    monkeypatch.setattr(states, "PIECE", 10)
    assert sums.load((str(n), n) for n in range(95)) == 95
    assert sums.load({"a": 1, "b": 2}) == 2
    assert sums.load([("a", 1), ("a", 2)]) == 1
    assert sums.load([]) == 0
    assert (len(sums), sums["a"], sums.version("a")) == (97, 2, 2)
    with pytest.raises(Invalid, match="the value of 'x' in state sums cannot be stored"):
        sums.load([("y", 1), ("x", {1})])
    with pytest.raises(Invalid, match="a key is a string"):
        sums.load([("y", 1), (5, 1)])
    assert "y" not in sums
    with kirby.transaction():
        sums.load({"y": 1})
        assert sums["y"] == 1
        assert sdk.ask("select 1 from state_dev.sums where key = 'y'") == []
    assert sums["y"] == 1


# The feed


def broken():
    sums["a"] = 2
    raise RuntimeError


def feed(topic="state.sums"):
    return [
        (
            message.value["key"],
            message.value["op"],
            message.value["version"],
            message.value["value"],
        )
        for message in kirby.topic(topic).read()
    ]


def drain(topic, count, **options):
    """What a handler of so many messages gets."""
    got = []
    enough = stop_after(count)

    @kirby.stream(topic, **options)
    def take(message: kirby.Message):
        got.append(message)
        enough()

    kirby.run()
    return got


def test_a_state_can_be_subscribed_to_like_a_topic(sdk):
    sums["a"] = 1
    sums["b"] = 2
    sums["b"] = 3
    sums["gone"] = 1
    del sums["gone"]

    got = drain(sums.changes, 2)
    values = {message.key: message.value for message in got}
    assert {key: (each["value"], each["version"]) for key, each in values.items()} == {
        "a": (1, 1), "b": (3, 2),
    }  # fmt: skip
    assert feed() == [("a", "set", 1, 1), ("b", "set", 2, 3)]

    sums["a"] = 5
    sums.increment("n", 2)
    del sums["b"]
    assert feed()[2:] == [
        ("a", "set", 2, 5), ("n", "set", 1, 2), ("b", "delete", 3, None),
    ]  # fmt: skip
    messages = list(kirby.topic("state.sums").read())
    assert [m.parents for m in messages] == [
        (position,)
        for (position,) in sdk.ask(
            "select position from kirby.state_mutation where key <> 'gone' and"
            " (key, version) <> ('b', 1) order by position"
        )
    ]
    assert [m.key for m in messages] == ["a", "b", "a", "n", "b"]


def test_a_feed_by_its_name_in_the_transaction_of_the_change(sdk):
    drain_none = "select kirby.subscribe('state.sums', 'reader')"
    sdk.conn.execute(drain_none)
    with kirby.transaction():
        sums["a"] = 1
        kirby.topic("orders").publish(1)
        assert feed() == []
    assert feed() == [("a", "set", 1, 1)]
    with pytest.raises(RuntimeError), kirby.transaction():
        broken()
    sums.load((str(n), n) for n in range(1500))
    assert len(sdk.values("state.sums")) == 1501
    assert (
        sdk.value(
            "select kirby.restore_state(id, 1, null, array['a'], '', 'me', '') from kirby.state"
        )
        == 1
    )
    assert feed()[-1][:2] == ("999", "set") or sdk.values("state.sums")[-1]["op"] == "delete"
    assert sdk.values("state.sums")[-1] == {"key": "a", "op": "delete", "version": 2, "value": None}


def test_what_a_handler_changes_wakes_the_readers_of_the_feed(sdk, until):
    sdk.conn.execute("select kirby.subscribe('state.sums', 'reader')")
    [[topic_id]] = sdk.ask("select id from kirby.topic where name = 'state.sums'")
    with psycopg.connect(sdk.dsn, autocommit=True) as listener:
        listener.execute(f"listen kirby_topic_{topic_id}")
        drain_in_handler(sdk)
        assert [n.channel for n in listener.notifies(timeout=5, stop_after=1)]


def drain_in_handler(sdk):
    kirby.topic("orders").publish(1)
    enough = stop_after(1)

    @kirby.stream("orders")
    def tally(value):
        sums.increment("n")
        enough()

    kirby.run()


def test_a_feed_that_is_opened_while_others_write_misses_nothing_and_has_nothing_twice(sdk):
    """Writers that were in the middle of it when it was opened come first, others after it."""
    for number in range(5):
        sums[str(number)] = 0
    stop = threading.Event()

    def hammer(me):
        with psycopg.connect(sdk.dsn, autocommit=True) as conn:
            n = 0
            while not stop.is_set():
                n += 1
                change = f'{{"sums": [{{"k": "{me}", "o": "merge", "v": [["increment", 1]]}}]}}'
                with conn.transaction():
                    conn.execute("select kirby.write('{}', %s)", [change])
                    conn.execute("select pg_sleep(random() * 0.002)")

    threads = [threading.Thread(target=hammer, args=(str(me),)) for me in range(3)]
    for thread in threads:
        thread.start()
    with psycopg.connect(sdk.dsn, autocommit=True) as conn:
        conn.execute("select pg_sleep(0.1)")
        conn.execute("select kirby.subscribe('state.sums', 'reader')")
        conn.execute("select pg_sleep(0.1)")
    stop.set()
    for thread in threads:
        thread.join()

    for key in map(str, range(5)):
        versions = [v["version"] for v in sdk.values("state.sums") if v["key"] == key]
        last = sdk.value("select version from kirby.state_entry where key = %s", key)
        assert versions == list(range(versions[0], last + 1))


def test_a_feed_is_opened_once(sdk):
    for _ in range(3):
        sdk.conn.execute("select kirby.subscribe('state.sums', 'reader')")
    sums["a"] = 1
    sdk.conn.execute("select kirby.subscribe('state.sums', 'another')")
    assert feed() == [("a", "set", 1, 1)]
    assert sdk.ask("select name from kirby.state") == [("sums",)]

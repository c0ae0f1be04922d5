"""States: a mapping whose every version is kept, and in which no change is ever lost."""

import contextlib
import threading

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core import states as core
from kirby.core.errors import Conflict, Invalid
from kirby.sdk import states

sums = kirby.State("sums")


def history(house, state="sums"):
    return house.ask(f"select key, version, op, value from state_dev.{state}_history")


CHANGE = """
    select kirby.write(p_mutations => jsonb_build_object(%s::text, jsonb_build_array(
             jsonb_build_object('k', %s::text, 'o', 'set', 'v', %s::integer))))
"""


def change(house, key, value, state="sums"):
    """What somebody else does in the meantime."""
    house.conn.execute(CHANGE, [state, key, value])


# A mapping


def test_a_new_state_is_empty(sdk):
    assert len(sums) == 0
    assert list(sums) == []
    assert "a" not in sums
    assert sums.get("a") is None
    assert sums.get("a", 0) == 0
    with pytest.raises(KeyError, match="a"):
        sums["a"]
    assert sdk.ask("select * from kirby.state") == []


@pytest.mark.parametrize(
    "value", [None, 0, "", False, [], {}, {"a": [1, 2.5]}, 1e23, "é\U0001f600"]
)
def test_a_value_comes_back_even_if_it_is_false_or_none(sdk, value):
    sums["a"] = value

    assert "a" in sums
    assert sums["a"] == value
    assert sums.get("a", "default") == value
    assert sdk.ask("select key, value, version from state_dev.sums") == [("a", value, 1)]


def test_a_state_behaves_as_a_mapping(sdk):
    sums["b"] = 2
    sums["a"] = 1
    sums["a"] = 3

    assert dict(sums) == {"a": 3, "b": 2}
    assert list(sums) == list(sums.keys()) == ["a", "b"]
    assert list(sums.values()) == [3, 2]
    assert sums.items() == [("a", 3), ("b", 2)]
    assert len(sums) == 2
    assert sums == {"a": 3, "b": 2}
    assert 5 not in sums


def test_a_deleted_key_is_gone_and_can_come_back(sdk):
    sums["a"] = 1
    del sums["a"]

    assert "a" not in sums
    assert sums.items() == []
    with pytest.raises(KeyError):
        del sums["a"]
    sums["a"] = 2
    assert history(sdk) == [("a", 1, "set", 1), ("a", 2, "delete", None), ("a", 3, "set", 2)]
    assert sdk.ask("select key, value, version from state_dev.sums") == [("a", 2, 3)]


def test_a_tombstone_is_in_the_history_and_not_in_the_view(sdk):
    sums["a"] = 1
    del sums["a"]

    assert sdk.ask("select * from state_dev.sums") == []
    assert sdk.ask("select version, op from kirby.state_entry") == [(2, "delete")]


def test_pop_deletes_and_returns(sdk):
    sums["a"] = 1

    assert sums.pop("a") == 1
    assert sums.pop("a", 0) == 0
    with pytest.raises(KeyError):
        sums.pop("a")


def test_items_can_be_asked_for_by_prefix(sdk):
    for key in ("b", "a/1", "a/%", "a/_", "a/\u00e9", "a", "A/1", "a\\"):
        sums[key] = key

    assert [key for key, _ in sums.items("a/")] == ["a/%", "a/1", "a/_", "a/\u00e9"]
    assert [key for key, _ in sums.items("a/%")] == ["a/%"]
    assert [key for key, _ in sums.items("a\\")] == ["a\\"]
    assert [key for key, _ in sums.items()] == sorted(sums)


def test_items_go_over_pages(sdk, monkeypatch):
    monkeypatch.setattr(core, "PAGE", 7)
    with kirby.transaction():
        for number in range(30):
            sums[f"{number:02}"] = number

    assert [value for _, value in sums.items()] == list(range(30))
    assert len(sums) == 30


def test_update_applies_a_function(sdk):
    assert sums.update("a", lambda value: value + 1, 0) == 1
    assert sums.update("a", lambda value: value + 1, 0) == 2
    assert sums["a"] == 2


def test_a_value_is_a_copy(sdk):
    sums["a"] = [1]
    sums["a"].append(2)

    with kirby.transaction():
        sums["a"].append(3)
        assert sums["a"] == [1]


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a-b", "a.b", "a b", "ä", "a" * 51, "a\n", "a\0", "a;b", None, 1]
)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(Invalid, match="is not a name for a state: small letters, digits and unde"):
        kirby.state(name)


@pytest.mark.parametrize("name", ["a", "a" * 50, "select", "a_1", "historyx"])
def test_any_good_name_has_its_views(sdk, name):
    state = kirby.state(name)
    state["k"] = 1

    assert sdk.ask(f'select key, value from state_dev."{name}"') == [("k", 1)]
    assert sdk.ask(f'select key, version from state_dev."{name}_history"') == [("k", 1)]


def test_a_name_whose_view_would_be_that_of_another_is_refused(db):
    """state_dev.sums_history has the versions of state sums."""
    complaint = "sums_history is not a name for a state: that view has the versions of state sums"
    with pytest.raises(Invalid, match=complaint):
        kirby.state("sums_history")
    with pytest.raises(Exception, match=complaint) as caught, db.transaction():
        db.execute("select kirby.state_id(1::smallint, 'sums_history')")
    assert caught.value.sqlstate == "KB001"


BAD_KEYS = [5, None, b"a", "a\0", "\ud800", "a" * 1025, ["a"]]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_key_is_refused_in_one_line(sdk, key):
    for act in (
        lambda: sums[key],
        lambda: sums.__setitem__(key, 1),
        lambda: sums.__delitem__(key),
        lambda: sums.update(key, str),
    ):
        with pytest.raises(Invalid, match="key") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_a_bad_value_is_refused_and_says_where(sdk):
    with pytest.raises(Invalid, match="the value of 'a' in state sums cannot be stored: value is"):
        sums["a"] = {1}


def test_the_longest_key_can_be_stored(sdk):
    keys = ["".join(chr(0x10000 + (n * 7919 + m) % 60000) for n in range(256)) for m in range(5)]
    for key in keys:
        sums[key] = 1

    assert sorted(sums) == sorted(keys)


# Every version


def test_every_version_is_kept_with_who_and_why(sdk):
    kirby.topic("orders").publish_many([1, 2], key="k")
    for message in kirby.topic("orders").consume():
        sums["all"] = sums.get("all", 0) + message.value
        if message.value == 2:
            break
    sums["all"] = 10

    positions = [message.position for message in kirby.topic("orders").read()]
    rows = sdk.ask("select version, value, parents from state_dev.sums_history")
    assert rows == [(1, 1, [positions[0]]), (2, 10, None)]
    assert sdk.ask("select position, recorded_at is not null from state_dev.sums_history") == [
        (position, True) for (position,) in sdk.ask("select position from kirby.state_mutation")
    ]


def test_several_writes_of_one_transaction_are_one_version(sdk):
    with kirby.transaction():
        sums["a"] = 1
        sums["a"] = 2
        del sums["a"]
        sums["a"] = 3
        assert sums["a"] == 3

    assert history(sdk) == [("a", 1, "set", 3)]


def test_a_key_that_comes_and_goes_in_one_transaction_is_a_tombstone(sdk):
    with kirby.transaction():
        sums["a"] = 1
        del sums["a"]
        assert "a" not in sums

    assert "a" not in sums
    assert [op for _, _, op, _ in history(sdk)] == ["delete"]


def test_reading_alone_writes_no_version(sdk):
    sums["a"] = 1
    with kirby.transaction():
        sums.get("a")
        sums.get("b")
        sums.items()

    assert history(sdk) == [("a", 1, "set", 1)]


# A unit of work


def test_a_transaction_sees_its_own_changes_and_nobody_else_does(sdk):
    sums["a"], sums["b"], sums["c"] = 1, 1, 1
    with kirby.transaction():
        sums["a"] = 2
        del sums["b"]
        sums["d"] = 4
        assert sums.items() == [("a", 2), ("c", 1), ("d", 4)]
        assert sums.items("d") == [("d", 4)]
        assert (len(sums), "b" in sums) == (3, False)
        assert sdk.ask("select value from state_dev.sums order by key") == [(1,), (1,), (1,)]

    assert sums.items() == [("a", 2), ("c", 1), ("d", 4)]


def test_a_transaction_that_fails_changes_nothing(sdk):
    with contextlib.suppress(RuntimeError), kirby.transaction():
        sums["a"] = 1
        raise RuntimeError

    assert "a" not in sums
    assert sdk.ask("select from kirby.state_mutation") == []


def test_a_transaction_reads_a_key_once(sdk):
    """What it has seen stays so, and if it is no longer true at the end, nothing is written."""
    sums["a"] = 1

    def unit():
        with kirby.transaction():
            assert sums["a"] == 1
            change(sdk, "a", 2)
            assert sums["a"] == 1
            assert sums.items() == [("a", 1)]
            sums["b"] = sums["a"]

    complaint = "somebody else since it was read; nothing was written, run the block again"
    with pytest.raises(Conflict, match=complaint):
        unit()
    assert sums.items() == [("a", 2)]


READS = {
    "get": lambda: sums.get("a"),
    "in": lambda: "a" in sums,
    "item": lambda: sums["a"],
    "items": lambda: sums.items(),
    "prefix": lambda: sums.items("a"),
    "iteration": lambda: list(sums),
    "length": lambda: len(sums),
}


@pytest.mark.parametrize("how", READS)
def test_whatever_was_read_is_checked(sdk, how):
    sums["a"] = 1

    def unit():
        with kirby.transaction():
            READS[how]()
            change(sdk, "a", 2)
            sums["b"] = 1

    with pytest.raises(Conflict):
        unit()
    assert "b" not in sums


def test_that_a_key_was_absent_is_checked_too(sdk):
    def unit():
        with kirby.transaction():
            if "a" not in sums:
                change(sdk, "a", 1)
                sums["b"] = 1

    with pytest.raises(Conflict):
        unit()
    assert sums.items() == [("a", 1)]


def test_a_blind_write_in_a_transaction_wins(sdk):
    sums["a"] = 1
    with kirby.transaction():
        sums["a"] = 3
        change(sdk, "a", 2)

    assert [value for _, _, _, value in history(sdk)] == [1, 2, 3]


def test_messages_and_states_of_a_conflict_are_both_not_written(sdk):
    sums["a"] = 1

    def unit():
        with kirby.transaction():
            kirby.topic("orders").publish(sums["a"])
            sums["a"] = 5
            change(sdk, "a", 2)

    with pytest.raises(Conflict):
        unit()
    assert sdk.values("orders") == []
    assert sums["a"] == 2


# Several at once


def test_an_update_is_tried_again_on_the_newer_value(sdk):
    sums["a"] = 0
    seen = []

    def add_one(value):
        seen.append(value)
        if len(seen) < 3:
            change(sdk, "a", 10 * len(seen))
        return value + 1

    assert sums.update("a", add_one) == 21
    assert seen == [0, 10, 20]


def test_an_update_of_a_new_key_is_tried_again(sdk):
    seen = []

    def add_one(value):
        seen.append(value)
        if len(seen) == 1:
            change(sdk, "a", 10)
        return value + 1

    assert sums.update("a", add_one, 0) == 11
    assert seen == [0, 10]


def test_an_update_that_never_gets_through_says_so(sdk, monkeypatch):
    monkeypatch.setattr(states, "MAX_TRIES", 3)

    with pytest.raises(Conflict, match="key 'a' of state sums changes faster than it can be wri"):
        sums.update("a", lambda value: change(sdk, "a", 1), 0)


COUNT = """
    sums = kirby.state("sums")
    say("ready")
    sys.stdin.readline()
    for number in range(100):
        {act}
"""


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ('sums.update("a", lambda value: value + 1, 0)', {"a": 200}),
        ('sums.update(str(number), lambda value: value + 1, 0)', {str(n): 2 for n in range(100)}),
    ],
    ids=["one key", "new keys"],
)  # fmt: skip
def test_two_processes_that_update_never_lose_a_change(sdk, scripts, act, expected):
    pair = [scripts(COUNT.format(act=act)) for _ in range(2)]
    for script in pair:
        script.line()
    for script in pair:
        script.tell()

    assert [script.end() for script in pair] == [(0, "")] * 2
    assert dict(sums) == expected
    assert sdk.value("select count(*) from kirby.state_mutation") == 200


def test_a_blind_write_that_meets_another_of_a_new_key_is_tried_again(sdk, until):
    sums["b"] = 1
    mine = threading.Thread(target=sums.__setitem__, args=("a", 2))
    with psycopg.connect(sdk.dsn) as other:
        other.execute(CHANGE, ["sums", "a", 1])
        mine.start()
        until(lambda: sdk.ask("select from pg_locks where not granted"))
        other.commit()
        mine.join()

    assert [value for key, _, _, value in history(sdk) if key == "a"] == [1, 2]


def test_blind_writes_that_race_on_new_keys_all_succeed(sdk, scripts):
    act = "sums[str(number)] = os.getpid()"
    pair = [scripts(COUNT.format(act=act)) for _ in range(2)]
    for script in pair:
        script.line()
    for script in pair:
        script.tell()

    assert [script.end() for script in pair] == [(0, "")] * 2
    assert sdk.value("select count(*) from kirby.state_mutation") == 200
    assert sdk.ask("select distinct version from kirby.state_entry") == [(2,)]


def test_transactions_over_the_same_keys_in_another_order_do_not_lock_each_other_out(sdk, scripts):
    act = """
        with kirby.transaction():
            for key in {order}:
                sums[f"{{number}}/{{key}}"] = os.getpid()
    """
    forth, back = (
        scripts(COUNT.format(act=retried(act.format(order=order))))
        for order in ("range(20)", "range(19, -1, -1)")
    )
    for script in (forth, back):
        script.line()
    for script in (forth, back):
        script.tell()

    assert forth.end()[0] == back.end()[0] == 0
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert sdk.value(deadlocks) == 0
    assert len(sums) == 2000


def retried(act):
    """Two blind writers of a new key: one of the transactions has to run again."""
    body = act.replace("\n        ", "\n                ").strip()
    return f"""while True:
            try:
                {body}
                break
            except kirby.Conflict:
                pass"""

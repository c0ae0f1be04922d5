"""Merge helpers: applied by the database under the key's lock; no conflict, nothing lost."""

import json
import re
import threading

import psycopg
import pytest
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture, stop_after  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kirby
from kirby.core import merges
from kirby.core.errors import Invalid
from kirby.sdk import work

sums = kirby.State("sums")


@pytest.fixture(autouse=True)
def unwary():
    work.CAREFUL.clear()
    yield
    work.CAREFUL.clear()


def history(house):
    return house.ask(
        "select key, version, value, parents from state_dev.sums_history order by 1, 2"
    )


def test_numbers_lists_and_objects(sdk):
    sums.increment("n")
    sums.increment("n", 2.5)
    sums.increment("o", {"flights": 1, "minutes": 7})
    sums.increment("o", {"minutes": 3})
    sums.maximum("most", 3)
    sums.maximum("most", 2)
    sums.minimum("o", {"first": "2027-03-02"})
    sums.minimum("o", {"first": "2027-03-01"})
    sums.merge("o", {"note": None})
    sums.append("list", 1, [2])
    sums.append("list", 1)
    sums.add("set", 1, True, 1.0, "1")
    sums.add("set", "1", {"a": 1})

    assert dict(sums) == {
        "list": [1, [2], 1],
        "most": 3,
        "n": 3.5,
        "o": {"flights": 1, "minutes": 10, "first": "2027-03-01", "note": None},
        "set": [1, True, "1", {"a": 1}],
    }


def test_a_deleted_key_begins_anew(sdk):
    sums["n"] = 5
    del sums["n"]
    sums.increment("n")

    assert sums["n"] == 1
    assert sums.version("n") == 3


def test_fractions_are_added_as_they_are_written(sdk):
    for _ in range(10):
        sums.increment("n", 0.1)
    with kirby.transaction():
        assert sums["n"] == 1.0
        sums.increment("n", 0.2)
        sums.increment("n", 0.1)
        assert sums["n"] == 1.3

    assert sums["n"] == 1.3


def test_in_a_transaction_several_become_one_version(sdk):
    sums["n"] = 1
    with kirby.transaction():
        sums.increment("n")
        sums.increment("n", 3)
        sums.increment("n", 0.5)
        sums.maximum("n", 100)
        sums.append("list", 1)
        sums.append("list", 2)

    assert sums.items() == [("list", [1, 2]), ("n", 100)]
    assert [(key, version) for key, version, *_ in history(sdk)] == [
        ("list", 1), ("n", 1), ("n", 2),
    ]  # fmt: skip


CHANGE = """select kirby.write(p_mutations => '{"sums": [{"k": "n", "o": "set", "v": 10}]}')"""


def test_a_merge_does_not_depend_on_what_others_do(sdk):
    sums["n"] = 1
    with kirby.transaction():
        sums.increment("n")
        sdk.conn.execute(CHANGE)

    assert sums["n"] == 11


def test_who_reads_what_it_merged_depends_on_it(sdk):
    sums["n"] = 1

    def unit():
        with kirby.transaction():
            sums.increment("n")
            assert sums["n"] == 2
            assert sums.items() == [("n", 2)]
            sdk.conn.execute(CHANGE)

    with pytest.raises(kirby.Conflict):
        unit()
    assert sums["n"] == 10
    with kirby.transaction():
        sums.increment("n")
        assert sums.items("n") == [("n", 11)]
        sums.increment("n")
    assert sums["n"] == 12


def test_after_a_write_of_the_same_transaction_its_value_is_known(sdk):
    with kirby.transaction():
        sums["n"] = 5
        sums.increment("n")
        del sums["n"]
        sums.increment("n", 2)
        sdk.conn.execute(CHANGE)

    assert sums["n"] == 2  # written blindly: the last one wins


@pytest.mark.parametrize(
    ("value", "act", "complaint"),
    [
        ("x", lambda: sums.increment("n"), 'key n of state sums is "x", not a number: increment'),
        (None, lambda: sums.maximum("n", 1), "key n of state sums is null, not a number: maxim"),
        (5, lambda: sums.increment("n", {"a": 1}), "key n of state sums is of kind number: incr"),
        ({"a": "x"}, lambda: sums.increment("n", {"a": 1}), 'a of key n of state sums is "x", no'),
        ({"a": 1}, lambda: sums.minimum("n", {"a": "x"}), "a of key n of state sums is 1, not a s"),
        ([], lambda: sums.merge("n", {"a": 1}), "key n of state sums is of kind array: merge need"),
        ({}, lambda: sums.append("n", 1), "key n of state sums is of kind object: append needs an"),
        (True, lambda: sums.add("n", 1), "key n of state sums is of kind boolean: add needs an ar"),
    ],
)
def test_a_value_of_another_kind_is_refused_alone_and_in_a_transaction(sdk, value, act, complaint):
    sums["n"] = value
    with pytest.raises(Invalid, match=complaint) as caught:
        act()
    assert "\n" not in str(caught.value)
    with pytest.raises(Invalid, match=complaint), kirby.transaction():
        act()
    with kirby.transaction():
        assert sums["n"] == value
        with pytest.raises(Invalid, match=complaint):
            act()
    assert sums["n"] == value


@pytest.mark.parametrize(
    "act",
    [
        lambda: sums.increment("n", "1"),
        lambda: sums.increment("n", None),
        lambda: sums.increment("n", True),
        lambda: sums.increment("n", {"a": [1]}),
        lambda: sums.increment("n", float("nan")),
        lambda: sums.maximum("n", [1]),
        lambda: sums.merge("n", [1]),
        lambda: sums.append("n", {1}),
        lambda: sums.add(5, 1),
    ],
)
def test_what_cannot_be_merged_is_refused_at_once(sdk, act):
    with pytest.raises(Invalid):
        act()
    assert sdk.ask("select 1 from kirby.state_mutation") == []


# In handlers


def test_a_handler_that_only_merges_never_runs_again(sdk):
    kirby.topic("orders").publish_many(range(10))
    seen = []
    enough = stop_after(10)

    @kirby.stream("orders")
    def tally(value):
        seen.append(value)
        sums.increment("all", {"orders": 1, "sum": value})
        if len(seen) == 5:
            sdk.conn.execute(
                "select kirby.write(p_mutations => "
                """'{"sums": [{"k": "all", "o": "merge", "v": [["increment", {"sum": 1000}]]}]}')"""
            )
        enough()

    kirby.run()
    assert sorted(seen) == list(range(10))
    assert sums["all"] == {"orders": 10, "sum": 1045}
    positions = {message.position for message in kirby.topic("orders").read()}
    assert {parent for *_, parents in history(sdk) for parent in parents or []} == positions


def test_a_message_whose_merge_does_not_fit_fails_by_itself(sdk):
    sums["bad"] = "text"
    kirby.topic("orders").publish_many(["good", "bad", "good"])
    enough = stop_after(4)

    @kirby.stream("orders", max_attempts=1)
    def tally(value):
        enough()
        sums.increment(value)

    kirby.run()
    enough = stop_after(99)
    assert sums["bad"] == "text"
    [(error,)] = sdk.ask("select error from kirby.due where parked_at is not null")
    assert 'key bad of state sums is "text", not a number' in error
    assert sdk.backlog() == 0
    assert sums["good"] == 2


# Several at once

MERGE = """
    select kirby.write(p_mutations =>
        '{"sums": [{"k": "n", "o": "merge", "v": [["increment", 1]]}]}')
"""


@pytest.mark.parametrize("commits", [True, False])
def test_two_that_merge_into_a_new_key_at_the_same_moment(sdk, until, commits):
    sums["another"] = 1  # the state is there already
    done = []

    def merge():
        with psycopg.connect(sdk.dsn, autocommit=True) as conn:
            done.append(conn.execute(MERGE).fetchall())

    with psycopg.connect(sdk.dsn) as first:
        first.execute(MERGE)
        second = threading.Thread(target=merge)
        second.start()
        until(lambda: sdk.ask("select 1 from pg_locks where not granted"))
        first.commit() if commits else first.rollback()
        second.join()

    assert len(done) == 1
    assert sums["n"] == 1 + commits
    assert sdk.ask("select * from kirby.verify_state_entries()") == []


HAMMER = """
    sums = kirby.state("sums")
    me = sys.argv[1] if len(sys.argv) > 1 else os.getpid()
    say("ready")
    sys.stdin.readline()
    for number in range(150):
        sums.increment("n")
        sums.increment("o", {"n": 1, str(me): 1})
        sums.increment(f"new {number}")
        sums.append("list", number)
        sums.add("set", number % 10)
        sums.maximum("most", number)
        with kirby.transaction():
            sums.increment("b", 2)
            sums.increment("a", 2)
            sums.increment(f"both {number}")
            kirby.topic("out").publish(number)
    say("conflicts", CONFLICTS)
"""
COUNTED = """
    CONFLICTS = 0
    from kirby.core import errors, topics
    write = topics.write
    def counting(*arguments):
        global CONFLICTS
        try:
            return write(*arguments)
        except errors.Conflict:
            CONFLICTS += 1
            raise
    topics.write = counting
"""


def test_processes_that_merge_into_the_same_keys_lose_nothing_and_never_conflict(sdk, scripts):
    crowd = [scripts(COUNTED + HAMMER) for _ in range(3)]
    for script in crowd:
        script.line()
    for script in crowd:
        script.tell()
    assert [script.line() for script in crowd] == ["conflicts 0"] * 3
    assert [script.end() for script in crowd] == [(0, "")] * 3

    assert sums["n"] == 450
    assert sums["o"]["n"] == 450
    assert sorted(sums["o"].values()) == [150, 150, 150, 450]
    assert [sums[f"new {n}"] for n in range(150)] == [3] * 150
    assert [sums[f"both {n}"] for n in range(150)] == [3] * 150
    assert sorted(sums["list"]) == sorted(list(range(150)) * 3)
    assert sorted(sums["set"]) == list(range(10))
    assert (sums["most"], sums["a"], sums["b"]) == (149, 900, 900)
    assert len(sdk.values("out")) == 450
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert sdk.value(deadlocks) == 0
    assert sdk.ask("select * from kirby.verify_state_entries()") == []
    assert sdk.ask("select * from kirby.verify_state_versions()") == []


# The same in Python and in the database

NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15),
)
PARTS = st.one_of(NUMBERS, st.text("ab\u00e9\U0001f600", max_size=2), st.none(), st.booleans())
FIELDS = st.dictionaries(st.sampled_from("abc"), PARTS, max_size=3)
LISTS = st.lists(st.one_of(PARTS, st.lists(NUMBERS, max_size=1), FIELDS), max_size=4)
VALUES = st.one_of(st.just(...), PARTS, FIELDS, LISTS)
MERGES = st.one_of(
    st.tuples(st.sampled_from(merges.COUNTING), st.one_of(PARTS, FIELDS)),
    st.tuples(st.just("merge"), FIELDS),
    st.tuples(st.sampled_from(merges.LISTS), LISTS),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(VALUES, st.lists(MERGES, max_size=4))
def test_python_and_the_database_merge_alike(db, value, given_merges):
    several = []
    combined = ()
    for op, what in given_merges:
        try:
            what = merges.checked(op, what, "it")
        except Invalid:
            continue
        several.append((op, what))
        combined = merges.combined(combined, op, what)
    text = None if value is ... else json.dumps(value)

    alone = outcome(lambda: merges.applied(text, several, "key k of state s"))
    assert outcome(lambda: stored(db, text, several)) == alone
    assert outcome(lambda: stored(db, text, combined)) == alone


def outcome(act):
    try:
        return plain(json.loads(act()))
    except Exception as error:
        if getattr(error, "sqlstate", "") != "KB001":
            raise
        return re.sub(" is .*, not", " is …, not", str(error).split("\n")[0])  # numbers: 1.0, 1


def plain(value):
    """Where 1 is 1.0, and true is not 1."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return ("flag", value) if isinstance(value, bool) else value


def stored(db, text, several):
    with db.transaction():
        [[found]] = db.execute(
            "select kirby.merged(%s::jsonb, %s::jsonb, 'k', 's')::text",
            [text, json.dumps(several)],
        ).fetchall()
    return found if found is not None else "null"

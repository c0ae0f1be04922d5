"""Diff, blame and restore: exact against what the mutations say one by one."""

import itertools
import json

import psycopg
import pytest
from fix_sdk import house_fixture, sdk_fixture  # noqa: F401
from fix_states import Past, moment, past_fixture  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kirby.server import database, environments, states

numbers = itertools.count(1)
KEYS = ["a", "a/1", "b", "é"]
LEAVES = st.sampled_from([1, 2, "x", None, True])
VALUES = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.dictionaries(st.sampled_from(["x", "y", "a b"]), below, max_size=3),
        st.lists(below, max_size=2),
    ),
    max_leaves=6,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KEYS), VALUES, st.integers(0, 20)),
        st.tuples(st.just("set"), st.just("a"), VALUES, st.integers(0, 20)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS), st.none(), st.integers(0, 20)),
        st.tuples(st.just("snapshot"), st.none(), st.none(), st.none()),
    ),
    max_size=25,
)
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def play(past, steps):
    mine = Past(past.dsn, past.conn, f"sums{next(numbers)}")
    for what, key, value, at in steps:
        if what == "snapshot":
            mine.snapshot()
        else:
            mine.mutate(key, value if what == "set" else ..., at)
    return mine


def same(one, other):
    """As in JSON, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# Diff

DIFF = """
    select key, before, after, before_version, after_version, position
      from kirby.differences(%s, %s, %s, %s, %s, %s, %s, %s)
"""


def differences(mine, before, after):
    """Out of all mutations; moments are ("position", n), ("seconds", n) or None for now."""
    one, other = (mine.was(**dict([at])) if at else mine.was() for at in (before, after))
    none = (None, None)
    found = []
    for key in sorted(one.keys() | other.keys()):
        (version, value), (later, new) = one.get(key, none), other.get(key, none)
        if version is None or later is None or not same(value, new):
            last = max(
                position
                for position, known, *_, seconds in mine.log
                if known == key and (by(before, position, seconds) or by(after, position, seconds))
            )
            found.append((key, value, new, version, later, last))
    return found


def by(at, position, seconds):
    return at is None or (position if at[0] == "position" else seconds) <= at[1]


def asked(mine, before, after, prefix="", after_key=None, limit=None):
    moments = []
    for at in (before, after):
        moments.append(at[1] if at and at[0] == "position" else None)
        moments.append(moment(at[1]) if at and at[0] == "seconds" else None)
    return mine.ask(DIFF, mine.id, *moments, prefix, after_key, limit)


@EXAMPLES
@given(STEPS, st.data())
def test_a_diff_is_what_the_two_states_do_not_have_in_common(past, steps, data):
    mine = play(past, steps)
    positions = [("position", each[0]) for each in mine.log]
    moments = [None, *positions, *(("seconds", seconds) for seconds in range(-1, 22))]
    for _ in range(6):
        before, after = (data.draw(st.sampled_from(moments)) for _ in range(2))
        expected = differences(mine, before, after)
        assert asked(mine, before, after) == expected
        below = [row for row in expected if row[0].startswith("a/")]
        assert asked(mine, before, after, "a/") == below
        assert asked(mine, before, after, limit=2) == expected[:2]
        assert asked(mine, before, after, after_key="a/1") == [r for r in expected if r[0] > "a/1"]


# Blame


def leaves(value, path="$"):
    """{path: value} of each leaf."""
    if isinstance(value, dict) and value:
        parts = ((f".{k}" if k.isidentifier() else f'["{k}"]', v) for k, v in value.items())
    elif isinstance(value, list) and value:
        parts = ((f"[{n}]", v) for n, v in enumerate(value))
    else:
        return {path: value}
    return {p: v for step, part in parts for p, v in leaves(part, path + step).items()}


def part_of(value, path, leaf):
    """Whether a value has this leaf at this path, by whatever leads there."""
    return any(p == path and same(v, leaf) for p, v in nodes(value).items())


def nodes(value, path="$"):
    found = {path: value}
    if isinstance(value, dict):
        for k, v in value.items():
            found |= nodes(v, path + (f".{k}" if k.isidentifier() else f'["{k}"]'))
    if isinstance(value, list):
        for n, v in enumerate(value):
            found |= nodes(v, f"{path}[{n}]")
    return found


def blamed(mine, key):
    """Version by version from the newest back: since when each leaf is what it is."""
    versions = [row for row in mine.log if row[1] == key]
    _, _, _, op, value, _ = versions[-1]
    assert op == "set"
    found = {}
    for path, leaf in leaves(value).items():
        since = None
        for _, _, version, op, was, _ in reversed(versions):
            if op == "delete" or not part_of(was, path, leaf):
                break
            since = version
        found[path] = (leaf, since)
    return found


@EXAMPLES
@given(STEPS)
def test_blame_finds_the_version_since_which_each_part_is_what_it_is(past, steps):
    mine = play(past, steps)
    for key in mine.was():
        rows = mine.ask("select path, value, version, exact from kirby.blame(%s, %s)", mine.id, key)
        assert {path: (value, version) for path, value, version, _ in rows} == blamed(mine, key)
        assert all(exact for *_, exact in rows)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def test_blame_that_looks_back_only_so_far_says_so(past):
    for number in range(10):
        past.mutate("a", {"old": 1, "new": number // 8})

    rows = past.ask("select path, version, exact from kirby.blame(%s, 'a', 5)", past.id)
    assert rows == [("$.new", 9, True), ("$.old", 6, False)]


def test_blame_names_the_job_the_release_and_the_messages(past):
    hop = ["carriers", "carriers 1.2", "delays", 55, "2027-03-01T12:00:00Z"]
    past.mutate("a", {"x": 1}, parents=[55, 56], headers={"via": [["other"], hop]})
    past.mutate("a", {"x": 1, "y": 2})

    rows = past.ask("select path, job, release, parents from kirby.state_blame('dev', 'sums', 'a')")
    assert rows == [("$.x", "carriers", "carriers 1.2", [55, 56]), ("$.y", None, None, None)]


# Restore


@EXAMPLES
@given(STEPS, st.data())
def test_a_restored_state_is_what_it_was_and_every_key_is_one_version_on(past, steps, data):
    mine = play(past, steps)
    if not mine.log:
        return
    position = data.draw(st.sampled_from([0, *(each[0] for each in mine.log)]))
    keys = data.draw(st.sampled_from([None, ["a"], ["b", "a/1", "none"]]))
    then, now = mine.was(position), mine.was()
    entries = {k: v for k, v in mine.ask(
        "select key, version from kirby.state_entry where state_id = %s", mine.id)}  # fmt: skip

    changed = mine.value(
        "select kirby.restore_state(%s, %s, null, %s, '', 'me', 'why')", mine.id, position, keys
    )

    found = mine.at()
    differing = 0
    for key, version in entries.items():
        back = keys is None or key in keys
        old, new = (each.get(key, (None, ...))[1] for each in (then if back else now, now))
        differs = back and (old is ... or new is ... or not same(old, new)) and old is not new
        differing += differs
        assert found.get(key, (None, ...))[1] == old
        [[later]] = mine.ask(
            "select version from kirby.state_entry where state_id = %s and key = %s", mine.id, key
        )
        assert later == version + differs
    assert changed == differing


def test_nothing_to_restore(past):
    assert past.value("select kirby.restore_state(%s, 5, null, null, '', 'me', '')", past.id) == 0
    with pytest.raises(psycopg.Error, match="restore to what: give a position or a moment"):
        past.ask("select kirby.restore_state(%s, null, null, null, '', 'me', '')", past.id)


def test_a_restore_waits_for_who_is_changing_a_key(past, until):
    import threading

    position = past.mutate("a", 1)
    past.mutate("a", 2)
    with psycopg.connect(past.dsn) as other:
        other.execute("""select kirby.write('{}', '{"sums": [{"k": "a", "o": "set", "v": 3}]}')""")
        restore = threading.Thread(
            target=lambda: psycopg.connect(past.dsn, autocommit=True).execute(
                "select kirby.restore_state(%s, %s, null, null, '', 'me', '')", [past.id, position]
            ).connection.close()
        )  # fmt: skip
        restore.start()
        until(lambda: past.ask("select 1 from pg_locks where not granted"))
        other.commit()
        restore.join()

    assert past.at() == {"a": (4, 1)}


# The module of the server


@pytest.fixture
def conn(past):
    engine = database.engine(past.dsn, size=1)
    with database.unit(engine) as conn:
        yield conn
    engine.dispose()


def test_the_server_s_words(past, conn):
    first = past.mutate("a", {"x": 1}, 0)
    past.mutate("b", 2, 10)
    past.mutate("a", {"x": 1, "y": 3}, 20)
    past.mutate("b", at=30)
    dev = environments.get(conn, "dev")
    state = states.get(conn, dev, "sums")

    assert [(e.key, e.value, e.version) for e in states.at(conn, state, position=first)] == [
        ("a", {"x": 1}, 1)
    ]
    assert [e.key for e in states.at(conn, state, when=moment(15))] == ["a", "b"]
    assert [e.key for e in states.at(conn, state, when=moment(15), after="a", limit=1)] == ["b"]
    assert [e.value for e in states.at(conn, state, when=moment(15), key="b")] == [2]
    assert states.at(conn, state, position=first, key="b") == []
    found = states.diff(conn, state, moment(15), moment(25))
    assert [(d.key, d.change, d.versions, d.recorded_at) for d in found] == [
        ("a", "changed", (1, 2), moment(20))
    ]
    found = states.diff(conn, state, first)
    assert [(d.key, d.change, d.before, d.after) for d in found] == [
        ("a", "changed", {"x": 1}, {"x": 1, "y": 3})
    ]
    assert [d.change for d in states.diff(conn, state, moment(15))] == ["changed", "removed"]
    assert [d.key for d in states.diff(conn, state, moment(15), after_key="a")] == ["b"]
    assert [(b.path, b.version) for b in states.blame(conn, state, "a")] == [
        ("$.x", 1), ("$.y", 2),
    ]  # fmt: skip
    with pytest.raises(psycopg.Error, match="key b has no value"):
        states.blame(conn, state, "b")


def test_a_restore_by_hand_is_audited_and_says_why(past, conn):
    past.mutate("a", 1, 0)
    past.mutate("b", 2, 10)
    past.mutate("a", 3, 20)
    dev = environments.get(conn, "dev")

    count = states.restore(conn, dev, "sums", key="a", to=moment(5), actor="ann", reason="a bug")
    assert count == 1
    assert states.restore(conn, dev, "sums", to=moment(5), actor="ann", reason="all") == 1
    database.driver(conn).commit()

    assert past.at() == {"a": (3, 1)}
    history = states.history(conn, states.get(conn, dev, "sums"), "a")
    assert history[0].restored == {
        "by": "ann", "reason": "a bug", "version": 1, "to": "2027-03-01T12:00:05+00:00",
    }  # fmt: skip
    assert history[1].restored is None
    rows = past.ask(
        "select actor, verb, object, reason, after from kirby.audit_event"
        " where actor = 'ann' order by position"
    )
    assert [row[:4] for row in rows] == [
        ("ann", "state_restored", "state/dev/sums", "a bug"),
        ("ann", "state_restored", "state/dev/sums", "all"),
    ]
    assert rows[0][4] == {"to": "2027-03-01T12:00:05+00:00", "keys": ["a"], "changed": 1}

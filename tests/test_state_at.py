"""A state as it was: at any position or moment, with and without snapshots, exact."""

import itertools
import threading

import psycopg
import pytest
from fix_states import Past, moment, past_fixture  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

numbers = itertools.count(1)
KEYS = ["a", "a/1", "a/2", "b", "é", "\U0001f600"]
VALUES = st.sampled_from([1, 2, None, {"x": 1}, [1]])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KEYS), VALUES, st.integers(0, 20)),
        st.tuples(st.just("set"), st.sampled_from(KEYS), VALUES, st.integers(0, 20)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS), st.none(), st.integers(0, 20)),
        st.tuples(st.just("snapshot"), st.none(), st.none(), st.none()),
        st.tuples(st.just("keep"), st.none(), st.none(), st.none()),
    ),
    max_size=25,
)
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def play(past, steps):
    """Do the steps on a state of its own."""
    mine = Past(past.dsn, past.conn, f"sums{next(numbers)}")
    for what, key, value, at in steps:
        if what == "snapshot":
            mine.snapshot()
        elif what == "keep":
            mine.keep()
        else:
            mine.mutate(key, value if what == "set" else ..., at)
    return mine


@EXAMPLES
@given(STEPS)
def test_every_position_is_what_the_mutations_say(past, steps):
    mine = play(past, steps)

    for position in [0, *(each[0] for each in mine.log), 2**62]:
        expected = mine.was(position)
        assert mine.at(position) == expected
        assert mine.at(position, keys=KEYS) == expected
    assert mine.at() == mine.was()


@EXAMPLES
@given(STEPS)
def test_every_moment_is_what_was_recorded_by_then_even_if_the_clock_was_set_back(past, steps):
    mine = play(past, steps)

    for seconds in range(-1, 22, 2):
        assert mine.at(seconds=seconds) == mine.was(seconds=seconds)
        assert mine.at(seconds=seconds, keys=KEYS) == mine.was(seconds=seconds)
    for seconds, (position, *_) in itertools.product((3, 10), mine.log[::5]):
        assert mine.at(position, seconds) == mine.was(position, seconds)


def test_pages_and_prefixes(past):
    for key in ("b", "a/1", "a/%", "a/\U0010ffff", "a", "A/1"):
        past.mutate(key, key)
    position = past.snapshot() or past.log[-1][0]
    past.mutate("a/2", 2)
    past.mutate("a/1")

    for at in (position, past.log[-1][0]):
        whole = past.was(at)
        below = {key: value for key, value in whole.items() if key.startswith("a/")}
        assert past.at(at, prefix="a/") == below
        assert list(past.at(at, limit=2)) == list(whole)[:2]
        second = list(whole)[1]
        assert list(past.at(at, after=second)) == list(whole)[2:]
        assert list(past.at(at, prefix="a/", after="a/%", limit=1)) == list(below)[1:2]


# Snapshots


def test_a_snapshot_has_nothing_that_a_delayed_writer_commits_later(past, until):
    """A writer that took its positions first and commits last holds up the counting alone."""
    past.mutate("a", 1)
    with psycopg.connect(past.dsn) as slow:
        slow.execute("""select kirby.write('{}', '{"sums": [{"k": "b", "o": "set", "v": 1}]}')""")
        [[mine]] = slow.execute("select max(position) from kirby.state_mutation").fetchall()
        last = past.mutate("a", 2)
        past.snapshot()
        [[taken]] = past.ask("select position from kirby.state_snapshot")
        assert taken < mine < last
        assert past.at(last) == {"a": (2, 2)}
        slow.commit()

    assert past.at(last) == {"a": (2, 2), "b": (1, 1)}
    past.snapshot()
    assert past.ask("select count(*) from kirby.state_snapshot") == [(2,)]
    assert past.at(last) == {"a": (2, 2), "b": (1, 1)}
    assert past.ask("select * from kirby.verify_state_snapshots()") == []


WRITERS = 4
ROUNDS = 40


def test_writers_that_overtake_each_other_leave_every_snapshot_exact(past):
    """Transactions of several processes' kinds: slow ones, ones that roll back, and savepoints."""

    def write(number):
        with psycopg.connect(past.dsn) as conn:
            for step in range(ROUNDS):
                change = f'{{"sums": [{{"k": "{number}/{step % 7}", "o": "set", "v": {step}}}]}}'
                conn.execute("select kirby.write('{}', %s)", [change])
                conn.execute("select pg_sleep(random() * 0.01)")
                if step % 5 == 0:
                    conn.rollback()
                conn.commit()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        past.snapshot()
    for thread in threads:
        thread.join()
    past.snapshot()

    assert past.value("select count(*) from kirby.state_snapshot") > 3
    assert past.ask("select * from kirby.verify_state_snapshots()") == []
    assert past.value("select sum(mutations) from kirby.state_count") == WRITERS * ROUNDS * 4 // 5


def test_without_the_announcement_a_snapshot_would_miss_a_mutation(past):
    """The same as above with a writer that does not announce: verify finds it out."""
    past.mutate("a", 1)
    with psycopg.connect(past.dsn) as slow:
        slow.execute(
            "insert into kirby.state_mutation (position, state_id, key, version, op, value)"
            " values (nextval('kirby.position'), %s, 'b', 1, 'set', '1')",
            [past.id],
        )
        past.mutate("a", 2)
        past.snapshot()
        slow.commit()

    wrong = past.ask("select key from kirby.verify_state_snapshots()")
    assert ("dev/sums",) in wrong
    assert any(key.startswith("dev/sums/b at") for (key,) in wrong)


def test_a_snapshot_is_due_after_ten_thousand_mutations_and_as_many_as_there_are_keys(past):
    past.ask(
        "insert into kirby.state_mutation (position, state_id, key, version, op, value)"
        " select nextval('kirby.position'), %s, k::text, 1, 'set', '1'"
        " from generate_series(1, 10500) k",
        past.id,
    )
    past.keep()
    assert past.ask("select keys, mutations from kirby.state_snapshot") == [(10500, 10500)]
    for version, expected in ((2, 1), (3, 2)):
        past.ask(
            "insert into kirby.state_mutation (position, state_id, key, version, op, value)"
            " select nextval('kirby.position'), %s, k::text, %s::integer, 'set', '1'"
            " from generate_series(1, 10200) k",
            past.id,
            version,
        )
        past.keep()
        assert past.value("select count(*) from kirby.state_snapshot") == expected
    assert past.ask("select * from kirby.verify_state_snapshots()") == []


def test_a_moment_ends_the_search_close_to_what_was_recorded_by_then(past):
    """Whatever other states were told of the time."""
    other = Past(past.dsn, past.conn, "other")
    for state in (past, other):
        past.ask(
            "insert into kirby.state_mutation (position, state_id, key, version, op, value,"
            " recorded_at) select nextval('kirby.position'), %s, k::text, 1, 'set', '1',"
            " %s::timestamptz + k * interval '1 second' from generate_series(1, 10000) k",
            state.id,
            moment(0),
        )
    past.value("select kirby.keep_states()")
    past.keep()

    for state in (past, other):
        for number in (1, 999, 1000, 5500, 9999):
            position = past.value(
                "select position from kirby.state_mutation where state_id = %s and key = %s",
                state.id, str(number),
            )  # fmt: skip
            by = past.value("select kirby.position_by(%s, %s)", state.id, moment(number))
            assert position <= by
            assert number > 9000 or by <= position + 2000
    assert past.ask("select * from kirby.verify_state_snapshots()") == []


# For everybody


def test_state_at_is_for_any_sql_client(past, as_role):
    past.mutate("a", 1, 0)
    position = past.mutate("b", 2, 10)
    past.mutate("a", 3, 20)

    with psycopg.connect(as_role(past.dsn, "kirby_auditor")) as conn:

        def ask(query, *params):
            return conn.execute(query, params).fetchall()

        at = "select key, value from kirby.state_at('dev', 'sums', "
        assert ask(at + "%s)", moment(15)) == [("a", 1), ("b", 2)]
        assert ask(at + "'2027-03-01 12:00:05+00')") == [("a", 1)]
        assert ask(at + "at_position => %s)", position) == [("a", 1), ("b", 2)]
        assert ask(at + "at_position => %s, for_key => 'a')", position) == [("a", 1)]
        assert ask("select key, value from kirby.state_at('dev', 'sums')") == [("a", 3), ("b", 2)]
        with pytest.raises(psycopg.Error, match="there is no state other in environment dev"):
            ask("select * from kirby.state_at('dev', 'other')")

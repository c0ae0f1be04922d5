"""Compaction: what a state need not keep goes, bit by bit; what is left is right, and says so."""

import itertools
import threading
from datetime import timedelta

import psycopg
import pytest
from fix_compaction import (
    COMPACT,
    DAY,
    HOUR,
    PLANNED,
    Compacted,
    midnight,
    state_fixture,  # noqa: F401
)
from fix_states import moment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

numbers = itertools.count(1)


def day(seconds):
    """The day of a moment: midnight belongs to the day that it ends."""
    return (moment(seconds) - timedelta(microseconds=1)).date()


def kept(log, today, keep):
    """The positions that the rule leaves of a history, worked out the slow way."""
    cut = (moment(today) - timedelta(days=keep)).date()
    stays, blocked = [], False
    for index, (position, key, _, _, _, at) in enumerate(log):
        later = [each for each in log[index + 1 :] if each[1] == key]
        blocked = blocked or day(at) >= cut
        if blocked or not later or day(later[0][5]) != day(at):
            stays.append(position)
    return stays


# What goes, and what stays


def test_of_old_days_the_last_version_of_each_key_stays(state):
    for number in range(3):
        for hour in range(4):
            state.mutate("a", {"n": number * 4 + hour}, number * DAY + hour * HOUR)
    state.mutate("b", 1, 5 * HOUR)
    log = list(state.log)
    state.policy("90 days")

    assert state.compact() == 9
    assert [each[2] for each in log if each[0] in state.there()] == [4, 8, 12, 1]
    assert state.at() == {"a": (12, {"n": 11}), "b": (1, 1)}
    assert state.wrong() == []
    assert state.compact() == 0


def test_nothing_goes_unasked(state):
    for _ in range(5):
        state.mutate("a", 1)
    assert state.compact() == 0
    state.policy("90 days")
    state.policy(None, "the auditors")
    assert state.compact() == 0
    assert len(state.there()) == 5
    assert [(actor, reason) for actor, reason, _ in state.events("compaction_set")] == [
        ("ann", "room"), ("ann", "the auditors"),
    ]  # fmt: skip


def test_days_that_are_not_old_enough_stay_whole(state):
    for number in (0, 1, 2):
        for hour in range(3):
            state.mutate("a", hour, number * DAY + hour * HOUR)
    state.policy("97 days")  # it is day 100, at noon: days 0, 1 and 2 are past, day 3 is not
    state.today(99 * DAY)

    assert state.compact() == 4
    state.today(100 * DAY)
    assert state.compact() == 2
    assert state.wrong() == []


def test_midnight_belongs_to_the_day_that_it_ends(state):
    first = state.mutate("a", 1, midnight(0) - 5)
    state.mutate("a", 2, midnight(0))
    state.mutate("a", 3, midnight(0) + 5)
    state.policy("1 day")

    assert state.compact() == 1
    assert first not in state.there()
    assert state.at(seconds=midnight(0)) == {"a": (2, 2)}


@pytest.mark.parametrize("keep", ["23 hours", "0 days", "-1 day"])
def test_a_day_at_least_keeps_all(state, keep):
    with pytest.raises(psycopg.Error, match="all versions are kept for a day at least") as caught:
        state.policy(keep)
    assert caught.value.sqlstate == "KB001"
    with pytest.raises(psycopg.Error, match="all versions are kept for a day at least"):
        state.ask(PLANNED, state.id, keep)


def test_a_plan_is_what_goes(state):
    for number in range(3):
        for hour in range(3):
            state.mutate("ab"[hour % 2], hour, number * DAY + hour * HOUR)
    versions, keys, days, first, last, of = state.plan("99 days")
    assert state.there() == [each[0] for each in state.log]
    before = state.there()
    state.policy("99 days")

    assert state.compact() == versions == 1
    gone = sorted(set(before) - set(state.there()))
    assert (keys, days, first, last, of) == (1, 1, gone[0], gone[-1], 9)


def test_each_piece_is_an_event_that_says_what_went(state):
    for number in range(2):
        for hour in range(4):
            state.mutate("a", hour, number * DAY + hour * HOUR)
    gone = [state.log[n][0] for n in (0, 1, 2, 4, 5, 6)]
    state.policy("30 days", "the disk")
    state.count()
    assert state.compact() == 6

    found = state.events()
    assert {(actor, reason) for actor, reason, _ in found} == {("kirby", "the disk")}
    assert sum(after["versions"] for *_, after in found) == 6
    assert found[0][2]["positions"][0] == gone[0]
    assert found[-1][2]["positions"][1] == gone[-1]
    assert found[0][2]["days"][0] == "2027-03-01"
    assert found[-1][2]["days"][1] == "2027-03-02"
    assert found[0][2]["set_by"] == "ann"


# The guard of the log


def remove(state, position):
    with state.conn.transaction():
        state.ask("select set_config('kirby.removing', 'state_mutation', true)")
        state.ask("delete from kirby.state_mutation where position = %s", position)


def test_the_log_lets_only_those_go_that_the_policy_does_not_keep(state):
    """Whoever deletes them, and whatever they set: the owner of the tables is asked here."""
    for hour in range(3):
        state.mutate("a", hour, hour * HOUR)
    last = state.mutate("a", 9, DAY)
    first, second, third = (each[0] for each in state.log[:3])
    for position in (first, third, last):
        with pytest.raises(psycopg.Error, match="append-only"):
            remove(state, position)
    state.policy("90 days")
    state.count()
    with pytest.raises(psycopg.Error, match="append-only"):
        remove(state, first)  # it was not looked at
    assert state.compact() == 2
    for position in (third, last):
        with pytest.raises(psycopg.Error, match="append-only"):
            remove(state, position)
    with pytest.raises(psycopg.Error, match="append-only"):
        state.ask("delete from kirby.state_mutation where position = %s", second + 1)
    assert state.wrong() == []


def test_a_row_that_is_missing_without_compaction_is_found(state):
    for number in range(2):
        for hour in range(3):
            state.mutate("a", hour, number * DAY + hour * HOUR)
    state.policy("90 days")
    state.compact()
    assert state.wrong() == []
    for name in ("state_mutation", "state_mutation_0"):
        state.ask(f"alter table kirby.{name} disable trigger user")
    state.ask("delete from kirby.state_mutation where position = %s", state.log[2][0])

    assert any(key == "dev/sums" for key, *_ in state.wrong())


def test_a_moment_that_is_too_late_is_found(state):
    """The check of moments, of a compacted state too."""
    for hour in range(1100):
        state.mutate("ab"[hour % 2], hour, hour * 300)
    state.policy("30 days")
    assert state.compact() > 1000
    assert state.value("select count(*) from kirby.moment") > 0
    assert state.wrong() == []
    state.ask("update kirby.moment set at = at + interval '1 year'")
    assert len(state.wrong()) > 0


def test_a_piece_is_bounded_however_old_the_log_is(state):
    """A state that is young in an old log: long stretches without it come before."""
    state.mutate("seed", 1, 0)
    state.ask("select setval('kirby.position', 30000000)")
    fill(state, 20_000)
    state.policy("30 days")
    state.count()

    [(removed, more)] = state.ask(COMPACT, state.id, 2000)
    while more and not removed:
        [(removed, more)] = state.ask(COMPACT, state.id, 2000)

    assert 1000 < removed < 8000
    assert more
    assert state.compact() == 20_000 - 10 - removed
    assert state.wrong() == []


def fill(state, count):
    """So many versions of ten keys within a day."""
    state.ask("set session_replication_role = replica")
    state.ask(
        "insert into kirby.state_mutation"
        " (position, state_id, key, version, op, value, recorded_at)"
        " select nextval('kirby.position'), %s, 'k' || g %% 10, g / 10 + 1, 'set', to_jsonb(g),"
        " %s::timestamptz + g * interval '1 second' from generate_series(0, %s - 1) g",
        state.id, moment(DAY), count,
    )  # fmt: skip
    state.ask("set session_replication_role = origin")
    state.ask(
        "insert into kirby.state_entry (state_id, key, version, op, value, position, updated_at)"
        " select distinct on (key) state_id, key, version, op, value, position, recorded_at"
        " from kirby.state_mutation where state_id = %s order by key, position desc"
        " on conflict (state_id, key) do update set version = excluded.version",
        state.id,
    )


def test_a_version_of_a_clock_that_was_ahead_stays_and_stops_nothing(state):
    state.mutate("a", 1, 0)
    state.mutate("a", 2, 1)
    state.mutate("c", 1, 400 * DAY)
    for day in range(1, 50):
        state.mutate("a", day, day * DAY)
        state.mutate("a", day + 0.5, day * DAY + 1)
    state.policy("30 days")

    assert state.compact() == 50
    assert state.at()["c"] == (1, 1)
    assert state.wrong() == []


@pytest.mark.parametrize("keep", ["0 days", "23 hours", "40000 days", "800000 days"])
def test_how_long_all_is_kept_has_bounds(state, keep):
    for query in (
        "select kirby.plan_compaction(%s, %s::interval)",
        "select kirby.set_compaction(%s, %s::interval, 'ann', '')",
    ):
        with pytest.raises(psycopg.Error, match="a day at least and a hundred years at most"):
            state.ask(query, state.id, keep)


# What reads the past


def test_the_end_of_a_day_is_exact_and_what_is_within_says_that_it_is_not(state):
    state.mutate("a", 1, 0)
    state.mutate("a", 2, HOUR)
    state.mutate("a", 3, 2 * HOUR)
    state.mutate("b", 1, HOUR)
    state.mutate("new", 1, DAY + HOUR)
    state.mutate("new", 2, DAY + 2 * HOUR)
    state.policy("90 days")
    state.compact()

    assert state.at(seconds=midnight(0)) == {"a": (3, 3), "b": (1, 1)}
    assert state.gaps(seconds=midnight(0)) == {}
    assert state.at(seconds=HOUR) == {"b": (1, 1)}
    assert state.gaps(seconds=HOUR) == {"a": (None, 3)}
    assert state.gaps(seconds=HOUR, keys=["b"]) == {}
    assert state.gaps(seconds=DAY + HOUR) == {"new": (None, 2)}
    assert state.gaps(seconds=midnight(1)) == {}
    assert state.gaps(seconds=2 * HOUR) == {}
    assert state.gaps(position=state.log[0][0]) == {"a": (None, 3)}
    assert state.gaps(position=state.log[2][0]) == {}
    asked = state.ask(
        "select key, before_version, after_version from"
        " kirby.state_gaps('dev', 'sums', at_time => %s)",
        moment(HOUR),
    )
    assert asked == [("a", None, 3)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["set", "set", "set", "delete"]), st.sampled_from("abc"),
                  st.integers(0, 5 * DAY)),
        st.tuples(st.sampled_from(["later", "later", "snapshot", "compact"]), st.just(""),
                  st.integers(1, 12 * HOUR)),
    ),
    min_size=5, max_size=40,
)  # fmt: skip
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def play(state, steps, keep, jumping):
    """A history as a clock makes it, or one that jumps; with compaction in between, in pieces."""
    mine = Compacted(state.dsn, state.conn, f"sums{next(numbers)}")
    mine.policy(f"{keep} days")
    clock = 0
    for what, key, seconds in steps:
        if what == "later":
            clock += seconds
        elif what == "snapshot":
            mine.count()
            mine.snapshot()
        elif what == "compact":
            mine.today(clock + keep * DAY)
            mine.count()
            mine.ask(COMPACT, mine.id, 1)
        else:
            at = seconds if jumping else clock
            mine.mutate(key, seconds if what == "set" else ..., at)
    return mine


@EXAMPLES
@given(STEPS, st.integers(1, 3), st.integers(0, 6), st.booleans())
def test_any_history_keeps_what_it_has_to_and_knows_what_it_lost(
    state, steps, keep, today, jumping
):
    mine = play(state, steps, keep, jumping)
    latest = mine.was()
    mine.today(today * DAY + keep * DAY)
    mine.compact(most=3)
    there = set(mine.there())

    assert mine.wrong() == []
    assert mine.at() == latest
    if not jumping and not any(what == "compact" for what, *_ in steps):
        assert sorted(there) == kept(mine.log, (today + keep) * DAY, keep)
    for number in range(-1, 7):  # the end of any day is what it always was
        assert mine.at(seconds=midnight(number)) == mine.was(seconds=midnight(number))
        assert mine.gaps(seconds=midnight(number)) == {}
    for seconds in range(0, 6 * DAY, 7 * HOUR):
        compare(mine.at(seconds=seconds), mine.was(seconds=seconds), mine.gaps(seconds=seconds))
        assert mine.at(seconds=seconds, keys=list("abc")) == mine.at(seconds=seconds)
    for position, *_ in mine.log:
        compare(mine.at(position), mine.was(position), mine.gaps(position))
        assert mine.at(position, keys=list("abc")) == mine.at(position)


def compare(found, expected, gaps):
    """What is not known for certain says so; all else is as it was."""
    for key in found.keys() | expected.keys():
        if key not in gaps:
            assert found.get(key) == expected.get(key), key


@EXAMPLES
@given(STEPS, st.integers(1, 2))
def test_a_plan_and_pieces_of_any_size_remove_the_same(state, steps, keep):
    steps = [step for step in steps if step[0] in ("set", "delete", "later")]
    one, other = (play(state, steps, keep, jumping=False) for _ in range(2))
    for each in (one, other):
        each.today(9 * DAY)
    planned = one.plan(f"{keep} days")[0]

    assert one.compact() == planned
    assert other.compact(most=1) == planned
    left = [[each[2] for each in mine.log if each[0] in mine.there()] for mine in (one, other)]
    assert left[0] == left[1]


# While others write

WRITERS, ROUNDS = 3, 60


def write(state, number, failures):
    """Versions of keys of its own, and of one that all of them share."""
    try:
        with psycopg.connect(state.dsn, autocommit=True) as conn:
            conn.execute("set lock_timeout = '10s'")
            for step in range(ROUNDS):
                change = f'{{"k": "{number}/{step % 3}", "o": "set", "v": {step}}}'
                shared = '{"k": "all", "o": "merge", "v": [["increment", 1]]}'
                conn.execute(
                    "select kirby.write('{}', %s)", [f'{{"{state.name}": [{change}, {shared}]}}']
                )
    except psycopg.Error as error:
        failures.append(error)


def test_writers_go_on_while_pieces_are_removed(state):
    """They never wait for a piece that is not over, and nothing of theirs is lost."""
    for number in range(40):
        for hour in range(5):
            state.mutate(f"old/{number % 4}", hour, number * DAY + hour * HOUR)
    state.policy("30 days")
    state.count()
    failures, gone = [], 0
    threads = [
        threading.Thread(target=write, args=(state, number, failures)) for number in range(WRITERS)
    ]
    with psycopg.connect(state.dsn) as piece:  # a piece that stays open all the time
        for thread in threads:
            thread.start()
        [(gone, _)] = piece.execute(COMPACT, [state.id, 20]).fetchall()
        for thread in threads:
            thread.join()
    assert failures == []
    assert gone > 0
    threads = [
        threading.Thread(target=write, args=(state, number, failures)) for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        state.count()
        [(more, _)] = state.ask(COMPACT, state.id, 20)
        gone += more
    gone += state.compact()

    assert failures == []
    assert gone > 40 * 4  # what is written by the real clock is old as well, and goes at once
    assert gone + len(state.there()) == 40 * 5 + 2 * 2 * WRITERS * ROUNDS
    assert state.at()["all"] == (2 * WRITERS * ROUNDS, 2 * WRITERS * ROUNDS)
    assert state.wrong() == []


def test_a_piece_that_another_one_holds_up_comes_again(state):
    for hour in range(4):
        state.mutate("a", hour, hour * HOUR)
    state.policy("30 days")
    state.count()
    with psycopg.connect(state.dsn) as other:
        other.execute(COMPACT, [state.id, 1])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            state.ask(COMPACT, state.id, 1)
        other.rollback()
    assert state.compact() == 3
    assert state.wrong() == []


def test_what_an_open_writer_may_still_add_is_not_looked_at(state):
    """A piece goes no further than what is counted, so the counts stay exact."""
    state.mutate("a", 1, 0)
    with psycopg.connect(state.dsn) as slow:
        slow.execute(f"select kirby.write('{{}}', '{{\"{state.name}\": []}}')")
        slow.execute("select nextval('kirby.position')")
        state.mutate("a", 2, HOUR)
        state.mutate("a", 3, 2 * HOUR)
        state.policy("30 days")
        state.count()
        state.ask(COMPACT, state.id, 100)
        assert len(state.there()) == 3
    assert state.compact() == 2
    assert state.wrong() == []

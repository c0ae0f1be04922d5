"""What stands on the history of a state, when it is compacted: rewinds, traces, commands, dumps."""

import json
import re
import tempfile
from pathlib import Path

import psycopg
import pytest
from fix_compaction import COMPACT, DAY, HOUR, Compacted, midnight, state_fixture  # noqa: F401
from fix_lineage import airport_fixture, count, flights, hop  # noqa: F401
from fix_postgres import as_role, fast_folder
from fix_rewind import rewinder_fixture  # noqa: F401
from fix_states import moment
from test_restore import Custom, Restored, restore, roles_of
from test_rewind_states import House

from kirby.core.errors import Invalid
from kirby.server import rewinds
from kirby.server.supervisor.housekeeping import Housekeeper


@pytest.fixture
def old(state):
    """Two old days of sums: a with four versions on each, b with one; compacted."""
    for number in range(2):
        for hour in range(4):
            via = {"via": [["tally", f"tally {number}.{hour}"]]}
            state.mutate("a", {"n": number * 4 + hour, "x": number}, number * DAY + hour * HOUR,
                         headers=via)  # fmt: skip
    state.mutate("b", 1, 2 * HOUR)
    state.policy("90 days", "the disk is full")
    assert state.compact() == 6
    return state


# Blame, restores


def test_blame_says_that_a_removed_version_may_have_done_it(old):
    rows = old.ask("select path, version, exact from kirby.state_blame('dev', 'sums', 'a')")
    assert rows == [("$.n", 8, False), ("$.x", 8, False)]
    assert old.ask("select path, version, exact from kirby.state_blame('dev', 'sums', 'b')") == [
        ("$", 1, True)
    ]
    old.mutate("a", {"n": 7, "x": 9}, 50 * DAY)
    rows = old.ask("select path, version, exact from kirby.state_blame('dev', 'sums', 'a')")
    assert rows == [("$.n", 8, False), ("$.x", 9, True)]


EXPORT = "select kirby.begin_export(%s, 'ann')"
RESTORE = "select kirby.restore_state(%s, %s, %s, %s, '', 'ann', 'why')"


def test_a_restore_to_what_is_removed_is_refused_and_names_what_is_near(old):
    before = old.was()
    with pytest.raises(psycopg.Error) as caught:
        old.ask(RESTORE, old.id, None, moment(DAY + HOUR), ["a"])
    assert caught.value.sqlstate == "KB001"
    stayed = [each for each in old.log if each[1] == "a" and each[2] in (4, 8)]
    assert caught.value.diag.message_primary == (
        "compaction removed what key a of state sums was then; there are"
        f" version 4 (position {stayed[0][0]}, 2027-03-01T15:00:00Z) and"
        f" version 8 (position {stayed[1][0]}, 2027-03-02T15:00:00Z);"
        " 2027-03-02T00:00:00Z and 2027-03-03T00:00:00Z are exact"
    )
    with pytest.raises(psycopg.Error, match="compaction removed what 1 key of state sums was then"):
        old.ask(RESTORE, old.id, old.log[5][0], None, None)
    assert old.at() == before
    assert old.value(RESTORE, old.id, None, moment(DAY + HOUR), ["b"]) == 0
    assert old.value(RESTORE, old.id, None, moment(midnight(0)), None) == 1
    assert old.at()["a"] == (9, {"n": 3, "x": 0})
    assert old.value(RESTORE, old.id, stayed[1][0], None, ["a"]) == 1
    assert old.at()["a"] == (10, {"n": 7, "x": 1})


# Commands


def test_the_commands_say_what_is_not_there(old, kirby):
    note = "compacted: daily up to 2027-03-02; "
    said = kirby("state", "at", "sums", "2027-03-02T13:00:00Z")
    assert re.findall(r"^(\w) +(\d)", said.out, re.M) == [("a", "4"), ("b", "1")]
    assert said.err.startswith(f"{note}the last version that is left")
    assert said.err.endswith("of 1 key: a\n")
    rows = json.loads(kirby("state", "at", "sums", "2027-03-02T13:00:00Z", "--json").out)
    assert [(row["key"], row["exact"]) for row in rows] == [("a", False), ("b", True)]
    assert kirby("state", "at", "sums", "2027-03-03T00:00:00Z").err == ""
    assert kirby("state", "at", "sums", "2027-03-02T13:00:00Z", "b").err == ""
    assert note in kirby("state", "diff", "sums", "2027-03-02T13:00:00Z").err
    assert kirby("state", "diff", "sums", "2027-03-03").err == ""
    assert kirby("state", "blame", "sums", "a").err == (
        f"{note}a version that is removed may have set $.n, $.x\n"
    )
    assert kirby("state", "blame", "sums", "b").err == ""
    assert kirby("state", "history", "sums", "a").err == f"{note}6 of these versions are removed\n"
    assert kirby("state", "history", "sums", "a", "-n", "1").err == ""
    assert kirby("state", "history", "sums", "b").err == ""


def test_a_plan_first_then_the_policy(state, kirby):
    for hour in range(4):
        state.mutate("a", hour, hour * HOUR)
    state.count()
    assert kirby("state", "compact", "sums").out == "sums keeps all versions\n"
    said = kirby("state", "compact", "sums", "--daily-after", "30d", "--plan").out
    assert "versions  3 of 4 would go" in said
    assert f"from      2027-03-01 12:00:00 (position {state.log[0][0]})" in said
    plan = json.loads(
        kirby("state", "compact", "sums", "--daily-after", "30d", "--plan", "--json").out
    )
    assert (plan["versions"], plan["keys"], plan["days"], plan["of"]) == (3, 1, 1, 4)
    assert state.events("compaction_set") == []

    said = kirby("state", "compact", "sums", "--daily-after", "30d", "--yes", "--reason", "room")
    policy = "sums keeps all versions for 30d, then the last of each day\n"
    assert said.out.endswith(policy)
    [(actor, reason, after)] = state.events("compaction_set")
    assert (actor.split(":")[0], reason, after) == ("cli", "room", {"daily_after": "30 days"})
    assert kirby("state", "compact", "sums").out == policy
    assert state.compact() == 3
    said = kirby("state", "compact", "sums", "--daily-after", "30d", "--plan").out
    assert said == "nothing of sums would go by now\n"
    kirby("state", "compact", "sums", "--keep-all")
    assert kirby("state", "compact", "sums").out == "sums keeps all versions\n"


def test_a_state_shows_what_it_lost(old, kirby):
    said = kirby("state", "show", "sums").out
    assert "history       keeps all versions for 90d, then the last of each day (by ann)" in said
    assert "compacted     daily up to 2027-03-02" in said
    removed = [each[0] for each in old.log if each[0] not in old.there()]
    assert (
        "removed       6 versions of 2 days from 2027-03-01 on,"
        f" positions {removed[0]} to {removed[-1]}\n"
    ) in said
    shown = json.loads(kirby("state", "show", "sums", "--json").out)["compaction"]
    assert (shown["removed"], shown["keep"], shown["last_day"]) == (6, "90d", "2027-03-02")
    assert shown["exact_from"] == old.log[7][0]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--daily-after", "12h"), 1, "all versions are kept for a day at least"),
        (("--daily-after", "soon"), 1, "'soon' is not a span of time"),
        (("--daily-after", "forever"), 1, "say --keep-all"),
        (("--daily-after", "9d", "--keep-all"), 2, "either --daily-after SPAN or --keep-all"),
        (("--plan",), 2, "a plan of what"),
        (("--daily-after", "9d", "--json"), 2, "nobody is asked"),
    ],
)
def test_a_mistake_is_one_line(state, kirby, arguments, code, complaint):
    state.mutate("a", 1)
    said = kirby("state", "compact", "sums", *arguments)
    assert said.code == code
    assert complaint in said.err
    assert "Traceback" not in said.err


# The leader


def test_a_supervisor_compacts(state, as_role, until):
    for number in range(3):
        for hour in range(5):
            state.mutate("ab"[hour % 2], hour, number * DAY + hour * HOUR)
    state.policy("30 days")
    housekeeper = Housekeeper(as_role(state.dsn, "kirby_server"), lambda: True)
    housekeeper.start()
    try:
        until(lambda: len(state.there()) == 6 or _plan_anew(housekeeper))
    finally:
        housekeeper.stop()
    assert state.wrong() == []
    assert len(state.events()) > 0


def _plan_anew(housekeeper):
    """It was planned before all was counted."""
    for duty in housekeeper._duties:
        if duty.name == "planning compaction":
            duty.at = 0.0


# Rewinds


@pytest.fixture
def totals(rewinder):
    """orders > parts > totals, two rounds of each; the total of today's orders, and its state."""
    house = House(rewinder)
    house.wrong = False
    for amount in (1, 2, 3, 4):
        house.order(("a", amount), ("b", amount))
        house.run()
    rewinder.log.count()
    state = Compacted(rewinder.dsn, rewinder.conn, "totals")
    state.house = house
    return state


def age(state):
    """All that there is gets old."""
    state.house.log.later("10 days")
    state.policy("2 days")


def test_a_rewind_to_what_was_compacted_is_refused_and_names_where_it_is_exact(totals):
    age(totals)
    house, positions = totals.house, totals.house.log.there("orders")
    assert totals.compact() == 6
    exact = totals.value("select exact_from from kirby.compaction")
    house.order(("a", 10), ("b", 10))
    house.run()
    totals.count()
    plan = house.rewinder.plan(positions[4], states=True)

    assert plan.inexact.why == "compaction"
    assert plan.inexact.text in plan.warnings
    today = totals.value("select kirby.day_of(clock_timestamp())::text")
    assert plan.inexact.text.startswith(
        f"not exact from here: state totals was compacted up to {today};"
        f" what it needs is there from position {exact + 1} on ("
    )
    with pytest.raises(Invalid, match="not exact from here: state totals was compacted"):
        house.rewinder.rewind(positions[4], states=True)
    with pytest.raises(Invalid, match="not exact from here: state totals was compacted"):
        house.rewinder.plan(positions[4], states=True, exact=True)
    with pytest.raises(Invalid, match="not exact from here"):
        house.rewinder.rewind(positions[4], states=True, only=["job"])

    again = house.rewinder.rewind(exact + 1, states=True)
    assert again.status == "running"
    house.run()
    assert house.totals() == house.wanted()
    assert house.rewinder.wrong() == []
    assert totals.wrong() == []


def test_where_nothing_is_compacted_below_rewinds_are_as_ever(totals):
    age(totals)
    totals.compact()
    house = totals.house
    house.log.publish("letters", 1)

    def below(topic, jobs=None):
        rows = totals.ask(
            "select name from kirby.compacted_below(%s, 0, %s)", house.log.topic_id(topic), jobs
        )
        return [name for (name,) in rows]

    assert below("orders") == below("parts") == below("orders", ["job"]) == ["totals"]
    assert below("orders", ["other"]) == below("letters") == []


def test_what_a_rewind_needs_stays_until_it_is_over(totals):
    age(totals)
    house, positions = totals.house, totals.house.log.there("orders")
    before = house.totals()
    again = house.rewinder.rewind(positions[4], states=True)
    assert again.status == "running"
    assert totals.compact() == 2  # those before it, of which others are before it too
    assert totals.plan("2 days")[0] == 0
    assert (
        totals.value("select held_by from kirby.plan_compaction(%s, '2 days')", totals.id)
        == again.id
    )
    house.rewinder.act("abort", again.id)
    while house.rewinder.status(again.id) == "aborting":
        house.run()
        house.rewinder.end()
    house.run()
    house.rewinder.end()

    assert house.totals() == before
    assert totals.compact() > 0
    assert totals.wrong() == []


def test_while_a_rewind_sets_states_back_nothing_is_removed(totals):
    age(totals)
    house, positions = totals.house, totals.house.log.there("orders")
    totals.count()
    plan = house.rewinder.plan(positions[4], states=True)
    with house.rewinder.unit() as (conn, _):
        rewinds.begin(conn, plan, actor="test", reason="why")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            totals.ask(COMPACT, totals.id, 100)
    assert totals.compact() == 2
    house.run()
    assert house.totals() == house.wanted()


def test_a_piece_that_came_between_plan_and_restore_is_seen(totals):
    age(totals)
    house, positions = totals.house, totals.house.log.there("orders")
    totals.count()
    plan = house.rewinder.plan(positions[4], states=True)
    assert plan.inexact is None
    assert totals.compact() == 6
    with house.rewinder.unit() as (conn, _):
        begun = rewinds.begin(conn, plan, actor="test", reason="why")
    found = house.rewinder.get(begun.id)
    assert found.status == "aborted"
    assert "was compacted up to" in found.reason
    assert house.totals() == house.wanted()


# Traces


def test_a_trace_says_what_compaction_removed(airport, kirby):
    conn = airport.conn
    conn.execute("update kirby.compaction set keep = null")
    state = conn.execute("select id from kirby.state").fetchone()[0]
    conn.execute("select kirby.set_compaction(%s, '1 day', 'ann', '')", [state])
    conn.execute(
        "create or replace function kirby.now() returns timestamptz language sql volatile"
        " as 'select clock_timestamp() + interval ''9 days'''"
    )
    [[first], *_] = conn.execute(
        "select position from kirby.state_mutation order by position"
    ).fetchall()
    while conn.execute("select kirby.keep_states()").fetchone()[0]:
        pass
    assert conn.execute(COMPACT, [state, 100]).fetchone()[0] == 2
    count(conn)

    said = kirby("trace", airport.figure, "--up").out
    assert "removed by compaction: what was before, of state carrier_delay: 1" in said
    assert f"{airport.delays[-1]}  topic delays[" in said
    assert f"{airport.delays[0]}  topic" not in said
    found = json.loads(kirby("trace", airport.figure, "--up", "--json").out)
    assert [step["place"] for step in found["up"] if step["kind"] == "compacted"] == [
        "carrier_delay"
    ]
    said = kirby("trace", airport.flights[0], "--down").out
    assert "state carrier_delay was compacted up to" in said
    assert "versions that were made from it may be removed" in said
    said = kirby("trace", first)
    assert said.code == 1
    assert "removed by compaction of state carrier_delay" in said.err
    for name in ("flow", "parent_index", "state_versions"):
        assert conn.execute(f"select * from kirby.verify_{name}()").fetchall() == []


def test_the_feed_of_a_state_stays_and_its_messages_name_what_is_gone(state, kirby):
    state.ask("select kirby.open_feed(1::smallint, 'sums')")
    for number in range(3):
        change = f'{{"sums": [{{"k": "a", "o": "set", "v": {number}}}]}}'
        state.ask("select kirby.write('{}', %s)", change)
    state.policy("1 day")
    assert state.compact() == 2
    fed = state.ask(
        "select m.position from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'state.sums' order by 1"
    )

    assert len(fed) == 3
    said = kirby("trace", fed[0][0], "--up").out
    assert "removed by compaction of state sums" in said
    assert 'state sums["a"] version 3' in kirby("trace", fed[-1][0], "--up").out
    assert state.wrong() == []


# Dumps


@pytest.fixture
def fresh():
    made = Restored(Path(tempfile.mkdtemp(prefix="kirby-test-", dir=fast_folder())))
    yield made
    made.stop()


def test_a_dump_of_a_compacted_database_is_whole(old, fresh, tmp_path):
    old.snapshot()
    how = Custom()
    how.dump(old.dsn, tmp_path)
    restore(how, roles_of(old.dsn), fresh, tmp_path)
    with psycopg.connect(as_role(fresh.dsn, "kirby_server"), autocommit=True) as conn:
        there = Compacted(fresh.dsn, conn)
        assert there.wrong() == []
        assert there.at(seconds=midnight(0)) == old.was(seconds=midnight(0))
        assert there.gaps(seconds=HOUR) == old.gaps(seconds=HOUR) == {"a": (None, 4)}
        conn.execute("""select kirby.write('{}', '{"sums": [{"k": "a", "o": "set", "v": 1}]}')""")
        assert there.at()["a"][0] == 9
        with pytest.raises(psycopg.Error):
            conn.execute("delete from kirby.state_mutation")


def test_a_slice_that_begins_before_what_is_known_has_no_state(old):
    """Its handlers would find another state than they did."""
    exact = old.value("select exact_from from kirby.compaction")
    old.ask("select kirby.publish('orders', '1')")
    asked = {"topics": ["orders"], "states": ["sums"], "after": exact}
    assert old.value(EXPORT, json.dumps(asked))["at"] == exact
    with pytest.raises(psycopg.Error, match="state sums was compacted: what it was is known from"):
        old.value(EXPORT, json.dumps(asked | {"after": exact - 1}))


# Pages


def test_the_page_of_a_state_shows_what_it_lost(old, admin):
    page = admin.get("/states/sums").text
    assert "keeps all versions for 90d, then the last of each day" in page
    assert "daily up to 2027-03-02" in page
    assert '<b class="num">6</b> versions of 2 days' in page
    assert "the disk is full" in page
    assert "Not certain" not in page
    within = admin.get("/states/sums?at=2027-03-02T13:00:00Z").text
    assert "Not certain" in within
    assert within.count("≈") == 1
    assert "Not certain" not in admin.get("/states/sums?at=2027-03-02T00:00:00Z").text
    assert "Not certain: of 1 key" in admin.get("/states/sums/diff?from=2027-03-02T13:00:00Z").text


def test_the_api_names_what_is_not_certain(old, admin):
    when = "2027-03-02T13:00:00Z"
    assert admin.get(f"/api/v1/states/sums?at={when}").json()["inexact"] == ["a"]
    assert admin.get(f"/api/v1/states/sums?at={when}&key=b").json()["inexact"] == []
    assert admin.get(f"/api/v1/states/sums/diff?from={when}").json()["inexact"] == ["a"]
    assert admin.get("/api/v1/states/sums").json()["inexact"] == []


def test_the_page_of_a_key_shows_where_versions_are_gone(old, admin):
    page = admin.get("/states/sums/key?key=a").text
    assert page.count("3 versions removed by compaction") == 2
    assert "first that is left" in page
    assert "A version that compaction removed may have made it so" in page
    assert "removed by compaction" not in admin.get("/states/sums/key?key=b").text


def test_setting_back_to_what_is_gone_comes_back_with_why(old, admin):
    given = {"to": "2027-03-02T13:00:00Z", "reason": "why", "key": "a"}
    answer = admin.post("/states/sums/restore", data=given)
    assert answer.status_code == 400
    assert "ompaction removed what key a of state sums was then" in answer.text


def test_a_page_of_a_state_that_keeps_all_says_nothing(state, admin):
    state.mutate("a", 1)
    assert "What is kept of its history" not in admin.get("/states/sums").text


def test_an_export_that_is_under_way_never_leaves_with_a_wrong_state(state):
    for number in range(2):
        for hour in range(4):
            state.mutate("a", {"n": number * 4 + hour}, number * DAY + hour * HOUR)
    at = state.log[1][0]
    state.ask("select kirby.publish('orders', '1')")
    state.count()
    asked = json.dumps({"topics": ["orders"], "states": ["sums"], "after": at})
    export = state.value("select kirby.begin_export(%s, 'me')", asked)["export"]
    entries = "select lines from kirby.export_entries(%s, 'sums', null, 100, 'me')"
    assert '"n": 1' in state.value(entries, export)

    state.policy("90 days")
    assert state.compact() == 6

    with pytest.raises(psycopg.Error, match="state sums was compacted"):
        state.value(entries, export)


def test_each_state_has_its_turn(state, dsn):
    other = state.value("select kirby.state_id(1::smallint, 'other')")
    third = state.value("select kirby.state_id(1::smallint, 'third')")
    for each in (state.id, other, third):
        state.ask("select kirby.set_compaction(%s, '90 days', 'ann', '')", each)
    keeper = Housekeeper(dsn, lambda: True)
    keeper._to_compact = [third]
    state.ask("select kirby.set_compaction(%s, null, 'ann', '')", other)

    keeper._plan_compaction(state.conn)

    assert keeper._to_compact == [third, state.id]
    assert not keeper._compact(state.conn)
    looked = "select state_id from kirby.compaction where looked > 0"
    assert state.ask(looked) == []  # there is nothing in them


def test_what_is_removed_is_refused_before_anybody_is_asked(old, kirby, admin):
    done = kirby("state", "restore", "sums", "a", "--to", "2027-03-02T13:00:00Z", "--plan")
    assert (done.code, done.out) == (1, "")
    assert "compaction removed what key a of state sums was then" in done.err
    page = admin.get("/states/sums/restore?key=a&to=2027-03-02T13:00:00Z")
    assert page.status_code == 400
    assert "Compaction removed what key a" in page.text
    assert "What it would change" not in page.text
    assert "Set back in dev" in page.text  # to another moment

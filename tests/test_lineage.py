"""Lineage: what was made from what, both ways, equal to a naive walk; and `kirby trace`."""

import json

import psycopg
import pytest
from fix_log import log_fixture  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ENVIRONMENT = 1
MESSAGE = """
    insert into kirby.message (position, topic_id, lane, key, payload, headers, parents)
    values (nextval('kirby.position'), %s, %s, %s, '1', %s, %s) returning position
"""
MUTATION = """
    insert into kirby.state_mutation (position, state_id, key, version, op, value, headers, parents)
    values (nextval('kirby.position'), %s, %s, %s, %s, '1', %s, %s) returning position
"""
STATE = "insert into kirby.state (environment_id, name) values (1, %s) returning id"


class World:
    """A log that is written row by row, and walked one step after the other."""

    LANES = 2

    def __init__(self, conn):
        self.conn = conn
        self.topics = [self.open(name) for name in ("a", "b", "c")]
        self.states = [self.value(STATE, name) for name in ("s", "t")]
        self.parents = {}  # position: everything that it was made from, runs written out
        self.lanes = {}  # (topic, lane): positions
        self.versions = {}  # (state, key): (position, op, restored), by version
        self.rows = {}  # position: ("message" | "mutation", place, key)

    def value(self, query, *params):
        return self.conn.execute(query, params).fetchone()[0]

    def open(self, name):
        self.value("select kirby.open_topic(%s, %s)", name, self.LANES)
        return self.value("select id from kirby.topic where name = %s", name)

    def message(self, topic=0, *, parents=None, lane=0, key="k", headers=None):
        topic_id = self.topics[topic]
        headers = json.dumps(headers) if headers else None
        position = self.value(MESSAGE, topic_id, lane, key, headers, parents)
        self.rows[position] = ("message", topic_id, key)
        self.parents[position] = self.written_out(parents)
        self.lanes.setdefault((topic_id, lane), []).append(position)
        return position

    def mutation(self, state=0, *, key="k", parents=None, op="set", restored=None, headers=None):
        state_id = self.states[state]
        versions = self.versions.setdefault((state_id, key), [])
        headers = headers or {}
        if restored is not None:
            headers = headers | {"restored": {"rewind": 1, "version": restored}}
        position = self.value(
            MUTATION, state_id, key, len(versions) + 1, op, json.dumps(headers), parents
        )
        self.rows[position] = ("mutation", state_id, key)
        self.parents[position] = self.written_out(parents)
        versions.append((position, op, restored))
        return position

    def written_out(self, parents):
        found = set(map(abs, parents or []))
        for first, last in zip(parents or [], (parents or [])[1:], strict=False):
            if last < 0:
                lane = next(lane for lane in self.lanes.values() if first in lane)
                found |= {each for each in lane if first <= each <= -last}
        return found

    def behind(self, position):
        """The version that a mutation was made from."""
        for versions in self.versions.values():
            for number, (at, op, restored) in enumerate(versions):
                if at == position:
                    if restored is not None:
                        return {versions[restored - 1][0]} if 0 < restored <= number else set()
                    return {versions[number - 1][0]} if number and op == "set" else set()
        return set()

    def ancestors(self, position):
        """Walked step by step."""
        seen, front = set(), {position}
        while front:
            front = set().union(*(self.parents[p] | self.behind(p) for p in front)) - seen
            seen |= front
        return seen

    def descendants(self, positions):
        seen, front = set(), set(positions)
        while front:
            front = {p for p, parents in self.parents.items() if parents & front} - seen
            seen |= front
        return seen

    def up(self, position, depth=16):
        rows = self.conn.execute(
            "select * from kirby.ancestors(array[%s::bigint], %s)", [position, depth]
        )
        return {row[2]: row for row in rows.fetchall()}

    def down(self, *positions, jobs=None, depth=16):
        rows = self.conn.execute(
            "select * from kirby.derived(1::smallint, %s::bigint[], %s, %s)",
            [list(positions), jobs, depth],
        ).fetchall()
        assert len({row[2] for row in rows}) == len(rows)
        return {row[2]: row for row in rows}

    def count(self):
        self.conn.execute("select kirby.count_messages(), kirby.count_flow()")
        self.conn.execute("select kirby.count_flow()")


@pytest.fixture
def world(db):
    return World(db)


def test_a_chain_is_followed_both_ways(world):
    flight = world.message(0)
    other = world.message(0)
    delay = world.message(1, parents=[flight])
    figure = world.mutation(parents=[delay])
    world.message(1, parents=[other])

    assert {p: row[4] for p, row in world.down(flight).items()} == {delay: 1, figure: 2}
    assert {p: row[5] for p, row in world.up(figure).items()} == {delay: 1, flight: 2}
    assert world.down(figure) == {}
    assert world.up(flight) == {}


def test_a_figure_of_many_versions_is_one_step_from_what_it_counts(world):
    delays = [world.message(1, parents=[world.message(0)]) for _ in range(40)]
    for first in range(0, 40, 2):
        figure = world.mutation(parents=delays[first : first + 2])

    found = world.up(figure)

    assert {p for p, row in found.items() if row[0] == "message" and row[5] == 1} == set(delays)
    assert sum(row[0] == "mutation" for row in found.values()) == 19
    assert sum(row[5] == 2 for row in found.values()) == 40


def test_a_run_of_parents_is_its_lane_from_first_to_last(world):
    one = [world.message(0, lane=0) for _ in range(2)]
    other = world.message(0, lane=1)
    elsewhere = world.message(2, lane=0)
    one += [world.message(0, lane=0) for _ in range(3)]
    out = world.message(1, parents=[one[1], -one[3]])
    figure = world.mutation(parents=[other, one[0], -one[2]])

    assert world.up(out).keys() == set(one[1:4])
    assert world.up(figure).keys() == {other, *one[:3]}
    assert world.down(one[1]).keys() == {out, figure}
    assert world.down(one[0]).keys() == {figure}
    assert world.down(one[4]) == {}
    assert world.down(elsewhere) == {}
    assert world.value("select kirby.expand_parents(%s)", [one[1], -one[3]]) == one[1:4]
    assert world.value("select kirby.expand_parents(%s)", [7, 5]) == [7, 5]


def test_a_restored_version_was_made_from_the_one_it_brought_back(world):
    first, second = world.message(0), world.message(0)
    one = world.mutation(parents=[first])
    world.mutation(parents=[second])
    restored = world.mutation(restored=1)
    third = world.message(0)
    after = world.mutation(parents=[third])

    assert world.up(restored).keys() == {one, first}
    assert world.up(after).keys() == {restored, one, first, third}


def test_a_deleted_key_begins_anew(world):
    old, new = world.message(0), world.message(0)
    world.mutation(parents=[old])
    deleted = world.mutation(op="delete")
    after = world.mutation(parents=[new])

    assert world.up(after).keys() == {new, deleted}
    assert world.up(deleted) == {}


def test_what_retention_removed_is_named(world):
    gone = world.value("select nextval('kirby.position')")
    left = world.message(0, parents=[gone])

    assert [row[0] for row in world.up(left).values()] == ["gone"]


def test_the_first_step_may_be_limited_to_jobs(world):
    flight = world.message(0)
    via = {"via": [["delay", "1.0", "a", flight, "2026-01-01T00:00:00Z"]]}
    delay = world.message(1, parents=[flight], headers=via)
    world.message(2, parents=[flight], headers={"via": [["other", None, "a", flight, ""]]})
    world.message(2, parents=[flight])
    via = {"via": [["delay", None, "a", flight, ""], ["tally", None, "b", delay, ""]]}
    figure = world.mutation(parents=[delay], headers=via)

    assert world.down(flight, jobs=["delay"]).keys() == {delay, figure}
    assert [row[5] for row in world.down(flight, jobs=["delay"]).values()] == ["delay", "tally"]
    assert len(world.down(flight)) == 4
    assert world.down(flight, depth=1).keys() == world.down(flight).keys() - {figure}


def test_the_feed_of_a_state_is_made_of_its_mutations(world):
    flight = world.message(0)
    via = {"via": [["tally", None, "a", flight, ""]]}
    change = world.mutation(parents=[flight], headers=via)
    world.topics.append(world.open("state.s"))
    fed = world.message(3, parents=[change], headers=via)
    mailed = world.message(1, parents=[fed], headers={"via": [["mail", None, "state.s", fed, ""]]})

    world.count()

    assert world.down(flight).keys() == {change, fed, mailed}
    assert world.up(mailed).keys() == {fed, change, flight}


def test_other_environments_are_not_looked_at(world):
    flight = world.message(0)
    world.conn.execute("insert into kirby.environment (name) values ('elsewhere')")
    world.conn.execute("update kirby.topic set environment_id ="
                       " (select id from kirby.environment where name = 'elsewhere')"
                       " where id = %s", [world.topics[1]])  # fmt: skip
    world.message(1, parents=[flight])

    assert world.down(flight) == {}


def test_descendants_of_a_part_of_a_topic(world):
    flights = [world.message(0, key=key) for key in "xyxy"]
    delays = [world.message(1, parents=[flight], key="d") for flight in flights]
    figure = world.mutation(parents=delays, key="f")

    def found(after, until, keys=None):
        rows = world.conn.execute(
            "select kind, place_id, position, key, depth, job"
            " from kirby.descendants(1::smallint, %s, %s, %s, %s)",
            [world.topics[0], after, until, keys],
        ).fetchall()
        return {row[2]: row for row in rows}

    assert found(0, flights[-1]).keys() == {*delays, figure}
    assert found(flights[0], flights[2]).keys() == {*delays[1:3], figure}
    assert found(0, flights[-1], ["x"]).keys() == {delays[0], delays[2], figure}
    assert found(0, flights[-1])[figure] == (
        "mutation", world.states[0], figure, "f", 2, None,
    )  # fmt: skip


EVENT = st.tuples(
    st.sampled_from(["message", "message", "mutation", "delete", "restore"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.lists(st.integers(0, 60), max_size=3),
    st.booleans(),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    events=st.lists(EVENT, min_size=1, max_size=45),
    indexed=st.integers(0, 45),
    of=st.integers(0, 60),
)
def test_both_ways_equal_a_naive_walk(db, events, indexed, of):
    with db.transaction(force_rollback=True):
        world = World(db)
        for number, event in enumerate(events):
            if number == indexed:
                world.count()
            write(world, *event)
        positions = list(world.rows)
        position = positions[of % len(positions)]

        assert world.up(position).keys() == world.ancestors(position)
        assert world.down(position).keys() == world.descendants([position])
        some = positions[: 1 + of % len(positions)]
        assert world.down(*some).keys() == world.descendants(some)
        world.count()
        assert world.down(*some).keys() == world.descendants(some)
        assert db.execute("select * from kirby.verify_parent_index()").fetchall() == []
        assert db.execute("select * from kirby.verify_flow()").fetchall() == []


def write(world, kind, place, lane, chosen, as_run):
    known = list(world.rows)
    parents = sorted({known[n % len(known)] for n in chosen}) if known else []
    headers = None
    if as_run and (run := run_in(world, parents)):
        parents = run
    elif parents and world.rows[parents[-1]][0] == "message":
        topic = world.value(
            "select name from kirby.topic where id = %s", world.rows[parents[-1]][1]
        )
        same = [p for p in parents if world.rows[p][1] == world.rows[parents[-1]][1]]
        if same == parents and all(world.rows[p][0] == "message" for p in parents):
            headers = {"via": [["job", None, topic, parents[0], ""]]}
    if kind == "message":
        world.message(place, lane=lane, parents=parents or None, headers=headers)
    elif kind == "restore":
        world.mutation(lane, key=str(place), parents=None, restored=len(chosen))
    else:
        op = "delete" if kind == "delete" else "set"
        world.mutation(lane, key=str(place), parents=parents or None, op=op, headers=headers)


def run_in(world, parents):
    """The parents of one lane as a run."""
    for lane in world.lanes.values():
        inside = [p for p in parents if p in lane]
        if len(inside) > 1:
            return [inside[0], -inside[-1]]
    return None


# The index by parents and the flow under writers that are still at work


def test_a_mutation_that_commits_late_is_counted(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute(
            "select kirby.append_mutations(1::smallint, null, %s)",
            [json.dumps({"late": [{"k": "a", "o": "set", "v": 1, "p": [5]}]})],
        )
        log.ask(
            "select kirby.append_mutations(1::smallint, null, %s)",
            json.dumps({"early": [{"k": "a", "o": "set", "v": 1}]}),
        )
        for _ in range(3):
            log.count()
            log.ask("select kirby.count_flow()")
        assert log.ask("select made from kirby.flow where kind = 'mutation'") == []
    for _ in range(2):
        log.count()
        log.ask("select kirby.count_flow()")

    assert log.value("select sum(made) from kirby.flow where kind = 'mutation'") == 2
    assert log.ask("select lowest from kirby.parent_index") == [(5,)]
    assert log.wrong() == []

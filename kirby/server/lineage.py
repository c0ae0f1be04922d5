"""Lineage: from a message or a version of a state to what it was made from, and what it touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, LiteralString

from sqlalchemy import Connection

from kirby.core.errors import NotFound
from kirby.server import compaction, query, states
from kirby.server.compaction import Lost
from kirby.server.environments import Environment

DEPTH = 16  # steps that a trace follows at the most
SHOWN = 20  # rows of each topic and state of a step
ROOM = "set local work_mem = '64MB'"

# What the trace functions find: how many in each place of each step, and all that is known of the
# newest of those.
FOUND: LiteralString = """
    with found as materialized (
      {}
    ), ranked as (
      select f.*, count(*) over (partition by f.depth, f.kind, f.place_id) as total,
             row_number() over (partition by f.depth, f.kind, f.place_id
                                order by f.position desc) as number
        from found f
    ), shown as materialized (
      select * from ranked where number <= %(limit)s
    )
    select s.depth, s.total, s.position, s.kind, coalesce(t.name, a.name) as place,
           e.name as environment, s.key, l.version, l.op, l.parents, l.run_id, s.job,
           l.headers #>> '{{via,-1,1}}' as release, l.recorded_at,
           coalesce(l.headers ? 'replay', false) as replay,
           l.headers #>> '{{restored,version}}' as restored
      from shown s
      left join kirby.locate(array(select position from shown)) l on l.position = s.position
      left join kirby.topic t on s.kind = 'message' and t.id = s.place_id
      left join kirby.state a on s.kind <> 'message' and a.id = s.place_id
      left join kirby.environment e on e.id = coalesce(t.environment_id, a.environment_id)
     order by s.depth, s.kind, place, s.position desc
"""
ORIGIN: LiteralString = """
      select l.kind, l.place_id, l.position, l.key, 0 as depth,
             coalesce(l.headers #>> '{{via,-1,0}}', kirby.job_of(l.run_id)) as job
        from kirby.locate(array[%(position)s::bigint]) l
"""
UP: LiteralString = """
      select f.kind, coalesce(f.place_id, c.state_id) as place_id, f.position, f.key, f.depth, f.job
        from kirby.ancestors(array[%(position)s::bigint], %(depth)s) f
        left join lateral (
             select min(d.state_id) as state_id from kirby.compacted_day d
              where f.position between d.first and d.last
                and not exists (select from kirby.topic_retention r
                                 where r.gone_to >= f.position)) c on f.kind = 'gone'
"""
DOWN: LiteralString = """
      select kind, place_id, position, key, depth, job
        from kirby.derived(%(environment_id)s::smallint, array[%(position)s::bigint], null,
                           %(depth)s)
"""

VERSION = """
    select m.position from kirby.state_mutation m join kirby.state s on s.id = m.state_id
     where s.environment_id = %(environment_id)s and s.name = %(state)s and m.key = %(key)s
       and (%(version)s::bigint is null or m.version = %(version)s)
     order by m.position desc limit 1
"""
ENVIRONMENT = "select id from kirby.environment where name = %(name)s"
TOPIC = """
    select place_id from kirby.locate(array[%(position)s::bigint]) where kind = 'message'
"""
REMOVER = """
    select s.name from kirby.compacted_day d join kirby.state s on s.id = d.state_id
     where %(position)s::bigint between d.first and d.last limit 1
"""
TIMES = """
    select position, recorded_at from kirby.locate(%(positions)s)
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A message, a version of a state's key (``mutation``), or what retention removed (``gone``;
    with the state as ``place``: a version that compaction removed). ``compacted``: a version before
    which compaction removed those that it was made from.

    ``seconds`` passed between the recording of the newest of its parents (as far as they are known
    here) and its own: it waited for so long and was worked at. ``restored``: the version that it
    brought back.
    """

    position: int
    kind: str
    place: str | None
    environment: str | None
    key: str | None
    version: int | None
    op: str | None
    parents: list[int] | None
    run_id: int | None
    job: str | None
    release: str | None
    recorded_at: datetime | None
    replay: bool
    restored: str | None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What lies in one topic or state at one distance: how many in all, and the newest of them."""

    depth: int
    kind: str
    place: str | None
    total: int
    nodes: list[Node]

    @property
    def jobs(self) -> list[str]:
        """Who wrote those that are shown."""
        return sorted({node.job for node in self.nodes if node.job})

    @property
    def releases(self) -> list[str]:
        return sorted({node.release for node in self.nodes if node.release})


@dataclass(frozen=True, slots=True)
class Trace:
    """``up``: what it was made from, step by step; ``down``: what of it. None: not asked.
    ``lost``: what was made of it may be removed by compaction, of the state that is named."""

    origin: Node
    up: list[Step] | None
    down: list[Step] | None
    lost: Lost | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    depth: int
    total: int
    position: int
    kind: str
    place: str | None
    environment: str | None
    key: str | None
    version: int | None
    op: str | None
    parents: list[int] | None
    run_id: int | None
    job: str | None
    release: str | None
    recorded_at: datetime | None
    replay: bool
    restored: str | None


@dataclass(frozen=True, slots=True)
class _Time:
    position: int
    recorded_at: datetime


def trace(
    conn: Connection,
    position: int,
    *,
    up: bool = True,
    down: bool = True,
    depth: int = DEPTH,
    limit: int = SHOWN,
) -> Trace:
    """Follow what lies at a position, over ``depth`` steps; raises NotFound.

    Totals are exact; of each topic and state of a step the newest ``limit`` are named.
    """
    query.execute(conn, ROOM)
    where: dict[str, Any] = {"position": position, "depth": depth, "limit": limit}
    origin = _rows(conn, ORIGIN, where)
    if not origin:
        raise NotFound(
            f"there is no message and no change of a state at position {position}"
            f" (another event, never committed, or removed by {_remover(conn, position)})"
        )
    environment = query.value(conn, ENVIRONMENT, name=origin[0].environment)
    above = _rows(conn, UP, where) if up else []
    below = _rows(conn, DOWN, where | {"environment_id": environment}) if down else []
    times = _times(conn, [*origin, *above, *below])
    return Trace(
        _node(origin[0], times),
        _steps(above, times) if up else None,
        _steps(below, times) if down else None,
        _lost(conn, origin[0]) if down else None,
    )


def _remover(conn: Connection, position: int) -> str:
    found = query.value(conn, REMOVER, position=position)
    return f"compaction of state {found}" if found else "retention"


def _lost(conn: Connection, origin: _Row) -> Lost | None:
    topic = query.value(conn, TOPIC, position=origin.position)
    return None if topic is None else compaction.lost(conn, topic, origin.position)


def version(
    conn: Connection, environment: Environment, state: str, key: str, number: int | None = None
) -> int:
    """The position of a version of a key of a state, the newest without a number; or NotFound."""
    found = query.value(
        conn, VERSION, environment_id=environment.id, state=state, key=key, version=number
    )
    if found is None:
        states.get(conn, environment, state)  # it may be the state that is not there
        which = f"version {number} of key {key}" if number else f"key {key}"
        raise NotFound(f"there is no {which} in state {state} of {environment.name}")
    return int(found)


def _rows(conn: Connection, functions: LiteralString, where: dict[str, Any]) -> list[_Row]:
    return query.rows(conn, _Row, FOUND.format(functions.format()), **where)


def _times(conn: Connection, rows: list[_Row]) -> dict[int, datetime]:
    """When what is shown, and the newest parent of each, was recorded."""
    known = {row.position: row.recorded_at for row in rows if row.recorded_at is not None}
    wanted = {_newest(row) for row in rows} - {None} - known.keys()
    if wanted:
        found = query.rows(conn, _Time, TIMES, positions=list(wanted))
        known |= {each.position: each.recorded_at for each in found}
    return known


def _newest(row: _Row) -> int | None:
    return max(map(abs, row.parents), default=None) if row.parents else None


def _steps(rows: Iterable[_Row], times: dict[int, datetime]) -> list[Step]:
    def place(row: _Row) -> tuple[int, str, str | None, int]:
        return row.depth, row.kind, row.place, row.total

    return [
        Step(*where, [_node(row, times) for row in found]) for where, found in groupby(rows, place)
    ]


def _node(row: _Row, times: dict[int, datetime]) -> Node:
    parent = times.get(_newest(row) or 0)
    seconds = None
    if parent is not None and row.recorded_at is not None:
        seconds = (row.recorded_at - parent).total_seconds()
    shared = {name: getattr(row, name) for name in Node.__slots__ if name != "seconds"}
    return Node(**shared, seconds=seconds)

"""The flow graph: which job makes what out of which topic, as it is declared and as it was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from kirby.server import query
from kirby.server.environments import Environment

OUTSIDE = ("outside", "published by hand or by applications")

# The flow is kept by the hour: the hours that the period touches.
OBSERVED = """
    select t.name as source, f.job, f.kind, coalesce(o.name, s.name) as target,
           sum(f.made)::bigint as made, sum(f.replays)::bigint as replays,
           min(f.first_at) as first_at, max(f.last_at) as last_at,
           coalesce(array_agg(distinct f.release) filter (where f.release is not null), '{}')
             as releases
      from kirby.flow f
      left join kirby.topic t on t.id = f.source_id
      left join kirby.topic o on f.kind = 'message' and o.id = f.place_id
      left join kirby.state s on f.kind = 'mutation' and s.id = f.place_id
     where f.environment_id = %(environment_id)s
       and f.hour >= date_trunc('hour', %(since)s::timestamptz, 'UTC') and f.hour < %(until)s
     group by t.name, f.job, f.kind, coalesce(o.name, s.name)
"""

# What code says when it starts, and what the deployed version of each job lists.
DECLARED = """
    select e.source, e.job, e.kind, e.target
      from kirby.declared_edges(%(environment_id)s::smallint) e
     union
    select r.topic, j.name, null, null
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     cross join lateral jsonb_array_elements_text(coalesce(v.needs -> 'reads', '[]')) as r (topic)
     where d.environment_id = %(environment_id)s
     union
    select null, j.name, 'message', w.topic
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     cross join lateral jsonb_array_elements_text(coalesce(v.needs -> 'writes', '[]')) as w (topic)
     where d.environment_id = %(environment_id)s
"""

READERS = """
    select t.name as topic, s.name as job, coalesce(sum(c.delivered), 0)::bigint as delivered
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id
      left join kirby.cursor c on c.subscription_id = s.id
     where t.environment_id = %(environment_id)s
     group by t.name, s.name
"""

STATES = "select name from kirby.state where environment_id = %(environment_id)s"

JOBS = """
    select j.name from kirby.deployment d join kirby.job j on j.id = d.job_id
     where d.environment_id = %(environment_id)s
"""

Point = tuple[str, str]  # ("topic" | "job" | "state" | "outside", name)


@dataclass(slots=True)
class Edge:
    """From a topic to a job that reads it, from a job to what it writes, from a state to its feed.

    ``made``: messages and mutations that went this way in the period (of a reading edge: what was
    made out of what it read); ``replays``: as many of them while something was delivered again.
    """

    source: Point
    target: Point
    made: int = 0
    replays: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    releases: set[str] = field(default_factory=set)
    declared: bool = False
    observed: bool = False
    expected: bool = False  # the job says what it writes: what it does not say is a difference

    @property
    def difference(self) -> str:
        """undeclared: seen, and not what the job says; unseen: only said; empty: neither."""
        if self.observed and not self.declared and self.expected:
            return "undeclared"
        return "unseen" if self.declared and not self.observed else ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Every topic, job and state that was seen or declared, and how they hang together."""

    nodes: list[Point]
    edges: list[Edge]
    since: datetime
    until: datetime

    @property
    def differences(self) -> list[Edge]:
        return [edge for edge in self.edges if edge.difference]

    def rate(self, edge: Edge) -> float:
        """Messages a second over the period."""
        return edge.made / max((self.until - self.since).total_seconds(), 1)


@dataclass(frozen=True, slots=True)
class _Observed:
    source: str | None
    job: str | None
    kind: str
    target: str | None
    made: int
    replays: int
    first_at: datetime
    last_at: datetime
    releases: list[str]


@dataclass(frozen=True, slots=True)
class _Declared:
    source: str | None
    job: str
    kind: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class _Reader:
    topic: str
    job: str
    delivered: int


def graph(conn: Connection, environment: Environment, since: datetime, until: datetime) -> Graph:
    """What flowed between two moments (to the hour), beside what is declared."""
    where = {"environment_id": environment.id}
    edges: dict[tuple[Point, Point], Edge] = {}
    feeds = {f"state.{name}": name for name in query.column(conn, STATES, **where)}
    for seen in query.rows(conn, _Observed, OBSERVED, **where, since=since, until=until):
        if seen.kind == "message" and seen.target in feeds:
            _feed(edges, seen, feeds[seen.target])
        else:
            _see(edges, seen)
    for reader in query.rows(conn, _Reader, READERS, **where):
        edge = _edge(edges, ("topic", reader.topic), ("job", reader.job))
        edge.declared = True
        edge.observed = edge.observed or reader.delivered > 0
    _declare(edges, query.rows(conn, _Declared, DECLARED, **where))
    found = sorted(edges.values(), key=lambda edge: (edge.source, edge.target))
    jobs: list[Point] = [("job", name) for name in query.column(conn, JOBS, **where)]
    ends = [end for edge in found for end in (edge.source, edge.target)]
    return Graph(sorted({*ends, *jobs}), found, since, until)


def _edge(edges: dict[tuple[Point, Point], Edge], source: Point, target: Point) -> Edge:
    return edges.setdefault((source, target), Edge(source, target))


def _see(edges: dict[tuple[Point, Point], Edge], seen: _Observed) -> None:
    if seen.target is None:
        return
    job: Point = ("job", seen.job) if seen.job else OUTSIDE
    kind = "topic" if seen.kind == "message" else "state"
    _add(_edge(edges, job, (kind, seen.target)), seen)
    if seen.source is not None:
        _add(_edge(edges, ("topic", seen.source), job), seen)


def _feed(edges: dict[tuple[Point, Point], Edge], seen: _Observed, state: str) -> None:
    """What changes of a state are published as comes out of the state."""
    edge = _edge(edges, ("state", state), ("topic", f"state.{state}"))
    edge.declared = True
    _add(edge, seen)


def _add(edge: Edge, seen: _Observed) -> None:
    edge.observed = True
    edge.made += seen.made
    edge.replays += seen.replays
    edge.first_at = min(edge.first_at or seen.first_at, seen.first_at)
    edge.last_at = max(edge.last_at or seen.last_at, seen.last_at)
    edge.releases |= set(seen.releases)


def _declare(edges: dict[tuple[Point, Point], Edge], declared: Iterable[_Declared]) -> None:
    says: set[str] = set()
    for each in declared:
        if each.source is not None:
            _edge(edges, ("topic", each.source), ("job", each.job)).declared = True
        if each.target is not None:
            kind = "topic" if each.kind == "message" else "state"
            _edge(edges, ("job", each.job), (kind, each.target)).declared = True
            says.add(each.job)
    for edge in edges.values():
        reads = edge.target[0] == "job" and edge.target != OUTSIDE
        edge.expected = reads or (edge.source[0] == "job" and edge.source[1] in says)

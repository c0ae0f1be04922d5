"""Shadows: another version of a job handles messages of the past beside, and is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import jobs, query
from kirby.server.environments import Environment
from kirby.server.jobs import Job

READS = """
    select distinct t.name
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id
      left join kirby.declaration d on d.subscription_id = s.id
     where t.environment_id = %(environment_id)s and s.shadow_id is null
       and (s.name = %(job)s or d.job = %(job)s)
     order by t.name
"""
VERSION = """
    select v.version
      from kirby.deployment_version v
      join kirby.release l on l.id = v.release_id
     where v.deployment_id = %(deployment_id)s
       and %(release)s in (v.version::text, l.version, left(l.sha256, 8),
                           l.name || ' ' || coalesce(l.version, left(l.sha256, 8)))
     order by v.version desc
     limit 1
"""
SINCE = "select kirby.first_since(null, %(since)s) - 1"
# No message of the topics can appear at or below it any more.
END = """
    select min(kirby.horizon(t.id)) from kirby.topic t
     where t.environment_id = %(environment_id)s and t.name = any(%(topics)s)
"""
START = """
    select kirby.start_shadow(%(deployment_id)s, %(version)s::integer, %(topics)s, %(after)s,
                              %(until)s, %(actor)s)
"""
STOP = "select kirby.stop_shadow(%(environment_id)s::smallint, %(id)s, %(actor)s)"
SHADOWS = """
    select h.id, h.job, h.version, h.topics, h.after, h.until, h.run_id, r.status as run_status,
           h.actor, h.created_at, h.stopped_at,
           (select count(*) from kirby.due d join kirby.subscription s on s.id = d.subscription_id
             where s.shadow_id = h.id and d.parked_at is not null) as parked
      from kirby.shadow h
      left join kirby.run r on r.id = h.run_id
     where h.environment_id = %(environment_id)s and (%(id)s::integer is null or h.id = %(id)s)
     order by h.id desc
     limit 100
"""
OUTPUTS = """
    select h.id as beside, h.name as beside_name, t.id, left(h.name, -length(%(end)s)) as name
      from kirby.topic h
      left join kirby.topic t on t.environment_id = h.environment_id
                             and t.name = left(h.name, -length(%(end)s))
     where h.environment_id = %(environment_id)s and right(h.name, length(%(end)s)) = %(end)s
     order by h.name
"""
# Messages that were made of the same ones, the first with the first and so on. What a rewind made
# again of them is not compared.
COMPARED = """
    with made as (
      select m.topic_id = %(beside)s as beside, m.parents, m.key, m.payload,
             row_number() over (partition by m.topic_id, m.parents order by m.position) as number
        from kirby.message m
       where m.topic_id in (%(beside)s, %(live)s) and m.position > %(after)s
         and m.parents[1] > %(after)s and m.parents[1] <= %(until)s
         and m.headers #>> '{via,-1,0}' = any(%(jobs)s)
         and m.headers #>> '{via,-1,2}' = any(%(topics)s)
         and not m.headers ? 'replay'
    ), pair as (
      select coalesce(s.parents, l.parents) as parents, coalesce(s.number, l.number) as number,
             l.key as old_key, l.payload as old, s.key as new_key, s.payload as new,
             case when l.parents is null then 'extra' when s.parents is null then 'missing'
                  when l.payload = s.payload and l.key is not distinct from s.key then 'equal'
                  else 'different' end as verdict
        from (select * from made where beside) s
        full join (select * from made where not beside) l
          on l.parents = s.parents and l.number = s.number
    ), ranked as (
      select p.*, count(*) over (partition by p.verdict) as count,
             row_number() over (partition by p.verdict order by p.parents, p.number) as rank
        from pair p
    )
    select verdict, count, parents, old_key, old, new_key, new
      from ranked where rank <= case verdict when 'equal' then 1 else %(samples)s end
     order by verdict, rank
"""
JOBS = """
    select distinct s.name from kirby.subscription s join kirby.topic t on t.id = s.topic_id
      left join kirby.declaration d on d.subscription_id = s.id
     where t.environment_id = %(environment_id)s and t.name = any(%(topics)s)
       and s.shadow_id is null and (s.name = %(job)s or d.job = %(job)s)
"""


@dataclass(frozen=True, slots=True)
class Shadow:
    """It reads ``topics`` above position ``after``, up to ``until``. ``parked``: messages that its
    code failed on. Without a version it is run by hand."""

    id: int
    job: str
    version: int | None
    topics: list[str]
    after: int
    until: int
    run_id: int | None
    run_status: str | None
    actor: str
    created_at: datetime
    stopped_at: datetime | None
    parked: int

    @property
    def ending(self) -> str:
        """Of the names of its topics."""
        return f".shadow-{self.id}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Two messages that were made of the same ones; None: there is none."""

    verdict: str
    count: int
    parents: list[int]
    old_key: str | None
    old: Any
    new_key: str | None
    new: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the shadow wrote to the topic that stands for ``topic``, and what is in the topic."""

    topic: str
    equal: int
    different: int
    missing: int
    extra: int
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class _Output:
    beside: int
    beside_name: str
    id: int | None
    name: str


def start(
    conn: Connection,
    environment: Environment,
    job: str,
    *,
    release: str | None,
    topics: Sequence[str] = (),
    since: datetime | int,
    until: datetime | int | None = None,
    actor: str,
) -> Shadow:
    """Have another version of a job handle what was recorded from a moment, or a position, on.

    Up to ``until``, which is not part of it; else up to now.

    ``release``: a version of the deployment, or a release that one has (its name and version, its
    version, or the beginning of its hash); None: somebody runs it by hand, with KIRBY_SHADOW.
    ``topics``: else all that the job reads. Raises NotFound, Invalid.
    """
    found = jobs.get(conn, environment, job)
    here: dict[str, Any] = {"environment_id": environment.id, "job": found.name}
    read = query.column(conn, READS, **here)
    if unknown := [each for each in topics if each not in read]:
        reads = ", ".join(read) or "none"
        raise Invalid(f"{job} does not read topic {unknown[0]}, it reads {reads}")
    chosen = list(topics) or read
    if not chosen:
        raise Invalid(f"{job} has read no topic yet: there is nothing to compare")
    end = query.value(conn, END, topics=chosen, **here)
    shadow_id = query.value(
        conn,
        START,
        deployment_id=found.deployment_id,
        version=None if release is None else _version(conn, found, release),
        topics=chosen,
        after=_before(conn, since),
        until=end if until is None else min(_before(conn, until), end),
        actor=actor,
    )
    return get(conn, environment, int(shadow_id))


def _before(conn: Connection, point: datetime | int) -> int:
    if isinstance(point, int):
        return point - 1
    return int(query.value(conn, SINCE, since=point))


def _version(conn: Connection, job: Job, release: str) -> int:
    version = query.value(conn, VERSION, deployment_id=job.deployment_id, release=release)
    if version is None:
        raise NotFound(f"no version of {job.name} is, or has, the release {release!r}")
    return int(version)


def listing(conn: Connection, environment: Environment) -> list[Shadow]:
    """The shadows of an environment, newest first."""
    return query.rows(conn, Shadow, SHADOWS, environment_id=environment.id, id=None)


def get(conn: Connection, environment: Environment, shadow_id: int) -> Shadow:
    """Raises NotFound."""
    found = query.row(conn, Shadow, SHADOWS, environment_id=environment.id, id=shadow_id)
    if found is None:
        raise NotFound(f"there is no shadow {shadow_id} in {environment.name}")
    return found


def stop(conn: Connection, environment: Environment, shadow_id: int, *, actor: str) -> None:
    """Cancel its run, remove its subscriptions; what it wrote stays. Raises NotFound, Conflict."""
    query.execute(conn, STOP, environment_id=environment.id, id=shadow_id, actor=actor)


def compare(
    conn: Connection, environment: Environment, shadow: Shadow, *, samples: int = 5
) -> list[Comparison]:
    """Its outputs beside those that the job made of the same messages, topic by topic."""
    found = query.rows(conn, _Output, OUTPUTS, environment_id=environment.id, end=shadow.ending)
    names = query.column(
        conn, JOBS, environment_id=environment.id, topics=shadow.topics, job=shadow.job
    )
    return [_compared(conn, shadow, each, [shadow.job, *names], samples) for each in found]


def _compared(
    conn: Connection, shadow: Shadow, output: _Output, names: list[str], samples: int
) -> Comparison:
    rows = query.rows(
        conn,
        Sample,
        COMPARED,
        beside=output.beside,
        live=output.id,
        after=shadow.after,
        until=shadow.until,
        jobs=names,
        topics=shadow.topics,
        samples=samples,
    )
    counts = {row.verdict: row.count for row in rows}
    return Comparison(
        output.name,
        equal=counts.get("equal", 0),
        different=counts.get("different", 0),
        missing=counts.get("missing", 0),
        extra=counts.get("extra", 0),
        samples=[row for row in rows if row.verdict != "equal"],
    )


def told(sample: Sample) -> str:
    """A difference on one line."""
    made_of = ", ".join(str(position) for position in sample.parents[:3])
    old, new = _short(sample.old_key, sample.old), _short(sample.new_key, sample.new)
    said = {"missing": f"{old} is missing", "extra": f"{new} is extra"}
    return f"{made_of}: {said.get(sample.verdict, f'{old} became {new}')}"


def _short(key: str | None, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)[:100]
    return text if key is None else f"{key}={text}"

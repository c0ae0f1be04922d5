"""The catalogue: what topics, states and jobs are, who answers for them, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import query, states, topics
from kirby.server.environments import Environment

KINDS = ("topic", "state", "job")
SAMPLED = 200  # values that the observed schema is made of: the newest ones
FIELDS = 200  # members that it names at the most
DEEP = 6

# A person's words go before those that code says of itself, and those before the deployment's.
ENTRIES = """
    select k.kind, k.name, coalesce(nullif(d.description, ''), nullif(c.doc, ''), k.described, '')
             as description,
           case when d.description <> '' then 'people' when c.doc <> '' then 'code'
                when k.described <> '' then 'deployment' end as source,
           coalesce(d.owner, '') as owner, d.updated_by, d.updated_at
      from (select 'topic' as kind, t.name, null as described from kirby.topic t
             where t.environment_id = %(environment_id)s
             union all
            select 'state', s.name, null from kirby.state s
             where s.environment_id = %(environment_id)s
             union all
            select 'job', j.name, j.description
              from kirby.deployment d join kirby.job j on j.id = d.job_id
             where d.environment_id = %(environment_id)s
             union all
            select 'job', o.job, null
              from (select d.job from kirby.declaration d
                     where d.environment_id = %(environment_id)s
                     union
                    select f.job from kirby.flow f
                     where f.environment_id = %(environment_id)s and f.job <> '') o
             where not exists (select from kirby.deployment v join kirby.job j on j.id = v.job_id
                                where v.environment_id = %(environment_id)s and j.name = o.job)) k
      left join kirby.description d on d.environment_id = %(environment_id)s
                                   and d.kind = k.kind and d.name = k.name
      left join lateral (
           select l.document ->> 'doc' as doc from kirby.declaration l
            where k.kind = 'job' and l.environment_id = %(environment_id)s and l.job = k.name
            order by l.at desc limit 1) c on true
     where (%(which)s::text is null or k.kind = %(which)s)
       and (%(name)s::text is null or k.name = %(name)s)
     order by array_position(array['topic', 'state', 'job'], k.kind), k.name
"""

DESCRIBE = """
    select kirby.describe(%(environment_id)s::smallint, %(kind)s, %(name)s, %(description)s,
                          %(owner)s, %(actor)s, %(reason)s)
"""

DECLARATIONS = """
    select t.name as topic, s.name as subscription, d.release, d.document, d.at
      from kirby.declaration d
      join kirby.subscription s on s.id = d.subscription_id
      join kirby.topic t on t.id = s.topic_id
     where d.environment_id = %(environment_id)s and d.job = %(name)s
     order by d.at desc
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """``source``: whose words the description is (people, code, deployment), or None."""

    kind: str
    name: str
    description: str
    source: str | None
    owner: str
    updated_by: str | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Field:
    """A member of the observed values: where (a.b, items[]), which types, in how many of them."""

    path: str
    types: list[str]
    count: int
    of: int
    example: Any


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the code of a release of a job says of itself."""

    topic: str
    subscription: str
    release: str | None
    document: dict[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a topic or a state: the newest value, and the members of the newest ones."""

    sample: Any
    sampled: int
    fields: list[Field]


def listing(conn: Connection, environment: Environment) -> list[Entry]:
    """Everything that the environment has: topics, states, jobs."""
    return query.rows(conn, Entry, ENTRIES, environment_id=environment.id, which=None, name=None)


def get(conn: Connection, environment: Environment, kind: str, name: str) -> Entry:
    """One entry; raises NotFound with the closest name, Invalid for a kind there is not."""
    if kind not in KINDS:
        raise Invalid(f"there is no {kind} in the catalogue: topic, state or job")
    where = {"environment_id": environment.id, "which": kind}
    found = query.row(conn, Entry, ENTRIES, **where, name=name)
    if found is None:
        known = [each.name for each in query.rows(conn, Entry, ENTRIES, **where, name=None)]
        raise query.missing(f"{kind} in {environment.name} called", name, known)
    return found


def describe(
    conn: Connection,
    environment: Environment,
    kind: str,
    name: str,
    *,
    actor: str,
    description: str | None = None,
    owner: str | None = None,
    reason: str | None = None,
) -> None:
    """Say what something is and who answers for it; None leaves it. Audited; Invalid, NotFound."""
    query.value(
        conn,
        DESCRIBE,
        environment_id=environment.id,
        kind=kind,
        name=name,
        description=description,
        owner=owner,
        actor=actor,
        reason=reason or None,
    )


def declarations(conn: Connection, environment: Environment, job: str) -> list[Declaration]:
    """What the releases of a job said of themselves, newest first."""
    return query.rows(conn, Declaration, DECLARATIONS, environment_id=environment.id, name=job)


def contents(conn: Connection, environment: Environment, kind: str, name: str) -> Contents | None:
    """What is in a topic or a state, of its newest SAMPLED values; None: a job, or it is empty."""
    if kind == "topic":
        topic = topics.get(conn, environment, name)
        values = [each.payload for each in topics.last(conn, environment, topic, limit=SAMPLED)]
    elif kind == "state":
        state = states.get(conn, environment, name)
        values = [each.value for each in states.rows(conn, state, limit=SAMPLED)]
    else:
        values = []
    return Contents(values[0], len(values), observed(values)) if values else None


def observed(values: Iterable[Any]) -> list[Field]:
    """The members of values, with the types and an example of each, in the order they came."""
    types: dict[str, dict[str, None]] = {}
    counts: dict[str, int] = {}
    holders: dict[str, int] = {}
    examples: dict[str, Any] = {}
    for value in values:
        seen: dict[str, None] = {}
        for path, each in _members(value, "", 0):
            types.setdefault(path, {})[_type(each)] = None
            if each is not None:
                examples.setdefault(path, each)
            seen[path] = None
        for path in seen:
            counts[path] = counts.get(path, 0) + 1
    for path in counts:
        holders[path] = counts.get(_holder(path), counts.get("", 0))
    return [
        Field(path, sorted(types[path]), counts[path], holders[path], examples.get(path))
        for path in list(counts)[:FIELDS]
    ]


def _members(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Each member with its path; the value itself has an empty one."""
    yield path, value
    if depth == DEEP:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _members(each, f"{path}.{name}" if path else str(name), depth + 1)
    elif isinstance(value, list):
        for each in value[:20]:
            yield from _members(each, f"{path}[]", depth + 1)


def _holder(path: str) -> str:
    return path[:-2] if path.endswith("[]") else path.rpartition(".")[0]


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "text", dict: "object"}
    return "null" if value is None else names.get(type(value), "list")

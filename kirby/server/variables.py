"""Variables: plain configuration of scripts, from the widest scope to the narrowest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from kirby.core import db
from kirby.core.errors import Invalid
from kirby.server import environments, query

LARGEST = 4 * 2**20  # bytes; what no environment takes is handed over by a descriptor

LISTING = """
    select v.name, v.value, e.name as environment, j.name as job, v.updated_by, v.updated_at
      from kirby.variable v
      left join kirby.environment e on e.id = v.environment_id
      left join kirby.job j on j.id = v.job_id
     order by v.name, e.name nulls first, j.name nulls first
"""

# The later a line comes, the more it weighs.
EFFECTIVE = """
    select v.name, v.value,
           case when v.environment_id is null and v.job_id is null then 'global'
                when v.job_id is null then 'environment'
                when v.environment_id is null then 'job'
                else 'job in environment'
           end as origin,
           (v.job_id is not null)::integer * 2 + (v.environment_id is not null)::integer as weight
      from kirby.deployment d
      join kirby.variable v on (v.environment_id is null or v.environment_id = d.environment_id)
                           and (v.job_id is null or v.job_id = d.job_id)
     where d.id = %(deployment_id)s
    union all
    select o.key, o.value, 'deployment', 4
      from kirby.deployment_version v
     cross join jsonb_each_text(v.variables) as o (key, value)
     where v.deployment_id = %(deployment_id)s and v.version = %(version)s
       and o.value is not null
     order by weight, name
"""

PLANNED = """
    select v.name, v.value,
           case when v.environment_id is null and v.job_id is null then 'global'
                when v.job_id is null then 'environment'
                when v.environment_id is null then 'job'
                else 'job in environment'
           end as origin
      from kirby.variable v
      left join kirby.environment e on e.id = v.environment_id
      left join kirby.job j on j.id = v.job_id
     where (v.environment_id is null or e.name = %(environment)s)
       and (v.job_id is null or j.name = %(job)s)
     order by (v.job_id is not null)::integer * 2 + (v.environment_id is not null)::integer, v.name
"""

PUT = """
    insert into kirby.variable (environment_id, job_id, name, value, updated_by)
    values (%(environment_id)s, %(job_id)s, %(name)s, %(value)s, %(actor)s)
        on conflict (environment_id, job_id, name) do update
       set value = excluded.value, updated_by = excluded.updated_by, updated_at = kirby.now()
    returning id
"""

BEFORE = """
    select value from kirby.variable
     where name = %(name)s and environment_id is not distinct from %(environment_id)s
       and job_id is not distinct from %(job_id)s
"""

AUDIT = """
    select kirby.audit(%(actor)s, 'variable_set', %(object)s,
                       jsonb_build_object('value', %(before)s::text),
                       jsonb_build_object('value', %(after)s::text))
"""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable and where it holds; no environment: in all, no job: for all."""

    name: str
    value: str
    environment: str | None
    job: str | None
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Effective:
    """What a run gets. ``origin``: global, environment, job, job in environment, or deployment."""

    name: str
    value: str
    origin: str


def listing(conn: Connection) -> list[Variable]:
    """Every variable, by name, the widest scope first."""
    return query.rows(conn, Variable, LISTING)


def effective(conn: db.Connection, deployment_id: int, version: int) -> dict[str, Effective]:
    """By name, sorted: global < environment < job < job in environment < deployment version."""
    params = {"deployment_id": deployment_id, "version": version}
    found = {
        name: Effective(name, value, origin)
        for name, value, origin, _ in conn.execute(EFFECTIVE, params)
    }
    return dict(sorted(found.items()))


def planned(
    conn: Connection, environment: str, job: str, own: Mapping[str, str]
) -> dict[str, Effective]:
    """The same for a version that is not stored yet, whose variables are `own`."""
    found = {each.name: each for each in query.rows(
        conn, Effective, PLANNED, environment=environment, job=job)}  # fmt: skip
    found |= {name: Effective(name, value, "deployment") for name, value in own.items()}
    return dict(sorted(found.items()))


def put(
    conn: Connection,
    name: str,
    value: str,
    *,
    environment: str | None,
    job: str | None,
    actor: str,
) -> None:
    """Set a variable in a scope; audited. Raises Invalid, or NotFound for the scope."""
    check({name: value})
    scope = {
        "environment_id": environments.get(conn, environment).id if environment else None,
        "job_id": _job_id(conn, job) if job else None,
    }
    before = query.value(conn, BEFORE, name=name, **scope)
    query.value(conn, PUT, name=name, value=value, actor=actor, **scope)
    where = f"variable/{environment or '*'}/{job or '*'}/{name}"
    query.value(conn, AUDIT, actor=actor, object=where, before=before, after=value)


def check(variables: Mapping[str, str]) -> None:
    """Raise Invalid for a name or value that no script could be given."""
    for name, value in variables.items():
        if not (name.isascii() and name.isidentifier()):
            raise Invalid(f"{name!r} is not a name for a variable: letters, digits, underscores")
        if name.startswith("KIRBY_"):
            raise Invalid(f"the variable {name} is Kirby's own: choose another name")
        if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > LARGEST:
            raise Invalid(f"the value of {name} cannot be passed on: NUL in it, or over 4 MB")


def _job_id(conn: Connection, name: str) -> int:
    found = query.value(conn, "select id from kirby.job where name = %(name)s", name=name)
    if found is None:
        raise query.missing("job", name, query.column(conn, "select name from kirby.job"))
    return int(found)

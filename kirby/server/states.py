"""States: the latest value of each key, page by page, and every version a key has had."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core import payload, topics
from kirby.core.errors import NotFound
from kirby.server import query
from kirby.server.database import driver
from kirby.server.environments import Environment

COUNTED = 10_000  # beyond it a number of keys is shown as "10,000+"

AUDIT_PUT = """
    select kirby.audit(%(actor)s, 'state_set', %(object)s, null, %(after)s)
"""

STATES = """
    select s.id, s.name, s.environment_id, s.created_at,
           least(entries.keys, %(counted)s) as keys, entries.keys > %(counted)s as more,
           case when entries.keys <= %(counted)s then entries.updated_at end as updated_at
      from kirby.state s
     cross join lateral (
           select count(*) filter (where e.op = 'set') as keys, max(e.updated_at) as updated_at
             from (select op, updated_at from kirby.state_entry
                    where state_id = s.id limit %(counted)s + 1) e) entries
     where s.environment_id = %(environment_id)s
       and (%(name)s::text is null or s.name = %(name)s)
     order by s.name
"""

NAMES = "select name from kirby.state where environment_id = %(environment_id)s"

# chr(1114111) is the highest character there is: the scan ends where the prefix does.
ROWS = """
    select key, version, value, position, run_id, updated_at
      from kirby.state_entry
     where state_id = %(state_id)s and op = 'set'
       and key > %(after)s and key >= %(prefix)s and key < %(prefix)s || chr(1114111)
     order by key
     limit %(limit)s
"""

ENTRY = """
    select key, version, op, value, position, run_id, updated_at
      from kirby.state_entry
     where state_id = %(state_id)s and key = %(key)s
"""

HISTORY = """
    select position, version, op, value, run_id, parents, recorded_at
      from kirby.state_mutation
     where state_id = %(state_id)s and key = %(key)s
       and (%(before)s::bigint is null or position < %(before)s)
     order by position desc
     limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class State:
    """``keys`` is at most COUNTED; ``more`` says that there are more, and then nothing else is
    known without reading them all: ``updated_at`` is None."""

    id: int
    name: str
    environment_id: int
    created_at: datetime
    keys: int
    more: bool
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    version: int
    value: Any
    position: int
    run_id: int | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Latest:
    """The last version of a key, which may be its deletion (``op``)."""

    key: str
    version: int
    op: str
    value: Any
    position: int
    run_id: int | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Mutation:
    position: int
    version: int
    op: str
    value: Any
    run_id: int | None
    parents: list[int] | None
    recorded_at: datetime


def listing(conn: Connection, environment: Environment) -> list[State]:
    """Every state of the environment, by name."""
    return query.rows(
        conn, State, STATES, environment_id=environment.id, name=None, counted=COUNTED
    )


def get(conn: Connection, environment: Environment, name: str) -> State:
    """The state of that name; raises NotFound with the closest name."""
    found = query.row(
        conn, State, STATES, environment_id=environment.id, name=name, counted=COUNTED
    )
    if found is None:
        known = query.column(conn, NAMES, environment_id=environment.id)
        raise query.missing(f"state in {environment.name} called", name, known)
    return found


def rows(
    conn: Connection, state: State, *, prefix: str = "", after: str = "", limit: int = 50
) -> list[Entry]:
    """Entries by key, those that begin with ``prefix``; go on with the last one's key."""
    return query.rows(conn, Entry, ROWS, state_id=state.id, prefix=prefix, after=after, limit=limit)


def entry(conn: Connection, state: State, key: str) -> Latest:
    """The last version of a key, a deletion included; raises NotFound if there never was one."""
    found = query.row(conn, Latest, ENTRY, state_id=state.id, key=key)
    if found is None:
        raise NotFound(f"state {state.name} has no key {key}")
    return found


def history(
    conn: Connection, state: State, key: str, *, before: int | None = None, limit: int = 50
) -> list[Mutation]:
    """The versions of a key, newest first."""
    return query.rows(
        conn, Mutation, HISTORY, state_id=state.id, key=key, before=before, limit=limit
    )


def put(
    conn: Connection, environment: Environment, name: str, key: str, value: Any, *, actor: str
) -> None:
    """Set a key by hand: one more version, audited. The unit of work is in that environment."""
    mutation = {name: [{"k": key, "o": "set", "v": value}]}
    topics.write(driver(conn), "{}", payload.dumps(mutation, "the value"))
    query.value(
        conn,
        AUDIT_PUT,
        actor=actor,
        object=f"state/{environment.name}/{name}/{key}",
        after=Jsonb(value),
    )

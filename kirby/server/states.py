"""States: the latest value of each key, what it was at any moment, and every version of a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core import payload, states, topics
from kirby.core.errors import Invalid, NotFound
from kirby.server import query
from kirby.server.database import driver
from kirby.server.environments import Environment

MAX_KEY = 1024  # bytes
PIECE = 1000  # keys that are set in one document
LOOKED = 100_000  # versions of a key that blame looks at
COUNTED = 10_000  # beyond it a number of keys is shown as "10,000+"

AUDIT_PUT = """
    select kirby.audit(%(actor)s, 'state_set', %(object)s, null, %(after)s)
"""

AUDIT_LOAD = """
    select kirby.audit(%(actor)s, 'state_loaded', %(object)s, null,
                       jsonb_build_object('keys', %(keys)s::bigint))
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
    select position, version, op, value, run_id, parents, recorded_at, headers
      from kirby.state_mutation
     where state_id = %(state_id)s and key = %(key)s
       and (%(before)s::bigint is null or position < %(before)s)
     order by position desc
     limit %(limit)s
"""

AT = """
    select key, version, value, position, run_id, recorded_at as updated_at
      from kirby.entries_at(%(state_id)s, %(position)s, %(when)s, %(keys)s::text[], %(prefix)s,
                            %(after)s, %(limit)s)
"""

DIFF = """
    select key, before, after, before_version, after_version, position, recorded_at
      from kirby.differences(%(state_id)s, %(from_position)s, %(from_when)s, %(to_position)s,
                             %(to_when)s, %(prefix)s, %(after)s, %(limit)s)
"""

BLAME = """
    select path, value, version, position, run_id, job, release, parents, recorded_at, exact
      from kirby.blame(%(state_id)s, %(key)s, %(most)s)
"""

CHECK_KNOWN = """
    select kirby.check_known(%(state_id)s, %(position)s, %(when)s, %(keys)s::text[], %(prefix)s)
"""
RESTORE = """
    select kirby.restore_state(%(state_id)s, %(position)s, %(when)s, %(keys)s::text[], %(prefix)s,
                               %(actor)s, %(reason)s)
"""

COLUMNS = """
    select name, type, array_to_string(path, '.') as path,
           case when indexed then 'yes' else '' end as indexed
      from kirby.state_column where state_id = %(state_id)s order by n
"""

SET_COLUMNS = "select kirby.set_columns(%(state_id)s, %(columns)s, %(actor)s)"

Moment = int | datetime


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
    headers: dict[str, Any] | None = None

    @property
    def restored(self) -> dict[str, Any] | None:
        """If it set the key back: to which ``version`` (0: it had none), and by what."""
        found = (self.headers or {}).get("restored")
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value is another than it was; a version is None where the key had no value.

    ``position`` and ``recorded_at`` are those of its last change up to the later moment.
    """

    key: str
    before: Any
    after: Any
    before_version: int | None
    after_version: int | None
    position: int
    recorded_at: datetime

    @property
    def versions(self) -> tuple[int | None, int | None]:
        return self.before_version, self.after_version

    @property
    def change(self) -> str:
        """In a word: added, removed or changed."""
        if self.before_version is None:
            return "added"
        return "removed" if self.after_version is None else "changed"


@dataclass(frozen=True, slots=True)
class Blame:
    """Who gave a part of a value its value: the mutation since which it has not changed.

    ``path`` leads to it, such as ``$.minutes`` or ``$.tags[0]``. Not ``exact``: it has been so for
    longer than was looked back, at least since this version.
    """

    path: str
    value: Any
    version: int
    position: int
    run_id: int | None
    job: str | None
    release: str | None
    parents: list[int] | None
    recorded_at: datetime
    exact: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the views: ``path`` with dots between its steps; ``indexed``: "yes" or ""."""

    name: str
    type: str
    path: str
    indexed: str


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


def at(
    conn: Connection,
    state: State,
    *,
    when: datetime | None = None,
    position: int | None = None,
    key: str | None = None,
    prefix: str = "",
    after: str = "",
    limit: int | None = 50,
) -> list[Entry]:
    """Entries as they were at a position of the log, or at a moment, by key; now without either.

    Those that begin with ``prefix``; go on with the last one's key. With ``key`` that one, if it
    had a value. What was written by a transaction that is still open is not there yet.
    """
    return query.rows(
        conn,
        Entry,
        AT,
        state_id=state.id,
        position=position,
        when=when,
        keys=None if key is None else [key],
        prefix=prefix,
        after=after,
        limit=limit,
    )


def diff(
    conn: Connection,
    state: State,
    before: Moment,
    after: Moment | None = None,
    *,
    prefix: str = "",
    after_key: str = "",
    limit: int | None = 50,
) -> list[Difference]:
    """Keys whose value differs between two moments or positions, by key; the later may be now."""
    return query.rows(
        conn,
        Difference,
        DIFF,
        state_id=state.id,
        from_position=before if isinstance(before, int) else None,
        from_when=before if isinstance(before, datetime) else None,
        to_position=after if isinstance(after, int) else None,
        to_when=after if isinstance(after, datetime) else None,
        prefix=prefix,
        after=after_key,
        limit=limit,
    )


def blame(conn: Connection, state: State, key: str, *, most: int = LOOKED) -> list[Blame]:
    """For each part of a key's value the mutation that made it what it is, in the order of paths.

    Looks back over at most so many versions. Raises NotFound if the key has no value.
    """
    return query.rows(conn, Blame, BLAME, state_id=state.id, key=key, most=most)


def to_restore(
    conn: Connection,
    state: State,
    to: Moment,
    *,
    key: str | None = None,
    prefix: str = "",
    limit: int | None = None,
) -> list[Difference]:
    """What ``restore`` would change, by key: ``before`` is what it will be, ``after`` what it is.

    Raises Invalid as that does, if compaction removed what was then.
    """
    query.execute(
        conn,
        CHECK_KNOWN,
        state_id=state.id,
        position=to if isinstance(to, int) else None,
        when=to if isinstance(to, datetime) else None,
        keys=None if key is None else [key],
        prefix=prefix,
    )
    found = diff(conn, state, to, prefix=key or prefix, limit=limit if key is None else 1)
    return [each for each in found if key in (None, each.key)]


def restore(
    conn: Connection,
    environment: Environment,
    name: str,
    *,
    to: Moment,
    actor: str,
    reason: str,
    key: str | None = None,
    prefix: str = "",
) -> int:
    """Set a key, those with a prefix, or the whole state back to what it was; how many changed.

    Each is a new version, none is lost; a key that had no value then is deleted. Audited.
    Raises NotFound, Invalid (without a reason).
    """
    restored = query.value(
        conn,
        RESTORE,
        state_id=get(conn, environment, name).id,
        position=to if isinstance(to, int) else None,
        when=to if isinstance(to, datetime) else None,
        keys=None if key is None else [key],
        prefix=prefix,
        actor=actor,
        reason=reason,
    )
    return int(restored)


def columns(conn: Connection, state: State) -> list[Column]:
    """The columns that the views of a state have beside those of every state."""
    return query.rows(conn, Column, COLUMNS, state_id=state.id)


def set_columns(
    conn: Connection, state: State, columns: list[states.Column], *, actor: str
) -> None:
    """Give its views these columns in the place of those they have; audited.

    Nobody changes a state while indexed ones are filled. Raises Invalid, WrongTransition (views of
    somebody are built on them).
    """
    documents = Jsonb([each.document() for each in columns])
    query.value(conn, SET_COLUMNS, state_id=state.id, columns=documents, actor=actor)


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


def load(
    conn: Connection,
    environment: Environment,
    name: str,
    items: Iterable[tuple[str, Any]],
    *,
    actor: str,
) -> int:
    """Set many keys by hand; audited as one. The last value of a key counts. Raises Invalid."""
    states.checked_name(name)
    values = dict(items)
    pieces = iter(values.items())
    while piece := list(islice(pieces, PIECE)):
        changes = ",".join(_change(key, value) for key, value in piece)
        topics.write(driver(conn), "{}", f'{{"{name}":[{changes}]}}')
    query.value(
        conn,
        AUDIT_LOAD,
        actor=actor,
        object=f"state/{environment.name}/{name}",
        keys=len(values),
    )
    return len(values)


def _change(key: str, value: Any) -> str:
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        raise Invalid(f"a key has at most {MAX_KEY} bytes: {key[:60]!r}…")
    text = payload.dumps(value, f"the value of {key[:60]!r}")
    return f'{{"k":{payload.dumps(key, "a key")},"o":"set","v":{text}}}'

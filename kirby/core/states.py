"""States: read entries, latest or of old. Changes go with the unit of work (kirby.core.topics)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core.backends import answered
from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import Invalid

NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
HISTORY = "_history"
TYPES = ("integer", "number", "text", "boolean", "time", "date", "json")
PAGE = 1000
PAST_PAGE = 50_000  # each page puts the whole state together again

GET = """
    select key, version, deleted, value::text as value, age from kirby.get_entries(%s, p_keys => %s)
"""
ITEMS = """
    select key, version, deleted, value::text as value, age
      from kirby.get_entries(%s, p_prefix => %s, p_after => %s, p_limit => %s, p_start => %s,
                             p_stop => %s, p_reverse => %s)
"""
AT = """
    select key, version, value::text as value, position, run_id, recorded_at
      from kirby.get_entries_at(%s, %s, %s, p_keys => %s, p_prefix => %s, p_after => %s,
                                p_limit => %s)
"""
VERSIONS = """
    select version, op, value::text as value, position, run_id, parents, headers, recorded_at
      from kirby.get_history(%s, %s, %s, %s)
"""


FLY = "select value::text as value, age, fresh, compute from kirby.fly(%s, %s, %s, %s, %s)"
LAND = "select kirby.land(%s, %s, %s)"
DECLARE = "select kirby.declare_columns(%s, %s)"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a state's views: what its values have at ``path``; what does not fit is NULL."""

    name: str
    type: str
    path: tuple[str, ...]
    index: bool = False

    def document(self) -> dict[str, Any]:
        path = list(self.path)
        return {"name": self.name, "type": self.type, "path": path, "index": self.index}


@dataclass(frozen=True, slots=True)
class Entry:
    """The latest version of a key; ``value`` is JSON text, None if the key was deleted.

    ``age``: seconds since its last change, by the clock of the database.
    """

    key: str
    version: int
    deleted: bool
    value: str | None
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """A key as it was; ``value`` is JSON text."""

    key: str
    version: int
    value: str
    position: int
    run_id: int | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Flight:
    """A cached value (JSON text, None: there is none), how old it is in seconds, whether that is
    young enough, and whether the caller is to compute it."""

    value: str | None
    age: float | None
    fresh: bool
    compute: bool


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key; ``value`` is JSON text, None for its deletion (``op``)."""

    version: int
    op: str
    value: str | None
    position: int
    run_id: int | None
    parents: list[int] | None
    headers: dict[str, Any] | None
    recorded_at: datetime


def checked_name(name: object) -> str:
    """The name of a state. Raises Invalid; the database refuses the same ones (kirby.state_id)."""
    if isinstance(name, str) and NAME.fullmatch(name):
        if name.endswith(HISTORY):
            of = name.removesuffix(HISTORY)
            raise Invalid(
                f"{name} is not a name for a state: that view has the versions of state {of}"
            )
        return name
    raise Invalid(
        f"{name!r:.100} is not a name for a state: small letters, digits and underscores, at most"
        " 50 (it becomes an SQL view)"
    )


@answered
def get(conn: Connection, state: str, keys: list[str]) -> list[Entry]:
    """Return the entries of those keys that were ever written."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(GET, [state, keys]).fetchall()


@answered
def items(
    conn: Connection,
    state: str,
    prefix: str = "",
    *,
    start: str | None = None,
    stop: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[Entry]:
    """Yield the entries whose key begins with ``prefix``, in their order, page by page.

    From key ``start`` on, before key ``stop``; ``reverse``: from the last one backwards.
    """
    after: str | None = None
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        params = [state, prefix, after, size, start, stop, reverse]
        with kirby_errors(), conn.cursor(row_factory=class_row(Entry)) as cursor:
            page = cursor.execute(ITEMS, params).fetchall()
        yield from page
        if len(page) < size:
            return
        after = page[-1].key
        limit = None if limit is None else limit - size


@answered
def at(
    conn: Connection,
    state: str,
    *,
    when: datetime | None = None,
    position: int | None = None,
    keys: list[str] | None = None,
    prefix: str = "",
) -> Iterator[Past]:
    """Yield the entries as they were at a moment or a position, those with a value, by key."""
    after: str | None = None
    while True:
        params = [state, when, position, keys, prefix, after, PAST_PAGE]
        with kirby_errors(), conn.cursor(row_factory=class_row(Past)) as cursor:
            page = cursor.execute(AT, params).fetchall()
        yield from page
        if keys is not None or len(page) < PAST_PAGE:
            return
        after = page[-1].key


@answered
def history(
    conn: Connection, state: str, key: str, *, before: int | None = None, limit: int = 1000
) -> list[Version]:
    """The versions of a key, newest first, before a position."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(VERSIONS, [state, key, before, limit]).fetchall()


def column(name: object, written: object, index: bool = False) -> Column:
    """A column of which is written "integer", or "text=address.city" with a path. Raises Invalid.

    The database refuses the same ones, and a few names more (kirby.set_columns).
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Invalid(
            f"{name!r:.60} is not a name for a column: small letters, digits and underscores"
        )
    kind, _, path = written.partition("=") if isinstance(written, str) else ("", "", "")
    if kind not in TYPES:
        raise Invalid(f"column {name} is of type {written!r:.60}: {', '.join(TYPES)}")
    return Column(name, kind, tuple((path or name).split(".")), index)


@answered
def declare(conn: Connection, state: str, columns: list[Column]) -> None:
    """Give a state columns, unless it has these already. Raises Invalid, WrongTransition."""
    with kirby_errors():
        conn.execute(DECLARE, [state, Jsonb([each.document() for each in columns])])


@answered
def fly(
    conn: Connection, state: str, key: str, ttl: float | None, holder: str, lease: float
) -> Flight:
    """A value younger than ``ttl``, or the right to compute it, for ``lease`` seconds."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Flight)) as cursor:
        [found] = cursor.execute(FLY, [state, key, ttl, holder, lease]).fetchall()
    return found


@answered
def land(conn: Connection, state: str, key: str, holder: str) -> None:
    """What this holder was to compute is done with."""
    with kirby_errors():
        conn.execute(LAND, [state, key, holder])

"""States: read the latest entries. Changes go with the unit of work (kirby.core.topics.write)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg.rows import class_row

from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import Invalid

NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
HISTORY = "_history"
PAGE = 1000

GET = """
    select key, version, deleted, value::text as value from kirby.get_entries(%s, p_keys => %s)
"""
ITEMS = """
    select key, version, deleted, value::text as value
      from kirby.get_entries(%s, p_prefix => %s, p_after => %s, p_limit => %s)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The latest version of a key; ``value`` is JSON text, None if the key was deleted."""

    key: str
    version: int
    deleted: bool
    value: str | None


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


def get(conn: Connection, state: str, keys: list[str]) -> list[Entry]:
    """Return the entries of those keys that were ever written."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(GET, [state, keys]).fetchall()


def items(conn: Connection, state: str, prefix: str = "") -> Iterator[Entry]:
    """Yield the entries whose key begins with ``prefix``, in their order, page by page."""
    after: str | None = None
    while True:
        with kirby_errors(), conn.cursor(row_factory=class_row(Entry)) as cursor:
            page = cursor.execute(ITEMS, [state, prefix, after, PAGE]).fetchall()
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].key

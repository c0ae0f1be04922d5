"""States: read the latest entries. Changes go with the unit of work (kirby.core.topics.write)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg.rows import class_row

from kirby.core.db import Connection, kirby_errors

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

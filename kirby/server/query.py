"""Run one constant statement in a unit of work; its rows come back as dataclasses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, LiteralString, TypeVar

from psycopg.rows import class_row
from sqlalchemy import Connection

from kirby.core.errors import NotFound
from kirby.server.database import driver as driver

Row = TypeVar("Row")


def rows(conn: Connection, kind: type[Row], query: LiteralString, **params: object) -> list[Row]:
    """Every row of a query whose columns are named as the fields of ``kind``."""
    with driver(conn).cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchall()


def row(conn: Connection, kind: type[Row], query: LiteralString, **params: object) -> Row | None:
    """The first row of a query, or None."""
    with driver(conn).cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchone()


def one(conn: Connection, kind: type[Row], query: LiteralString, **params: object) -> Row:
    """The row of a query that always has one."""
    found = row(conn, kind, query, **params)
    if found is None:
        raise LookupError(f"no row of {kind.__name__}")
    return found


def value(conn: Connection, query: LiteralString, **params: object) -> Any:
    """The first column of the first row of a query, or None."""
    found = driver(conn).execute(query, params).fetchone()
    return found[0] if found else None


def column(conn: Connection, query: LiteralString, **params: object) -> list[Any]:
    """The first column of every row of a query."""
    return [first for first, *_ in driver(conn).execute(query, params).fetchall()]


def execute(conn: Connection, statement: LiteralString, **params: object) -> None:
    """Run a statement for what it does."""
    driver(conn).execute(statement, params)


def missing(what: str, name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return NotFound(f"there is no {what} {name}{hint}")

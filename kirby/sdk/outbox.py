"""The transactional outbox: publish on the application's own connection, in its own transaction.

Whose connection it is, is told without importing SQLAlchemy or Django: the SDK needs psycopg alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row
from psycopg.types.string import StrDumperUnknown, TextLoader

from kirby.core import db
from kirby.core.errors import Denied, Invalid, Unavailable, WrongSchema

WRITE = "select positions::pg_catalog.text from kirby.publish_within(%s, %s, %s)"
ASYNCHRONOUS = (psycopg.AsyncConnection, psycopg.AsyncCursor)
ACCEPTED = "a psycopg connection, a SQLAlchemy connection or session, or Django's connection"


def publish(connection: Any, documents: Sequence[str]) -> list[int]:
    """Write documents of messages (work.document) on an application's connection; the positions.

    They commit with what else the application does there, or vanish with it; in autocommit they
    are committed on return, all or none. Raises Invalid (above all for what is no such connection),
    Unavailable, Denied, NotFound, WrongSchema.
    """
    if hasattr(connection, "run_sync") or isinstance(connection, ASYNCHRONOUS):
        raise Invalid("this connection is asynchronous: await apublish(…, connection=…)")
    conn = driver(connection)
    if isinstance(conn, psycopg.AsyncConnection):
        return _publish_bridged(connection, documents)
    checked(conn)
    together = len(documents) > 1 and is_alone(conn)
    with _errors(conn), conn.transaction() if together else nullcontext():
        return [position for each in documents for position in _write(conn, each)]


def _publish_bridged(connection: Any, documents: Sequence[str]) -> list[int]:
    """In what SQLAlchemy's asynchronous connections call run_sync."""
    bridge = fairy(connection).dbapi_connection
    found: list[int] = bridge.run_async(lambda conn: _publish_async(conn, documents))
    return found


async def apublish(connection: Any, documents: Sequence[str]) -> list[int]:
    """The same on an asynchronous connection: of psycopg, or of SQLAlchemy over psycopg."""
    if hasattr(connection, "run_sync"):
        found: list[int] = await connection.run_sync(publish, documents)
        return found
    if not isinstance(connection, ASYNCHRONOUS):
        raise Invalid(
            f"messages cannot be awaited on {described(connection)}: give an asynchronous"
            " connection of psycopg or SQLAlchemy, or publish(…, connection=…) where it is used"
        )
    return await _publish_async(connection, documents)


async def _publish_async(connection: Any, documents: Sequence[str]) -> list[int]:
    conn: psycopg.AsyncConnection[Any] = driver(connection)
    checked(conn)
    together = len(documents) > 1 and is_alone(conn)
    with _errors(conn):
        async with conn.transaction() if together else nullcontext():
            return [position for each in documents for position in await _write_async(conn, each)]


# Whose connection is it?


def driver(connection: Any) -> Any:
    """The psycopg connection below what the application gave. Raises Invalid if there is none."""
    found = connection
    if isinstance(found, psycopg.Cursor | psycopg.AsyncCursor):
        found = found.connection
    elif "sqlalchemy" in libraries(found):
        found = getattr(fairy(found), "driver_connection", found)
    elif "django" in libraries(found) and hasattr(found, "ensure_connection"):
        found.ensure_connection()
        found = found.connection
    if isinstance(found, psycopg.Connection | psycopg.AsyncConnection):
        return found
    raise Invalid(f"messages cannot be published on {described(found)}: give {ACCEPTED}")


def libraries(thing: Any) -> set[str]:
    """The names of the libraries that its class and the classes above it come from."""
    return {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}


def fairy(connection: Any) -> Any:
    """SQLAlchemy's own handle on the driver's connection, in a transaction that it knows of.

    Without one, its ``commit()`` would find that nothing was begun, and commit nothing.
    """
    if hasattr(connection, "driver_connection"):
        return connection
    found = connection
    if callable(getattr(found, "connection", None)):  # a session
        found = found.connection()
    if hasattr(found, "in_transaction"):  # a connection
        if not found.in_transaction():
            found.begin()
        found = found.connection
    return found


def described(thing: Any) -> str:
    """What was given, for a message: the library is what tells most."""
    library = type(thing).__module__.partition(".")[0]
    name = type(thing).__name__
    if library == "sqlalchemy":
        return f"SQLAlchemy's {name}"
    if library in ("psycopg2", "asyncpg", "pg8000", "sqlite3", "MySQLdb", "pymysql"):
        return f"a connection of {library}, since Kirby speaks through psycopg 3"
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


# On psycopg's connection


def checked(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raises Unavailable if it is closed, Invalid if its transaction has failed already."""
    if conn.closed:
        raise Unavailable("the connection to publish on is closed")
    if conn.info.transaction_status == TransactionStatus.INERROR:
        raise Invalid(
            "the transaction to publish in has failed already: roll it back, or to a savepoint,"
            " and publish then"
        )


def is_alone(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether the next statement commits at once."""
    return conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE


def _write(conn: psycopg.Connection[Any], document: str) -> list[int]:
    """One statement, by a cursor of ours: what the application made of its own is not used."""
    with psycopg.Cursor(conn, row_factory=tuple_row) as cursor:
        return _positions(
            _plain(cursor).execute(WRITE, _params(document), prepare=False).fetchone()
        )


async def _write_async(conn: psycopg.AsyncConnection[Any], document: str) -> list[int]:
    async with psycopg.AsyncCursor(conn, row_factory=tuple_row) as cursor:
        await _plain(cursor).execute(WRITE, _params(document), prepare=False)
        return _positions(await cursor.fetchone())


def _plain(cursor: Any) -> Any:
    """It reads and writes text as psycopg does by itself, whatever else was registered."""
    cursor.adapters.register_dumper(str, StrDumperUnknown)
    cursor.adapters.register_loader("text", TextLoader)
    return cursor


def _params(document: str) -> list[str | None]:
    """The document, and who this process is; what it does not know is as the connection has it."""
    return [
        document,
        os.environ.get("KIRBY_TOKEN") or None,
        os.environ.get("KIRBY_ENVIRONMENT") or None,
    ]


def _positions(row: TupleRow | None) -> list[int]:
    assert row is not None  # noqa: S101 - a function without a set returns one row
    return [int(position) for position in row[0].strip("{}").split(",")]


@contextmanager
def _errors(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Kirby's errors, in the words of somebody who looks at an application."""
    info = conn.info
    try:
        with db.kirby_errors():
            yield
    except WrongSchema as error:
        raise WrongSchema(
            f"the database {info.dbname} of this connection has no Kirby schema, or an older one:"
            " publish on a connection to Kirby's own database, or run 'kirby db migrate' there"
        ) from error
    except Denied as error:
        if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            raise
        raise Denied(
            f"the login {info.user} may not publish: an administrator says"
            f" 'grant kirby_worker to {info.user}'"
        ) from error

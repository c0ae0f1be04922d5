"""Connections to PostgreSQL, one-value queries, and Kirby errors from SQLSTATEs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_loads

from kirby.core import payload, pooler
from kirby.core.backends import answered
from kirby.core.errors import BY_SQLSTATE, Conflict, Denied, Invalid, Unavailable, WrongSchema

Connection = psycopg.Connection[Any]

# Nobody waits for ever on a network that went away: the kernel notices within half a minute.
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
CONNECT_TIMEOUT = 10
CONFIGURE = (
    "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) s (name, value)"
)


def connect(dsn: str, *, application: str = "kirby") -> Connection:
    """Open a connection in autocommit; a unit of work says ``with conn.transaction()``.

    Behind a pooler it is ``pooler.Pooled``: nothing of a session can be relied on there.
    Raises Unavailable if nothing answers there, Invalid if the DSN cannot be read.
    """
    try:
        options = {"application_name": application, "connect_timeout": CONNECT_TIMEOUT, **KEEPALIVE}
        options |= {key: value for key, value in conninfo_to_dict(dsn).items() if value is not None}
        conn = _connected(options)
    except psycopg.ProgrammingError as error:
        raise Invalid(f"the DSN cannot be read: {one_line(error)}") from None
    except psycopg.OperationalError as error:
        raise Unavailable(f"no database at {place(dsn)}: {one_line(error)}") from None
    set_json_loads(payload.loads, conn)
    return conn


def _connected(options: dict[str, Any]) -> Connection:
    conn: Connection = psycopg.connect(**options, autocommit=True, prepare_threshold=2)
    try:
        if not pooler.stands_before(conn):
            return conn
    except BaseException:
        conn.close()
        raise
    conn.close()
    return pooler.Pooled.connect(**options, autocommit=True, prepare_threshold=None)


def is_pooled(conn: Connection) -> bool:
    """Whether it goes through a pooler: there is no session, and nothing can be listened to."""
    return isinstance(conn, pooler.Pooled)


def place(dsn: str) -> str:
    """Where a DSN leads, without its password: for messages."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "an unreadable DSN"
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"{host}:{port}/{parts.get('dbname') or parts.get('user') or ''}"


def one_line(error: BaseException) -> str:
    """The first line of an error's text that says something, without the driver's preamble."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text.partition("failed: ")[2] or text


def scalar(conn: Connection, query: LiteralString, params: Sequence[object] = ()) -> Any:
    """Return the one value of a query that yields exactly one row."""
    [[value]] = conn.execute(query, params).fetchall()
    return value


@contextmanager
def kirby_errors() -> Iterator[None]:
    """Raise the Kirby error that stands for a SQLSTATE, or for a connection that was lost."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def translated(error: psycopg.Error) -> Exception:
    """The Kirby error for a driver's error, or the driver's own if there is none."""
    state = error.sqlstate or ""
    if kind := BY_SQLSTATE.get(state):
        return kind(error.diag.message_primary or str(error))
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return Conflict("two transactions met; read again and retry")
    if isinstance(error, psycopg.errors.InvalidSchemaName | psycopg.errors.UndefinedFunction):
        return WrongSchema(
            "this database has no Kirby schema, or an older one: run 'kirby db migrate'"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return Denied(f"this login has no right to that: {one_line(error)}")
    if isinstance(error, psycopg.errors.ProgramLimitExceeded):
        return Invalid(f"too much at once: {one_line(error)}")
    if is_lost(error):
        return Unavailable(f"the connection to the database was lost: {one_line(error)}")
    return error


def is_lost(error: psycopg.Error) -> bool:
    """Whether it says that the connection is gone; libpq's own words for it come as any error."""
    if not error.sqlstate:
        return isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
    return isinstance(error, psycopg.OperationalError) and error.sqlstate[:2] in ("08", "57")


def listen(channel: str) -> sql.Composed:
    """The statement that listens to a channel of any name."""
    return sql.SQL("listen {}").format(sql.Identifier(channel))


def configure(conn: Connection, settings: Mapping[str, str]) -> None:
    """Set settings for the life of the connection; behind a pooler, in each of its transactions."""
    if isinstance(conn, pooler.Pooled):
        conn.remember(settings)
    else:
        conn.execute(CONFIGURE, [list(settings), list(settings.values())])


@answered
def hear(conn: Connection, *channels: str) -> None:
    """Listen to these channels; behind a pooler, do nothing."""
    if not is_pooled(conn):
        for channel in channels:
            conn.execute(listen(channel))


@answered
def wait(conn: Connection, seconds: float) -> set[str]:
    """Return the channels that were heard, or nothing after so many seconds (behind a pooler)."""
    if is_pooled(conn):
        time.sleep(seconds)
        return set()
    return {note.channel for note in conn.notifies(timeout=seconds, stop_after=1)}

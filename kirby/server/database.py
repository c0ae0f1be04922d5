"""The server's engine: one pool, one unit of work (``with engine.begin() as conn``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from kirby.core import db

POOL_SIZE = 10


def engine(dsn: str, *, application: str = "kirby server", size: int = POOL_SIZE) -> Engine:
    """An engine over a libpq DSN (URL or key=value). Connections are opened when first used."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connection(dsn, application),
        pool_size=size,
        max_overflow=size,
        pool_pre_ping=True,
    )


def _connection(dsn: str, application: str) -> psycopg.Connection[Any]:
    """Not in autocommit: with such a connection ``engine.begin()`` would begin nothing."""
    connection = db.connect(dsn, application=application)
    connection.autocommit = False
    return connection


def driver(conn: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection below a unit of work, for the modules of kirby.core."""
    return cast("psycopg.Connection[Any]", conn.connection.driver_connection)


@contextmanager
def unit(engine: Engine) -> Iterator[Connection]:
    """A unit of work: committed at the end, or rolled back on an error, raised as Kirby's own."""
    try:
        with engine.begin() as conn:
            yield conn
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise db.translated(error.orig) from error
        raise
    except psycopg.Error as error:
        raise db.translated(error) from error

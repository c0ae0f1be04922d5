"""One connection to the database that is made anew, with back-off, whenever it is lost."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kirby.core import db
from kirby.core.errors import KirbyError, Unavailable

log = logging.getLogger("kirby.supervisor")

FIRST_WAIT, LONGEST_WAIT = 0.1, 3.0  # seconds between two attempts to connect
CONNECT_SECONDS = 3  # a loop that waits for a host that went away does nothing else


class Link:
    """Connects when it is used. `prepare` sets a new connection up, before anything else."""

    def __init__(
        self, dsn: str, application: str, prepare: Callable[[db.Connection], None]
    ) -> None:
        self._dsn = _impatient(dsn)
        self._application = application
        self._prepare = prepare
        self._connection: db.Connection | None = None
        self._wait = FIRST_WAIT
        self._complaint = ""
        self.retry_at = 0.0
        self.connected_at = 0.0

    @property
    def connection(self) -> db.Connection | None:
        """The connection, if there is one at the moment: to wait for what it hears."""
        return self._connection

    @contextmanager
    def use(self) -> Iterator[db.Connection]:
        """The connection, made if need be. Errors leave as Kirby's own.

        Raises Unavailable when there is none, or when it was lost or broken in between.
        """
        connection = self._connection or self._connect()
        try:
            yield connection
        except psycopg.Error as error:
            raise self._failed(error) from error
        except Unavailable as error:
            self._lost(str(error))
            raise

    def drop(self) -> None:
        """Close the connection; the next use makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> db.Connection:
        if time.monotonic() < self.retry_at:
            raise Unavailable(self._complaint)
        connection = None
        try:
            connection = db.connect(self._dsn, application=self._application)
            self._prepare(connection)
        except (Unavailable, psycopg.Error) as error:
            if connection is not None:
                connection.close()
            self._lost(db.one_line(error))
            raise Unavailable(self._complaint) from error
        if self._complaint:
            log.info("%s: the database can be used again", self._application)
        self._connection, self.connected_at = connection, time.monotonic()
        self._wait, self._complaint = FIRST_WAIT, ""
        return connection

    def _failed(self, error: psycopg.Error) -> Exception:
        """Kirby's error; after one of the driver's own the connection is not trusted any more."""
        kirby = db.translated(error)
        if isinstance(kirby, KirbyError) and not isinstance(kirby, Unavailable):
            return kirby
        self._lost(db.one_line(error))
        return Unavailable(self._complaint)

    def _lost(self, complaint: str) -> None:
        self.drop()
        if complaint != self._complaint:
            log.warning("%s: the database cannot be used: %s", self._application, complaint)
        self._complaint = complaint
        # Jitter: after a fail-over all supervisors come back, but not at the same instant.
        self.retry_at = time.monotonic() + self._wait * random.uniform(0.5, 1.0)  # noqa: S311
        self._wait = min(self._wait * 2, LONGEST_WAIT)


def _impatient(dsn: str) -> str:
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return dsn  # said clearly when it is used
    return make_conninfo(dsn, connect_timeout=given.get("connect_timeout") or CONNECT_SECONDS)

"""A connection through a pooler (pgbouncer), where no session outlives a transaction."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg

BACKEND = "select pg_backend_pid()"
PRESENT = "select set_config(name, value, true) from unnest(%s::text[], %s::text[]) s (name, value)"


def stands_before(conn: psycopg.Connection[Any]) -> bool:
    """Whether a pooler stands between us and PostgreSQL: it gives out numbers of its own.

    In which mode it pools cannot be seen from here, so that of transactions is assumed, which is
    right in all modes: a setting that stayed behind would hand our token to a stranger.
    """
    [[pid]] = conn.execute(BACKEND).fetchall()
    return bool(pid != conn.info.backend_pid)


class Pooled(psycopg.Connection[Any]):
    """A connection whose every transaction begins with who we are, and leaves nothing behind.

    A lone statement travels with its settings in one round trip, as one transaction. Nothing is
    prepared, and nothing can be listened to. Copies and ``executemany`` belong into a transaction.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare_threshold = None
        self.cursor_factory = Cursor
        self.turn = threading.RLock()  # statements of two threads must not share a pipeline
        self._settings: dict[str, str] = {}

    def remember(self, settings: Mapping[str, str]) -> None:
        """Settings that every transaction is to begin with, beside those that it begins with."""
        self._settings |= settings

    def present(self) -> None:
        """Set them for the transaction that is open."""
        if self._settings:
            params = [list(self._settings), list(self._settings.values())]
            psycopg.Cursor(self).execute(PRESENT, params)

    @property
    def is_alone(self) -> bool:
        """Whether the next statement would be a transaction of its own."""
        idle = self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return self.autocommit and idle and self._pipeline is None

    def unit(self) -> AbstractContextManager[Any]:
        """What is done in it is one transaction: in one round trip if libpq can."""
        return self._unflushed() if psycopg.Pipeline.is_supported() else self.transaction()

    @contextmanager
    def _unflushed(self) -> Iterator[None]:
        self._pipeline = Unflushed(self)
        try:
            with self._pipeline:
                yield
        finally:
            self._pipeline = None

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Transaction]:
        with self.turn:
            is_outermost = self.is_alone
            with super().transaction(*args, **kwargs) as transaction:
                if is_outermost:
                    self.present()
                yield transaction


class Unflushed(psycopg.Pipeline):
    """A pipeline that ends with its Sync, where psycopg sends a Flush after it.

    When that Flush comes, the pooler may have given the connection to somebody else: pgbouncer
    before 1.21 then closes it, or keeps another one for us for ever (its issue 759).
    """

    def _fetch_gen(self, *, flush: bool) -> Generator[Any, Any, None]:
        return super()._fetch_gen(flush=False)


class Cursor(psycopg.Cursor[Any]):
    """A cursor whose lone statements are transactions that begin with the settings."""

    _conn: Pooled

    def execute(self, query: Any, params: Any = None, **options: Any) -> Cursor:
        with self._conn.turn:
            if not self._conn.is_alone:
                return super().execute(query, params, **options)
            with self._conn.unit():
                self._conn.present()
                super().execute(query, params, **options)
            return self

"""Write lines to the log, in one thread with a connection of its own, each exactly once."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence

import psycopg

from kirby.core import db
from kirby.core.errors import Fenced, Unavailable
from kirby.server.supervisor.backlog import Backlog, Batch
from kirby.server.supervisor.lines import Line
from kirby.server.supervisor.link import Link

log = logging.getLogger("kirby.supervisor")

APPEND = "select kirby.append_log_lines(%s, %s::jsonb), pg_current_xact_id()::text"
WAS_COMMITTED = "select pg_xact_status(%s::xid8)"
NOW = "select extract(epoch from kirby.now())::float8"
REFUSED = "a line that the database refuses was left out"


class Clock:
    """The database's clock, as seconds since 1970: the only one that log lines are stamped with."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset

    def set(self, conn: db.Connection) -> None:
        """Read the database's clock; half of the round trip is on the way back."""
        before = time.monotonic()
        now = float(db.scalar(conn, NOW))
        self._offset = now - (before + time.monotonic()) / 2


class Shipper:
    """Takes batches from the backlog; keeps one until the database has it.

    `on_end(run_id)` is called once all lines of a run are committed, `on_fenced(owner)` when the
    database says that the supervisor lost its runs; both in the shipper's thread.
    """

    def __init__(
        self,
        dsn: str,
        backlog: Backlog,
        clock: Clock,
        on_end: Callable[[int], None],
        on_fenced: Callable[[uuid.UUID], None],
    ) -> None:
        self._backlog = backlog
        self._clock = clock
        self._on_end = on_end
        self._on_fenced = on_fenced
        self._link = Link(dsn, "kirby supervisor: logs", self._prepare)
        self._batch: Batch | None = None
        self._sent: str | None = None  # the transaction of this batch, until its fate is known
        self._stopping = threading.Event()
        self._give_up_at = 0.0
        self._thread = threading.Thread(target=self._run, name="kirby shipper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write what is in the backlog, for at most so many seconds, and end the thread."""
        self._give_up_at = time.monotonic() + timeout
        self._stopping.set()
        self._backlog.hurry()
        self._thread.join(timeout + 1)  # it may hang in a call

    def tick(self, timeout: float) -> None:
        """One pass: write one batch, waiting at most so long for lines. Raises Unavailable."""
        batch = self._batch = self._batch or self._backlog.take(timeout)
        if batch is None:
            return
        fenced = False
        try:
            self._ship(batch)
        except Fenced:
            fenced = True
        self._batch = self._sent = None
        self._backlog.done()
        if fenced:
            self._on_fenced(batch.owner)
            return
        for run_id in batch.ends:
            self._on_end(run_id)

    def _run(self) -> None:
        while not self._is_over():
            try:
                self.tick(60.0)
            except Unavailable:
                self._pause(self._link.retry_at - time.monotonic())
            except Exception:  # the shipper serves all runs
                log.exception("the shipper of log lines stumbled")
                self._pause(1.0)
        self._link.drop()

    def _is_over(self) -> bool:
        return self._stopping.is_set() and (
            self._backlog.is_empty() or time.monotonic() > self._give_up_at
        )

    def _pause(self, seconds: float) -> None:
        if self._stopping.is_set():
            time.sleep(0.05)
        else:
            self._stopping.wait(max(0.05, seconds))

    def _prepare(self, conn: db.Connection) -> None:
        # Its share lock would keep the supervisor from renewing its lease.
        idle = {"idle_in_transaction_session_timeout": "5s"}
        db.configure(conn, {"statement_timeout": "30s", **idle})
        self._clock.set(conn)

    def _ship(self, batch: Batch) -> None:
        with self._link.use() as conn:
            if batch.lines and not (self._sent and _committed(conn, self._sent)):
                self._append(conn, batch.owner, batch.lines)
            if batch.lines:
                conn.execute("notify kirby_log")

    def _append(self, conn: db.Connection, owner: uuid.UUID, lines: Sequence[Line]) -> None:
        """In one transaction, so that a lost connection leaves one question: was it committed?"""
        try:
            with conn.transaction():
                _, transaction = conn.execute(APPEND, [owner, _json(lines)]).fetchall()[0]
                self._sent = transaction
        except psycopg.DataError:
            with conn.transaction():
                _append_one_by_one(conn, owner, lines)
                self._sent = db.scalar(conn, "select pg_current_xact_id()::text")


def _append_one_by_one(conn: db.Connection, owner: uuid.UUID, lines: Sequence[Line]) -> None:
    """Half by half, until the line that the database refuses is alone: it is replaced."""
    try:
        with conn.transaction():
            conn.execute(APPEND, [owner, _json(lines)])
    except psycopg.DataError as error:
        if len(lines) == 1:
            log.warning("run %s: a line was refused: %s", lines[0].run_id, db.one_line(error))
            notice = lines[0]._replace(stream="kirby", level="warning", text=REFUSED)
            conn.execute(APPEND, [owner, _json([notice])])
            return
        middle = len(lines) // 2
        _append_one_by_one(conn, owner, lines[:middle])
        _append_one_by_one(conn, owner, lines[middle:])


def _committed(conn: db.Connection, transaction: str) -> bool:
    try:
        status = db.scalar(conn, WAS_COMMITTED, [transaction])
    except psycopg.DataError:  # of a server that another one replaced
        return False
    if status == "in progress":
        raise Unavailable("the last transaction has not ended")
    return bool(status == "committed")


def _json(lines: Sequence[Line]) -> str:
    names = ("r", "s", "l", "x", "t")
    return json.dumps([dict(zip(names, line, strict=True)) for line in lines])

"""Write lines to the log, in one thread with a connection of its own, each exactly once."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence

import psycopg

from kirby.core import db
from kirby.core.errors import Fenced, Unavailable
from kirby.server.supervisor.backlog import Backlog, Batch
from kirby.server.supervisor.lines import Lines, said
from kirby.server.supervisor.link import Link

log = logging.getLogger("kirby.supervisor")

APPEND = """
select kirby.append_lines(%s, %s::bigint[], %s, %s, %s::float8[], %s), pg_current_xact_id()::text
"""
WAS_COMMITTED = "select pg_xact_status(%s::xid8)"
NOW = "select extract(epoch from kirby.now())::float8"
TOLD = 20  # runs that a notification names at the most
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
        db.configure(conn, {"statement_timeout": "30s", "client_encoding": "UTF8", **idle})
        self._clock.set(conn)

    def _ship(self, batch: Batch) -> None:
        with self._link.use() as conn:
            if batch.lines and not (self._sent and was_committed(conn, self._sent)):
                self._append(conn, batch)
            if batch.lines:
                conn.execute("select pg_notify('kirby_log', %s)", [_named(batch.lines)])

    def _append(self, conn: db.Connection, batch: Batch) -> None:
        append(conn, batch.owner, batch.lines, lambda sent: self._remember(batch, sent))

    def _remember(self, batch: Batch, transaction: str) -> None:
        self._sent = transaction
        for part in batch.parts:
            part.mark(transaction)


def append(
    conn: db.Connection, owner: uuid.UUID, lines: Sequence[Lines], sent: Callable[[str], None]
) -> None:
    """Add lines to the log in one transaction, in their order; Fenced if `owner` lost its runs.

    `sent` is told the transaction before it commits, so that a lost connection leaves one
    question: was it committed? A line that the database refuses costs no other line.
    """
    with db.kirby_errors():
        try:
            with conn.transaction():
                sent(_append(conn, owner, lines))
        except psycopg.DataError:
            with conn.transaction():
                sent(_append_what_is_taken(conn, owner, lines))


def was_committed(conn: db.Connection, transaction: str) -> bool:
    """What became of a transaction. Raises Unavailable while it has not ended."""
    try:
        status = db.scalar(conn, WAS_COMMITTED, [transaction])
    except psycopg.DataError:  # of a server that another one replaced
        return False
    if status == "in progress":
        raise Unavailable("the last transaction has not ended")
    return bool(status == "committed")


def _append(conn: db.Connection, owner: uuid.UUID, lines: Sequence[Lines]) -> str:
    """Returns the transaction."""
    columns = zip(
        *((x.run_id, x.stream, x.level, x.at, x.text.decode()) for x in lines), strict=True
    )
    [[_, transaction]] = conn.execute(APPEND, [owner, *map(list, columns)]).fetchall()
    return str(transaction)


def _append_what_is_taken(conn: db.Connection, owner: uuid.UUID, lines: Sequence[Lines]) -> str:
    """Half by half, until the line that the database refuses is alone: it is replaced."""
    try:
        with conn.transaction():
            return _append(conn, owner, lines)
    except psycopg.DataError as error:
        if halves := _halves(lines):
            return [_append_what_is_taken(conn, owner, half) for half in halves][-1]
        log.warning("run %s: a line was refused: %s", lines[0].run_id, db.one_line(error))
        return _append(conn, owner, [said(lines[0].run_id, "warning", REFUSED, lines[0].at)])


def _halves(lines: Sequence[Lines]) -> list[Sequence[Lines]]:
    middle = len(lines) // 2
    if middle:
        return [lines[:middle], lines[middle:]]
    return [[half] for half in lines[0].apart()] if lines[0].number > 1 else []


def _named(lines: Sequence[Lines]) -> str:
    """The runs, for those who listen; nothing if they are many: then all look."""
    runs = {each.run_id for each in lines}
    return ",".join(map(str, sorted(runs))) if len(runs) <= TOLD else ""

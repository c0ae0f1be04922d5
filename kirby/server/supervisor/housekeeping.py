"""Keep the log in order, beside the leader's other duties: counts, partitions, retention."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from kirby.core import db
from kirby.core.errors import Unavailable
from kirby.server.supervisor.beside import Beside

log = logging.getLogger("kirby.supervisor")

PIECE = 0.5  # seconds of removing messages in one go
SOON = 1.0  # until something is tried again for which a lock was not had
A_WHILE = 0.2  # seconds for which states are compacted in one go
SHARE = 9  # a duty that took a second rests for so many

COUNT = "select kirby.count_messages()"
KEEP_STATES = "select kirby.keep_states()"
COUNT_FLOW = "select kirby.count_flow()"
SUMMARIZE = "select kirby.summarize_messages()"
OPEN = "select kirby.open_partitions()"
PACE = "select kirby.keep_pace()"
PLAN = "select log, partition, topic_id, upto from kirby.plan_retention()"
DROP = "select kirby.drop_partition(%s, %s)"
REMOVE_MESSAGES = "select kirby.remove_messages(%s, %s)"
REMOVE_ROWS = "select kirby.remove_rows(%s)"
TO_COMPACT = "select state_id from kirby.compaction where keep is not null order by state_id"
COMPACT = "select more from kirby.compact_state(%s)"
LOW_FLOORS = "select kirby.low_claim_floors()"
RAISE_FLOOR = "select kirby.raise_claim_floor(%s)"
FORGET = (
    "select kirby.forget_removed() + kirby.sweep_produced() + kirby.forget_parents()"
    " + kirby.forget_effects()"
)


@dataclass(frozen=True, slots=True)
class Task:
    """What retention has to do: drop a partition, or delete from a topic or a log."""

    log: str
    partition: str | None
    topic_id: int | None
    upto: int | None


@dataclass(slots=True)
class Duty:
    """``work`` says whether there is more to do at once; ``at`` is when it is done next."""

    name: str
    every: float
    work: Callable[[db.Connection], bool]
    at: float = 0.0


class Housekeeper(Beside):
    """Does its duties beside the leader, while `leads` says so.

    What takes long here (to count the rows of a partition before it is dropped) holds up no tick.
    Each step is a transaction of its own, right whoever does it, and waits for no lock for long.
    """

    def __init__(self, dsn: str, leads: Callable[[], bool]) -> None:
        super().__init__(dsn, "housekeeping")
        self._leads = leads
        self._tasks: list[Task] = []
        self._to_compact: list[int] = []
        self._duties = [
            Duty("opening partitions", 60.0, self._open),
            Duty("counting messages", 1.0, self._count),
            Duty("counting the flow", 2.0, self._count_flow),
            Duty("summing up blocks", 10.0, self._summarize),
            Duty("planning retention", 60.0, self._plan),
            Duty("retention", 1.0, self._retain),
            Duty("raising floors of claims", 5.0, self._raise_floors),
            Duty("forgetting ids", 60.0, self._forget),
            Duty("keeping states", 1.0, self._keep_states),
            Duty("planning compaction", 60.0, self._plan_compaction),
            Duty("compacting states", 1.0, self._compact),
        ]

    def round(self) -> None:
        """Do what is due of the duties. Raises Unavailable."""
        with self._link.use() as conn:
            for duty in self._duties:
                if time.monotonic() >= duty.at and not self._stopping.is_set():
                    self._do(duty, conn)

    def _do(self, duty: Duty, conn: db.Connection) -> None:
        began = time.monotonic()
        wait = duty.every
        try:
            if duty.work(conn):
                wait = 0.0
        except errors.LockNotAvailable:
            wait = SOON
        except psycopg.Error as error:
            if isinstance(db.translated(error), Unavailable):
                raise
            log.warning("%s failed: %s", duty.name, db.one_line(error))
        spent = time.monotonic() - began
        duty.at = time.monotonic() + max(wait, spent if wait == 0.0 else spent * SHARE)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._leads():
                    self.round()
                else:
                    self._link.drop()
            except Unavailable:
                pass  # the link says so, once
            except Exception:  # one bad round must not be the last
                log.exception("housekeeping stumbled")
            self._stopping.wait(random.uniform(0.2, 0.3))  # noqa: S311
        self._link.drop()

    def _prepare(self, conn: db.Connection) -> None:
        db.configure(conn, {"statement_timeout": "5min"})

    def _open(self, conn: db.Connection) -> bool:
        """Never queueing everybody behind a long query on the default partition."""
        with conn.transaction():
            conn.execute("set local lock_timeout = '200ms'")
            conn.execute(OPEN)
        conn.execute(PACE)
        return False

    def _count(self, conn: db.Connection) -> bool:
        return bool(db.scalar(conn, COUNT))

    def _keep_states(self, conn: db.Connection) -> bool:
        return bool(db.scalar(conn, KEEP_STATES))

    def _count_flow(self, conn: db.Connection) -> bool:
        return bool(db.scalar(conn, COUNT_FLOW))

    def _summarize(self, conn: db.Connection) -> bool:
        conn.execute(SUMMARIZE)
        return False

    def _plan(self, conn: db.Connection) -> bool:
        with conn.cursor(row_factory=class_row(Task)) as cursor:
            self._tasks = cursor.execute(PLAN).fetchall()
        return False

    def _retain(self, conn: db.Connection) -> bool:
        """Work at the tasks for a while; whether any are left."""
        until = time.monotonic() + PIECE
        while self._tasks and time.monotonic() < until:
            task = self._tasks.pop(0)
            try:
                if not self._step(conn, task):
                    continue
            except errors.LockNotAvailable:
                self._tasks.append(task)
                raise
            self._tasks.insert(0, task)
        return bool(self._tasks)

    def _step(self, conn: db.Connection, task: Task) -> bool:
        """One transaction of a task; whether more of it is left."""
        if task.partition is not None and task.topic_id is None:
            if db.scalar(conn, DROP, [task.log, task.partition]):
                log.info("retention dropped partition %s", task.partition)
            return False
        if task.topic_id is not None:
            return bool(db.scalar(conn, REMOVE_MESSAGES, [task.topic_id, task.upto]))
        return bool(db.scalar(conn, REMOVE_ROWS, [task.log]))

    def _plan_compaction(self, conn: db.Connection) -> bool:
        """Those that are new go behind those that wait: each has its turn."""
        found = [state_id for (state_id,) in conn.execute(TO_COMPACT).fetchall()]
        waiting = [each for each in self._to_compact if each in set(found)]
        self._to_compact = waiting + [each for each in found if each not in set(waiting)]
        return False

    def _compact(self, conn: db.Connection) -> bool:
        """A piece of each state in turn, for a while; whether there is more to do."""
        until = time.monotonic() + A_WHILE
        while self._to_compact and time.monotonic() < until:
            state_id = self._to_compact.pop(0)
            try:
                more = db.scalar(conn, COMPACT, [state_id])
            except errors.LockNotAvailable:
                self._to_compact.append(state_id)
                raise
            if more:
                self._to_compact.append(state_id)
        return bool(self._to_compact)

    def _forget(self, conn: db.Connection) -> bool:
        conn.execute(FORGET)
        return False

    def _raise_floors(self, conn: db.Connection) -> bool:
        for (subscription_id,) in conn.execute(LOW_FLOORS).fetchall():
            conn.execute(RAISE_FLOOR, [subscription_id])
        return False

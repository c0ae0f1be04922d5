"""The duties that one supervisor has for all: ticks, daemons, dead supervisors, housekeeping."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import LiteralString

import psycopg

from kirby.core import db
from kirby.core.errors import Unavailable
from kirby.server.supervisor.beside import Beside
from kirby.server.supervisor.housekeeping import Housekeeper
from kirby.server.ticks import Planner

log = logging.getLogger("kirby.supervisor")

EVERY = 1.0  # seconds between two rounds
RARELY = 60.0
PLANNING = 1.0  # seconds of a round: what is due must not wait until all is planned
LED = 8.0  # seconds for which the lease, once taken, is held for sure

TAKE_LEASE = "select kirby.take_lease('leader', %s)"
REAP = "select kirby.reap_supervisors()"
PLAN_DAEMONS = "select kirby.plan_daemons()"
BALANCE = "select kirby.balance_daemons()"
FIRE_TICKS = "select kirby.fire_ticks()"
NOTE_EXCEPTIONS = "select kirby.note_exceptions()"
WATCH = "select kirby.watch_deadlines()"
ANNOUNCE = "select kirby.announce_incidents()"
FORGET_DEADLINES = "select kirby.forget_deadlines()"
END_REWINDS = "select kirby.end_rewinds()"
FORGET_FAILURES = "delete from kirby.login_failure where at < kirby.now() - interval '1 hour'"


class Leader(Beside):
    """Does the duties in its own thread and connection while its supervisor holds the lease.

    Every duty is right whoever does it, and however often: the lease only saves work.
    `owner` tells the supervisor's id once the database knows it, `lease` is the time in seconds
    after which a silent supervisor is dead.
    """

    def __init__(self, dsn: str, owner: Callable[[], uuid.UUID | None], lease: float) -> None:
        super().__init__(dsn, "leader")
        self._owner = owner
        self._lease = lease
        self._planner = Planner()
        self._rarely_at = 0.0
        self._led_at = self._well_at = -LED
        self._faults = 0
        self._housekeeper = Housekeeper(dsn, self.leads)

    def start(self) -> None:
        super().start()
        self._housekeeper.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        self._housekeeper.stop(timeout)
        super().stop(timeout)

    def tick(self) -> bool:
        """One round; returns whether this supervisor is the leader. Raises Unavailable."""
        owner = self._owner()
        if owner is None:
            return False
        with self._link.use() as conn:
            asked = time.monotonic()
            if db.scalar(conn, TAKE_LEASE, [owner]) is None:
                self._led_at = -LED
                return False
            self._led_at = asked
            self._faults = 0
            queued = self._reap(conn) + self._ask(conn, PLAN_DAEMONS)
            self._duty("ticks", lambda: self._planner.plan(conn, PLANNING))
            queued += self._ask(conn, FIRE_TICKS)
            if queued + self._ask(conn, BALANCE):
                conn.execute("notify kirby_run")
            self._ask(conn, NOTE_EXCEPTIONS)
            self._ask(conn, WATCH)
            self._ask(conn, ANNOUNCE)
            self._ask(conn, END_REWINDS)
            if time.monotonic() >= self._rarely_at:
                self._rarely_at = time.monotonic() + RARELY
                self._duty("login failures", lambda: conn.execute(FORGET_FAILURES))
                self._ask(conn, FORGET_DEADLINES)
            if not self._faults:
                self._well_at = asked
            return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            until = time.monotonic() + EVERY * random.uniform(0.8, 1.2)  # noqa: S311
            try:
                self.tick()
            except Unavailable:
                pass  # the link says so, once
            except Exception:  # one bad round must not end the planning
                log.exception("the leader stumbled")
            self._stopping.wait(max(0.0, until - time.monotonic()))
        self._link.drop()

    def leads(self) -> bool:
        """Whether the lease is ours for sure: for those who work beside it."""
        return time.monotonic() - self._led_at < LED

    def is_well(self) -> bool:
        """Whether it leads, and all duties of its last round were done."""
        return time.monotonic() - self._well_at < LED

    def _reap(self, conn: db.Connection) -> int:
        """Not right after a reconnect: the others could not renew their leases either."""
        if time.monotonic() - self._link.connected_at < self._lease:
            return 0
        return self._ask(conn, REAP)

    def _ask(self, conn: db.Connection, query: LiteralString) -> int:
        return self._duty(query, lambda: int(db.scalar(conn, query)))

    def _duty(self, name: str, work: Callable[[], object]) -> int:
        """Do one duty; if it fails, the others are done all the same."""
        try:
            result = work()
            return result if isinstance(result, int) else 0
        except psycopg.Error as error:
            if isinstance(db.translated(error), Unavailable):
                raise
            self._faults += 1
            log.warning("%s failed: %s", name, db.one_line(error))
        return 0

"""The loop that claims runs, starts and watches their processes, and records what they became."""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psycopg

from kirby.core import db
from kirby.core.errors import (
    Fenced,
    KirbyError,
    Unavailable,
    WrongSchema,
    WrongTransition,
)
from kirby.server.supervisor import orders, run, values
from kirby.server.supervisor.backlog import MOST, Backlog
from kirby.server.supervisor.folder import Folder
from kirby.server.supervisor.leader import Leader
from kirby.server.supervisor.leftovers import Leftovers
from kirby.server.supervisor.lines import said
from kirby.server.supervisor.link import Link
from kirby.server.supervisor.notifier import Notifier
from kirby.server.supervisor.orders import Identity
from kirby.server.supervisor.pinger import Pinger
from kirby.server.supervisor.process import Process
from kirby.server.supervisor.pump import Pump
from kirby.server.supervisor.run import End, Run
from kirby.server.supervisor.shipper import Clock, Shipper
from kirby.server.supervisor.starter import Ensure, Hold, Prepared, Starter
from kirby.server.supervisor.strays import Strays
from kirby.server.supervisor.wake import Wake
from kirby.server.supervisor.warmer import Warmer
from kirby.server.supervisor.watch import Watch

log = logging.getLogger("kirby.supervisor")

POLL = 1.0  # seconds; a notification only makes it sooner
LEASE = 15.0  # seconds after which a supervisor that did not renew is dead
GRACE = 10.0  # seconds that processes have to end when the supervisor stops
SHIP = 5.0  # seconds for which the last lines may stand still when the supervisor stops
SHIP_ALL = 60.0  # seconds that they may take then


class Supervisor:
    """One per data folder: ``run_forever``, or ``start``, then ``tick`` and ``wait``, ``stop``.

    `dsn` is the server's, `worker_dsn` what runs get as KIRBY_DSN. `slots`: how many runs at
    once; it takes those whose `labels` are among its own. `ensure` makes the virtualenv of a
    lock, `hold` keeps it while a run uses it; `warmer` builds ahead. `grace` (seconds) replaces
    that of each run.
    `spill`: bytes of their output that may wait on disk for the database. `url`: where people
    reach the pages, for what they are told. `ping_url`: see ``Pinger``. Processes are started by
    the thread that calls ``tick``, and die with it.
    """

    def __init__(
        self,
        *,
        dsn: str,
        worker_dsn: str,
        data: Path,
        slots: int = 20,
        labels: Sequence[str] = (),
        host: str = "",
        ensure: Ensure,
        hold: Hold | None = None,
        warmer: Warmer | None = None,
        lease: float = LEASE,
        grace: float | None = None,
        spill: int = MOST,
        url: str = "",
        ping_url: str | None = None,
    ) -> None:
        self.id = uuid.uuid4()
        self._slots, self._lease = slots, lease
        self._grace = GRACE if grace is None else grace
        self._folder = Folder(data)
        self._identity = Identity(
            host or socket.gethostname(), str(self._folder.root), slots, sorted(set(labels)), lease
        )
        self._wake = Wake()
        self._clock = Clock()
        self._leftovers = Leftovers(self._folder.spill)
        self._backlog = Backlog(self.id, self._folder.spill, spill)
        self._pump = Pump(self._backlog, self._clock)
        self._shipper = Shipper(dsn, self._backlog, self._clock, self._on_end, self._on_fenced)
        self._warmer = warmer
        self._leader = Leader(dsn, lambda: self.id if self._registered else None, lease)
        self._notifier = Notifier(dsn, self._leader.leads, url=url, environ=os.environ)
        self._pinger = Pinger(ping_url, self._leader.is_well) if ping_url else None
        self._link = Link(dsn, "kirby supervisor", self._prepare_connection)
        self._strays = Strays(self._folder.runs, patience=2 * lease)
        self._starter = Starter(
            self._folder,
            ensure,
            worker_dsn,
            self._pump,
            self._wake,
            self._strays.mark,
            dsn=dsn,
            hold=hold,
        )
        self._watch = Watch(
            self._pump, self._strays, say=self._say, clear=self._starter.clear, grace=grace
        )
        self._runs: dict[int, Run] = {}
        self._ready: dict[int, Prepared] = {}
        self._shipped: deque[int] = deque()
        self._fenced: uuid.UUID | None = None
        self._changed: list[int] = []
        self._renew_at = self._poll_at = 0.0
        self._registered = self._asked_to_stop = False

    # The loop

    def run_forever(self, ready: Callable[[], object] | None = None) -> None:
        """Supervise until SIGTERM or SIGINT, then stop in good order; a second one is impatient.

        `ready` is called once, when the database knows of this supervisor. Raises Busy,
        WrongSchema, or what else keeps it from starting.
        """
        with self._signals():
            self.start()
            try:
                while not self._asked_to_stop:
                    self._pass()
                    if ready and self._registered:
                        ready()
                        ready = None
            finally:
                self.stop()

    def start(self) -> None:
        """Take the folder and start the threads. Raises Busy if another supervisor has it."""
        self._folder.lock()
        self._folder.sweep()
        self._strays.start()
        self._pump.start()
        self._shipper.start()
        self._leader.start()
        self._notifier.start()
        if self._pinger:
            self._pinger.start()
        if self._warmer:
            self._warmer.start()
        log.info("supervisor %s: %s slots on %s", self.id, self._slots, self._identity.host)

    def tick(self) -> None:
        """One pass over everything that is due; it waits for nothing but the database."""
        if self._strays.was_silent():
            self._fenced = self.id  # it was stopped: what it had started was killed
        self._watch.look(self._runs.values())
        try:
            if self._fenced == self.id:
                raise Fenced("this supervisor lost its lease")
            with self._link.use() as conn:
                self._renew(conn)
                self._record_ends(conn)
                self._poll(conn)
                self._launch_ready(conn)
                self._record_starts(conn)
                self._tell(conn)
        except Fenced:
            self._start_over()
        except Unavailable:
            pass  # the link says so, once; the children go on, their output is kept

    def wait(self, timeout: float = POLL) -> None:
        """Until something happens: a child ends, a notification, a run is ready, a signal."""
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        for child in self._processes():
            if child.fileno() >= 0:
                poll.register(child.fileno(), select.POLLIN)
        if self._link.connection is not None:
            poll.register(self._link.connection.fileno(), select.POLLIN)
        poll.poll(1000 * min(timeout, self._next_due()))
        self._wake.clear()
        self._hear()

    def stop(self) -> None:
        """End all processes, write their last lines, and give the runs back, to be run again."""
        self._asked_to_stop = True
        try:
            self._leader.stop()
            self._notifier.stop()
            if self._pinger:
                self._pinger.stop()
            if self._warmer:
                self._warmer.stop()
            self._end_processes()
            self._say_goodbye()
        finally:
            for child in self._processes():
                child.signal(signal.SIGKILL)
            self._strays.stop()
            self._pump.stop()
            self._shipper.stop(SHIP)
            self._backlog.close()
            self._link.drop()
            self._folder.unlock()
            self._wake.close()
            log.info("supervisor %s: stopped", self.id)

    def _pass(self) -> None:
        try:
            self.tick()
            self.wait()
        except WrongSchema:
            raise
        except Exception:  # one run, or one bad answer, must not end the others
            log.exception("the supervisor stumbled")
            time.sleep(POLL)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked_to_stop:
            raise KeyboardInterrupt
        self._asked_to_stop = True
        self._wake.set()

    def _processes(self) -> list[Process]:
        return self._watch.processes(self._runs.values())

    def _next_due(self) -> float:
        dues = [self._renew_at, self._poll_at]
        if self._link.connection is None:
            dues = [self._link.retry_at]
        dues.append(self._watch.due_at(self._runs.values()))
        return max(0.0, min(dues) - time.monotonic())

    def _hear(self) -> None:
        """A notification only makes the next poll sooner; a lost connection is found out here."""
        with suppress(Unavailable):
            if self._link.connection is not None:
                with self._link.use() as conn:
                    conn.pgconn.consume_input()
                    while conn.pgconn.notifies():
                        self._poll_soon()

    def _poll_soon(self) -> None:
        self._poll_at = 0.0

    # What others decide

    def _prepare_connection(self, conn: db.Connection) -> None:
        db.configure(conn, {"statement_timeout": "10s"})
        self._leftovers.ship(conn, self.id, lambda: self._asked_to_stop)
        conn.add_notify_handler(lambda _: self._poll_soon())
        db.hear(conn, "kirby_run")
        self._renew_at = self._poll_at = 0.0  # first of all: are the runs still ours?

    def _renew(self, conn: db.Connection) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            orders.register(conn, self.id, self._identity)
            self._registered = True
            self._renew_at = now + self._lease / 3

    def _poll(self, conn: db.Connection) -> None:
        """Claim what is due, and see what was decided about the runs that are ours."""
        if time.monotonic() < self._poll_at:
            return
        self._poll_at = time.monotonic() + POLL * random.uniform(0.75, 1.25)  # noqa: S311
        free = self._slots - len(self._runs)
        if free > 0 and not self._asked_to_stop:
            orders.claim(conn, self.id, free)
        mine = orders.mine(conn, self.id)
        for run_id in self._runs.keys() - mine.keys():
            self._forget(self._runs[run_id])
        for run_id, (is_cancelled, progress_at) in mine.items():
            if each := self._runs.get(run_id):
                if is_cancelled:
                    self._cancel(each)
                if each.tell(progress_at):
                    self._changed.append(run_id)
        for each in run.load(conn, sorted(mine.keys() - self._runs.keys())):
            self._adopt(conn, each)
        self._obey(conn)

    def _obey(self, conn: db.Connection) -> None:
        """Stop, if that was asked for and nothing is left to do here."""
        if not self._runs and orders.is_to_stop(conn, self.id):
            log.info("supervisor %s: drained", self.id)
            self._asked_to_stop = True

    def _adopt(self, conn: db.Connection, claimed: Run) -> None:
        self._runs[claimed.id] = claimed
        self._changed.append(claimed.id)
        self._starter.prepare(claimed)

    def _cancel(self, each: Run) -> None:
        if each.end or each.cancelled:
            return
        each.cancelled = True
        if each.process is None:
            self._end_unstarted(each, End("run_cancelled"))
        elif not each.timed_out:
            self._watch.end(each)

    def _on_fenced(self, owner: uuid.UUID) -> None:
        """The shipper was told; the loop hears of it."""
        self._fenced = owner
        self._wake.set()

    def _start_over(self) -> None:
        """The runs are somebody else's: kill what is left of them, and be a new supervisor."""
        log.warning("supervisor %s lost its lease: it ends its runs and starts over", self.id)
        for each in list(self._runs.values()):
            self._forget(each)
        self._pump.forget()
        self.id = uuid.uuid4()
        self._backlog.clear(self.id)
        self._shipped.clear()
        self._registered = False
        self._renew_at = self._poll_at = 0.0

    # What becomes of a run

    def _launch_ready(self, conn: db.Connection) -> None:
        for run_id, result in self._starter.fetch():
            each = self._runs.get(run_id)
            if each is None:
                self._starter.clear(run_id)
            if each is None or each.end:
                continue
            if isinstance(result, Exception):
                self._fail(each, result)
            else:
                self._ready[run_id] = result
        for run_id, ready in list(self._ready.items()):
            each = self._runs.get(run_id)
            if each and not (each.end or each.process or self._asked_to_stop):
                self._launch(conn, each, ready)
            del self._ready[run_id]  # not before: without a database it is tried again

    def _launch(self, conn: db.Connection, each: Run, ready: Prepared) -> None:
        try:
            self._starter.launch(conn, each, ready, self.id)
            each.began_at = time.monotonic()
            for name, value in each.large.items():
                self._say(each, values.notice(name, value))
        except WrongTransition:
            self._poll_soon()  # it was taken away meanwhile
        except (Fenced, Unavailable):
            raise
        except (KirbyError, psycopg.Error) as error:
            self._fail(each, error)

    def _fail(self, each: Run, error: Exception) -> None:
        text = str(error) or type(error).__name__
        self._backlog.put([said(each.id, "error", text, self._clock())])
        self._end_unstarted(each, End("run_failed", {"reason": text.splitlines()[0]}))

    def _say(self, each: Run, text: str) -> None:
        self._backlog.put([said(each.id, "warning", text, self._clock())])

    def _end_unstarted(self, each: Run, end: End) -> None:
        each.end = end
        self._backlog.end(each.id)

    def _on_end(self, run_id: int) -> None:
        """The shipper wrote the last line of a run."""
        self._shipped.append(run_id)
        self._wake.set()

    def _record_starts(self, conn: db.Connection) -> None:
        for each in self._runs.values():
            if each.process and not each.started:
                data = {"pid": each.process.pid}
                with suppress(WrongTransition):  # the answer was lost, or the run was taken away
                    run.record(conn, each.id, "run_started", data, self.id)
                each.started = True
                self._changed.append(each.id)

    def _record_ends(self, conn: db.Connection) -> None:
        """Those of runs whose output is in the log: who reads it until the end misses no line."""
        while self._shipped:
            each = self._runs.get(self._shipped.popleft())
            if each is not None:
                each.shipped = True
        self._record_starts(conn)
        for each in [each for each in self._runs.values() if each.shipped and not each.stopped]:
            if each.end:
                self._record_end(conn, each, each.end)

    def _record_end(self, conn: db.Connection, each: Run, end: End) -> None:
        try:
            run.record(conn, each.id, end.type, end.data, self.id)
        except WrongTransition as error:  # the answer was lost, or the run was taken away
            log.info("%s", error)
        self._changed.append(each.id)
        self._forget(each)
        self._poll_soon()  # there is a free slot, and perhaps a next run

    def _forget(self, each: Run) -> None:
        """It is over, or not ours any more: then its process is killed."""
        del self._runs[each.id]
        if each.process and not each.end:
            self._watch.disown(each)
        else:
            self._starter.clear(each.id)

    def _tell(self, conn: db.Connection) -> None:
        """Hint at the changes, outside of the transactions that made them (P9)."""
        if self._changed:
            orders.tell(conn, self._changed)
            self._changed = []

    # The end

    def _end_processes(self) -> None:
        """Ask all to end; kill those that did not within the grace."""
        self._watch.look(self._runs.values())  # one that has ended already keeps its result
        for each in self._runs.values():
            if each.process and not each.end:
                each.stopped = not each.cancelled
                each.process.signal(signal.SIGTERM)
        kill_at = time.monotonic() + self._grace
        while self._processes() and time.monotonic() < kill_at + SHIP:
            if time.monotonic() >= kill_at:
                for child in self._processes():
                    child.signal(signal.SIGKILL)
            self.tick()
            self.wait(0.1)

    def _say_goodbye(self) -> None:
        """When the last lines are written; without a database, the lease runs out by itself."""
        begin = moved_at = time.monotonic()
        waiting = self._backlog.waiting()
        while any(each.end and not each.shipped for each in self._runs.values()):
            now, before = time.monotonic(), waiting
            waiting = self._backlog.waiting()
            moved_at = now if waiting < before else moved_at
            if now > moved_at + SHIP or now > begin + SHIP_ALL:
                break
            self.tick()
            self.wait(0.1)
        with suppress(Unavailable, Fenced), self._link.use() as conn:
            orders.say_goodbye(conn, self.id)

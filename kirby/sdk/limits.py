"""Time limits: a soft one raises in the handler, a hard one ends the process."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg

from kirby.core import subscriptions
from kirby.core.errors import KirbyError
from kirby.core.subscriptions import Batch, Lost
from kirby.sdk import session

TICK = 0.05  # seconds between looks at what runs too long
SLOT = struct.Struct("=d32sdqqq")
UNTIL = struct.Struct("=d")


class SoftTimeLimit(KirbyError):
    """Raised in a task that runs longer than its soft time limit, so that it can tidy up."""

    def __init__(self, message: str = "the task ran longer than its soft time limit") -> None:
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Hand:
    """What a thread has in its hands under a hard limit (seconds; ``until`` is monotonic)."""

    until: float
    limit: float
    claim_id: int
    fence: int
    position: int

    @property
    def lost(self) -> Lost:
        text = f"it ran longer than its time limit of {self.limit:g} s, and its process was ended"
        return Lost(self.claim_id, self.fence, self.position, text)


class Board:
    """What the threads of a process have in their hands, written down where it outlives them."""

    def __init__(self, memory: mmap.mmap | bytearray, seats: int) -> None:
        self._memory = memory
        self._seats = range(0, seats * SLOT.size, SLOT.size)

    @classmethod
    def shared(cls, file: int, seats: int) -> Board:
        """On an open file, which a parent and its child both have."""
        os.ftruncate(file, max(seats * SLOT.size, 1))
        return cls(mmap.mmap(file, seats * SLOT.size), seats)

    @classmethod
    def alone(cls, seats: int) -> Board:
        return cls(bytearray(seats * SLOT.size), seats)

    def sign(self, seat: int, holder: str) -> None:
        """The thread of this seat claims under this name."""
        SLOT.pack_into(self._memory, self._seats[seat], 0.0, holder.encode(), 0.0, 0, 0, 0)

    def hold(self, seat: int, hand: Hand, holder: str) -> None:
        at = self._seats[seat]
        facts = (holder.encode(), hand.limit, hand.claim_id, hand.fence, hand.position)
        SLOT.pack_into(self._memory, at, 0.0, *facts)
        UNTIL.pack_into(self._memory, at, hand.until)  # last: from here on it counts

    def let_go(self, seat: int) -> None:
        UNTIL.pack_into(self._memory, self._seats[seat], 0.0)

    def holders(self) -> list[str]:
        """Under which names this process claims."""
        found = (SLOT.unpack_from(self._memory, at)[1] for at in self._seats)
        return [name.decode() for name in found if name.strip(b"\0")]

    def overdue(self, now: float) -> list[Hand]:
        """What is in hands for longer than it may."""
        found = []
        for at in self._seats:
            until, _, *facts = SLOT.unpack_from(self._memory, at)
            if 0 < until <= now:
                found.append(Hand(until, *facts))
        return found


class Signal:
    """Rings in the main thread: a signal breaks off what it is doing, waiting included."""

    def __init__(self) -> None:
        self._armed = False

    def arm(self, seconds: float) -> None:
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def disarm(self) -> None:
        self._armed = False  # first: a signal that is on its way finds nothing to do
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeLimit

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        old = signal.signal(signal.SIGALRM, self._ring)
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, old)

    def look(self, now: float) -> None:
        """It rings by itself."""


class Bell:
    """Rings in another thread, as soon as that runs Python code again: best effort."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._until = 0.0
        self._rung = False

    def arm(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def disarm(self) -> None:
        with self._lock:
            self._until = 0.0
            if self._rung:  # and perhaps not heard yet: it must not be heard later
                self._rung = False
                _raise_in(self._thread, None)

    def look(self, now: float) -> None:
        """Ring if it is time. Called by another thread."""
        with self._lock:
            if 0 < self._until <= now:
                self._until = 0.0
                self._rung = True
                _raise_in(self._thread, SoftTimeLimit)

    def installed(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


class Guard:
    """Watches over what one thread handles."""

    def __init__(self, board: Board, seat: int, holder: str) -> None:
        self._board = board
        self._seat = seat
        self._holder = holder
        is_main = threading.current_thread() is threading.main_thread()
        self.bell: Signal | Bell = Signal() if is_main else Bell()
        board.sign(seat, holder)

    @contextlib.contextmanager
    def over(
        self, batch: Batch, position: int, soft: float | None, hard: float | None
    ) -> Iterator[None]:
        """Raise SoftTimeLimit in it after ``soft`` seconds, end the process after ``hard``."""
        if hard is not None:
            hand = Hand(time.monotonic() + hard, hard, batch.claim_id, batch.fence, position)
            self._board.hold(self._seat, hand, self._holder)
        try:
            if soft is not None:
                self.bell.arm(soft)
            yield
            self.bell.disarm()  # it may ring until here
        finally:
            self._board.let_go(self._seat)
            if soft is not None:
                self.bell.disarm()
                session.get().tidy()


_here = threading.local()


@contextlib.contextmanager
def seated(guard: Guard) -> Iterator[None]:
    """Let ``guard`` watch over this thread while the block runs."""
    _here.guard = guard
    try:
        with guard.bell.installed():
            yield
    finally:
        del _here.guard


def guard() -> Guard | None:
    """What watches over this thread, if it serves tasks."""
    found: Guard | None = getattr(_here, "guard", None)
    return found


class Clock:
    """A thread that rings the bells, and, where no pool does it, ends the process."""

    def __init__(self, board: Board, *, ends_process: bool) -> None:
        self._board = board
        self._ends_process = ends_process
        self._bells: list[Signal | Bell] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirby-limits", daemon=True)

    def add(self, guard: Guard) -> None:
        self._bells.append(guard.bell)

    def __enter__(self) -> Clock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(TICK):
            now = time.monotonic()
            for bell in self._bells:
                bell.look(now)
            if self._ends_process and (late := self._board.overdue(now)):
                say(late)
                bury(self._board, late)
                os.kill(os.getpid(), signal.SIGKILL)


def say(late: Sequence[Hand]) -> None:
    """Tell whoever reads along why a process ends."""
    for hand in late:
        print(f"kirby: message {hand.position}: {hand.lost.error}", file=sys.stderr, flush=True)


def bury(board: Board, late: Sequence[Hand] = (), *, suspect: bool = False) -> None:
    """Give back what a process has, and count the attempts of what ran too long.

    Without a database the leases end by themselves.
    """
    mine = session.get()
    with contextlib.suppress(KirbyError, psycopg.Error):
        subscriptions.bury(
            mine.connection, board.holders(), [hand.lost for hand in late], suspect=suspect
        )
    mine.drop()

"""Lines on their way to the database: bounded, and putting one in never blocks."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from kirby.server.supervisor.lines import Line

MAX_LINES, MAX_CHARS = 100_000, 16_000_000  # kept while the database does not keep up
BATCH_LINES, BATCH_CHARS = 5_000, 1_000_000
LINGER = 0.05  # seconds that a line waits for others to share its transaction


class End(NamedTuple):
    """After the last line of a run: whoever takes it knows that all lines were taken before."""

    run_id: int


class Batch(NamedTuple):
    """Lines to be written in one transaction, as `owner`, and the runs that end with them."""

    owner: uuid.UUID
    lines: list[Line]
    ends: list[int]


class Use:
    """How much is in the backlog, of one run or of all."""

    def __init__(self) -> None:
        self.lines = 0
        self.chars = 0

    def add(self, lines: int, chars: int) -> None:
        self.lines += lines
        self.chars += chars

    def over(self, share: float) -> bool:
        """Whether it is more than this share of what may be kept."""
        return self.lines > share * MAX_LINES or self.chars > share * MAX_CHARS


class Backlog:
    """One writer (the pump, or the loop) and one reader (the shipper) at a time, or more.

    When it is full, or one run holds half of it, lines are dropped and counted; a line in their
    place says how many.
    """

    def __init__(self, owner: uuid.UUID) -> None:
        self._owner = owner
        self._changed = threading.Condition()
        self._items: deque[Line | End] = deque()
        self._total = Use()
        self._runs: dict[int, Use] = {}
        self._dropped: dict[int, int] = {}
        self._taken: list[Line] = []
        self._ends = 0
        self._hurried = False
        self._at = 0.0  # of the last line, dropped or not

    def put(self, lines: Sequence[Line]) -> None:
        """Add lines, or count them as dropped. Never blocks."""
        with self._changed:
            for line in lines:
                self._put(line)
            self._changed.notify()

    def drop(self, run_id: int, lines: int, at: float) -> None:
        """Count lines that were not even made, because ``is_dropping`` said so."""
        with self._changed:
            self._at = at
            if lines:
                self._dropped[run_id] = self._dropped.get(run_id, 0) + lines

    def is_dropping(self, run_id: int) -> bool:
        """Whether a line of this run would be dropped."""
        with self._changed:
            return self._is_dropping(run_id)

    def end(self, run_id: int) -> None:
        """No more lines of this run will come."""
        with self._changed:
            self._own_up(run_id)
            self._runs.pop(run_id, None)
            self._items.append(End(run_id))
            self._ends += 1
            self._changed.notify()

    def take(self, timeout: float) -> Batch | None:
        """The next lines, oldest first; None when none came within `timeout` seconds.

        They count as kept until ``done`` is called.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._hurried, timeout):
                return None
            if not self._items:
                return None
            self._changed.wait_for(self._is_urgent, LINGER)
            return self._batch()

    def done(self) -> None:
        """What was taken last is in the database, or given up."""
        with self._changed:
            for line in self._taken:
                self._count(line, -1)
            self._taken = []
            if not self._items:
                for run_id in list(self._dropped):
                    self._own_up(run_id)

    def clear(self, owner: uuid.UUID) -> None:
        """Throw everything away; what comes from now on is written as `owner`."""
        with self._changed:
            self._owner = owner
            self._items.clear()
            self._runs.clear()
            self._dropped.clear()
            self._taken, self._total, self._ends = [], Use(), 0

    def hurry(self) -> None:
        """Let ``take`` return what there is, now and from now on: the end is near."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def is_empty(self) -> bool:
        """Whether everything that was put in is done."""
        with self._changed:
            return not self._items and not self._taken

    def _put(self, line: Line) -> None:
        self._at = line.at
        if self._is_dropping(line.run_id):
            self._dropped[line.run_id] = self._dropped.get(line.run_id, 0) + 1
            return
        self._own_up(line.run_id)
        self._items.append(line)
        self._count(line, 1)

    def _is_dropping(self, run_id: int) -> bool:
        run = self._runs.get(run_id)
        if run_id in self._dropped:  # until there is room for more than the next few lines
            return self._total.over(0.75) or (run is not None and run.over(0.25))
        return self._total.over(1.0) or (run is not None and run.over(0.5))

    def _own_up(self, run_id: int) -> None:
        dropped = self._dropped.pop(run_id, 0)
        if dropped:
            notice = Line(run_id, "kirby", "warning", dropped_text(dropped), self._at)
            self._items.append(notice)
            self._count(notice, 1)

    def _count(self, line: Line, sign: int) -> None:
        size = sign * (len(line.text) + 100)
        self._total.add(sign, size)
        run = self._runs.get(line.run_id)
        if run is None and sign > 0:
            run = self._runs.setdefault(line.run_id, Use())
        if run is not None:
            run.add(sign, size)

    def _is_urgent(self) -> bool:
        return (
            self._hurried
            or self._ends > 0
            or len(self._items) >= BATCH_LINES
            or self._total.over(0.1)
        )

    def _batch(self) -> Batch:
        batch, chars = Batch(self._owner, [], []), 0
        while self._items and len(batch.lines) < BATCH_LINES and chars < BATCH_CHARS:
            item = self._items.popleft()
            if isinstance(item, End):
                batch.ends.append(item.run_id)
                self._ends -= 1
            else:
                batch.lines.append(item)
                chars += len(item.text)
        self._taken = batch.lines
        return batch


def dropped_text(lines: int) -> str:
    """The line that stands for lines that were dropped."""
    plural = "line" if lines == 1 else "lines"
    return f"{lines} {plural} dropped: the database could not keep up"

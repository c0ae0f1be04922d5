"""Lines on their way to the database: bounded, and putting one in never blocks.

Each run has a queue of its own, in memory first, on disk when the database does not keep up, so
that one noisy run neither takes the memory nor keeps the lines of the others waiting.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kirby.server.supervisor.lines import Lines, said
from kirby.server.supervisor.spill import Part, Spill

log = logging.getLogger("kirby.supervisor")

MOST = 512_000_000  # bytes kept while the database does not keep up; of one run half of it
CALM = 16_000_000  # bytes in memory above which they go to disk; of one run a quarter of it
FULL = 64_000_000  # bytes in memory above which lines are dropped: the disk does not keep up either
BATCH_BYTES, LEAST_SHARE = 1_000_000, 16_000  # of a transaction; of a run in it
WRITE_BYTES = 1_000_000  # to disk at once
LINGER = 0.05  # seconds that a line waits for others to share its transaction
DISK_PAUSE = 5.0  # seconds until a disk that refused is tried again


class Batch(NamedTuple):
    """Lines to be written in one transaction, as `owner`, and the runs that end with them.

    `parts` of them are still on disk: each is told of the transaction before it commits.
    """

    owner: uuid.UUID
    lines: list[Lines]
    ends: list[int]
    parts: list[Part]


@dataclass(eq=False)
class Queue:
    """What waits of one run: `head` in memory, then what is on disk, then `tail` in memory.

    The head fills until it is too large; from then on the tail does, and is written to disk,
    until all that is there was read again.
    """

    run_id: int
    head: deque[Lines] = field(default_factory=deque)
    spill: Spill | None = None
    tail: deque[Lines] = field(default_factory=deque)
    writing: list[Lines] = field(default_factory=list)  # from the tail to disk, just now
    memory: int = 0  # bytes of all that is not on disk, and of what was taken and is not done
    taken: list[Lines] = field(default_factory=list)
    part: Part | None = None  # what was taken, if it was from disk
    dropped: int = 0  # lines since the last one that was kept
    ended: bool = False
    told: bool = False  # the reader knows of the end

    @property
    def size(self) -> int:
        """All bytes of it."""
        return self.memory + (self.spill.unread if self.spill else 0)

    def has_next(self) -> bool:
        """Whether something can be taken."""
        on_disk = self.spill is not None and self.spill.unread > 0
        return bool(self.head) or on_disk or (bool(self.tail) and not self.writing)

    def is_through(self) -> bool:
        """Whether everything was taken."""
        return not (self.has_next() or self.writing or self.dropped)


class Backlog:
    """One writer (the pump, or the loop) and one reader (the shipper) at a time, or more.

    When `most` bytes wait, or half of it of one run, lines are dropped and counted; a line in
    their place says how many. What waits on disk is in `folder`/`owner`; without a folder it is
    all in memory, and less.
    """

    def __init__(self, owner: uuid.UUID, folder: Path | None = None, most: int = MOST) -> None:
        self._owner = owner
        self._folder = folder
        self._most = most if folder else CALM
        self._changed = threading.Condition()
        self._queues: dict[int, Queue] = {}
        self._spilled: set[Queue] = set()  # those that have something on disk, or may have
        self._memory = 0
        self._hurried = False
        self._at = 0.0  # of the last line, dropped or not
        self._disk_at = 0.0  # on the monotonic clock: not before, it refused
        self._disk_error = ""
        self._spiller: threading.Thread | None = None
        self._closed = False

    def put(self, lines: Sequence[Lines]) -> None:
        """Add lines, or count them as dropped. Never blocks."""
        with self._changed:
            for each in lines:
                self._put(each)
            self._changed.notify_all()

    def drop(self, run_id: int, lines: int, at: float) -> None:
        """Count lines that were not even made, because ``is_dropping`` said so."""
        with self._changed:
            self._at = at
            if lines:
                self._queue(run_id).dropped += lines

    def is_dropping(self, run_id: int) -> bool:
        """Whether a line of this run would be dropped."""
        with self._changed:
            return self._is_dropping(self._queues.get(run_id) or Queue(run_id))

    def end(self, run_id: int) -> None:
        """No more lines of this run will come."""
        with self._changed:
            queue = self._queue(run_id)
            self._own_up(queue)
            queue.ended = True
            self._changed.notify_all()

    def take(self, timeout: float) -> Batch | None:
        """The next lines, of each run oldest first; None when none came within `timeout` seconds.

        They count as kept until ``done`` is called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._hurried or self._has_next(), timeout)
            if not self._has_next():
                if self._hurried and self._queues:
                    self._changed.wait(LINGER)  # until the disk has what it is being given
                return None
            self._changed.wait_for(self._is_urgent, LINGER)
            owner, chosen = self._owner, self._choose()
        for queue, share in chosen:  # not under the lock: a disk may be slow
            queue.part = queue.spill.read(share) if queue.spill and not queue.taken else None
        with self._changed:
            return self._batch(owner, [queue for queue, _ in chosen])

    def done(self) -> None:
        """What was taken last is in the database, or given up."""
        with self._changed:
            queues = list(self._queues.values())
            for queue in queues:
                self._give_back(queue)
            closed = [spill for queue in queues if (spill := self._tidy(queue))]
            self._changed.notify_all()
        for spill in closed:
            spill.close()

    def clear(self, owner: uuid.UUID) -> None:
        """Throw everything away; what comes from now on is written as `owner`."""
        with self._changed:
            spills = [queue.spill for queue in self._spilled]
            folder = self._folder / str(self._owner) if self._folder else None
            self._owner, self._memory = owner, 0
            self._queues.clear()
            self._spilled.clear()
        for spill in spills:
            if spill:
                spill.close()
        if folder:
            with contextlib.suppress(OSError):  # it was never made
                folder.rmdir()

    def close(self) -> None:
        """Throw everything away, and keep nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._spiller:
            self._spiller.join()
        self.clear(self._owner)

    def hurry(self) -> None:
        """Let ``take`` return what there is, now and from now on: the end is near."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def waiting(self) -> int:
        """How many bytes wait for the database, in memory and on disk."""
        with self._changed:
            return sum(each.size for each in self._queues.values())

    def is_empty(self) -> bool:
        """Whether everything that was put in is done."""
        with self._changed:
            return not self._queues

    # Putting in

    def _queue(self, run_id: int) -> Queue:
        queue = self._queues.get(run_id)
        if queue is None:
            queue = self._queues[run_id] = Queue(run_id)
        return queue

    def _put(self, lines: Lines) -> None:
        self._at = lines.at
        queue = self._queue(lines.run_id)
        if self._is_dropping(queue):
            queue.dropped += lines.number
            return
        self._own_up(queue)
        self._add(queue, lines)

    def _add(self, queue: Queue, lines: Lines) -> None:
        self._count(queue, lines.size)
        if queue.spill is None and self._folder and self._is_much(queue):
            queue.spill = Spill(self._folder / str(self._owner), queue.run_id)
            self._spilled.add(queue)
            self._start_spiller()
        (queue.head if queue.spill is None else queue.tail).append(lines)

    def _own_up(self, queue: Queue) -> None:
        dropped, queue.dropped = queue.dropped, 0
        if dropped:
            text = dropped_text(dropped, self._disk_error)
            self._add(queue, said(queue.run_id, "warning", text, self._at))

    def _is_much(self, queue: Queue) -> bool:
        if self._memory > CALM:
            return queue.memory > LEAST_SHARE  # not a file for each of many quiet runs
        return queue.memory > CALM / 4

    def _is_dropping(self, queue: Queue) -> bool:
        # Once lines are dropped, until there is room for more than the next few.
        share = 0.75 if queue.dropped else 1.0
        on_disk = sum(each.spill.unread for each in self._spilled if each.spill)
        return (
            self._memory + on_disk > share * self._most
            or queue.size > share * self._most / 2
            or self._memory > share * FULL
            or queue.memory > share * FULL / 2
        )

    def _count(self, queue: Queue, size: int) -> None:
        queue.memory += size
        self._memory += size

    # Taking out

    def _has_next(self) -> bool:
        return any(each.has_next() or self._is_over(each) for each in self._queues.values())

    def _is_over(self, queue: Queue) -> bool:
        return queue.ended and queue.is_through() and not queue.told

    def _is_urgent(self) -> bool:
        return (
            self._hurried
            or bool(self._spilled)
            or self._memory > BATCH_BYTES / 4
            or any(each.ended for each in self._queues.values())
        )

    def _choose(self) -> list[tuple[Queue, int]]:
        """Whose lines are next, and how many bytes of each; those in memory are taken."""
        waiting = [each for each in self._queues.values() if each.has_next()]
        share = max(BATCH_BYTES // max(1, len(waiting)), LEAST_SHARE)
        chosen = waiting[: BATCH_BYTES // share]
        for queue in chosen:
            self._queues[queue.run_id] = self._queues.pop(queue.run_id)  # the last, next time
            if queue.head or not (queue.spill and queue.spill.unread):
                _take(queue.head or queue.tail, queue.taken, share)
        return [(queue, share) for queue in chosen]

    def _batch(self, owner: uuid.UUID, chosen: list[Queue]) -> Batch:
        batch = Batch(owner, [], [], [])
        for queue in chosen:
            if queue.part:
                queue.taken = queue.part.lines
                batch.parts.append(queue.part)
                if self._queues.get(queue.run_id) is queue:
                    self._count(queue, sum(each.size for each in queue.taken))
            batch.lines.extend(queue.taken)
        for queue in self._queues.values():
            if self._is_over(queue):
                queue.told = True
                batch.ends.append(queue.run_id)
        return batch

    def _give_back(self, queue: Queue) -> None:
        self._count(queue, -sum(each.size for each in queue.taken))
        queue.taken = []
        if queue.part and queue.spill:
            queue.spill.release(queue.part)
        queue.part = None

    def _tidy(self, queue: Queue) -> Spill | None:
        """Say what was dropped, if nothing else follows; forget a queue of which all is done."""
        if queue.dropped and not queue.has_next() and not self._is_dropping(queue):
            self._own_up(queue)
        if not queue.is_through():
            return None
        if queue.told or not queue.ended:
            del self._queues[queue.run_id]
        self._spilled.discard(queue)
        spill, queue.spill = queue.spill, None
        return spill

    # To disk

    def _start_spiller(self) -> None:
        if self._spiller is None:
            self._spiller = threading.Thread(target=self._spill, name="kirby spill", daemon=True)
            self._spiller.start()

    def _spill(self) -> None:
        """In a thread of its own, as a disk may block."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_tail(), 1.0)
                queue = self._next_to_write()
            if queue is not None:
                self._write(queue)

    def _has_tail(self) -> bool:
        return time.monotonic() >= self._disk_at and any(q.tail for q in self._queues.values())

    def _next_to_write(self) -> Queue | None:
        """The queue with the longest tail; some of it is being written now."""
        if self._closed or not self._has_tail():
            return None
        queue = max(self._queues.values(), key=lambda each: len(each.tail))
        size = 0
        while queue.tail and size < WRITE_BYTES:
            queue.writing.append(queue.tail.popleft())
            size += queue.writing[-1].size
        return queue

    def _write(self, queue: Queue) -> None:
        assert queue.spill  # noqa: S101 - only a queue with one has a tail
        try:
            queue.spill.write(queue.writing)
            error = ""
        except OSError as failed:
            error = failed.strerror or str(failed)
        with self._changed:
            self._written(queue, error)
            self._changed.notify_all()

    def _written(self, queue: Queue, error: str) -> None:
        written, queue.writing = queue.writing, []
        if self._queues.get(queue.run_id) is not queue:
            return  # it was thrown away meanwhile
        if error:
            queue.tail.extendleft(reversed(written))
            self._disk_at = time.monotonic() + DISK_PAUSE
            if error != self._disk_error:
                log.warning("output of runs cannot be kept on disk: %s", error)
        else:
            self._count(queue, -sum(each.size for each in written))
        self._disk_error = error


def _take(source: deque[Lines], taken: list[Lines], share: int) -> None:
    size = 0
    while source and size < share:
        taken.append(source.popleft())
        size += taken[-1].size


def dropped_text(lines: int, why: str = "") -> str:
    """The line that stands for lines that were dropped."""
    plural = "line" if lines == 1 else "lines"
    disk = f", and the disk said: {why}" if why else ""
    return f"{lines} {plural} dropped: the database could not keep up{disk}"

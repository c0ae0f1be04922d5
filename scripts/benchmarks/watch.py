"""How long a stretch of work took, first to last message done, over one or more processes."""

import mmap
import os
import signal
import struct
import time
from pathlib import Path

SLOT = struct.Struct("QQdd")  # how many; how many came first; when the first and the last came
SLOTS = 64


class Watch:
    """Counts what this process handles; asks the process to end when it is all there.

    What comes at the first call is where the clock starts, so it is not counted: claiming it was
    part of the start-up.
    """

    def __init__(self, expected, then=lambda: os.kill(os.getpid(), signal.SIGTERM)):
        self.expected, self.then = expected, then
        self.count = self.early = 0
        self.first = self.last = 0.0

    def add(self, count=1):
        if not self.count:
            self.first, self.early = time.monotonic(), count
        self.count += count
        if self.count >= self.expected and not self.last:
            self.last = time.monotonic()
            self.then()

    @property
    def rate(self):
        return (self.count - self.early) / (self.last - self.first)


class Tally:
    """The same over many processes: each has a slot of a file that all of them map.

    Adding to it costs less than a microsecond, so it can be the body of a task that does nothing.
    Clocks agree, since time.monotonic() is the machine's on Linux.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._pid = self._at = None

    @classmethod
    def create(cls, path):
        Path(path).write_bytes(bytes(SLOT.size * SLOTS + 8))
        return cls(path)

    def add(self, count=1):
        now = time.monotonic()
        if self._pid != os.getpid():
            self._take_slot(now, count)
        self._count += count
        SLOT.pack_into(self._map, self._at, self._count, self._early, self._first, now)

    def _take_slot(self, now, count):
        """The next free slot; taken by a lock file's own atomicity, once in a process."""
        with open(self.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        for number in range(SLOTS):
            try:
                os.close(os.open(f"{self.path}.{number}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                continue
        self._pid, self._at = os.getpid(), SLOT.size * number
        self._count, self._early, self._first = 0, count, now

    def slots(self):
        """What each process that did something has done: (count, early, first, last)."""
        data = self.path.read_bytes()
        found = [SLOT.unpack_from(data, SLOT.size * number) for number in range(SLOTS)]
        return [slot for slot in found if slot[0]]

    @property
    def count(self):
        return sum(slot[0] for slot in self.slots())

    @property
    def rate(self):
        """Messages a second, from the first one done to the last one done; 0 if none was."""
        if not (slots := self.slots()):
            return 0.0
        counted = sum(count for count, *_ in slots) - sum(early for _, early, *_ in slots)
        return counted / (max(slot[3] for slot in slots) - min(slot[2] for slot in slots))

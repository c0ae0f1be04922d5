"""Lines of one run on disk, while the database does not keep up. They are redacted already."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kirby.server.supervisor.lines import Lines, said

SEGMENT = 8_000_000  # bytes; a file that was shipped is removed, however long the run goes on

# What of a file is in the log: up to where, and the transaction that takes it up to where next.
FATE = struct.Struct("<QQQ")
# Checksum of what follows, size of the text, lines, time, stream, level.
HEAD = struct.Struct("<IIId8s8s")
CHECKED = struct.calcsize("<I")

NUMBERS = itertools.count(1)  # of files, in their order; none is used again while one is removed

UNREADABLE = "lines dropped: what was kept of them on disk cannot be read"


class Part(NamedTuple):
    """Lines read from a file, and where they stand in it."""

    segment: Segment
    start: int
    end: int
    lines: list[Lines]

    def mark(self, transaction: str) -> None:
        """Note which transaction ships it, before that commits: so that a crash doubles nothing."""
        with contextlib.suppress(OSError):
            os.pwrite(self.segment.fd, FATE.pack(self.start, int(transaction), self.end), 0)


class Segment:
    """One file."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = self.read = self.shipped = FATE.size
        self.lines = 0  # not read yet, as far as is known

    @classmethod
    def create(cls, path: Path) -> Segment:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, FATE.pack(FATE.size, 0, 0), 0)
        return cls(path, fd)

    @classmethod
    def found(cls, path: Path) -> Segment:
        """One that another supervisor left behind."""
        segment = cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        segment.size = max(FATE.size, os.fstat(segment.fd).st_size)
        return segment

    def append(self, lines: Sequence[Lines]) -> int:
        """Write lines; the bytes they take. Raises OSError, and then nothing was written."""
        data = memoryview(b"".join(_records(lines)))
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self.fd, data[done:], self.size + done)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)
        self.lines += sum(each.number for each in lines)
        return len(data)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(self.fd)


class Spill:
    """One thread writes, another one reads; ``close`` may be called by any.

    What was read is kept until it is released, and is there again after a crash.
    """

    def __init__(self, folder: Path, run_id: int) -> None:
        self.run_id = run_id
        self._folder = folder
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque()
        self._closed = False
        self.unread = 0  # bytes

    @classmethod
    def found(cls, folder: Path, run_id: int, is_committed: Callable[[str], bool]) -> Spill:
        """What is left in a folder of a run; `is_committed` tells the fate of a transaction."""
        spill = cls(folder, run_id)
        for path in sorted(folder.glob(f"{run_id}-*")):
            segment = Segment.found(path)
            segment.read = segment.shipped = _shipped(segment, is_committed)
            spill._segments.append(segment)
            spill.unread += segment.size - segment.read
        return spill

    def write(self, lines: Sequence[Lines]) -> int:
        """Add lines; the bytes that they take. Raises OSError, and then none was added."""
        with self._lock:
            if self._closed:
                return 0
            if not self._segments or self._segments[-1].size >= SEGMENT:
                self._segments.append(self._create())
            written = self._segments[-1].append(lines)
            self.unread += written
            return written

    def read(self, most: int) -> Part | None:
        """The next lines, about so many bytes of them but at least one piece; None: no more.

        What cannot be read is left out, and a line says so.
        """
        with self._lock:
            segment = next((s for s in self._segments if s.read < s.size), None)
            if segment is None or self._closed:
                return None
            part = _read(self.run_id, segment, most)
            segment.read = part.end
            segment.lines -= sum(each.number for each in part.lines)
            self.unread -= part.end - part.start
            return part

    def release(self, part: Part) -> None:
        """A part is in the log; files of which all is are removed."""
        with self._lock:
            part.segment.shipped = part.end
            while len(self._segments) > 1 and self._segments[0].shipped >= self._segments[0].size:
                self._segments.popleft().remove()

    def close(self) -> None:
        """Remove what there is."""
        with self._lock:
            self._closed = True
            while self._segments:
                self._segments.popleft().remove()
            self.unread = 0

    def leave(self) -> None:
        """Let go of the files, and leave them where they are."""
        with self._lock:
            self._closed = True
            while self._segments:
                os.close(self._segments.popleft().fd)

    def _create(self) -> Segment:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Segment.create(self._folder / f"{self.run_id}-{next(NUMBERS):09}")


def runs_in(folder: Path) -> list[int]:
    """The runs of which a folder has lines."""
    names = (path.name.partition("-")[0] for path in folder.iterdir())
    return sorted({int(name) for name in names if name.isdigit()})


def _records(lines: Iterable[Lines]) -> Iterator[bytes]:
    for each in lines:
        stream, level = each.stream.encode(), each.level.encode()
        head = HEAD.pack(0, len(each.text), each.number, each.at, stream, level)[CHECKED:]
        yield zlib.crc32(each.text, zlib.crc32(head)).to_bytes(CHECKED, "little")
        yield head
        yield each.text


def _read(run_id: int, segment: Segment, most: int) -> Part:
    start = at = segment.read
    lines: list[Lines] = []
    data = _bytes(segment, start, min(most, segment.size - start))
    while at < segment.size and at - start < most:
        record = _record(run_id, data, at - start)
        if record is None and lines:
            break
        if record is None:  # larger than what was asked for, or damaged
            data = _bytes(segment, start, segment.size - start)
            record = _record(run_id, data, 0)
        if record is None:
            dropped = f"{segment.lines} {UNREADABLE}" if segment.lines > 0 else UNREADABLE
            lines = [said(run_id, "warning", dropped, time.time())]
            return Part(segment, start, segment.size, lines)
        lines.append(record)
        at += HEAD.size + len(record.text)
    return Part(segment, start, at, lines)


def _bytes(segment: Segment, start: int, count: int) -> bytes:
    try:
        return os.pread(segment.fd, count, start)
    except OSError:
        return b""


def _record(run_id: int, data: bytes, at: int) -> Lines | None:
    """The record that begins there; None if it is not whole."""
    if len(data) < at + HEAD.size:
        return None
    checksum, size, number, when, stream, level = HEAD.unpack_from(data, at)
    text = data[at + HEAD.size : at + HEAD.size + size]
    checked = zlib.crc32(data[at + CHECKED : at + HEAD.size])
    if len(text) < size or zlib.crc32(text, checked) != checksum:
        return None
    names = [name.rstrip(b"\0").decode() for name in (stream, level)]
    return Lines(run_id, names[0], names[1], text, when, number)


def _shipped(segment: Segment, is_committed: Callable[[str], bool]) -> int:
    data = _bytes(segment, 0, FATE.size)
    start, transaction, end = FATE.unpack(data.ljust(FATE.size, b"\0"))
    shipped = end if transaction and is_committed(str(transaction)) else start
    return int(min(max(shipped, FATE.size), segment.size))

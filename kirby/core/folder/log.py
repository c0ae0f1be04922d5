"""The topics of a folder: files of lines, read as streams, and appended to."""

from __future__ import annotations

import io
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from kirby.core.folder import files
from kirby.core.folder.files import BadFolder, Stored

STEP = 32  # lines between two marks of where a position stands
POSITION = re.compile(rb'\{"position" ?: ?([1-9][0-9]{0,17}) ?,')  # as we and `kirby pull` write it


class Part:
    """Lines in the order of positions: what was given, or what a run has written.

    ``base``: the position of the first line is one more, and so on; None if they have their own.
    A mark for some of the lines says where one stands: memory hardly grows with their number.
    """

    def __init__(self, path: Path, start: datetime, content: bytes | None = None) -> None:
        self.path = path
        self.start = start
        self.base: int | None = None
        self.count = 0
        self.size = 0
        self.last = 0  # the position of the last line
        self._content = content
        self._positions, self._offsets, self._lines = array("q"), array("q"), array("q")

    def open(self) -> IO[bytes]:
        return self.path.open("rb") if self._content is None else io.BytesIO(self._content)

    def mark(self, position: int, offset: int, line: int) -> None:
        self._positions.append(position)
        self._offsets.append(offset)
        self._lines.append(line)

    def before(self, position: int) -> tuple[int, int]:
        """An offset, and how many lines lie before it, with nothing behind ``position`` before."""
        at = bisect_right(self._positions, position) - 1
        return (self._offsets[at], self._lines[at]) if at >= 0 else (0, 0)

    def scan(self) -> None:
        """Count the lines, and mark some of them. Raises BadFolder."""
        own: bool | None = None
        with self.open() as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    if own is None:
                        own = self._own(line, number) is not None
                    if own:
                        self._follow(line, number)
                    if self.count % STEP == 0:
                        self.mark(self.last if own else self.count, self.size, number - 1)
                    self.count += 1
                self.size += len(line)

    def _follow(self, line: bytes, number: int) -> None:
        position = self._own(line, number)
        if position is None or position <= self.last:
            what = "no position" if position is None else f"position {position}"
            raise BadFolder(f"{self.where(number)} has {what} after position {self.last}")
        self.last = position

    def _own(self, line: bytes, number: int) -> int | None:
        if found := POSITION.match(line):
            return int(found[1])
        document = files.loads(line, self.where(number))
        position = document.get("position") if files.is_envelope(document) else None
        if position is not None and (type(position) is not int or position < 1):
            raise BadFolder(f"{self.where(number)}: position is {position!r:.60}, not a number")
        return position

    @property
    def positioned(self) -> bool:
        return self.last > 0

    def give_positions(self, base: int) -> int:
        """Count from ``base`` on; the last position."""
        self.base = base
        self.last = base + self.count
        self._positions = array("q", (base + 1 + position for position in self._positions))
        return self.last

    def where(self, number: int) -> str:
        return f"{self.path}, line {number}"


class Topic:
    """A topic: what was given first, then what the run has published to it."""

    def __init__(self, name: str, id: int, start: datetime) -> None:
        self.name = name
        self.id = id
        self.given: Part | None = None
        self.made: Part | None = None
        self.opened = False  # by somebody who reads it
        self.produced: dict[str, int] = {}  # the positions of ids
        self.retracted: set[int] = set()
        self.answers: dict[int, int] = {}  # where the result of the task at a position is
        self.start = start

    @property
    def last(self) -> int:
        """The position of its last message."""
        return max((part.last for part in self.parts()), default=0)

    def parts(self) -> list[Part]:
        return [part for part in (self.given, self.made) if part is not None]

    def wrote(self, out: Path, message: Stored, size: int) -> None:
        """A message of so many bytes was appended in the folder ``out``."""
        if self.made is None:
            self.made = Part(out / f"{self.name}{files.LINES}", self.start)
        made = self.made
        if made.count % STEP == 0:
            made.mark(message.position, made.size, made.count)
        made.count += 1
        made.size += size
        made.last = message.position

    def at(self, position: int) -> Stored | None:
        """The message at a position."""
        with Reader(self, position - 1) as reader:
            found = reader.next()
        return found if found is not None and found.position == position else None

    def read(self, after: int) -> Iterator[Stored]:
        with Reader(self, after) as reader:
            while (found := reader.next()) is not None:
                yield found


class Reader:
    """Goes through a topic from a position on; at its end it waits for what may still come."""

    def __init__(self, topic: Topic, after: int = 0) -> None:
        self._topic = topic
        self._part: Part | None = None
        self._file: IO[bytes] | None = None
        self._number = 0  # lines of the part that were read
        self._count = 0  # messages among them
        self.position = after

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def ended(self) -> bool:
        """Whether there is nothing more for now."""
        return self.position >= self._topic.last

    def next(self) -> Stored | None:
        """The next message, or None. Raises BadFolder, again and again, at a line that is none."""
        while not self.ended():
            part, lines = self._opened()
            line = lines.readline()
            if not line:
                self.position = max(self.position, part.last)
                continue
            if not line.strip():
                self._number += 1
                continue
            try:
                found = self._message(part, line)
            except BadFolder:
                lines.seek(-len(line), io.SEEK_CUR)
                raise
            self._number += 1
            self._count += 1
            if found is not None:
                self.position = found.position
                return found
        return None

    def _opened(self) -> tuple[Part, IO[bytes]]:
        """The part that has what comes next, opened where it stands."""
        part = next(part for part in self._topic.parts() if part.last > self.position)
        if self._part is not part or self._file is None:
            self.close()
            self._part = part
            offset, self._number = part.before(self.position)
            self._count = self._marked(part)
            self._file = part.open()
            self._file.seek(offset)
        return part, self._file

    def _marked(self, part: Part) -> int:
        """How many messages lie before the mark; only lines that have no position are counted."""
        if part.base is None or self.position <= part.base:
            return 0
        return (self.position - part.base - 1) // STEP * STEP

    def _message(self, part: Part, line: bytes) -> Stored | None:
        """The message of a line; None if it does not follow on where we are."""
        where = part.where(self._number + 1)
        position = None if part.base is None else part.base + self._count + 1
        if position is not None and position <= self.position:
            return None
        found = files.message(files.loads(line, where), where, position=position, start=part.start)
        return found if found.position > self.position else None

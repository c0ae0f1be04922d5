"""Make log lines of the bytes that a process writes: any bytes, of any length, at any pace."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

LONGEST = 65536  # characters; a longer line is cut into pieces
HIDDEN = "\u2022\u2022\u2022"  # what the log shows instead of a run's own token
NUL = "\u2400"  # PostgreSQL's text has no NUL (P45)

LEVEL = re.compile(
    r"\b(?:(?P<critical>CRITICAL|FATAL|Fatal Python error)|(?P<error>ERROR)"
    r"|(?P<warning>WARNING|WARN|[A-Za-z]*Warning:)|(?P<debug>DEBUG))(?![A-Za-z])"
)
LOOKED_AT = 200  # characters at the start of a line that may name its level
TRACEBACK = "Traceback (most recent call last):"


class Line(NamedTuple):
    """One line of one run; `at` is in seconds since 1970, on the database's clock."""

    run_id: int
    stream: str
    level: str
    text: str
    at: float


class Splitter:
    """Makes the lines of one stream of one run; `hidden` is a text that never gets through."""

    def __init__(self, run_id: int, stream: str, hidden: str = "") -> None:
        self.run_id = run_id
        self.stream = stream
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""
        self._flushed = False
        self._in_traceback = False

    @property
    def partial(self) -> bool:
        """Whether the beginning of a line is held back until its end comes."""
        return bool(self._partial)

    def feed(self, data: bytes, at: float) -> list[Line]:
        """The lines that end in `data`; what follows the last line end is held back."""
        text = self._clean(self._partial + self._decoder.decode(data))
        *whole, rest = text.split("\n")
        if self._flushed and whole and whole[0].rstrip("\r") == "":
            del whole[0]  # the end of the line that was flushed before
        self._flushed = self._flushed and not text
        found = [line for each in whole for line in self._lines(each, at)]
        if len(rest) > LONGEST:
            *pieces, rest = _pieces(rest)
            found += [self._line(piece, at) for piece in pieces]
        self._partial = _last_shown(rest)
        return found

    def flush(self, at: float) -> list[Line]:
        """What is held back, as a line: its end is long in coming."""
        rest, self._partial = self._partial, ""
        self._flushed = self._flushed or bool(rest)
        return self._lines(rest, at) if rest else []

    def end(self, at: float) -> list[Line]:
        """What is held back, and the bytes of a character that will never be whole."""
        self._partial = self._clean(self._partial + self._decoder.decode(b"", final=True))
        return self.flush(at)

    def skip(self, data: bytes) -> int:
        """As ``feed``, but only counts the lines: nobody will see them."""
        *whole, rest = data.rsplit(b"\n", 1)
        if whole:
            self._decoder.reset()
            self._partial = self._clean(self._decoder.decode(rest))
            return data.count(b"\n")
        self._partial = self._clean(self._partial + self._decoder.decode(rest))
        pieces = len(self._partial) // LONGEST
        self._partial = self._partial[pieces * LONGEST :]
        return pieces

    def _clean(self, text: str) -> str:
        if self._hidden and self._hidden in text:
            text = text.replace(self._hidden, HIDDEN)
        return text.replace("\0", NUL) if "\0" in text else text

    def _lines(self, text: str, at: float) -> list[Line]:
        if "\r" in text:
            text = _last_shown(text).rstrip("\r")
        return [self._line(piece, at) for piece in _pieces(text)]

    def _line(self, text: str, at: float) -> Line:
        level = self._level(text) if self.stream == "stderr" else "info"
        return Line(self.run_id, self.stream, level, text, at)

    def _level(self, text: str) -> str:
        if self._in_traceback:
            # Its lines are indented; the exception is the first one that is not.
            self._in_traceback = text[:1] in (" ", "\t", "")
            return "error"
        if TRACEBACK in text[:LOOKED_AT]:
            self._in_traceback = True
            return "error"
        found = LEVEL.search(text[:LOOKED_AT])
        return str(found.lastgroup) if found else "info"


def _pieces(text: str) -> list[str]:
    if len(text) <= LONGEST:
        return [text]
    return [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]


def _last_shown(text: str) -> str:
    """Of a line that was written over itself (progress bars), what a terminal would show last."""
    if "\r" not in text:
        return text
    return text[text.rstrip("\r").rfind("\r") + 1 :]

"""Make log lines of the bytes that a process writes: any bytes, of any length, at any pace."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

LONGEST = 65536  # characters; a longer line is cut into pieces
NUL = "\u2400"  # PostgreSQL's text has no NUL (P45)

LEVEL = re.compile(
    r"\b(?:(?P<critical>CRITICAL|FATAL|Fatal Python error)|(?P<error>ERROR)"
    r"|(?P<warning>WARNING|WARN|[A-Za-z]*Warning:)|(?P<debug>DEBUG))(?![A-Za-z])"
)
LEVELS = ("debug", "info", "warning", "error", "critical")
# One of these is in every text that LEVEL or TRACEBACK finds something in.
TELLING = ("CRITICAL", "FATAL", "Fatal", "ERROR", "WARN", "Warning:", "DEBUG", "Traceback")
LOOKED_AT = 200  # characters at the start of a line that may name its level
TRACEBACK = "Traceback (most recent call last):"


class Lines(NamedTuple):
    """Lines of one stream that were read at the same moment and have the same level.

    `text` is UTF-8 without NUL, `number` lines with a line feed between them; `at` is in seconds
    since 1970, on the database's clock.
    """

    run_id: int
    stream: str
    level: str
    text: bytes
    at: float
    number: int = 1

    @property
    def size(self) -> int:
        """The bytes that they take in memory, about."""
        return len(self.text) + 200

    def apart(self) -> tuple[Lines, Lines]:
        """The first half of them and the second, of at least two."""
        texts = self.text.split(b"\n")
        middle = len(texts) // 2
        halves = texts[:middle], texts[middle:]
        first, second = (self._replace(text=b"\n".join(h), number=len(h)) for h in halves)
        return first, second


def said(run_id: int, level: str, text: str, at: float) -> Lines:
    """What Kirby itself has to say of a run."""
    clean = text.replace("\0", NUL).encode("utf-8", "replace")
    return Lines(run_id, "kirby", level, clean, at, clean.count(b"\n") + 1)


class Splitter:
    """Makes the lines of one stream of one run."""

    def __init__(self, run_id: int, stream: str) -> None:
        self.run_id = run_id
        self.stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""
        self._flushed = False
        self._in_traceback = False

    @property
    def partial(self) -> bool:
        """Whether the beginning of a line is held back until its end comes."""
        return bool(self._partial)

    def feed(self, data: bytes, at: float) -> list[Lines]:
        """The lines that end in `data`; what follows the last line end is held back."""
        text = self._clean(self._partial + self._decoder.decode(data))
        whole, end, rest = text.rpartition("\n")
        found = self._whole(whole, at) if end else []
        self._flushed = self._flushed and not text
        if len(rest) > LONGEST:
            *pieces, rest = _pieces(rest)
            found += self._made(pieces, at)
        self._partial = _last_shown(rest)
        return found

    def flush(self, at: float) -> list[Lines]:
        """What is held back, as a line: its end is long in coming."""
        rest, self._partial = self._partial, ""
        self._flushed = self._flushed or bool(rest)
        return self._made(_shown([rest]), at) if rest else []

    def end(self, at: float) -> list[Lines]:
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
        return text.replace("\0", NUL) if "\0" in text else text

    def _whole(self, text: str, at: float) -> list[Lines]:
        """Whole lines, with a line feed between them."""
        if self._flushed:  # it is the end of the line that was flushed before
            first, end, rest = text.partition("\n")
            if first.rstrip("\r") == "":
                if not end:
                    return []
                text = rest
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if "\r" not in text and self._is_plain(text):
            return [self._lines("info", text, at)]
        return self._made(_shown(text.split("\n")), at)

    def _is_plain(self, text: str) -> bool:
        """Whether all is shown as it is, as information: then no line has to be looked at."""
        if len(text) > LONGEST and max(map(len, text.split("\n"))) > LONGEST:
            return False
        return self.stream == "stdout" or not (
            self._in_traceback or any(word in text for word in TELLING)
        )

    def _made(self, texts: Iterable[str], at: float) -> list[Lines]:
        """Neighbours of the same level together."""
        levels = groupby(texts, self._level)
        return [self._lines(level, "\n".join(group), at) for level, group in levels]

    def _lines(self, level: str, text: str, at: float) -> Lines:
        data = text.encode("utf-8")
        return Lines(self.run_id, self.stream, level, data, at, data.count(b"\n") + 1)

    def _level(self, text: str) -> str:
        if self.stream != "stderr":
            return "info"
        if self._in_traceback:
            # Its lines are indented; the exception is the first one that is not.
            self._in_traceback = text[:1] in (" ", "\t", "")
            return "error"
        if TRACEBACK in text[:LOOKED_AT]:
            self._in_traceback = True
            return "error"
        found = LEVEL.search(text[:LOOKED_AT])
        return str(found.lastgroup) if found else "info"


def _shown(texts: Iterable[str]) -> Iterator[str]:
    """Lines as they are kept: what a terminal would show of each, in pieces if it is long."""
    for text in texts:
        if "\r" in text:
            text = _last_shown(text).rstrip("\r")
        yield from _pieces(text)


def _pieces(text: str) -> list[str]:
    if len(text) <= LONGEST:
        return [text]
    return [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]


def _last_shown(text: str) -> str:
    """Of a line that was written over itself (progress bars), what a terminal would show last."""
    if "\r" not in text:
        return text
    return text[text.rstrip("\r").rfind("\r") + 1 :]

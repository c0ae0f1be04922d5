"""Hide secret values in what a process writes, before a line is made of it or a disk sees it."""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

HIDDEN = "\u2022\u2022\u2022"  # what the log shows instead
SHORTEST = 4  # bytes; what is shorter is no secret, and to hide it would hide everything else
ACROSS = 8  # bytes of a value that is also found with line breaks in between
LONGEST = 1024  # bytes of a pattern; longer values are looked for piece by piece
PIECE = 512
LINE = 16  # bytes of a line of a value that is hidden by itself too
FEW = 16  # patterns that are looked for faster one by one; nearly always none is there
HEAD = 4  # bytes by which the beginning of a pattern is found

BREAKS = b"\r\n"
BREAK_RUN = re.compile(rb"[\r\n]+")
MARK = HIDDEN.encode()


class Secrets:
    """The values of one run, as what to look for; any number of them. Shared by its streams.

    Each is found as it is, with line breaks anywhere in it or left out of it, and as JSON, Python,
    URLs, HTML, base64 (also within something longer) and hexadecimal digits spell it.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self.patterns = sorted({p for value in values for p in _patterns(value)})
        self.longest = max(map(len, self.patterns), default=0)
        if self.patterns:
            self._whole = BytesAhoCorasick(self.patterns)
            self._heads = BytesAhoCorasick(sorted({p[:HEAD] for p in self.patterns}))

    def find(self, text: bytes) -> list[tuple[int, int]]:
        """Where values stand in a text without line breaks: from, to; they may overlap."""
        if len(self.patterns) <= FEW and not any(each in text for each in self.patterns):
            return []
        found = self._whole.find_matches_as_indexes(text, overlapping=True)
        return [(start, end) for _, start, end in found]

    def begun(self, text: bytes) -> Iterator[int]:
        """Where, towards its end, something begins that may become a value; the longest first."""
        base = max(0, len(text) - self.longest + 1)
        tail = text[base:]
        heads = self._heads.find_matches_as_indexes(tail, overlapping=True)
        starts = {start for _, start, _ in heads}
        starts.update(range(max(0, len(tail) - HEAD + 1), len(tail)))
        for start in sorted(starts):
            if self._is_beginning(tail[start:]):
                yield base + start

    def _is_beginning(self, text: bytes) -> bool:
        at = bisect_left(self.patterns, text)
        return at < len(self.patterns) and self.patterns[at].startswith(text)


class Redactor:
    """One stream: what goes in comes out with HIDDEN for each value, in time linear in its length.

    What may be the beginning of a value is held back until more comes, ``flush`` or ``end``. It
    remembers what it gave out, so the rest of a value is hidden even if its beginning was shown.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._before = b""  # given out already, as long as a value that began there may go on
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What can be shown now."""
        if not self._secrets.patterns:
            return data
        text = _Text(self._before + self._held + data)
        new = len(self._before)
        spans = _joined(self._found(text))
        hidden_to = spans[-1][1] if spans else 0
        hold = max(new, self._hold(text), hidden_to)
        if hold == hidden_to and not text.raw[hold:].strip(BREAKS):
            hold = len(text.raw)  # there is no more of it to hide
        shown = _hide(text.raw, spans, new, hold)
        self._remember(text.raw[:hold])
        self._held = text.raw[hold:]
        return shown

    def flush(self) -> bytes:
        """What is held back, though a value may have begun; hidden if it is most of one."""
        held, self._held = self._held, b""
        if not held:
            return held
        self._remember(self._before + held)
        return MARK if self._is_telling(held) else held

    end = flush

    def _found(self, text: _Text) -> list[tuple[int, int]]:
        spans = []
        for start, end in self._secrets.find(text.stripped):
            first, last = text.place(start), text.place(end - 1)
            if end - start >= ACROSS or last - first == end - 1 - start:
                spans.append((first, last + 1))
        return spans

    def _hold(self, text: _Text) -> int:
        """From where on to hold back. A line that has ended waits only for what looks like much."""
        for start in self._secrets.begun(text.stripped):
            first = text.place(start)
            if len(text.stripped) - start >= HEAD or not text.has_break(first):
                return first
        return len(text.raw)

    def _is_telling(self, held: bytes) -> bool:
        stripped = held.translate(None, BREAKS)
        at = bisect_left(self._secrets.patterns, stripped)
        whole = self._secrets.patterns[at] if at < len(self._secrets.patterns) else b""
        return len(stripped) >= ACROSS and 2 * len(stripped) >= len(whole)

    def _remember(self, given: bytes) -> None:
        if self._secrets.longest:
            tail = BREAK_RUN.sub(b"\n", given[-4 * self._secrets.longest :])
            self._before = tail[-2 * self._secrets.longest :]


class _Text:
    """A text beside itself without line breaks, and where each byte of that stands in it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.stripped = raw.translate(None, BREAKS)
        self._breaks: tuple[list[int], list[int]] | None = None

    def place(self, index: int) -> int:
        """Where the byte at an index of the stripped text stands in the raw one."""
        if len(self.raw) == len(self.stripped):
            return index
        if self._breaks is None:
            runs = [each.span() for each in BREAK_RUN.finditer(self.raw)]
            skipped = list(accumulate(end - start for start, end in runs))
            before = [0, *skipped[:-1]]
            at = [start - less for (start, _), less in zip(runs, before, strict=True)]
            self._breaks = at, [0, *skipped]
        at, skipped = self._breaks
        return index + skipped[bisect_right(at, index)]

    def has_break(self, start: int) -> bool:
        return BREAK_RUN.search(self.raw, start) is not None


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places as spans that do not overlap, in order."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _hide(raw: bytes, spans: list[tuple[int, int]], begin: int, end: int) -> bytes:
    """The part of a text from `begin` to `end`, with MARK for what of the spans lies in it."""
    parts = []
    for first, last in spans:
        if last > begin:
            parts += [raw[begin:first], MARK]
            begin = last
    return b"".join([*parts, raw[begin:end]])


def _patterns(value: str) -> Iterator[bytes]:
    """What to look for, without line breaks, to find a value in whatever way it is spelt."""
    for spelling in {value, *_lines(value)}:
        for form in _spellings(spelling):
            stripped = form.translate(None, BREAKS)
            if len(stripped) >= SHORTEST and stripped.strip():
                yield from _pieces(stripped)


def _lines(value: str) -> list[str]:
    """Lines of a value that a program may print one by one, with something before each."""
    lines = [line.strip() for line in value.splitlines()]
    return [each for each in lines if len(each) >= LINE and not each.startswith("-----")]


def _spellings(value: str) -> set[bytes]:
    raw = value.encode("utf-8", "surrogatepass")
    texts = {
        *(json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (True, False)),
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        repr(value)[1:-1],
        html.escape(value),
        raw.hex(),
        raw.hex().upper(),
    }
    for spelt in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        texts |= {spelt, re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), spelt)}
    encoded = {text.encode("utf-8", "surrogatepass") for text in texts}
    return {raw, *encoded, *_in_base64(raw)}


def _in_base64(raw: bytes) -> set[bytes]:
    """As it stands in base64 of itself, or of something that has it at any place."""
    found = set()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw).rstrip(b"=")
        whole = (
            text if (shift + len(raw)) % 3 == 0 else text[:-1]
        )  # the last depends on what follows
        core = whole[(0, 2, 3)[shift] :]
        if len(core) >= ACROSS:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def _pieces(pattern: bytes) -> Iterator[bytes]:
    """The pattern, or parts that cover it: what is held back and remembered stays small."""
    if len(pattern) <= LONGEST:
        yield pattern
        return
    for start in range(0, len(pattern) - PIECE, PIECE):
        yield pattern[start : start + PIECE]
    yield pattern[-PIECE:]

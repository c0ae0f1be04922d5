"""How values are shown: times, numbers, JSON, log lines with colours (filters of the templates)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from kirby.server import spans

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
NOTHING = "\N{EN DASH}"
SHORTENED = 160
LONGEST_LINE = 20_000
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")

# Escape sequences of terminals: colours are shown, everything else is left out.
ESCAPE = re.compile(
    r"\x1b\[([0-9;:]*)m"  # colours
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|\x1b"
)
JSON_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null)"
)


def ago(at: datetime | None, now: datetime) -> Markup:
    """How long since, or until; the exact instant is in its title."""
    if at is None:
        return Markup('<span class="faint">never</span>')
    seconds = (now - at).total_seconds()
    near = "just now" if seconds >= 0 else "now"
    words = near if abs(seconds) < 2 else _relative(seconds)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" {at:%Z}", words
    )


def _relative(seconds: float) -> str:
    size = rough(abs(seconds))
    return f"{size} ago" if seconds > 0 else f"in {size}"


def rough(seconds: float) -> str:
    """A duration in its largest unit: 3 min, 2 h, 5 d."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"


def duration(seconds: float | None) -> str:
    """A duration as two units at most: 740 ms, 2.4 s, 3 min 5 s, 2 h 10 min."""
    if seconds is None:
        return NOTHING
    seconds = max(float(seconds), 0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for (size, unit), (small, small_unit) in pairwise(UNITS):
        if seconds >= size:
            rest = int(seconds % size // small)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{seconds:.0f} s"


def instant(at: datetime | None) -> str:
    """A day and a time, to the second, in UTC or whatever zone the database speaks."""
    return f"{at:%Y-%m-%d %H:%M:%S %Z}" if at else NOTHING


def clock(at: datetime) -> str:
    """The time of day, to the millisecond."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def number(value: int | float) -> str:
    """27,004; fractions with as many digits as say something."""
    if isinstance(value, int) or value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def size(count: int) -> str:
    """A number of bytes: 12 kB, 3.4 MB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def plural(count: int, one: str, many: str = "") -> str:
    """1 run, 2 runs, 27,004 runs."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def sentence(message: str) -> str:
    """A message as a sentence of its own: a capital first, a full stop last."""
    end = "" if message.endswith((".", "?", "!")) else "."
    return message[:1].upper() + message[1:] + end


def moment(at: datetime) -> str:
    """A day of this year and a time: 22 Nov 14:03:59."""
    return f"{at.day} {at:%b %H:%M:%S}"


def label(name: str) -> str:
    """run_cancel_requested → cancel requested; timed_out → timed out."""
    return name.removeprefix("run_").replace("_", " ")


def compact(value: Any, longest: int = SHORTENED) -> str:
    """JSON on one line, cut at a length."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def cell(value: Any, longest: int = 80) -> str:
    """A value in a table: a text without its quotes, the rest as JSON."""
    text = value if isinstance(value, str) else compact(value, longest)
    text = CONTROL.sub("\ufffd", text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def pretty(value: Any) -> Markup:
    """JSON over several lines, each kind of token in its own colour."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return coloured(text)


def inline(value: Any) -> Markup:
    """JSON on one short line, in colours."""
    return coloured(compact(value))


def coloured(text: str) -> Markup:
    """The tokens of a JSON text as spans; what is between them as it is."""
    parts: list[Markup] = []
    end = 0
    for token in JSON_TOKEN.finditer(text):
        parts.append(escape(text[end : token.start()]))
        parts.append(Markup('<span class="j-{}">{}</span>').format(token.lastgroup, token.group()))
        end = token.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def line(text: str) -> Markup:
    """A log line: terminal colours become classes, other control characters become visible."""
    shown = _overwritten(text)[:LONGEST_LINE]
    parts = [
        Markup('<span class="{}">{}</span>').format(c, t) if c else escape(t)
        for c, t in _runs(shown)
    ]
    if len(text) > LONGEST_LINE:
        rest = Markup('<span class="faint"> … {} more characters, in the download</span>')
        parts.append(rest.format(number(len(text) - LONGEST_LINE)))
    return Markup("").join(parts)


def _overwritten(text: str) -> str:
    """Of a line that carriage returns began anew (a progress bar), what a terminal ends with."""
    if "\r" not in text:
        return text
    return "\n".join(each.rstrip("\r").rpartition("\r")[2] for each in text.split("\n"))


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Stretches of text with the classes that are in force there."""
    style: dict[str, str] = {}
    end = 0
    for sequence in ESCAPE.finditer(text):
        yield " ".join(style.values()), _visible(text[end : sequence.start()])
        if sequence.group(1) is not None:
            _apply(style, sequence.group(1))
        end = sequence.end()
    yield " ".join(style.values()), _visible(text[end:])


def _visible(text: str) -> str:
    """Other control characters, and what reorders text, become visible marks."""
    return CONTROL.sub(lambda found: _picture(found.group()), text)


def _picture(character: str) -> str:
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\ufffd"


def _apply(style: dict[str, str], codes: str) -> None:
    """One colour sequence. Of the 256 and the true colours there is none: they are left out."""
    numbers = [int(code) if code.isdigit() else 0 for code in re.split("[;:]", codes)]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            style.clear()
        elif code in (38, 48):
            del numbers[: 4 if numbers[:1] == [2] else 2]
        elif code in (1, 2, 3, 4):
            style[f"attr{code}"] = f"a-{code}"
        elif code == 39:
            style.pop("fg", None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["fg"] = f"a-{code if code < 90 else code - 60}"


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "rough": rough,
    "duration": duration,
    "instant": instant,
    "clock": clock,
    "number": number,
    "size": size,
    "span": spans.text,
    "plural": plural,
    "sentence": sentence,
    "moment": moment,
    "label": label,
    "compact": compact,
    "cell": cell,
    "pretty": pretty,
    "inline": inline,
    "line": line,
}

"""Spans of time as people write them: 90m, 12h, 30d, 2w."""

from __future__ import annotations

import re
from datetime import timedelta

from kirby.core.errors import Invalid

UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
FOREVER = "forever"
WRITTEN = re.compile(r"(\d{1,9})([wdhms])")


def parse(text: str) -> timedelta | None:
    """The span that a text names; None for ``forever``. Raises Invalid."""
    if text == FOREVER:
        return None
    if not (found := WRITTEN.fullmatch(text.strip())) or int(found[1]) == 0:
        raise Invalid(f"{text!r} is not a span of time: write it like 90m, 12h, 30d or forever")
    try:
        return int(found[1]) * UNITS[found[2]]
    except OverflowError:
        raise Invalid(f"{text} is longer than time itself: say forever") from None


def text(span: timedelta | None) -> str:
    """A span in the largest unit that it is a whole number of; to the second."""
    if span is None:
        return FOREVER
    for unit in "dhm":
        if span and not span % UNITS[unit]:
            return f"{span // UNITS[unit]}{unit}"
    return f"{span.total_seconds():g}s"

"""Times to come as people write them: 2026-11-23T08:00, 08:00, monday 08:00, tomorrow, 2h."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from kirby.core.errors import Invalid
from kirby.server import cron, schedules, spans

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
NAMED = {"midnight": time(0), "noon": time(12)}
HINT = "write it like 2026-11-23T08:00, 'monday 08:00', 'tomorrow 8:00', 18:30 or 2h"


def parse(text: str, tz: str, now: datetime) -> datetime:
    """The next time that `text` names on the wall of `tz`, or that far from `now`; in UTC.

    A weekday is one to come: on a Monday at nine, `monday 08:00` is in seven days. A day without a
    clock begins at midnight. Raises Invalid.
    """
    words = text.strip().lower().split()
    if words == ["now"]:
        return now.astimezone(UTC)
    if len(words) <= 2 and words and words[0] == "in":
        words = words[1:]
    if len(words) == 1 and spans.WRITTEN.fullmatch(words[0]):
        return now.astimezone(UTC) + _span(words[0])
    if found := _said(words, now.astimezone(cron.zone(tz))):
        return schedules.moment(found.isoformat(), tz)
    try:
        return schedules.moment(text, tz)
    except Invalid as error:
        raise Invalid(f"{error}; {HINT}" if "write it" not in str(error) else
                      f"{text!r} is not a time: {HINT}") from None  # fmt: skip


def _span(text: str) -> timedelta:
    found = spans.parse(text)
    if found is None:
        raise Invalid(f"{text!r} is not a time: {HINT}")
    return found


def _said(words: list[str], here: datetime) -> datetime | None:
    """The wall time that a day, a clock or both name; None: these are not such words."""
    day, clock = (words[:1], words[1:]) if words and _day(words[0]) is not None else ([], words)
    if len(clock) > 1 or not (day or clock):
        return None
    at = _clock(clock[0]) if clock else time(0)
    if at is None:
        return None
    wall = here.replace(tzinfo=None)
    if not day:
        found = datetime.combine(wall.date(), at)
        return found if found > wall else found + timedelta(days=1)
    if day[0] in ("today", "tomorrow"):
        return datetime.combine(wall.date(), at) + timedelta(days=int(day[0] == "tomorrow"))
    ahead = (int(_day(day[0]) or 0) - wall.weekday()) % 7
    found = datetime.combine(wall.date(), at) + timedelta(days=ahead)
    return found if found > wall else found + timedelta(days=7)


def _day(word: str) -> int | None:
    if word in ("today", "tomorrow"):
        return -1
    found = [n for n, name in enumerate(DAYS) if len(word) >= 3 and name.startswith(word)]
    return found[0] if found else None


def _clock(word: str) -> time | None:
    if word in NAMED:
        return NAMED[word]
    found = CLOCK.fullmatch(word)
    if found is None:
        return None
    try:
        return time(int(found[1]), int(found[2]))
    except ValueError:
        raise Invalid(f"{word!r} is no time of the day: from 00:00 to 23:59") from None

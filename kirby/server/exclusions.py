"""Days and windows at which a schedule does not run (pure, no database)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from kirby.core.errors import Invalid
from kirby.server import cron, spans
from kirby.server.cron import Cron

YEARLY = re.compile(r"\d{2}-\d{2}")
WINDOW = re.compile(r"(.+?)\s+for\s+(\S+)", re.IGNORECASE)
LONGEST = timedelta(days=31)  # of a window
MOST = 2000  # days, or windows, of one calendar
LEAP = 2024  # a year that has all days


@dataclass(frozen=True, slots=True)
class Window:
    """It begins when the cron line is due, and lasts; its end is not part of it."""

    cron: Cron
    lasts: timedelta

    def holds(self, at: datetime, tz: str) -> bool:
        """Whether the instant is within one of them."""
        begun = cron.ticks(self.cron, tz, at - self.lasts, until=at)
        return next(begun, None) is not None

    def __str__(self) -> str:
        return f"{self.cron.expression} for {spans.text(self.lasts)}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days (`2026-12-25`, `12-25`: every year, `2026-12-24..2027-01-02`) and windows.

    `tz`: the zone that they are meant in; "": that of the schedule which is excluded.
    """

    name: str
    tz: str = ""
    days: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()

    def excluded(self, at: datetime, tz: str) -> str:
        """The day or window that an instant falls on, in words; "": none."""
        zone = self.tz or tz
        today = at.astimezone(cron.zone(zone)).date()
        for day in self.days:
            if _is_on(today, day):
                return f"{self.name}: {day}"
        for window in self.windows:
            if window.holds(at, zone):
                return f"{self.name}: {window}"
        return ""


@dataclass(frozen=True, slots=True)
class Calendars:
    """All that a schedule excludes."""

    all: tuple[Calendar, ...] = ()

    def excluded(self, at: datetime, tz: str) -> str:
        """Why a schedule in the zone `tz` does not run at an instant; "": it does."""
        return next(filter(None, (each.excluded(at, tz) for each in self.all)), "")


def of(name: str, tz: str, days: Sequence[str], windows: Sequence[Mapping[str, Any]]) -> Calendar:
    """A calendar as it is stored: windows as ``{"cron": …, "minutes": …}``."""
    made = (Window(cron.parse(w["cron"]), timedelta(minutes=w["minutes"])) for w in windows)
    return Calendar(name, tz, tuple(days), tuple(made))


def said(window: Mapping[str, Any]) -> str:
    """A window as it is stored, as people write it."""
    return f"{window['cron']} for {spans.text(timedelta(minutes=window['minutes']))}"


def day(text: str) -> str:
    """A day, a day of every year or a stretch of days, as it is stored; raises Invalid."""
    given = text.strip()
    first, dots, last = given.partition("..")
    try:
        if not dots and YEARLY.fullmatch(given):
            date.fromisoformat(f"{LEAP}-{given}")
            return given
        days = [date.fromisoformat(each.strip()) for each in ((first, last) if dots else (given,))]
    except ValueError:
        raise Invalid(
            f"{text!r} is not a day: write it like 2026-12-25, 12-25 (every year)"
            " or 2026-12-24..2027-01-02"
        ) from None
    if days[0] > days[-1]:
        raise Invalid(f"{text!r} ends before it begins")
    return "..".join(each.isoformat() for each in days)


def window(text: str) -> dict[str, Any]:
    """A window as people write it, `0 1 * * sun for 4h`, as it is stored; raises Invalid."""
    found = WINDOW.fullmatch(text.strip())
    if found is None:
        raise Invalid(f"{text!r} is not a window: write it like '0 1 * * sun for 4h'")
    read, lasts = cron.parse(found[1]), spans.parse(found[2])
    if lasts is None or lasts > LONGEST or lasts % timedelta(minutes=1):
        raise Invalid(f"{text!r}: a window lasts whole minutes, at most {spans.text(LONGEST)}")
    return {"cron": read.expression, "minutes": int(lasts / timedelta(minutes=1))}


def _is_on(today: date, written: str) -> bool:
    first, dots, last = written.partition("..")
    if dots:
        return first <= today.isoformat() <= last
    return today.isoformat().endswith(written)  # the whole day, or the month and the day of it

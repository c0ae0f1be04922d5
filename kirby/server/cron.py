"""When a cron line is due: five fields, placed on a time zone by one rule (pure, no database).

The fields are read here, so that errors name the field and no dialect decides for us; croniter
steps through the days, each of which has the same times; all that is naive local wall time, and
this module places it on the zone:

* a fixed time that does not exist (spring) moves to the next valid instant,
* a fixed time that occurs twice (autumn) is due once, the first time,
* a wildcard hour is due at every instant whose wall time matches: nothing is added in spring,
  and the repeated hour is served twice in autumn; a wildcard minute too is served twice.
"""

from __future__ import annotations

import bisect
import difflib
import functools
import heapq
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, groupby, islice, takewhile

from croniter import CroniterBadDateError, croniter

from kirby.core.errors import Invalid

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
WEEKDAYS = "sun mon tue wed thu fri sat"
MAX_LENGTH = 1000
STEP = timedelta(hours=6)  # two changes closer than this have never been decreed
LAST = datetime(9000, 1, 1, tzinfo=UTC)  # the calendar of Python ends soon after
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Field:
    """One of the five fields: its name in errors, its bounds and the words it knows."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """The value that `text` stands for; Invalid when it is none of this field's."""
        if text in self.words:
            return self.words.index(text) + self.low
        if re.fullmatch(r"[0-9]{1,4}", text) and self.low <= int(text) <= self.high:
            return int(text)
        raise self.wrong(text)

    def wrong(self, text: str) -> Invalid:
        """The error for a part of this field that cannot be read."""
        words = f" or {self.words[0]}-{self.words[-1]}" if self.words else ""
        known = f"{self.low}-{self.high}{words}"
        return Invalid(f"cron: {text!r} is not acceptable in the {self.name} field ({known})")


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day-of-month", 1, 31)
MONTH = Field("month", 1, 12, tuple(MONTHS.split()))
WEEKDAY = Field("day-of-week", 0, 7, tuple(WEEKDAYS.split()))
FIELDS = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True)
class Cron:
    """A cron line that was read and fires at least now and then."""

    expression: str  # as it was given
    days: tuple[str, ...]  # croniter's own fields of midnights; due when any of them matches
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    shifts: bool  # a time that does not exist moves to the next valid instant
    repeats: bool  # a time that occurs twice is due twice


@dataclass(frozen=True)
class Tick:
    """One planned instant: in UTC, on the wall of its zone, and what the zone did to it."""

    at: datetime
    local: datetime
    note: str = ""  # "shifted: 02:30 does not exist" | "first of two 02:30" | "second of two 02:30"


@functools.lru_cache(4096)
def parse(expression: str) -> Cron:
    """Read a cron line; raises Invalid, naming the field, when it is wrong or can never fire.

    Five fields with numbers, names, lists, ranges (which may wrap: `22-2`, `fri-mon`), steps,
    `L` (last day of the month), `L5`/`5L` (last Friday), `5#2` (second Friday), or `@hourly`,
    `@daily`, `@weekly`, `@monthly`, `@yearly`. If both day fields are restricted, either may
    match; if one of them starts with `*`, both must (as cron has always done).
    """
    parts = _split(expression)
    minutes, hours, months = (_plain(FIELDS[i], parts[i]) for i in (0, 1, 3))
    days = _last_or_plain(parts[2])
    weekdays = _weekdays(parts[4])
    both = parts[2][0] in "*?" or parts[4][0] in "*?"
    pairs = [(days, w) for w in weekdays] if both else [(days, "*"), *(("*", w) for w in weekdays)]
    patterns = [f"0 0 {day} {_text(months, 12)} {weekday}" for day, weekday in pairs]
    firing = tuple(pattern for pattern in patterns if _fires(pattern))
    if not firing:
        raise Invalid(f"cron: {expression.strip()!r} never fires: no month has such a day")
    wild_hour = parts[1][0] == "*" or len(hours) == 24
    wild_minute = parts[0][0] == "*" or len(minutes) == 60
    return Cron(
        expression.strip(),
        firing,
        tuple(sorted(hours)),
        tuple(sorted(minutes)),
        shifts=not wild_hour,
        repeats=wild_hour or wild_minute,
    )


def ticks(
    cron: Cron, tz: str, after: datetime, *, n: int | None = None, until: datetime | None = None
) -> Iterator[Tick]:
    """The instants strictly after `after` at which `cron` is due in zone `tz`, in order.

    At most `n` of them, none later than `until`; without either the iterator is endless (it is
    lazy). `after` and `until` are aware. Raises Invalid for a zone that does not exist.
    """
    place = zone(tz)
    if after.tzinfo is None or (until is not None and until.tzinfo is None):
        raise ValueError("ticks: 'after' and 'until' must be aware datetimes")
    found = _ticks(cron, place, after.astimezone(UTC), until)
    if until is not None:
        found = takewhile(lambda tick: tick.at <= until, found)
    return islice(found, n)


def changes(tz: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """When the clocks of a zone change, after one instant and no later than another."""
    at, place = after.astimezone(UTC), zone(tz)
    while at <= until:
        at, changed = _next_change(place, at)
        if changed and at <= until:
            yield at


def fields(expression: str) -> list[str]:
    """The five fields of a line as they were written, aliases replaced; raises Invalid."""
    return _split(expression)


def zone(tz: str) -> zoneinfo.ZoneInfo:
    """The time zone of that name; raises Invalid, with a suggestion, if there is none."""
    if tz in _zones():
        return zoneinfo.ZoneInfo(tz)
    by_lower = {name.lower(): name for name in _zones() if "/" in name or name == "UTC"}
    close = difflib.get_close_matches(tz.lower(), by_lower, n=1, cutoff=0.8)
    hint = f"did you mean {by_lower[close[0]]}?" if close else "use a name such as Europe/Brussels"
    raise Invalid(f"there is no time zone {tz!r}; {hint}")


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


# Reading


def _split(expression: str) -> list[str]:
    text = expression.replace("\t", " ").strip().lower()
    if len(text) > MAX_LENGTH or not text.isascii() or not text.isprintable():
        raise Invalid("cron: the line must be plain ASCII of at most 1000 characters")
    if text.startswith("@"):
        text = _alias(text)
    if re.match(r"(cron_)?tz=", text):
        raise Invalid("cron: give the time zone as tz, not inside the cron line")
    parts = text.split()
    if len(parts) != 5:
        more = "; seconds and years are not supported" if len(parts) in (6, 7) else ""
        given = "1 field" if len(parts) == 1 else f"{len(parts)} fields"
        raise Invalid(
            f"cron: {text!r} has {given}, there must be 5 "
            f"(minute hour day-of-month month day-of-week){more}"
        )
    return parts


def _alias(text: str) -> str:
    if text == "@reboot":
        raise Invalid("cron: @reboot is no time; make the job a daemon, or start it by hand")
    if text not in ALIASES:
        close = difflib.get_close_matches(text, ALIASES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(ALIASES)}"
        raise Invalid(f"cron: {text!r} is not known; {hint}")
    return ALIASES[text]


def _plain(field: Field, text: str) -> frozenset[int]:
    if "?" in text and (field not in (DAY, WEEKDAY) or text != "?"):
        raise field.wrong(text)
    return frozenset().union(*(_term(field, term) for term in text.split(",")))


def _term(field: Field, term: str) -> list[int]:
    span, slash, step = term.partition("/")
    if slash and not re.fullmatch(r"0*[1-9][0-9]{0,3}", step):
        raise field.wrong(term)
    if slash and int(step) > field.high - field.low + 1:
        raise Invalid(f"cron: the step of {term!r} is longer than the whole {field.name} field")
    try:
        values = _span(field, span, open_end=bool(slash))
    except Invalid:
        raise field.wrong(term) from None
    return [value % 7 if field is WEEKDAY else value for value in values[:: int(step or 1)]]


def _span(field: Field, span: str, *, open_end: bool) -> list[int]:
    top = 6 if field is WEEKDAY else field.high  # 7 is Sunday once more: never a step of its own
    low, dash, high = span.partition("-")
    if span in ("*", "?"):
        return list(range(field.low, top + 1))
    first = field.number(low)
    first = first if first <= top else field.low
    if not dash:
        return list(range(first, top + 1)) if open_end else [first]
    last = field.number(high)
    if low == high:
        return [first]
    if first <= last:
        return list(range(first, last + 1))
    return [*range(first, top + 1), *range(field.low, last + 1)]


def _last_or_plain(text: str) -> str:
    terms = text.split(",")
    plain = [term for term in terms if term != "l"]
    if any(re.fullmatch(r"l?[0-9]*w[0-9]*", term) for term in plain):
        raise Invalid(f"cron: {text!r} in the day-of-month field: W (nearest weekday) is not known")
    days = _plain(DAY, ",".join(plain)) if plain else frozenset()
    if len(days) == 31:
        return "*"
    return ",".join([*map(str, sorted(days)), *["l"] * (len(plain) < len(terms))])


def _weekdays(text: str) -> list[str]:
    """The alternatives of the day-of-week field: croniter cannot mix plain days with 5#2 or L5."""
    special, plain = [], []
    for term in text.split(","):
        nth = re.fullmatch(r"([a-z0-9]+)#([1-5])", term)
        last = re.fullmatch(r"l([0-9]|[a-z]{3})|([0-9]|[a-z]{3})l", term)
        if nth:
            special.append(f"{WEEKDAY.number(nth[1]) % 7}#{nth[2]}")
        elif last:
            special.append(f"l{WEEKDAY.number(last[1] or last[2]) % 7}")
        else:
            plain.append(term)
    days = _plain(WEEKDAY, ",".join(plain)) if plain else frozenset()
    return [*special, *([_text(days, 7)] if days else [])]


def _text(values: frozenset[int], whole: int) -> str:
    return "*" if len(values) == whole else ",".join(map(str, sorted(values)))


def _fires(pattern: str) -> bool:
    try:
        croniter(pattern, datetime(2000, 1, 1), day_or=False).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


# Placing


def _ticks(
    cron: Cron, place: zoneinfo.ZoneInfo, start: datetime, until: datetime | None
) -> Iterator[Tick]:
    """Go through the stretches in which the zone's offset stays the same, one after the other."""
    begin = _wall(start, place)
    while start < LAST and (until is None or start <= until):
        end, changes = _next_change(place, start)
        stop = end.replace(tzinfo=None) + _offset(start, place)
        yield from _stretch(cron, place, begin, stop, _offset(start, place))
        begin = _wall(end, place)
        if changes and cron.shifts and begin > stop:
            yield from _shifted(cron, place, end, stop, begin)
        start, begin = end, begin - INSTANT  # the first instant of a stretch belongs to it


def _stretch(
    cron: Cron, place: zoneinfo.ZoneInfo, begin: datetime, stop: datetime, offset: timedelta
) -> Iterator[Tick]:
    for wall in takewhile(lambda wall: wall < stop, _walls(cron, begin)):
        local = wall.replace(tzinfo=place)
        second = local.utcoffset() != offset
        twice = local.utcoffset() != local.replace(fold=1).utcoffset()
        if second and not cron.repeats:
            continue
        note = f"{'second' if second else 'first'} of two {wall:%H:%M}" if twice else ""
        yield Tick((wall - offset).replace(tzinfo=UTC), local.replace(fold=int(second)), note)


def _shifted(
    cron: Cron, place: zoneinfo.ZoneInfo, at: datetime, stop: datetime, begin: datetime
) -> Iterator[Tick]:
    """The one tick for all the wall times in [stop, begin), which the zone leaves out."""
    missing = next(_walls(cron, stop - INSTANT), begin)
    due_anyway = next(_walls(cron, begin - INSTANT), None) == begin
    if missing < begin and not due_anyway:
        yield Tick(at, at.astimezone(place), f"shifted: {missing:%H:%M} does not exist")


def _walls(cron: Cron, after: datetime) -> Iterator[datetime]:
    """Naive wall times strictly after `after` that match; ends where the calendar does."""
    midnight = after.replace(hour=0, minute=0, second=0, microsecond=0)
    days = (day for day, _ in groupby(heapq.merge(*(_days(each, midnight) for each in cron.days))))
    times = [
        timedelta(hours=hour, minutes=minute) for hour in cron.hours for minute in cron.minutes
    ]
    return dropwhile(lambda wall: wall <= after, (day + time for day in days for time in times))


def _days(pattern: str, first: datetime) -> Iterator[datetime]:
    """The midnights from `first` on that match, a month at a time: many schedules share them."""
    month: datetime | None = first.replace(day=1)
    while month is not None:
        days, month = _month(pattern, month)
        yield from (day for day in days if day >= first)


@functools.lru_cache(4096)
def _month(pattern: str, first: datetime) -> tuple[tuple[datetime, ...], datetime | None]:
    """The days of a month that match, and the next month that has any; None: there is none."""
    steps = croniter(pattern, first - INSTANT, day_or=False)
    days: list[datetime] = []
    while True:
        try:
            day = steps.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return tuple(days), None
        if (day.year, day.month) != (first.year, first.month):
            return tuple(days), day.replace(day=1)
        days.append(day)


def _next_change(place: zoneinfo.ZoneInfo, start: datetime) -> tuple[datetime, bool]:
    """The next instant at which the offset changes, and True; or the year's end, and False."""
    changes = _changes(place, start.year)
    if (found := bisect.bisect_right(changes, start)) < len(changes):
        return changes[found], True
    return datetime(start.year + 1, 1, 1, tzinfo=UTC), False


@functools.lru_cache(4096)
def _changes(place: zoneinfo.ZoneInfo, year: int) -> tuple[datetime, ...]:
    """All changes of a zone's offset after the first instant of a year of UTC, until its end."""
    low, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = []
    while low < end:
        low, before = low + STEP, low
        if _offset(before, place) != _offset(low, place):
            found.append(_bisect(place, before, low))
    return tuple(found)


def _bisect(place: zoneinfo.ZoneInfo, low: datetime, high: datetime) -> datetime:
    low, high = low.replace(microsecond=0), high.replace(microsecond=0)
    before = _offset(low, place)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        low, high = (middle, high) if _offset(middle, place) == before else (low, middle)
    return high


def _wall(at: datetime, place: zoneinfo.ZoneInfo) -> datetime:
    return at.astimezone(place).replace(tzinfo=None, fold=0)


def _offset(at: datetime, place: zoneinfo.ZoneInfo) -> timedelta:
    return at.astimezone(place).utcoffset() or timedelta(0)

"""What a schedule says, and when it is due: all its lines in one zone (pure, no database).

A line is one of

* a cron line (``kirby.server.cron``): `30 2 * * *`, `@daily`,
* `every 45m`, or `every 45m from 2026-01-01T06:00`: instants at a fixed distance (s, m, h, d, w),
  whatever the clocks of the zone do; the first of them is `from`, on the wall of the zone.
  Without `from` they are counted from the midnight at which 2024 began there, a Monday,
* `after: JOB`: whenever a run of that job has succeeded.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, takewhile
from zoneinfo import ZoneInfo

from kirby.core.errors import Invalid
from kirby.server import cron, scripts, spans
from kirby.server.cron import Cron, Tick

MOST_LINES = 50
EVERY = re.compile(r"every\s+(\S+)(?:\s+from\s+(.+))?", re.IGNORECASE)
AFTER = re.compile(r"after\s*:\s*(.*)", re.IGNORECASE)
LONGEST = timedelta(weeks=520)  # of an interval
ANCHOR = datetime(2024, 1, 1)  # of intervals that name none: a Monday, in the zone's present ways
FIRST = datetime(1900, 1, 1, tzinfo=UTC)  # nothing before it is looked for
LOOK_BACK = timedelta(hours=1)  # the first stretch that is searched for earlier ticks
FARTHEST_BACK = timedelta(days=50 * 366)  # no cron line is silent for longer


@dataclass(frozen=True, slots=True)
class Interval:
    """Instants at a fixed distance, and the line that says so. `start`: none is before it."""

    line: str
    every: timedelta
    anchor: datetime
    start: datetime

    def ticks(self, place: ZoneInfo, after: datetime) -> Iterator[Tick]:
        """Those strictly after `after`, until the calendar ends."""
        at = self.anchor + ((after - self.anchor) // self.every + 1) * self.every
        at = max(at, self.start)
        while at < cron.LAST:
            yield _tick(place, at)
            at += self.every


@dataclass(frozen=True, slots=True)
class Schedule:
    """All lines of a schedule, read; `after_jobs`: those whose success makes it due."""

    lines: tuple[str, ...]
    tz: str
    crons: tuple[Cron, ...] = ()
    intervals: tuple[Interval, ...] = ()
    after_jobs: tuple[str, ...] = ()

    @property
    def has_ticks(self) -> bool:
        """Whether it names instants, not only other jobs."""
        return bool(self.crons or self.intervals)

    def ticks(
        self, after: datetime, *, n: int | None = None, until: datetime | None = None
    ) -> Iterator[Tick]:
        """The distinct instants strictly after `after`, in order: at most `n`, none after `until`.

        Both are aware. Lazy; without `n` and `until` it is endless.
        """
        if after.tzinfo is None or (until is not None and until.tzinfo is None):
            raise ValueError("ticks: 'after' and 'until' must be aware datetimes")
        found = _merged(self._series(after.astimezone(UTC), until))
        if until is not None:
            found = takewhile(lambda tick: tick.at <= until, found)
        return islice(found, n)

    def before(self, at: datetime, n: int = 1) -> list[Tick]:
        """The last `n` instants at or before `at`, in order; fewer if there never were so many."""
        found: deque[Tick] = deque()
        end, span = at.astimezone(UTC), LOOK_BACK
        while self.has_ticks and len(found) < n and end > max(FIRST, at - FARTHEST_BACK):
            start = max(end - span, FIRST)
            found.extendleft(reversed(deque(self.ticks(start, until=end), n)))
            end, span = start, span * 2
        return list(found)[-n:] if n > 0 else []

    def period(self, at: datetime) -> timedelta | None:
        """How far apart the next two instants after `at` are; None when there are no two."""
        dues = [tick.at for tick in self.ticks(at, n=2)]
        return dues[1] - dues[0] if len(dues) == 2 else None

    def _series(self, after: datetime, until: datetime | None) -> Iterator[Iterator[Tick]]:
        for each in self.crons:
            yield cron.ticks(each, self.tz, after, until=until)
        place = cron.zone(self.tz)
        for interval in self.intervals:
            yield interval.ticks(place, after)


def parse(lines: Sequence[str], tz: str) -> Schedule:
    """Read the lines of a schedule in a zone; raises Invalid, naming the line that is wrong.

    What has been read once is remembered: it costs next to nothing.
    """
    return _parse(tuple(line.strip() for line in lines), tz)


@functools.lru_cache(16384)
def _parse(lines: tuple[str, ...], tz: str) -> Schedule:
    place = cron.zone(tz)
    if len(lines) > MOST_LINES:
        raise Invalid(f"a schedule has at most {MOST_LINES} lines: these are {len(lines)}")
    read = [_numbered(lines, n, place) for n in range(len(lines))]
    return Schedule(
        lines=lines,
        tz=tz,
        crons=tuple(each for each in read if isinstance(each, Cron)),
        intervals=tuple(each for each in read if isinstance(each, Interval)),
        after_jobs=tuple(dict.fromkeys(each for each in read if isinstance(each, str))),
    )


def offset(deployment: str, jitter: float) -> timedelta:
    """The part of the jitter (in seconds) by which a deployment is late: always the same, >= 0.

    `deployment` is what is called by that name everywhere: environment/job.
    """
    digest = hashlib.sha256(deployment.encode()).digest()
    return timedelta(milliseconds=int(jitter * 1000 * int.from_bytes(digest[:6]) / 2**48))


def moment(text: str, tz: str) -> datetime:
    """A time as people write it: ISO 8601, on the wall of the zone if it says none; else Invalid.

    A time that occurs twice is the first one; one that does not exist is refused.
    """
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(f"{text!r} is not a time: write it like 2027-03-28T01:00") from None
    if not FIRST.year <= given.year < cron.LAST.year:
        raise Invalid(f"{text!r} is out of reach: from {FIRST.year} to {cron.LAST.year}")
    if given.tzinfo is not None:
        return given.astimezone(UTC)
    at = given.replace(tzinfo=cron.zone(tz)).astimezone(UTC)
    if at.astimezone(cron.zone(tz)).replace(tzinfo=None) != given:
        raise Invalid(f"{text} does not exist in {tz}: its clocks were put forward")
    return at


# Reading


def _numbered(lines: tuple[str, ...], n: int, place: ZoneInfo) -> Cron | Interval | str:
    try:
        return _line(lines[n], place)
    except Invalid as error:
        if len(lines) == 1:
            raise
        raise Invalid(f"schedule line {n + 1} ({lines[n][:60]}): {error}") from None


def _line(line: str, place: ZoneInfo) -> Cron | Interval | str:
    if after := AFTER.fullmatch(line):
        return _job(line, after[1])
    if every := EVERY.fullmatch(line):
        return _interval(line, every[1], every[2], place)
    if re.match(r"@?every\b", line, re.IGNORECASE):
        raise _wrong(line)
    return cron.parse(line)


def _job(line: str, name: str) -> str:
    if not scripts.NAME.fullmatch(name):
        raise Invalid(f"{line!r}: write 'after: JOB', one job a line")
    return name


def _interval(line: str, written: str, start: str | None, place: ZoneInfo) -> Interval:
    try:
        every = spans.parse(written)
    except Invalid:
        raise _wrong(line) from None
    if every is None or every > LONGEST:
        raise Invalid(f"{line!r}: at most {spans.text(LONGEST)} lie between two runs")
    if start is not None:
        begin = moment(start, place.key)
        return Interval(line, every, begin, begin)
    return Interval(line, every, ANCHOR.replace(tzinfo=place).astimezone(UTC), FIRST)


def _wrong(line: str) -> Invalid:
    return Invalid(f"{line!r}: write it like 'every 45m' or 'every 2h from 2026-01-01T06:00'")


# Ticks


def _merged(series: Iterator[Iterator[Tick]]) -> Iterator[Tick]:
    """In order; instants that several lines name are one, with what each of them notes."""
    for _, meeting in groupby(heapq.merge(*series, key=lambda tick: tick.at), lambda tick: tick.at):
        first, *others = meeting
        notes = dict.fromkeys(each.note for each in (first, *others) if each.note)
        yield Tick(first.at, first.local, "; ".join(notes)) if others else first


def _tick(place: ZoneInfo, at: datetime) -> Tick:
    local = at.astimezone(place)
    other = local.replace(fold=1 - local.fold)
    if local.utcoffset() == other.utcoffset():
        return Tick(at, local)
    return Tick(at, local, f"{'second' if local.fold else 'first'} of two {local:%H:%M}")

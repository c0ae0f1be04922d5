"""When a recurring exception holds, and how dense a schedule is (pure, no database)."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

from kirby.core.errors import Invalid
from kirby.server import cron
from kirby.server.schedules import Schedule

MOST = 5000
WEEKS = timedelta(weeks=4)
SAMPLE = 2000  # ticks from which a density is taken


def of(recurs: str, lasts: float, tz: str, begin: datetime, until: datetime) -> list[list[str]]:
    """The windows between two times: `lasts` seconds from each instant of the cron line `recurs`.

    [[from, until], …] in ISO 8601, in order; none overlap. Raises Invalid: none, or too many.
    """
    line, span = cron.parse(recurs), timedelta(seconds=lasts)
    found: list[list[datetime]] = []
    for tick in cron.ticks(line, tz, begin - span, until=until - cron.INSTANT):
        first, last = max(tick.at, begin), min(tick.at + span, until)
        if found and first <= found[-1][1]:
            found[-1][1] = max(last, found[-1][1])
        elif first < last:
            found.append([first, last])
        if len(found) > MOST:
            raise Invalid(f"that would be more than {MOST:,} windows: let it end sooner")
    if not found:
        raise Invalid(f"{recurs} does not come before {until:%Y-%m-%d %H:%M} UTC")
    return [[first.isoformat(), last.isoformat()] for first, last in found]


def density(schedule: Schedule, begin: datetime) -> float:
    """How many instants it names in four weeks: of two, the one with fewer is the slower one."""
    dues = [tick.at for tick in schedule.ticks(begin, n=SAMPLE)]
    within = sum(1 for _ in takewhile(lambda at: at <= begin + WEEKS, dues))
    if within < SAMPLE:
        return float(within)
    return SAMPLE * (WEEKS / (dues[-1] - begin))

"""The timeline of a schedule: what became of its ticks, what is to come, exceptions as bands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kirby.server import cron, exceptions, query

WIDTH, HEIGHT, AXIS = 960.0, 84.0, 22.0
BEHIND, AHEAD = timedelta(hours=24), timedelta(hours=24)
MOST = 600

TICKS = """
    select t.at, t.status, t.reason, t.run_id, t.note, t.excluded, r.status as run
      from kirby.tick t
      left join kirby.run r on r.id = t.run_id
     where t.deployment_id = %(deployment_id)s and t.at between %(begin)s and %(stop)s
     order by t.at desc
     limit %(most)s
"""
WINDOWS = """
    select w.exception_id as id, w.effect, w.schedules, w.most, w.per, w.from_at, w.until_at,
           w.reason
      from kirby.windows_of(%(deployment_id)s, %(begin)s, %(stop)s, kirby.now()) w
     limit 200
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A tick: where it lies, what became of it ("planned", "skipped" or its run's status)."""

    x: float
    state: str
    words: str
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Band:
    """An exception, while it holds."""

    x: float
    width: float
    id: int
    words: str


@dataclass(frozen=True, slots=True)
class Hour:
    x: float
    words: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All in units of the drawing; ``now`` is a line."""

    marks: list[Mark]
    bands: list[Band]
    hours: list[Hour]
    now: float
    width: float = WIDTH
    height: float = HEIGHT
    floor: float = HEIGHT - AXIS


@dataclass(frozen=True, slots=True)
class _Tick:
    at: datetime
    status: str
    reason: str | None
    run_id: int | None
    note: str
    excluded: str | None
    run: str | None


@dataclass(frozen=True, slots=True)
class _Window:
    id: int
    effect: str
    schedules: list[str]
    most: int | None
    per: float | None
    from_at: datetime
    until_at: datetime
    reason: str


def of(conn: Connection, deployment_id: int, tz: str, now: datetime) -> Timeline:
    """A day back and a day ahead, as it is known now."""
    begin, stop = now - BEHIND, now + AHEAD
    span = {"deployment_id": deployment_id, "begin": begin, "stop": stop}
    ticks = query.rows(conn, _Tick, TICKS, most=MOST, **span)
    windows = query.rows(conn, _Window, WINDOWS, **span)
    return Timeline(
        [_mark(each, begin, tz) for each in reversed(ticks)],
        [_band(each, begin, stop, tz) for each in windows],
        _hours(begin, stop, tz),
        _x(now, begin),
    )


def _x(at: datetime, begin: datetime) -> float:
    share = (at - begin) / (BEHIND + AHEAD)
    return round(min(max(share, 0.0), 1.0) * WIDTH, 1)


def _mark(tick: _Tick, begin: datetime, tz: str) -> Mark:
    state = tick.run or tick.status
    if tick.status == "planned" and tick.excluded:
        state = "skipped"
    what = tick.reason or (f"excluded by {tick.excluded}" if tick.excluded else state)
    words = f"{_clock(tick.at, tz)}: {what}" + (f" ({tick.note})" if tick.note else "")
    return Mark(_x(tick.at, begin), state, words, tick.run_id)


def _band(window: _Window, begin: datetime, stop: datetime, tz: str) -> Band:
    first, last = _x(max(window.from_at, begin), begin), _x(min(window.until_at, stop), begin)
    what = exceptions.effect_text(window.effect, window.schedules, window.most, window.per)
    span = f"{_clock(window.from_at, tz)} to {_clock(window.until_at, tz)}"
    return Band(first, max(last - first, 1.0), window.id, f"{what}, {span}: {window.reason}")


def _hours(begin: datetime, stop: datetime, tz: str) -> list[Hour]:
    """Every six hours of the wall of the zone; midnight has its day."""
    found = cron.ticks(cron.parse("0 0,6,12,18 * * *"), tz, begin, until=stop)
    return [
        Hour(
            _x(each.at, begin), f"{each.local:%H:%M}" if each.local.hour else f"{each.local:%a %d}"
        )
        for each in found
    ]


def _clock(at: datetime, tz: str) -> str:
    return f"{at.astimezone(cron.zone(tz)):%a %H:%M}"

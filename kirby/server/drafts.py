"""Schedules before they are deployed: what they say, when they would run, what may surprise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import (
    calendars,
    environments,
    followers,
    query,
    schedule_hints,
    schedule_words,
    schedules,
)
from kirby.server.exclusions import Calendars
from kirby.server.plans import Plan

MOST = 1000  # ticks of one preview
SOME = 5  # ticks that the page of a deploy shows


@dataclass(frozen=True, slots=True)
class DraftTick:
    """An instant that a schedule names. `excluded`: the calendar and its day or window, or "".

    `note`: what the zone did to it; `starts`: when it would begin, its jitter included.
    """

    at: datetime
    local: datetime
    note: str
    excluded: str
    starts: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """A schedule that was read: in words, its next instants, and what may surprise."""

    says: str
    tz: str
    ticks: list[DraftTick]
    warnings: list[str]


def draft(
    lines: Sequence[str],
    tz: str,
    after: datetime,
    n: int,
    *,
    excluding: Calendars | None = None,
    jitter: float = 0.0,
    deployment: str = "",
) -> Draft:
    """The next `n` instants strictly after `after`; raises Invalid as ``schedules.parse``.

    `deployment` (environment/job) settles how much of the jitter (seconds) it gets.
    """
    if not 1 <= n <= MOST:
        raise Invalid(f"a preview has from 1 to {MOST:,} ticks, not {n}")
    late = schedules.offset(deployment, jitter) if deployment else timedelta(0)
    held = excluding or Calendars()
    ticks = [
        DraftTick(tick.at, tick.local, tick.note, held.excluded(tick.at, tz), tick.at + late)
        for tick in schedules.parse(lines, tz).ticks(after, n=n)
    ]
    warnings = schedule_hints.warnings(lines, tz, after)
    return Draft(schedule_words.explain(lines, tz), tz, ticks, warnings)


def of_plan(conn: Connection, plan: Plan, *, n: int = SOME) -> Draft:
    """The same of what is about to be deployed, from the database's clock on."""
    place = environments.get(conn, plan.environment)
    found = draft(
        plan.schedules,
        plan.tz,
        now(conn),
        n,
        excluding=calendars.load(conn, place.id, plan.exclude),
        jitter=plan.jitter,
        deployment=f"{plan.environment}/{plan.name}",
    )
    found.warnings.extend(_unknown(conn, plan))
    return found


def warnings(conn: Connection, plan: Plan) -> list[str]:
    """What may surprise of what is about to be deployed."""
    return [
        *schedule_hints.warnings(plan.schedules, plan.tz, now(conn)),
        *_unknown(conn, plan),
    ]


def now(conn: Connection) -> datetime:
    """The database's clock."""
    at: datetime = query.value(conn, "select kirby.now()")
    return at


def _unknown(conn: Connection, plan: Plan) -> list[str]:
    read = schedules.parse(plan.schedules, plan.tz)
    missing = followers.unknown(conn, plan.environment, plan.name, read)
    return [
        f"there is no job {job} in {plan.environment} yet: until there is, nothing runs after it"
        for job in missing
    ]

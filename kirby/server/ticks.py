"""Plan the instants at which deployments are due, as rows that are there before them.

A row is an instant, whatever names it: the deployment's own schedule, the schedule that an
exception puts in its place, the end of an exception that asks for a run. What becomes of it is
decided when it is due (``kirby.fire_deployment``), so an exception that begins or ends needs no
planning to count.

`deployment.plan_at` says when a deployment is to be looked at: planning costs what is due, not what
exists. It is idempotent, and right whoever does it: a lock on the deployment, one transaction.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import time
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core import db
from kirby.server import cron, exclusions, recurring, schedules
from kirby.server.exclusions import Calendars
from kirby.server.schedules import Schedule

log = logging.getLogger("kirby.ticks")

AHEAD = timedelta(hours=24)  # planned at least so far …
FEW, MANY = 10, 20  # … or at least FEW ticks; then up to MANY are planned
MOST_REPLACED = 300  # ticks of a schedule that an exception puts in the place of another
AGAIN = timedelta(minutes=10)  # until what could not be planned is tried once more
RACE = timedelta(minutes=5)  # ends of exceptions are looked for so far back: a commit may be late
LOOK = timedelta(hours=12)  # a deployment with exceptions to come is looked at so often
MOST_COUNTED = 10_000  # ticks that were never planned
SPREAD = 300.0  # seconds, at most, over which jobs return from one exception
BATCH = 50  # deployments in one transaction

DEPLOYMENTS: LiteralString = """
select d.id, e.name || '/' || j.name as name, d.environment_id, d.version,
       d.planned_version = d.version as is_known, d.planned_at, d.planned_until,
       d.plan_at = 'epoch' as again, j.kind, v.schedules, v.tz, v.exclude, v.jitter, v.catch_up,
       v.catch_up_most
  from kirby.deployment d
  join kirby.job j on j.id = d.job_id
  join kirby.environment e on e.id = d.environment_id
  join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
"""
DUE = (
    DEPLOYMENTS
    + " where d.plan_at <= kirby.now() order by d.plan_at, d.id limit %s"
    + " for no key update of d skip locked"
)
ONE = DEPLOYMENTS + " where d.id = %s for no key update of d"
OUTDATED = """
update kirby.deployment set plan_at = 'epoch'
 where plan_at is not null and planned_tzdata not in ('', %s)
"""
WINDOWS = """
select d.id as deployment_id, w.exception_id, w.effect, w.schedules, w.tz, w.from_at, w.until_at,
       w.on_return
  from unnest(%s::integer[], %s::timestamptz[]) as d (id, since)
 cross join lateral (
       select * from kirby.windows_of(d.id, d.since, 'infinity', %s) o
        where o.effect = 'schedule' or o.on_return <> 'next_tick'
        order by o.from_at limit 200) w
 where exists (select from kirby.exception_window o where o.until_at > d.since)
"""
HERD = """
select x.id, cardinality(kirby.deployments_in(x.environment_id, x.scope, x.target))
  from kirby.schedule_exception x where x.id = any(%s)
"""
CALENDARS = """
select distinct on (d.environment_id, c.name)
       d.environment_id, c.name, c.tz, c.days, c.windows
  from unnest(%s::smallint[]) as d (environment_id)
  join kirby.calendar c on c.environment_id = d.environment_id or c.environment_id is null
 where c.name = any(%s)
 order by d.environment_id, c.name, c.environment_id nulls last
"""
# "not in": the index of all that is planned would be the wrong one
FORGET = """
delete from kirby.tick t
 where t.deployment_id = any(%(ids)s) and t.at > %(now)s and t.after_run is null
   and t.status not in ('queued', 'skipped')
   and (t.deployment_id = any(%(changed)s) or not exists (
         select from jsonb_to_recordset(%(rows)s) as n (deployment_id integer, at timestamptz,
                local text, note text, own boolean, exceptions integer[], returns integer[],
                fire_at timestamptz, excluded text)
          where n.deployment_id = t.deployment_id and n.at = t.at
            and (n.local, n.note, n.own, n.exceptions, n.returns)
              = (t.local, t.note, t.own, t.exceptions, t.returns)
            and n.fire_at is not distinct from t.fire_at
            and n.excluded is not distinct from t.excluded))
"""
SUPERSEDED = """
select kirby.skip_tick(t, 'another version was deployed after it', '{}')
  from kirby.tick t
 where t.deployment_id = any(%s) and t.status = 'planned' and t.own and not t.again
   and t.returns = '{}' and coalesce(t.fire_at, t.at) < %s - interval '30 seconds'
"""
ADD = """
insert into kirby.tick (deployment_id, at, local, note, own, exceptions, returns, fire_at,
                        excluded)
select t.*
  from jsonb_to_recordset(%s) as t (deployment_id integer, at timestamptz, local text, note text,
       own boolean, exceptions integer[], returns integer[], fire_at timestamptz, excluded text)
on conflict (deployment_id, at) do nothing
"""
PLANNED = """
update kirby.deployment d
   set plan_at = p.plan_at, planned_at = %s, planned_until = p.planned_until,
       planned_version = p.version, planned_tzdata = %s
  from jsonb_to_recordset(%s) as p (id integer, version integer, plan_at timestamptz,
                                    planned_until timestamptz)
 where d.id = p.id
"""
MISSED = "select kirby.append_job_event(null, %s, 'ticks_missed', %s, 'kirby')"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One that is to be planned. `again`: something changed, what is to come is planned anew."""

    id: int
    name: str
    environment_id: int
    version: int
    is_known: bool | None
    planned_at: datetime | None
    planned_until: datetime | None
    again: bool
    kind: str
    schedules: list[str]
    tz: str
    exclude: list[str]
    jitter: float
    catch_up: str
    catch_up_most: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window of an exception that puts another schedule there, or asks for a run at its end."""

    deployment_id: int
    exception_id: int
    effect: str
    schedules: list[str]
    tz: str
    from_at: datetime
    until_at: datetime
    on_return: str


@dataclass(slots=True)
class Row:
    """An instant, and what names it."""

    local: str
    note: str = ""
    own: bool = False
    exceptions: list[int] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    fire_at: datetime | None = None
    excluded: str | None = None


@dataclass(slots=True)
class Plan:
    """What is planned for one deployment: its rows, and when it is looked at again."""

    is_anew: bool  # what was planned is forgotten
    rows: dict[datetime, Row] = field(default_factory=dict)
    plan_at: datetime | None = None
    planned_until: datetime | None = None
    missed: tuple[datetime, datetime, int] | None = None  # never planned, and not caught up


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a batch depends on beside its deployments."""

    now: datetime
    windows: dict[int, list[Window]]
    herds: dict[int, int]
    calendars: dict[int, dict[str, exclusions.Calendar]]
    ahead: timedelta = AHEAD
    most: int = MANY

    def calendars_of(self, deployment: Deployment) -> Calendars:
        """What its schedule excludes; a calendar that is gone excludes nothing."""
        known = self.calendars.get(deployment.environment_id, {})
        return Calendars(tuple(known[name] for name in deployment.exclude if name in known))


class Planner:
    """Keeps ticks planned ahead. It may be forgotten at any time: all it knows is in the rows."""

    def __init__(self) -> None:
        self._tzdata = tzdata()
        self._is_new = True
        self._renewal = recurring.Renewal()
        self.behind = False

    def plan(self, conn: db.Connection, budget: float = float("inf")) -> int:
        """Plan what is to be planned, for about `budget` seconds; returns how many ticks.

        ``behind`` says whether anything is left.
        """
        if self._is_new:  # of time zones this process may know more, or less, than the one before
            conn.execute(OUTDATED, [self._tzdata])
            self._renewal.begin(conn)
            self._is_new = False
        until = time.monotonic() + budget
        self._renewal.go_on(conn, until)
        planned = 0
        self.behind = True
        while self.behind and time.monotonic() < until:
            count, made = self._batch(conn)
            planned += made
            self.behind = count == BATCH
        return planned

    def _batch(self, conn: db.Connection) -> tuple[int, int]:
        with conn.transaction(), conn.cursor(row_factory=class_row(Deployment)) as cursor:
            due = cursor.execute(DUE, [BATCH]).fetchall()
            if not due:
                return 0, 0
            around = _surroundings(conn, due)
            plans = {each.id: _plan(each, around) for each in due}
            return len(due), _write(conn, due, plans, around.now, self._tzdata)


def plan_one(conn: db.Connection, id: int, most: int, ahead: timedelta) -> datetime | None:
    """Plan `most` ticks of one deployment, whether that is due or not; the instant of the last.

    For a look ahead, in a transaction that is rolled back: it locks the deployment.
    """
    with conn.cursor(row_factory=class_row(Deployment)) as cursor:
        found = [replace(each, again=True) for each in cursor.execute(ONE, [id])]
    around = replace(_surroundings(conn, found), ahead=ahead, most=most)
    plans = {each.id: _plan(each, around) for each in found}
    _write(conn, found, plans, around.now, "")
    own = [at for plan in plans.values() for at, row in plan.rows.items() if row.own]
    return max(own, default=None)


def tzdata() -> str:
    """The version of the time zones that this process knows."""
    for folder in map(Path, zoneinfo.TZPATH):
        for name in ("tzdata.zi", "+VERSION"):
            if (folder / name).is_file():
                return (folder / name).read_text().partition("\n")[0].removeprefix("# version ")
    return importlib.metadata.version("tzdata")


# What a plan depends on


def _surroundings(conn: db.Connection, due: Sequence[Deployment]) -> Surroundings:
    now: datetime = db.scalar(conn, "select kirby.now()")
    windows: dict[int, list[Window]] = {}
    with conn.cursor(row_factory=class_row(Window)) as cursor:
        since = [min(each.planned_at or now, now) - RACE for each in due]
        for window in cursor.execute(WINDOWS, [[each.id for each in due], since, now]):
            windows.setdefault(window.deployment_id, []).append(window)
    ids = sorted({each.exception_id for found in windows.values() for each in found})
    herds = dict(conn.execute(HERD, [ids]).fetchall()) if ids else {}
    return Surroundings(now, windows, herds, _calendars(conn, due))


def _calendars(
    conn: db.Connection, due: Sequence[Deployment]
) -> dict[int, dict[str, exclusions.Calendar]]:
    names = sorted({name for each in due for name in each.exclude})
    found: dict[int, dict[str, exclusions.Calendar]] = {}
    if names:
        places = sorted({each.environment_id for each in due})
        for place, name, tz, days, windows in conn.execute(CALENDARS, [places, names]):
            found.setdefault(place, {})[name] = exclusions.of(name, tz, days, windows)
    return found


# One deployment


def _plan(deployment: Deployment, around: Surroundings) -> Plan:
    """Its ticks up to a day ahead; never for the past of a version that is new."""
    plan = Plan(_is_anew(deployment, around), planned_until=around.now)
    if deployment.kind != "scheduled":
        return plan
    try:
        schedule = schedules.parse(deployment.schedules, deployment.tz)
        if schedule.has_ticks:
            _plan_own(plan, deployment, schedule, around)
        for window in around.windows.get(deployment.id, ()):
            _plan_window(plan, deployment, window, around)
    except Exception as error:  # what is wrong with one holds up no other
        log.warning("%s cannot be planned: %s", deployment.name, error)
        return Plan(False, plan_at=around.now + AGAIN, planned_until=around.now)
    return plan


def _is_anew(deployment: Deployment, around: Surroundings) -> bool:
    known = deployment.is_known and deployment.planned_until
    is_behind = not known or known < around.now
    return deployment.again or is_behind or deployment.id in around.windows


def _plan_own(plan: Plan, deployment: Deployment, schedule: Schedule, around: Surroundings) -> None:
    now, known = around.now, deployment.is_known and deployment.planned_until
    found = _gap(plan, deployment, schedule, known, now) if known and known < now else []
    after = now if plan.is_anew or not known else known
    ahead, most = around.ahead, around.most if plan.is_anew else MANY - FEW
    coming = list(_coming(schedule, after, now + ahead, most))
    calendars = around.calendars_of(deployment)
    for tick in (*found, *coming):
        row = _row(plan, tick)
        row.own = True
        row.excluded = calendars.excluded(tick.at, deployment.tz) or None
        if deployment.jitter:
            row.fire_at = tick.at + schedules.offset(deployment.name, deployment.jitter)
    if coming:
        last = plan.planned_until = coming[-1].at
        if len(coming) == most or last >= now + ahead:  # else the schedule ends there
            plan.plan_at = max(
                coming[-FEW].at if len(coming) >= FEW else last - AHEAD, last - AHEAD
            )
    elif known and known > now:
        plan.planned_until = known


def _coming(schedule: Schedule, after: datetime, ahead: datetime, most: int) -> Iterator[cron.Tick]:
    """At most so many ticks, and none after the first one that is beyond `ahead`."""
    for tick in schedule.ticks(after, n=most):
        yield tick
        if tick.at >= ahead:
            return


def _gap(
    plan: Plan, deployment: Deployment, schedule: Schedule, since: datetime, now: datetime
) -> list[cron.Tick]:
    """Of the ticks that nobody planned in time the last ones, as its catch-up asks; of the
    others it is kept how many they were."""
    most = deployment.catch_up_most if deployment.catch_up == "all" else 1
    last = [tick for tick in schedule.before(now, most) if tick.at > since]
    if len(last) == most:
        others = schedule.ticks(since, n=MOST_COUNTED, until=last[0].at - cron.INSTANT)
        if count := sum(1 for _ in others):
            plan.missed = (since, last[0].at, count)
    return last


def _plan_window(plan: Plan, deployment: Deployment, window: Window, around: Surroundings) -> None:
    """The ticks of the schedule that it puts in the place of another; the run at its end."""
    now, until = around.now, around.now + around.ahead
    again = [now + LOOK]
    if window.effect == "schedule" and window.from_at <= until:
        instead = schedules.parse(window.schedules, window.tz)
        first = max(window.from_at - cron.INSTANT, now)
        stop = min(window.until_at - cron.INSTANT, until)
        found = list(instead.ticks(first, n=MOST_REPLACED, until=stop))
        for tick in found:
            _row(plan, tick).exceptions.append(window.exception_id)
        if len(found) == MOST_REPLACED:
            again.append(found[MOST_REPLACED // 2].at)
    if window.on_return != "next_tick" and window.until_at <= until:
        _plan_return(plan, deployment, window, around)
    plan.plan_at = min(again if plan.plan_at is None else [*again, plan.plan_at])


def _plan_return(plan: Plan, deployment: Deployment, window: Window, around: Surroundings) -> None:
    """At its end, jobs that return together a little after each other, and never all at once."""
    spread = min(SPREAD, around.herds.get(window.exception_id, 1) - 1.0)
    local = window.until_at.astimezone(cron.zone(deployment.tz))
    note = f"after exception {window.exception_id}"
    row = _row(plan, cron.Tick(window.until_at, local, note))
    row.returns.append(window.exception_id)
    if not row.own:
        row.fire_at = window.until_at + schedules.offset(deployment.name, spread)


def _row(plan: Plan, tick: cron.Tick) -> Row:
    local = f"{tick.local:%Y-%m-%d %H:%M:%S %Z}"
    return plan.rows.setdefault(tick.at, Row(local, tick.note))


# What is written


def _write(
    conn: db.Connection,
    due: Sequence[Deployment],
    plans: dict[int, Plan],
    now: datetime,
    version: str,
) -> int:
    rows = list(itertools.chain.from_iterable(_documents(id, plans[id]) for id in plans))
    anew = [id for id, plan in plans.items() if plan.is_anew]
    changed = [each.id for each in due if not each.is_known]  # their marks are others, too
    conn.execute(SUPERSEDED, [[each.id for each in due if each.is_known is False], now])
    conn.execute(FORGET, {"ids": anew, "changed": changed, "now": now, "rows": Jsonb(rows)})
    added = conn.execute(ADD, [Jsonb(rows)]).rowcount if rows else 0
    for id, plan in plans.items():
        if plan.missed:
            since, until, count = plan.missed
            said = {"from": since.isoformat(), "until": until.isoformat(), "count": count}
            conn.execute(MISSED, [id, Jsonb(said)])
    conn.execute(PLANNED, [now, version, Jsonb(list(_looks(due, plans)))])
    return added


def _documents(id: int, plan: Plan) -> Iterable[dict[str, object]]:
    for at, row in plan.rows.items():
        yield {
            "deployment_id": id,
            "at": at.isoformat(),
            "local": row.local,
            "note": row.note,
            "own": row.own,
            "exceptions": row.exceptions,
            "returns": row.returns,
            "fire_at": row.fire_at and row.fire_at.isoformat(),
            "excluded": row.excluded,
        }


def _looks(due: Sequence[Deployment], plans: dict[int, Plan]) -> Iterable[dict[str, object]]:
    for each in due:
        plan = plans[each.id]
        yield {
            "id": each.id,
            "version": each.version,
            "plan_at": plan.plan_at and plan.plan_at.isoformat(),
            "planned_until": plan.planned_until and plan.planned_until.isoformat(),
        }

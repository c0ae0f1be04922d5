"""What will become of the ticks of a deployment, and what became of those before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import cron, deployments, query, ticks
from kirby.server.database import driver

MOST = 1000  # ticks at once
AHEAD = timedelta(days=366)
REPLACED_AHEAD = timedelta(days=7)  # of a job without a schedule of its own

FATES = {"queued": "run", "skipped": "skip"}

ZONE = """
    select v.tz from kirby.deployment d
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where d.id = %(id)s
"""
AHEAD_OF = """
    select at, starts, note, reason, exceptions
      from kirby.preview_ticks(%(id)s, %(tz)s, coalesce(%(until)s, kirby.now() + %(ahead)s))
"""
BEFORE = """
    select status, at, coalesce(fire_at, at), note, reason, held_by, run_id
      from kirby.tick
     where deployment_id = %(id)s and at >= %(since)s and at <= kirby.now()
     order by at
     limit %(n)s
"""


@dataclass(frozen=True, slots=True)
class Previewed:
    """A tick. `decision`: run or skip, with its reason and the exceptions that hold it.

    `local`: on the wall of its zone; `starts`: its jitter included. Of one that was due: `run_id`.
    """

    at: datetime
    local: datetime
    note: str
    starts: datetime
    decision: str
    reason: str
    exceptions: list[int]
    run_id: int | None = None


def preview(conn: Connection, environment: str, job: str, *, n: int = 20) -> list[Previewed]:
    """The next `n` ticks: what will become of each as exceptions and calendars stand now.

    Runs are taken to end before the next one. Raises NotFound. Nothing is changed: it is planned
    and decided as the leader does, and rolled back.
    """
    id, tz = _find(conn, environment, job, n)
    with conn.begin_nested() as nested:
        until = ticks.plan_one(driver(conn), id, n, AHEAD)
        asked = {"id": id, "tz": tz, "until": until, "ahead": REPLACED_AHEAD}
        rows = driver(conn).execute(AHEAD_OF, asked).fetchall()
        nested.rollback()
    return [_tick(tz, "skip" if row[3] else "run", *row) for row in rows[:n]]


def history(
    conn: Connection, environment: str, job: str, since: datetime, *, n: int = 20
) -> list[Previewed]:
    """The first `n` ticks from `since` on that were due, and what became of them."""
    id, tz = _find(conn, environment, job, n)
    rows = driver(conn).execute(BEFORE, {"id": id, "since": since, "n": n})
    return [_tick(tz, FATES.get(status, status), *row) for status, *row in rows]


def _tick(
    tz: str,
    decision: str,
    at: datetime,
    starts: datetime,
    note: str,
    reason: str | None,
    exceptions: list[int],
    run_id: int | None = None,
) -> Previewed:
    local = at.astimezone(cron.zone(tz))
    return Previewed(at, local, note, starts, decision, reason or "", exceptions, run_id)


def _find(conn: Connection, environment: str, job: str, n: int) -> tuple[int, str]:
    if not 1 <= n <= MOST:
        raise Invalid(f"from 1 to {MOST:,} ticks can be shown, not {n}")
    found = deployments.find(conn, environment, job)
    if found is None:
        raise NotFound(f"there is no job {job} in {environment}")
    return found[0], str(query.value(conn, ZONE, id=found[0]))

"""Runs: where each stands, what it said, what happened to it; cancelling and retrying one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import query
from kirby.server.environments import Environment

STATUSES = (
    "queued",
    "starting",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
    "lost",
    "skipped",
)
LIVE = ("queued", "starting", "running")
BAD = ("failed", "timed_out", "lost")
GROUPS = {"live": LIVE, "bad": BAD}

RUNS: LiteralString = """
    select r.id, j.name as job, j.kind, e.name as environment, r.deployment_id, r.version, r.status,
           r.cause, r.actor, r.replica, r.attempt, r.restarts, r.retry_of, r.tick_at, r.not_before,
           r.queued_at, r.started_at, r.ended_at, r.cancel_at, s.host, r.supervisor_id, r.pid,
           r.exit_code, r.signal, r.reason, p.filename, p.sha256, p.lock_hash, p.python,
           extract(epoch from coalesce(r.ended_at, kirby.now()) - r.started_at)::float8 as seconds,
           d.version as deployed_version
      from kirby.run r
      join kirby.environment e on e.id = r.environment_id
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = r.version
      join kirby.release p on p.id = v.release_id
      left join kirby.supervisor s on s.id = r.supervisor_id
"""

LISTING = (
    RUNS
    + """
     where (%(environment_id)s::int is null or r.environment_id = %(environment_id)s)
       and (%(job)s::text is null or j.name = %(job)s)
       and (%(statuses)s::text[] is null or r.status = any (%(statuses)s))
       and (%(before)s::bigint is null or r.id < %(before)s)
     order by r.id desc
     limit %(limit)s
"""
)

# Written out, so that the two partial indexes on live runs serve it however many have ended.
LIVE_ONES = (
    RUNS
    + """
     where (r.status = 'queued' or r.status in ('starting', 'running'))
       and (%(environment_id)s::int is null or r.environment_id = %(environment_id)s)
       and (%(job)s::text is null or j.name = %(job)s)
       and (%(before)s::bigint is null or r.id < %(before)s)
     order by r.id desc
     limit %(limit)s
"""
)

GET = RUNS + " where r.id = %(run_id)s"
RETRIES = (
    RUNS
    + """
     where r.deployment_id = %(deployment_id)s and r.retry_of = %(run_id)s
     order by r.id
     limit 20
"""
)

# A run's lines have one writer, its supervisor, one transaction after the other: by position is in
# the order of becoming visible, so reading on after the last position misses none.
LINES_AFTER = """
    select position, run_id, stream, level, text, at
      from kirby.log_line
     where run_id = %(run_id)s and position > %(after)s
     order by position
     limit %(limit)s
"""

LINES_BEFORE = """
    select position, run_id, stream, level, text, at
      from kirby.log_line
     where run_id = %(run_id)s and (%(before)s::bigint is null or position < %(before)s)
     order by position desc
     limit %(limit)s
"""

EVENTS = """
    select position, type, data, actor, recorded_at
      from kirby.job_event
     where run_id = %(run_id)s
     order by position
     limit %(limit)s
"""

CANCEL = "select kirby.cancel_run(%(run_id)s, %(reason)s, %(actor)s)"
RETRY = "select kirby.retry_run(%(run_id)s, %(actor)s, %(current)s)"
AUDIT_CANCEL = """
    select kirby.audit(%(actor)s, 'run_cancelled', 'run/' || %(run_id)s::bigint,
                       null, null, %(reason)s)
"""
AUDIT_RETRY = """
    select kirby.audit(%(actor)s, 'run_retried', 'run/' || %(run_id)s::bigint,
                       null, jsonb_build_object('run', %(new)s::bigint))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run stands. ``seconds``: how long it ran, or runs; None before its start."""

    id: int
    job: str
    kind: str
    environment: str
    deployment_id: int
    version: int
    status: str
    cause: str
    actor: str
    replica: int | None
    attempt: int
    restarts: int
    retry_of: int | None
    tick_at: datetime | None
    not_before: datetime
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_at: datetime | None
    host: str | None
    supervisor_id: object
    pid: int | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    filename: str
    sha256: str
    lock_hash: str
    python: str
    seconds: float | None
    deployed_version: int

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Line:
    position: int
    run_id: int
    stream: str
    level: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    position: int
    type: str
    data: dict[str, Any]
    actor: str
    recorded_at: datetime


def listing(
    conn: Connection,
    environment: Environment | None = None,
    *,
    job: str | None = None,
    status: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Run]:
    """Runs, newest first; ``status`` is one of STATUSES or a group (live, bad). Raises Invalid."""
    return query.rows(
        conn,
        Run,
        LIVE_ONES if status == "live" else LISTING,
        environment_id=environment.id if environment else None,
        job=job,
        statuses=_statuses(status),
        before=before,
        limit=limit,
    )


def _statuses(status: str | None) -> list[str] | None:
    if status is None or status in STATUSES:
        return [status] if status else None
    if status in GROUPS:
        return list(GROUPS[status])
    raise Invalid(f"{status} is not a status of a run: {', '.join((*STATUSES, *GROUPS))}")


def get(conn: Connection, run_id: int) -> Run:
    """One run; raises NotFound."""
    found = query.row(conn, Run, GET, run_id=run_id)
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return found


def retries(conn: Connection, run: Run) -> list[Run]:
    """The runs that ran this one again, oldest first."""
    return query.rows(conn, Run, RETRIES, deployment_id=run.deployment_id, run_id=run.id)


def lines(conn: Connection, run_id: int, *, after: int = 0, limit: int = 1000) -> list[Line]:
    """The lines that follow a position, oldest first: go on with the last one's position."""
    return query.rows(conn, Line, LINES_AFTER, run_id=run_id, after=after, limit=limit)


def tail(
    conn: Connection, run_id: int, *, before: int | None = None, limit: int = 1000
) -> list[Line]:
    """The last lines, or those just before a position; oldest first."""
    found = query.rows(conn, Line, LINES_BEFORE, run_id=run_id, before=before, limit=limit)
    return found[::-1]


def events(conn: Connection, run_id: int, *, limit: int = 200) -> list[Event]:
    """What happened to a run, oldest first."""
    return query.rows(conn, Event, EVENTS, run_id=run_id, limit=limit)


def cancel(conn: Connection, run_id: int, *, actor: str, reason: str) -> bool:
    """Cancel a run; whether there was anything to cancel. Raises NotFound, WrongTransition."""
    changed = bool(query.value(conn, CANCEL, run_id=run_id, reason=reason, actor=actor))
    if changed:
        query.value(conn, AUDIT_CANCEL, run_id=run_id, reason=reason, actor=actor)
    return changed


def retry(conn: Connection, run_id: int, *, actor: str, current: bool = False) -> int:
    """Run an ended run again, at its own version or the deployed one; the new run's id.

    Raises NotFound, or WrongTransition if it has not ended or is a daemon's.
    """
    new = int(query.value(conn, RETRY, run_id=run_id, actor=actor, current=current))
    query.value(conn, AUDIT_RETRY, run_id=run_id, new=new, actor=actor)
    return new

"""Runs: where each stands, what happened to it; cancelling and retrying one."""

from __future__ import annotations

import shlex
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
           r.exit_code, r.signal, r.reason, r.priority, r.labels, r.canary, r.losses, r.progress,
           r.progress_text, r.progress_at, r.peak_memory, r.cpu_seconds, r.out_of_memory,
           p.kind as release_kind, p.version as release_version,
           p.filename, p.sha256, p.lock_hash, p.python, v.entry, v.command, v.timeout,
           extract(epoch from coalesce(r.ended_at, kirby.now()) - r.started_at)::float8 as seconds,
           d.version as deployed_version, n.rerun
      from kirby.run r
      join kirby.environment e on e.id = r.environment_id
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = r.version
      join kirby.deployment_version n on n.deployment_id = d.id and n.version = d.version
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

EVENTS = """
    select position, type, data, actor, recorded_at
      from kirby.job_event
     where run_id = %(run_id)s and type <> 'run_progress'
     order by position
     limit %(limit)s
"""

VERSIONS = """
    select v.version, p.filename, p.version as release_version, v.created_at
      from kirby.deployment_version v
      join kirby.release p on p.id = v.release_id
     where v.deployment_id = %(deployment_id)s
     order by v.version desc
     limit %(limit)s
"""

CANCEL = "select kirby.cancel_run(%(run_id)s, %(reason)s, %(actor)s)"
RETRY = "select kirby.retry_run(%(run_id)s, %(actor)s, %(current)s, %(version)s)"
AUDIT_CANCEL = """
    select kirby.audit(%(actor)s, 'run_cancelled', 'run/' || %(run_id)s::bigint,
                       null, null, %(reason)s)
"""
AUDIT_RETRY = """
    select kirby.audit(%(actor)s, 'run_retried', 'run/' || %(run_id)s::bigint,
                       null, jsonb_build_object('run', %(new)s::bigint), %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run stands. ``seconds``: how long it ran, or runs; None before its start.

    ``progress`` is between 0 and 1, ``peak_memory`` in bytes. ``losses``: how often its host, or
    its memory, was what ended it before. ``rerun``: which version a re-run takes unless told.
    """

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
    priority: int
    labels: list[str]
    canary: bool
    losses: int
    progress: float | None
    progress_text: str | None
    progress_at: datetime | None
    peak_memory: int | None
    cpu_seconds: float | None
    out_of_memory: bool
    release_kind: str
    release_version: str | None
    filename: str
    sha256: str
    lock_hash: str
    python: str
    entry: str
    command: list[str] | None
    timeout: float | None
    seconds: float | None
    deployed_version: int
    rerun: str

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None

    @property
    def runs(self) -> str:
        """What is executed: a file, a module, a function or a command line."""
        return shlex.join(self.command) if self.command else self.entry or self.filename


@dataclass(frozen=True, slots=True)
class Event:
    position: int
    type: str
    data: dict[str, Any]
    actor: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A version that a run can be run again at."""

    version: int
    filename: str
    release_version: str | None
    created_at: datetime


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


def events(conn: Connection, run_id: int, *, limit: int = 200) -> list[Event]:
    """What happened to a run, oldest first; how far it was stands on the run itself."""
    return query.rows(conn, Event, EVENTS, run_id=run_id, limit=limit)


def versions(conn: Connection, run: Run, *, limit: int = 20) -> list[Version]:
    """The versions of the run's deployment, newest first."""
    return query.rows(conn, Version, VERSIONS, deployment_id=run.deployment_id, limit=limit)


def cancel(conn: Connection, run_id: int, *, actor: str, reason: str) -> bool:
    """Cancel a run; whether there was anything to cancel. Raises NotFound, WrongTransition."""
    changed = bool(query.value(conn, CANCEL, run_id=run_id, reason=reason, actor=actor))
    if changed:
        query.value(conn, AUDIT_CANCEL, run_id=run_id, reason=reason, actor=actor)
    return changed


def retry(
    conn: Connection,
    run_id: int,
    *,
    actor: str,
    current: bool | None = None,
    version: int | None = None,
    reason: str = "",
) -> int:
    """Run an ended run again; the new run's id.

    At ``version``, or the deployed one (``current``), or the one it had (not ``current``), or, with
    None, as its deployment says. Raises NotFound (no such run, or version), or WrongTransition if
    it has not ended or is a daemon's.
    """
    asked = {"current": current, "version": version}
    new = int(query.value(conn, RETRY, run_id=run_id, actor=actor, **asked))
    query.value(conn, AUDIT_RETRY, run_id=run_id, new=new, actor=actor, reason=reason)
    return new

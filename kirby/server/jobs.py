"""Jobs as an environment has deployed them: what stands, what is due, and starting one by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import query
from kirby.server.environments import Environment

NAMES = """
    select j.name
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
     where d.environment_id = %(environment_id)s
"""

# Bounded for each job: its last 30 runs, its replicas (a partial index), its ticks since yesterday.
JOBS = """
    select j.name, j.kind, j.description, d.id as deployment_id, d.version,
           v.schedules, v.tz, v.replicas, v.max_attempts, v.rerun_lost, v.variables,
           v.entry, v.command, v.retry_pause, v.timeout, v.grace, v.no_progress_timeout, v.priority,
           v.labels, v.concurrency, v.rerun, v.needs, v.tags, v.exclude, v.catch_up,
           v.catch_up_most, v.jitter, v.start_by, v.finish_by, v.heartbeat, v.expects,
           v.alert_after, v.recover_after, v.pause_after,
           d.canary_version, d.canary_share, d.canary_replicas, d.rolling,
           r.id as release_id, r.name as package, r.kind as release_kind,
           r.version as package_version, r.origin, r.filename, r.sha256, r.lock_hash, r.python,
           v.actor as deployed_by, v.created_at as deployed_at, v.reason,
           live.all as live, live.canary as canary_live, live.old as old_live,
           (select min(t.at) from kirby.tick t
             where t.deployment_id = d.id and t.status = 'planned'
               and t.at > (select kirby.now() - interval '1 day')) as next_tick,
           last.id as last_run, last.status as last_status, last.queued_at as last_at,
           recent.runs as recent
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
      join kirby.release r on r.id = v.release_id
     cross join lateral (
           select count(*) filter (where not l.canary) as all,
                  count(*) filter (where l.canary) as canary,
                  count(*) filter (where not l.canary and l.version <> d.version) as old
             from kirby.run l
            where l.deployment_id = d.id and l.replica is not null
              and l.status in ('queued', 'starting', 'running') and l.status = 'running') live
      left join lateral (
           select l.id, l.status, l.queued_at from kirby.run l
            where l.deployment_id = d.id order by l.id desc limit 1) last on true
     cross join lateral (
           select coalesce(json_agg(each), '[]') as runs
             from (select l.id, l.status,
                          extract(epoch from coalesce(l.ended_at, kirby.now())
                                             - l.started_at) as seconds
                     from kirby.run l
                    where l.deployment_id = d.id order by l.id desc limit 30) each) recent
     where d.environment_id = %(environment_id)s
       and (%(name)s::text is null or j.name = %(name)s)
     order by j.name
"""

# Where else a job is deployed, and what each environment has.
PLACES = """
    select e.name as environment, d.version, r.id as release_id, r.kind as release_kind,
           r.version as package_version, r.filename, r.sha256, v.created_at
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.environment e on e.id = d.environment_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
      join kirby.release r on r.id = v.release_id
     where j.name = %(name)s
     order by e.id
"""

VERSIONS = """
    select v.version, v.version = d.version as current, v.version = d.canary_version as canary,
           v.deployed, r.id as release_id, r.kind as release_kind, r.version as package_version,
           r.filename, r.sha256, r.lock_hash, r.python, v.schedules, v.tz, v.replicas,
           v.max_attempts, v.variables, v.rolled_back_to, v.promoted_from, v.promoted_env,
           v.reason, v.actor, v.created_at
      from kirby.deployment_version v
      join kirby.deployment d on d.id = v.deployment_id
      join kirby.release r on r.id = v.release_id
     where v.deployment_id = %(deployment_id)s
     order by v.version desc
     limit %(limit)s
"""

NEXT_TICKS = """
    select at, local, note, status, reason, run_id
      from kirby.tick
     where deployment_id = %(deployment_id)s and status = 'planned'
     order by at
     limit %(limit)s
"""

PAST_TICKS = """
    select at, local, note, status, reason, run_id
      from kirby.tick
     where deployment_id = %(deployment_id)s and status <> 'planned'
     order by at desc
     limit %(limit)s
"""

RELEASE = """
    select v.release_id from kirby.deployment_version v
     where v.deployment_id = %(deployment_id)s and v.version = %(version)s
"""

TRIGGER = "select kirby.queue_run(%(deployment_id)s, 'manual', %(actor)s)"
AUDIT_TRIGGER = """
    select kirby.audit(%(actor)s, 'job_triggered', %(object)s,
                       null, jsonb_build_object('run', %(run_id)s::bigint), %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as one environment has deployed it. ``recent``: its last 30 runs, newest first.

    Of replicas that run, ``live`` are of the deployment (``old_live`` of older versions), and
    ``canary_live`` of its canary.
    """

    name: str
    kind: str
    description: str
    deployment_id: int
    version: int
    schedules: list[str]
    tz: str
    replicas: int
    max_attempts: int
    rerun_lost: bool
    variables: dict[str, Any]
    entry: str
    command: list[str] | None
    retry_pause: float
    timeout: float | None
    grace: float
    no_progress_timeout: float | None
    priority: int
    labels: list[str]
    concurrency: str
    rerun: str
    needs: dict[str, list[str]]
    tags: list[str]
    exclude: list[str]
    catch_up: str
    catch_up_most: int
    jitter: float
    start_by: float | None
    finish_by: float | None
    heartbeat: float | None
    expects: dict[str, float]
    alert_after: int
    recover_after: int
    pause_after: int | None
    canary_version: int | None
    canary_share: float | None
    canary_replicas: int
    rolling: bool
    release_id: int
    package: str
    release_kind: str
    package_version: str | None
    origin: str
    filename: str
    sha256: str
    lock_hash: str
    python: str
    deployed_by: str
    deployed_at: datetime
    reason: str
    live: int
    canary_live: int
    old_live: int
    next_tick: datetime | None
    last_run: int | None
    last_status: str | None
    last_at: datetime | None
    recent: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Version:
    """``deployed`` is false of a canary that was never promoted."""

    version: int
    current: bool
    canary: bool | None
    deployed: bool
    release_id: int
    release_kind: str
    package_version: str | None
    filename: str
    sha256: str
    lock_hash: str
    python: str
    schedules: list[str]
    tz: str
    replicas: int
    max_attempts: int
    variables: dict[str, Any]
    rolled_back_to: int | None
    promoted_from: int | None
    promoted_env: str | None
    reason: str
    actor: str
    created_at: datetime

    @property
    def history(self) -> str:
        """How it came about, if not by a plain deploy; what it is now."""
        if self.rolled_back_to:
            return f"back to version {self.rolled_back_to}"
        if self.promoted_from:
            return f"version {self.promoted_from} of {self.promoted_env}"
        if self.canary:
            return "canary"
        return "" if self.deployed else "canary, not promoted"

    @property
    def title(self) -> str:
        """The file of a script; of a package its version."""
        return self.filename if self.release_kind == "script" else f"{self.package_version}"


@dataclass(frozen=True, slots=True)
class Place:
    """An environment in which a job is deployed, and what it has there."""

    environment: str
    version: int
    release_id: int
    release_kind: str
    package_version: str | None
    filename: str
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Tick:
    at: datetime
    local: str
    note: str
    status: str
    reason: str | None
    run_id: int | None


def listing(conn: Connection, environment: Environment) -> list[Job]:
    """Every job that is deployed in the environment, by name."""
    return query.rows(conn, Job, JOBS, environment_id=environment.id, name=None)


def get(conn: Connection, environment: Environment, name: str) -> Job:
    """The job of that name as deployed there; raises NotFound with the closest name."""
    found = query.row(conn, Job, JOBS, environment_id=environment.id, name=name)
    if found is None:
        known = query.column(conn, NAMES, environment_id=environment.id)
        raise query.missing(f"job in {environment.name} called", name, known)
    return found


def versions(conn: Connection, job: Job, *, limit: int = 50) -> list[Version]:
    """The deployment's versions, newest first."""
    return query.rows(conn, Version, VERSIONS, deployment_id=job.deployment_id, limit=limit)


def next_ticks(conn: Connection, job: Job, *, limit: int = 10) -> list[Tick]:
    """The planned instants, soonest first."""
    return query.rows(conn, Tick, NEXT_TICKS, deployment_id=job.deployment_id, limit=limit)


def past_ticks(conn: Connection, job: Job, *, limit: int = 10) -> list[Tick]:
    """What became of the last instants, newest first."""
    return query.rows(conn, Tick, PAST_TICKS, deployment_id=job.deployment_id, limit=limit)


def places(conn: Connection, name: str) -> list[Place]:
    """Every environment in which the job is deployed."""
    return query.rows(conn, Place, PLACES, name=name)


def release_of(conn: Connection, job: Job, version: int | None = None) -> int:
    """The id of the release of a version, by default the deployed one; raises NotFound."""
    found = query.value(
        conn, RELEASE, deployment_id=job.deployment_id, version=version or job.version
    )
    if found is None:
        raise NotFound(f"{job.name} has no version {version}")
    return int(found)


def trigger(conn: Connection, job: Job, *, actor: str, reason: str = "") -> int:
    """Queue a run now and return its id; raises Invalid for a daemon, which Kirby keeps alive."""
    if job.kind == "daemon":
        raise Invalid(f"{job.name} is a daemon: Kirby keeps it alive by itself")
    run_id = int(query.value(conn, TRIGGER, deployment_id=job.deployment_id, actor=actor))
    subject = f"deployment/{job.deployment_id}"
    query.value(conn, AUDIT_TRIGGER, actor=actor, object=subject, run_id=run_id, reason=reason)
    return run_id

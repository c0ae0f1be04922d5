"""Jobs as an environment has deployed them: what stands, what is due, and starting one by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid
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
           r.filename, r.sha256, r.lock_hash, r.python,
           v.actor as deployed_by, v.created_at as deployed_at, v.reason,
           (select count(*) from kirby.run l
             where l.deployment_id = d.id and l.replica is not null
               and l.status in ('queued', 'starting', 'running') and l.status = 'running') as live,
           (select min(t.at) from kirby.tick t
             where t.deployment_id = d.id and t.status = 'planned'
               and t.at > (select kirby.now() - interval '1 day')) as next_tick,
           last.id as last_run, last.status as last_status, last.queued_at as last_at,
           recent.runs as recent
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
      join kirby.release r on r.id = v.release_id
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

VERSIONS = """
    select v.version, v.version = d.version as current, r.filename, r.sha256, r.lock_hash,
           r.python, v.schedules, v.tz, v.replicas, v.max_attempts, v.variables, v.reason, v.actor,
           v.created_at
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

SOURCE = """
    select r.source
      from kirby.deployment_version v
      join kirby.release r on r.id = v.release_id
     where v.deployment_id = %(deployment_id)s and v.version = %(version)s
"""

TRIGGER = "select kirby.queue_run(%(deployment_id)s, 'manual', %(actor)s)"
AUDIT_TRIGGER = """
    select kirby.audit(%(actor)s, 'job_triggered', %(object)s,
                       null, jsonb_build_object('run', %(run_id)s::bigint), %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as one environment has deployed it. ``recent``: its last 30 runs, newest first."""

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
    filename: str
    sha256: str
    lock_hash: str
    python: str
    deployed_by: str
    deployed_at: datetime
    reason: str
    live: int
    next_tick: datetime | None
    last_run: int | None
    last_status: str | None
    last_at: datetime | None
    recent: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Version:
    version: int
    current: bool
    filename: str
    sha256: str
    lock_hash: str
    python: str
    schedules: list[str]
    tz: str
    replicas: int
    max_attempts: int
    variables: dict[str, Any]
    reason: str
    actor: str
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


def source(conn: Connection, job: Job, version: int | None = None) -> str:
    """The script's text at a version, or at the deployed one; raises NotFound."""
    text = query.value(
        conn, SOURCE, deployment_id=job.deployment_id, version=version or job.version
    )
    if text is None:
        raise query.missing(f"version of {job.name}:", str(version), [])
    return str(text)


def trigger(conn: Connection, job: Job, *, actor: str, reason: str = "") -> int:
    """Queue a run now and return its id; raises Invalid for a daemon, which Kirby keeps alive."""
    if job.kind == "daemon":
        raise Invalid(f"{job.name} is a daemon: Kirby keeps it alive by itself")
    run_id = int(query.value(conn, TRIGGER, deployment_id=job.deployment_id, actor=actor))
    subject = f"deployment/{job.deployment_id}"
    query.value(conn, AUDIT_TRIGGER, actor=actor, object=subject, run_id=run_id, reason=reason)
    return run_id

"""Deployments: put a release of a script to work in an environment; every change is a version."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from kirby.core.errors import Invalid, Taken
from kirby.server import cron, environments, files, query, variables
from kirby.server.locks import Lock
from kirby.server.scripts import Script
from kirby.server.sdk_wheel import SdkWheel
from kirby.server.tables import deployment, deployment_version, job, release

LONGEST_REASON = 1000  # characters


@dataclass(frozen=True, slots=True)
class Plan:
    """How a script is to be run: what the command line, or its own metadata, asks for."""

    name: str
    environment: str
    schedules: tuple[str, ...] = ()
    tz: str = "UTC"
    daemon: bool = False
    replicas: int = 1
    max_attempts: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        return "daemon" if self.daemon else "scheduled" if self.schedules else "manual"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did. ``changed`` is false if this very version was deployed already."""

    job: str
    environment: str
    kind: str
    version: int
    release_id: int
    changed: bool
    next_tick: datetime | None


def check(conn: Connection, plan: Plan) -> None:
    """Find what is wrong with a plan before anything is resolved or stored.

    Raises NotFound (no such environment), Invalid (a bad schedule, zone, count or variable) or
    Taken (the name is a job of another kind).
    """
    environments.get(conn, plan.environment)
    if plan.daemon and plan.schedules:
        raise Invalid(f"{plan.name} cannot be both a daemon and scheduled: choose one")
    _check_counts(plan)
    if len(plan.reason) > LONGEST_REASON:
        raise Invalid(f"the reason is {len(plan.reason):,} characters: at most {LONGEST_REASON:,}")
    variables.check(plan.variables)
    for expression in plan.schedules:
        cron.parse(expression)
    cron.zone(plan.tz)
    _check_kind(conn, plan)


def _check_kind(conn: Connection, plan: Plan) -> None:
    known = conn.execute(select(job.c.kind).where(job.c.name == plan.name)).scalar()
    if known is not None and known != plan.kind:
        raise Taken(
            f"{plan.name} is a {known} job already, and this would make it {plan.kind}:"
            f" deploy it under another name (--job), or say {HOW[known]}"
        )


HOW = {
    "daemon": "--daemon",
    "scheduled": "--schedule CRON",
    "manual": "neither --daemon nor --schedule",
}


def _check_counts(plan: Plan) -> None:
    if not 0 <= plan.replicas <= 1000:
        raise Invalid(f"replicas is {plan.replicas}: from 0 to 1000")
    if plan.replicas != 1 and not plan.daemon:
        raise Invalid(f"replicas are for daemons: {plan.name} is {plan.kind} (add --daemon)")
    if not 1 <= plan.max_attempts <= 100:
        raise Invalid(f"max-attempts is {plan.max_attempts}: from 1 to 100")


def deploy(
    conn: Connection, plan: Plan, script: Script, lock: Lock, sdk: SdkWheel, *, actor: str
) -> Deployed:
    """Make this script the one that runs; what runs already goes on as it is.

    Identical to what is deployed: nothing is written. Raises as ``check``.
    """
    check(conn, plan)
    release_id = _release(conn, script, lock, sdk, actor)
    deployment_id, current = _deployment(conn, plan)
    content = _content(plan, release_id)
    before = _version(conn, deployment_id, current) if current else None
    if before != content:
        _add_version(conn, deployment_id, current + 1, content, plan, actor)
        _record(conn, plan, deployment_id, before, {"version": current + 1, **content}, actor)
    return Deployed(
        job=plan.name,
        environment=plan.environment,
        kind=plan.kind,
        version=current + (before != content),
        release_id=release_id,
        changed=before != content,
        next_tick=next_tick(plan),
    )


def next_tick(plan: Plan) -> datetime | None:
    """When the schedule fires next, from the host's clock: for a message only."""
    now = datetime.now(UTC)
    dues = [
        next(iter(cron.ticks(cron.parse(expression), plan.tz, now, n=1)), None)
        for expression in plan.schedules
    ]
    return min((due.at for due in dues if due), default=None)


REPLACE = """
    select kirby.cancel_run(r.id, 'replaced by version ' || d.version, %(actor)s)
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
     where j.name = %(job)s and d.environment_id = %(environment_id)s and r.version < d.version
       and r.status in ('queued', 'starting', 'running')
     order by r.id
"""


def replace_running(conn: Connection, name: str, environment: str, *, actor: str) -> int:
    """Stop the runs of older versions, gently; a daemon's replicas come back at the new one."""
    environment_id = environments.get(conn, environment).id
    did = query.column(conn, REPLACE, actor=actor, job=name, environment_id=environment_id)
    wake_supervisors(conn)
    return sum(did)


def wake_supervisors(conn: Connection) -> None:
    """Let supervisors look at once, when this commits."""
    query.value(conn, "select pg_notify('kirby_run', '')")


def _release(conn: Connection, script: Script, lock: Lock, sdk: SdkWheel, actor: str) -> int:
    """The release of this source with this lock: the one that is there, or a new one."""
    if lock.sdk_sha256 is not None:
        files.put(conn, io.BytesIO(sdk.content))
    values = {
        "name": script.name,
        "filename": f"{script.name}.py",
        "source": script.source,
        "sha256": hashlib.sha256(script.source.encode()).hexdigest(),
        "requirements": lock.requirements,
        "lock_hash": lock.hash,
        "python": lock.python,
        "sdk_sha256": lock.sdk_sha256,
        "created_by": actor,
    }
    conn.execute(insert(release).values(values).on_conflict_do_nothing())
    same = [release.c[name] == values[name] for name in ("name", "sha256", "lock_hash")]
    return int(conn.execute(select(release.c.id).where(*same)).scalar_one())


def _deployment(conn: Connection, plan: Plan) -> tuple[int, int]:
    """The deployment's id and current version (0: new), locked against another deploy."""
    environment_id = environments.get(conn, plan.environment).id
    description = {"description": plan.description} if plan.description else {}
    conn.execute(
        insert(job)
        .values(name=plan.name, kind=plan.kind, description=plan.description)
        .on_conflict_do_update(index_elements=["name"], set_={"name": plan.name, **description})
    )
    _check_kind(conn, plan)  # the row is locked now; another deploy may have made it meanwhile
    job_id = conn.execute(select(job.c.id).where(job.c.name == plan.name)).scalar_one()
    conn.execute(
        insert(deployment)
        .values(job_id=job_id, environment_id=environment_id, version=0)
        .on_conflict_do_nothing()
    )
    row = conn.execute(
        select(deployment.c.id, deployment.c.version)
        .where(deployment.c.job_id == job_id, deployment.c.environment_id == environment_id)
        .with_for_update()
    ).one()
    return row.id, row.version


CONTENT = (
    "release_id",
    "schedules",
    "tz",
    "replicas",
    "max_attempts",
    "variables",
)


def _content(plan: Plan, release_id: int) -> dict[str, Any]:
    """What makes two versions different."""
    return {
        "release_id": release_id,
        "schedules": list(plan.schedules),
        "tz": plan.tz,
        "replicas": plan.replicas,
        "max_attempts": plan.max_attempts,
        "variables": dict(plan.variables),
    }


def _version(conn: Connection, deployment_id: int, version: int) -> dict[str, Any]:
    columns: Sequence[Any] = [deployment_version.c[name] for name in CONTENT]
    row = conn.execute(
        select(*columns).where(
            deployment_version.c.deployment_id == deployment_id,
            deployment_version.c.version == version,
        )
    ).one()
    return dict(row._mapping)


ADD_VERSION = """
    with added as (
      insert into kirby.deployment_version
             (deployment_id, version, release_id, schedules, tz, replicas, max_attempts, variables,
              reason, actor)
      values (%(deployment_id)s, %(version)s, %(release_id)s, %(schedules)s, %(tz)s, %(replicas)s,
              %(max_attempts)s, %(variables)s, %(reason)s, %(actor)s)
    )
    update kirby.deployment set version = %(version)s where id = %(deployment_id)s returning id
"""


def _add_version(
    conn: Connection,
    deployment_id: int,
    version: int,
    content: dict[str, Any],
    plan: Plan,
    actor: str,
) -> None:
    query.value(
        conn,
        ADD_VERSION,
        **{**content, "variables": Jsonb(content["variables"])},
        deployment_id=deployment_id,
        version=version,
        reason=plan.reason,
        actor=actor,
    )


AUDIT = """
    select kirby.audit(%(actor)s, 'job_deployed', %(object)s, %(before)s, %(after)s, %(reason)s)
"""
EVENT = """
    select kirby.append_job_event(null, %(deployment_id)s, 'job_deployed', %(data)s, %(actor)s)
"""


def _record(
    conn: Connection,
    plan: Plan,
    deployment_id: int,
    before: dict[str, Any] | None,
    after: dict[str, Any],
    actor: str,
) -> None:
    """The change in both logs: who did it (audit), and what the job became (job events)."""
    query.value(
        conn,
        AUDIT,
        actor=actor,
        object=f"job/{plan.environment}/{plan.name}",
        before=Jsonb(before),
        after=Jsonb(after),
        reason=plan.reason,
    )
    query.value(conn, EVENT, deployment_id=deployment_id, data=Jsonb(after), actor=actor)
    wake_supervisors(conn)

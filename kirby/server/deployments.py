"""Deployments: put a release to work in an environment; every change is a version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core.errors import Conflict, Invalid, NotFound, Taken
from kirby.server import database, environments, plans, query, schedules
from kirby.server.plans import Order, Plan

HOW = {
    "daemon": "--daemon",
    "scheduled": "--schedule CRON",
    "manual": "neither --daemon nor --schedule",
}

KIND = "select kind from kirby.job where name = %(name)s"
ADD_JOB = """
    insert into kirby.job as j (name, kind, description)
    values (%(name)s, %(kind)s, %(description)s)
        on conflict (name) do update
       set description = coalesce(nullif(excluded.description, ''), j.description)
    returning id
"""
ADD = """
    insert into kirby.deployment (job_id, environment_id, version)
    values (%(job_id)s, %(environment_id)s, 0) on conflict do nothing
"""
LOCK = """
    select d.id, d.version, d.canary_version,
           (select coalesce(max(v.version), 0) from kirby.deployment_version v
             where v.deployment_id = d.id) as newest
      from kirby.deployment d
     where d.job_id = %(job_id)s and d.environment_id = %(environment_id)s
       for update
"""
FIND = """
    select d.id, d.version
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.environment e on e.id = d.environment_id
     where j.name = %(name)s and e.name = %(environment)s and d.version > 0
"""
CONTENT: LiteralString = """
    select release_id, entry, command, schedules, tz, replicas, max_attempts, retry_pause, timeout,
           grace, no_progress_timeout, priority, labels, concurrency, rerun, tags, exclude,
           catch_up, catch_up_most, jitter, start_by, finish_by, heartbeat, expects, alert_after,
           recover_after, pause_after, variables, needs
      from kirby.deployment_version
     where deployment_id = %s and version = %s
"""
ADD_VERSION = """
    insert into kirby.deployment_version
           (deployment_id, version, release_id, entry, command, schedules, tz, replicas,
            max_attempts, retry_pause, timeout, grace, no_progress_timeout, priority, labels,
            concurrency, rerun, tags, exclude, catch_up, catch_up_most, jitter, start_by,
            finish_by, heartbeat, expects, alert_after, recover_after, pause_after, variables,
            needs, reason, actor, rolled_back_to, promoted_from,
            promoted_env, deployed)
    values (%(deployment_id)s, %(version)s, %(release_id)s, %(entry)s, %(command)s, %(schedules)s,
            %(tz)s, %(replicas)s, %(max_attempts)s, %(retry_pause)s, %(timeout)s, %(grace)s,
            %(no_progress_timeout)s, %(priority)s, %(labels)s, %(concurrency)s, %(rerun)s,
            %(tags)s, %(exclude)s, %(catch_up)s, %(catch_up_most)s, %(jitter)s, %(start_by)s,
            %(finish_by)s, %(heartbeat)s, %(expects)s, %(alert_after)s, %(recover_after)s,
            %(pause_after)s, %(variables)s, %(needs)s, %(reason)s, %(actor)s, %(rolled_back_to)s,
            %(promoted_from)s, %(promoted_env)s, %(deployed)s)
"""
SET_VERSION = """
    update kirby.deployment set version = %(version)s, rolling = %(rolling)s
     where id = %(deployment_id)s
"""
ROLL = "update kirby.deployment set rolling = true where id = %(deployment_id)s"
SET_CANARY = """
    select kirby.set_canary(%(deployment_id)s, %(version)s, %(share)s, %(actor)s, %(reason)s)
"""
REPLACE = """
    select kirby.cancel_run(r.id, 'replaced by version ' || d.version, %(actor)s)
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
     where d.id = %(deployment_id)s and r.version < d.version and not r.canary
       and r.status in ('queued', 'starting', 'running')
     order by r.id
"""
AUDIT = """
    select kirby.audit(%(actor)s, %(verb)s, %(object)s, %(before)s, %(after)s, %(reason)s)
"""
EVENT = """
    select kirby.append_job_event(null, %(deployment_id)s, 'job_deployed', %(data)s, %(actor)s)
"""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy did. ``changed`` is false if this very version was deployed already.

    ``canary``: the share of the keys that the version has beside the deployed one; None: all.
    """

    job: str
    environment: str
    kind: str
    version: int
    release_id: int
    changed: bool
    next_tick: datetime | None
    replicas: int = 1
    canary: float | None = None
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a version is there, if it is no plain deploy."""

    verb: str = "job_deployed"
    rolled_back_to: int | None = None
    promoted_from: int | None = None
    promoted_env: str | None = None


@dataclass(frozen=True, slots=True)
class _Locked:
    id: int
    version: int  # 0: nothing is deployed yet
    canary_version: int | None
    newest: int


PLAIN = Origin()


def check(conn: Connection, plan: Plan) -> None:
    """Find what is wrong with a plan before anything is resolved or stored.

    Raises as ``plans.check``, and Taken if the name is a job of another kind.
    """
    plans.check(conn, plan)
    _check_kind(conn, plan)


def check_all(conn: Connection, made: Iterable[Plan], order: Order) -> None:
    """The same for everything that an order asks for."""
    for plan in made:
        check(conn, plan)
        if order.canary is None:
            continue
        if plan.kind != "daemon":
            raise Invalid(f"{plan.name} is {plan.kind}: a canary is for daemons")
        if find(conn, plan.environment, plan.name) is None:
            raise Invalid(
                f"{plan.name} is not deployed in {plan.environment} yet: without --canary"
            )


def _check_kind(conn: Connection, plan: Plan) -> None:
    known = kind(conn, plan.name)
    if known is not None and known != plan.kind:
        raise Taken(
            f"{plan.name} is a {known} job already, and this would make it {plan.kind}:"
            f" deploy it under another name (--as), or say {HOW[known]}"
        )


def deploy_all(
    conn: Connection, made: Iterable[Plan], release_id: int, order: Order, *, actor: str
) -> list[Deployed]:
    """Deploy the jobs of a release as an order asks; all of them, or on an error none."""
    return [deploy(conn, plan, release_id, actor=actor, order=order) for plan in made]


def deploy(
    conn: Connection,
    plan: Plan,
    release_id: int,
    *,
    actor: str,
    order: Order | None = None,
    origin: Origin = PLAIN,
) -> Deployed:
    """Make this release the one that runs; what runs already goes on as it is.

    Unless `order` says otherwise: replace (older runs are stopped now), drain (replicas are
    replaced one after the other) or canary (it stands beside the deployed version). Identical to
    what is deployed: nothing is written. Raises as ``check``, and Conflict while there is a canary.
    """
    order = order or Order(plan.environment)
    check(conn, plan)
    locked = _locked(conn, plan)
    wanted = content(plan, release_id)
    before = version_content(conn, locked.id, locked.version) if locked.version else None
    changed = before != wanted
    if changed:
        _check_canary(plan, locked)
        _add_version(conn, locked, wanted, plan, order, actor, origin)
        verb = origin.verb if order.canary is None else "canary_deployed"
        _record(conn, plan, locked, before, wanted, actor, verb)
    stopped = 0
    if order.canary is None:
        stopped = _old_runs(conn, locked.id, order, actor)
    elif changed:
        query.value(conn, SET_CANARY, deployment_id=locked.id, version=locked.newest + 1,
                    share=order.canary, actor=actor, reason=plan.reason)  # fmt: skip
    wake_supervisors(conn)
    return Deployed(
        job=plan.name,
        environment=plan.environment,
        kind=plan.kind,
        version=locked.newest + 1 if changed else locked.version,
        release_id=release_id,
        changed=changed,
        next_tick=next_tick(plan),
        replicas=plan.replicas,
        canary=order.canary if changed else None,
        stopped=stopped,
    )


def next_tick(plan: Plan) -> datetime | None:
    """When the schedule fires next, from the host's clock: for a message only."""
    written = schedules.parse(plan.schedules, plan.tz)
    due = next(written.ticks(datetime.now(UTC), n=1), None)
    return due.at if due else None


def find(conn: Connection, environment: str, name: str) -> tuple[int, int] | None:
    """The id and deployed version of a job in an environment; None: it is not deployed there."""
    found = database.driver(conn).execute(FIND, {"environment": environment, "name": name})
    row = found.fetchone()
    return (int(row[0]), int(row[1])) if row else None


def kind(conn: Connection, name: str) -> str | None:
    """What kind of job has that name, in all environments; None: there is none."""
    found: str | None = query.value(conn, KIND, name=name)
    return found


def content(plan: Plan, release_id: int) -> dict[str, Any]:
    """What makes two versions different, as it is stored."""
    return {
        "release_id": release_id,
        "entry": plan.entry,
        "command": list(plan.command) if plan.command else None,
        "schedules": list(plan.schedules),
        "tz": plan.tz,
        "replicas": plan.replicas,
        "max_attempts": plan.max_attempts,
        "retry_pause": plans.figure(plan.retry_pause),
        "timeout": plan.timeout and plans.figure(plan.timeout),
        "grace": plans.figure(plan.grace),
        "no_progress_timeout": plan.no_progress_timeout and plans.figure(plan.no_progress_timeout),
        "priority": plan.priority,
        "labels": list(plan.labels),
        "concurrency": plan.concurrency,
        "rerun": plan.rerun,
        "tags": list(plan.tags),
        "exclude": list(plan.exclude),
        "catch_up": plan.catch_up,
        "catch_up_most": plan.catch_up_most,
        "jitter": plans.figure(plan.jitter),
        "start_by": plan.start_by and plans.figure(plan.start_by),
        "finish_by": plan.finish_by and plans.figure(plan.finish_by),
        "heartbeat": plan.heartbeat and plans.figure(plan.heartbeat),
        "expects": {topic: plans.figure(each) for topic, each in plan.expects.items()},
        "alert_after": plan.alert_after,
        "recover_after": plan.recover_after,
        "pause_after": plan.pause_after,
        "variables": dict(plan.variables),
        "needs": {key: list(names) for key, names in asdict(plan.needs).items()},
    }


def version_content(conn: Connection, deployment_id: int, version: int) -> dict[str, Any]:
    """The same of a stored version; raises NotFound."""
    with database.driver(conn).cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(CONTENT, [deployment_id, version]).fetchone()
    if row is None:
        raise NotFound(f"there is no version {version} of this job")
    empty: dict[str, list[str]] = {"variables": [], "secrets": [], "reads": [], "writes": []}
    return {**row, "needs": {**empty, **row["needs"]}}


def wake_supervisors(conn: Connection) -> None:
    """Let supervisors look at once, when this commits."""
    query.value(conn, "select pg_notify('kirby_run', '')")


# What is written


def _locked(conn: Connection, plan: Plan) -> _Locked:
    """The deployment, a new one if need be, locked against another deploy of the job."""
    environment_id = environments.get(conn, plan.environment).id
    job_id = query.value(
        conn, ADD_JOB, name=plan.name, kind=plan.kind, description=plan.description
    )
    _check_kind(conn, plan)  # the row is locked now; another deploy may have made it meanwhile
    query.execute(conn, ADD, job_id=job_id, environment_id=environment_id)
    return query.one(conn, _Locked, LOCK, job_id=job_id, environment_id=environment_id)


def _check_canary(plan: Plan, locked: _Locked) -> None:
    if locked.canary_version is not None:
        raise Conflict(
            f"version {locked.canary_version} is the canary of {plan.name} in {plan.environment}:"
            f" 'kirby job canary {plan.name} --env {plan.environment}' with --promote or --abort"
            " ends it"
        )


def _add_version(
    conn: Connection,
    locked: _Locked,
    wanted: dict[str, Any],
    plan: Plan,
    order: Order,
    actor: str,
    origin: Origin,
) -> None:
    version = locked.newest + 1
    query.execute(
        conn,
        ADD_VERSION,
        **{**wanted, **{key: Jsonb(wanted[key]) for key in ("variables", "needs", "expects")}},
        deployment_id=locked.id,
        version=version,
        reason=plan.reason,
        actor=actor,
        rolled_back_to=origin.rolled_back_to,
        promoted_from=origin.promoted_from,
        promoted_env=origin.promoted_env,
        deployed=order.canary is None,
    )
    if order.canary is None:
        query.execute(
            conn, SET_VERSION, deployment_id=locked.id, version=version, rolling=order.drain
        )


def _old_runs(conn: Connection, deployment_id: int, order: Order, actor: str) -> int:
    """Do to runs of older versions what is asked, by default nothing; how many are stopped."""
    if order.drain:
        query.execute(conn, ROLL, deployment_id=deployment_id)
    if not order.replace:
        return 0
    return sum(query.column(conn, REPLACE, deployment_id=deployment_id, actor=actor))


def _record(
    conn: Connection,
    plan: Plan,
    locked: _Locked,
    before: dict[str, Any] | None,
    wanted: dict[str, Any],
    actor: str,
    verb: str,
) -> None:
    """The change in both logs: who did it (audit), and what the job became (job events)."""
    after = Jsonb({"version": locked.newest + 1, **wanted})
    query.value(
        conn,
        AUDIT,
        actor=actor,
        verb=verb,
        object=f"job/{plan.environment}/{plan.name}",
        before=Jsonb(before and {"version": locked.version, **before}),
        after=after,
        reason=plan.reason,
    )
    query.value(conn, EVENT, deployment_id=locked.id, data=after, actor=actor)

"""Why a job ran, does not run now, or will run next: told from what is written down, nothing else.

Each answer is a sentence with the moment, the run and the exceptions that it is about. Asked for
another moment (`at`), the same is told as it stood then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kirby.core.errors import NotFound
from kirby.server import jobs, query, schedule_words, schedules, subscriptions
from kirby.server.environments import Environment
from kirby.server.jobs import Job

MOST_AHEAD = 50  # ticks that are looked through for the next one that runs
PATIENCE = timedelta(seconds=10)  # that a due tick may stand before it is told
MOST_LIVE = 20

VERSION = """
    select v.version, v.created_at, v.actor, v.schedules, v.tz, v.exclude, v.jitter
      from kirby.deployment_version v
     where v.deployment_id = %(id)s
       and case when %(version)s::integer is null then v.deployed and v.created_at <= %(at)s
                else v.version = %(version)s end
     order by v.version desc limit 1
"""
TICK = """
    select t.at, t.local, t.note, t.status, t.reason, t.run_id, t.own, t.exceptions, t.returns,
           t.after_run, t.held_by, coalesce(t.fire_at, t.at) as begins, r.status as ended_as
      from kirby.tick t
      left join kirby.run r on r.id = t.run_id
     where t.deployment_id = %(id)s and t.at <= %(at)s
       and (t.status <> 'planned' or t.at <= kirby.now())
     order by t.at desc limit 1
"""
BY_OTHERS = """
    select r.id, r.status, r.cause, r.actor, r.retry_of, r.queued_at, r.reason
      from kirby.run r
     where r.deployment_id = %(id)s and r.queued_at <= %(at)s and r.shadow_id is null
       and r.cause in ('manual', 'retry')
     order by r.id desc limit 1
"""
LIVE = """
    select r.id, r.status, r.replica, r.attempt, r.retry_of, r.queued_at, r.started_at,
           r.not_before, r.canary, s.host,
           case when r.status = 'queued' then kirby.why_waiting(r) end as waiting
      from kirby.run r
      left join kirby.supervisor s on s.id = r.supervisor_id
     where r.deployment_id = %(id)s and r.shadow_id is null and r.queued_at <= %(at)s
       and (r.ended_at is null or r.ended_at > %(at)s)
       and (r.ended_at is not null or r.status in ('queued', 'starting', 'running'))
     order by r.id limit %(limit)s
"""
EXCEPTIONS = """
    select x.exception_id as id, x.actor,
           kirby.why_held(x.effect, x.exception_id, x.until_at, x.reason, x.schedules, x.most,
                          x.per, %(tz)s) as text
      from kirby.exceptions_of(%(id)s, %(at)s) x
"""
INCIDENTS = """
    select i.id, i.title, i.opened_at from kirby.incident i
     where i.deployment_id = %(id)s and i.opened_at <= %(at)s
       and (i.resolved_at is null or i.resolved_at > %(at)s)
     order by i.id
"""
MISSED = """
    select d.kind, d.subject, d.due_at from kirby.deadline d
     where d.deployment_id = %(id)s and d.tick_at = %(tick)s and d.status in ('open', 'missed')
     order by d.due_at
"""
# As the rows stand: what a rate does may still change with the ticks before.
COMING = """
    select p.at, p.note, j.reason, j.held_by
      from (select t as row, t.at, t.note, coalesce(t.fire_at, t.at) as begins from kirby.tick t
             where t.deployment_id = %(id)s and t.status = 'planned' and t.at > %(at)s
             order by t.at limit %(limit)s) p
     cross join lateral kirby.judge_tick(p.row, %(tz)s, p.begins) j
     order by p.at
"""
ALIVE = """
    select exists (select from kirby.supervisor
                    where ended_at is null and lease_until > kirby.now())
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A sentence about `last`, `now` or `next`, and what it is about."""

    about: str
    text: str
    at: datetime | None = None
    run_id: int | None = None
    exceptions: list[int] = field(default_factory=list)
    incident_id: int | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """All that is to be said of a job at a moment."""

    job: str
    environment: str
    kind: str
    at: datetime
    says: str
    tz: str
    answers: list[Answer]


@dataclass(frozen=True, slots=True)
class _Version:
    version: int
    created_at: datetime
    actor: str
    schedules: list[str]
    tz: str
    exclude: list[str]
    jitter: float


@dataclass(frozen=True, slots=True)
class _Tick:
    at: datetime
    local: str
    note: str
    status: str
    reason: str | None
    run_id: int | None
    own: bool
    exceptions: list[int]
    returns: list[int]
    after_run: int | None
    held_by: list[int]
    begins: datetime
    ended_as: str | None


@dataclass(frozen=True, slots=True)
class _Run:
    id: int
    status: str
    replica: int | None
    attempt: int
    retry_of: int | None
    queued_at: datetime
    started_at: datetime | None
    not_before: datetime
    canary: bool
    host: str | None
    waiting: str | None


@dataclass(frozen=True, slots=True)
class _Coming:
    at: datetime
    note: str
    reason: str | None
    held_by: list[int]


@dataclass(frozen=True, slots=True)
class _ByOthers:
    id: int
    status: str
    cause: str
    actor: str
    retry_of: int | None
    queued_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class _Held:
    id: int
    actor: str
    text: str


@dataclass(frozen=True, slots=True)
class _Incident:
    id: int
    title: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class _Deadline:
    kind: str
    subject: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked about which deployment, and how times are said."""

    conn: Connection
    environment: Environment
    job: Job
    at: datetime
    now: datetime
    said: _Version

    @property
    def ids(self) -> dict[str, Any]:
        return {"id": self.job.deployment_id, "at": self.at}

    def time(self, at: datetime) -> str:
        """A moment on the wall of the schedule."""
        return f"{at.astimezone(ZoneInfo(self.said.tz)):%a %Y-%m-%d %H:%M:%S %Z}".replace(
            ":00 ", " "
        )


def job(conn: Connection, environment: Environment, name: str, at: datetime | None = None) -> Why:
    """Why a job ran last, what holds or keeps it now, and when it runs next; `at`: as of then.

    Raises NotFound for a job that the environment does not have, saying where it is.
    """
    found = _job(conn, environment, name)
    now: datetime = query.value(conn, "select kirby.now()")
    moment = at or now
    version = found.version if at is None else None
    said = query.row(conn, _Version, VERSION, id=found.deployment_id, at=moment, version=version)
    if said is None:
        raise NotFound(
            f"{name} was not deployed in {environment.name} yet at {moment:%Y-%m-%d %H:%M:%S} UTC"
        )
    asked = _Asked(conn, environment, found, moment, now, said)
    return Why(
        job=name,
        environment=environment.name,
        kind=found.kind,
        at=moment,
        says=_says(asked),
        tz=said.tz,
        answers=[*_last(asked), *_present(asked), *_next(asked)],
    )


def _job(conn: Connection, environment: Environment, name: str) -> Job:
    try:
        return jobs.get(conn, environment, name)
    except NotFound:
        places = [each.environment for each in jobs.places(conn, name)]
        if not places:
            raise
        where = ", ".join(places)
        raise NotFound(f"{name} is not deployed in {environment.name}: it is in {where}") from None


def _says(asked: _Asked) -> str:
    """What is deployed, in a line."""
    said, job = asked.said, asked.job
    since = f"version {said.version} since {said.created_at:%Y-%m-%d %H:%M} UTC by {said.actor}"
    if job.kind == "daemon":
        return f"a daemon, {job.replicas} {'replica' if job.replicas == 1 else 'replicas'}, {since}"
    if not said.schedules:
        return f"run by hand, {since}"
    without = f", not on the days of {', '.join(said.exclude)}" if said.exclude else ""
    return f"{schedule_words.explain(said.schedules, said.tz)}{without}, {since}"


# The last time


def _last(asked: _Asked) -> Iterator[Answer]:
    if asked.job.kind == "daemon":
        return
    tick = query.row(asked.conn, _Tick, TICK, **asked.ids)
    other = query.row(asked.conn, _ByOthers, BY_OTHERS, **asked.ids)
    if tick is not None:
        yield _of_tick(asked, tick)
        yield from _marks(asked, tick)
    if other is not None and (tick is None or other.queued_at >= tick.at):
        yield _of_run(asked, other)
    if tick is None and other is None:
        yield Answer("last", "it has not run yet: no tick was due and nobody started it")


def _of_tick(asked: _Asked, tick: _Tick) -> Answer:
    when = asked.time(tick.at) + (f" ({tick.note})" if tick.note else "")
    held: list[int] = []
    if tick.status == "queued":
        text, held = f"it ran, {_cause(tick)}: {_ended(tick)}", [*tick.exceptions, *tick.returns]
    elif tick.status == "skipped":
        text, held = f"it did not run: {tick.reason}", tick.held_by
    elif tick.begins > asked.at:
        text = f"it has not begun: its jitter puts it off until {asked.time(tick.begins)}"
    else:
        text = f"it is due, and {_not_fired(asked, tick)}"
    return Answer("last", f"{when}: {text}", tick.at, tick.run_id, held)


def _cause(tick: _Tick) -> str:
    if tick.own:
        return "its schedule names that time"
    if tick.exceptions:
        return f"the schedule of exception {tick.exceptions[0]} names that time"
    if tick.returns:
        return f"exception {tick.returns[0]} had ended and asked for a run"
    return f"run {tick.after_run} of the job before it had succeeded"


def _ended(tick: _Tick) -> str:
    return f"run {tick.run_id} {(tick.ended_as or 'gone').replace('_', ' ')}"


def _not_fired(asked: _Asked, tick: _Tick) -> str:
    if not query.value(asked.conn, ALIVE):
        return "no supervisor is alive to fire it"
    if asked.now - tick.begins < PATIENCE:
        return "about to be fired"
    return f"nobody has fired it for {(asked.now - tick.begins) // timedelta(seconds=1)} s"


def _marks(asked: _Asked, tick: _Tick) -> Iterator[Answer]:
    for mark in query.rows(asked.conn, _Deadline, MISSED, **asked.ids, tick=tick.at):
        if mark.due_at <= asked.at:
            what = "begun" if mark.kind == "start" else "been done"
            yield Answer("last", f"it should have {what} by {asked.time(mark.due_at)}", tick.at)


def _of_run(asked: _Asked, run: _ByOthers) -> Answer:
    when = asked.time(run.queued_at)
    started = f"{run.actor} started it by hand" if run.cause == "manual" else (
        f"run {run.retry_of} was tried again"
        + ("" if run.actor == "kirby" else f" by {run.actor}")
    )  # fmt: skip
    reason = f" ({run.reason})" if run.reason and run.status != "succeeded" else ""
    status = run.status.replace("_", " ")
    return Answer(
        "last", f"{when}: {started}: run {run.id} {status}{reason}", run.queued_at, run.id
    )


# At the moment


def _present(asked: _Asked) -> Iterator[Answer]:
    held = query.rows(asked.conn, _Held, EXCEPTIONS, **asked.ids, tz=asked.said.tz)
    live = query.rows(asked.conn, _Run, LIVE, **asked.ids, limit=MOST_LIVE)
    for each in held:
        yield Answer("now", f"{each.text} ({each.actor})", exceptions=[each.id])
    for run in live:
        yield Answer("now", _at_work(asked, run), run.started_at or run.queued_at, run.id)
    if asked.job.kind == "daemon":
        yield from _replicas(asked, live, bool(held))
    elif not live:
        yield Answer("now", "nothing of it runs")
    if asked.at == asked.now:
        yield from _parked(asked)
    for incident in query.rows(asked.conn, _Incident, INCIDENTS, **asked.ids):
        since = asked.time(incident.opened_at)
        yield Answer("now", f"incident {incident.id} since {since}: {incident.title}",
                     incident.opened_at, incident_id=incident.id)  # fmt: skip


def _at_work(asked: _Asked, run: _Run) -> str:
    name = f"run {run.id}" + ("" if run.replica is None else f", replica {run.replica}")
    name += " of the canary" if run.canary else ""
    if run.status != "queued" or run.started_at:
        where = f" on {run.host}" if run.host else ""
        since = asked.time(run.started_at or run.queued_at)
        return f"{name} {'runs' if run.started_at else 'is being started'}{where} since {since}"
    waits = f"{name} waits: {run.waiting}"
    return f"{waits}; it is attempt {run.attempt}" if run.retry_of and run.attempt > 1 else waits


def _replicas(asked: _Asked, live: list[_Run], held: bool) -> Iterator[Answer]:
    job, count = asked.job, sum(not run.canary for run in live)
    if job.canary_version and asked.at == asked.now:
        share = f"{100 * (job.canary_share or 0):.4g}% of the keys"
        yield Answer("now", f"version {job.canary_version} is a canary for {share}")
    if count < job.replicas and asked.at == asked.now:
        why = "on purpose: see above" if held else "the leader queues what is missing"
        yield Answer("now", f"{count} of {job.replicas} replicas are there; {why}")


def _parked(asked: _Asked) -> Iterator[Answer]:
    for each in subscriptions.parked_of(asked.conn, asked.environment, asked.job.name):
        what = "1 message" if each.messages == 1 else f"{each.messages:,} messages"
        yield Answer(
            "now",
            f"{what} of {each.topic} could not be handled, since {asked.time(each.since)}:"
            f" kirby subscription show {each.topic} {each.subscription}",
            each.since,
        )


# The next time


def _next(asked: _Asked) -> Iterator[Answer]:
    if asked.job.kind == "daemon":
        yield Answer("next", "it is kept running: what ends is started again")
        return
    if not asked.said.schedules:
        yield Answer("next", "when somebody starts it: it has no schedule")
        return
    found = query.rows(asked.conn, _Coming, COMING, **asked.ids, tz=asked.said.tz, limit=MOST_AHEAD)
    skipped = list(takewhile(lambda tick: tick.reason is not None, found))
    yield from _skipped(asked, skipped)
    if len(skipped) < len(found):
        yield _runs(asked, found[len(skipped)])
    elif found:
        yield Answer("next", f"none of the {len(found)} ticks planned so far will run")
    yield from _followed(asked, bool(found))


def _skipped(asked: _Asked, skipped: list[_Coming]) -> Iterator[Answer]:
    """Ticks that will not run, those in a row for one reason together."""
    told: set[str | None] = set()
    for tick in skipped:
        if tick.reason in told:
            continue
        told.add(tick.reason)
        more = sum(each.reason == tick.reason for each in skipped) - 1
        others = f" (and {more} more)" if more else ""
        yield Answer("next", f"{asked.time(tick.at)}{others}: it will not run: {tick.reason}",
                     tick.at, exceptions=tick.held_by)  # fmt: skip


def _runs(asked: _Asked, tick: _Coming) -> Answer:
    note = f" ({tick.note})" if tick.note else ""
    jitter = f", up to {asked.said.jitter:g} s later" if asked.said.jitter else ""
    live = query.rows(asked.conn, _Run, LIVE, **asked.ids, limit=1)
    unless = f" if run {live[0].id} has ended by then" if live and _skips(asked.job) else ""
    return Answer("next", f"{asked.time(tick.at)}{note}: it will run{jitter}{unless}", tick.at)


def _skips(job: Job) -> bool:
    """Whether a tick that comes while a run goes on is skipped."""
    waits = job.concurrency == "default" and job.catch_up == "all"
    return job.concurrency in ("default", "skip") and not waits


def _unplanned(asked: _Asked) -> str:
    """Why no tick is there: nothing plans, or nothing is to come."""
    written = schedules.parse(asked.said.schedules, asked.said.tz)
    due = next(written.ticks(asked.at, n=1), None)
    if due is None:
        return "its schedule names no time to come"
    if query.value(asked.conn, ALIVE):
        return f"{asked.time(due.at)}, as its schedule says: not planned yet"
    return f"{asked.time(due.at)}, as its schedule says: no supervisor is alive to plan it"


def _followed(asked: _Asked, named: bool) -> Iterator[Answer]:
    after = [line for line in asked.said.schedules if line.lower().startswith("after")]
    if after:
        names = ", ".join(line.partition(":")[2].strip() for line in after)
        yield Answer("next", f"{'also ' if named else ''}when {names} has succeeded")
    elif not named:
        yield Answer("next", _unplanned(asked))

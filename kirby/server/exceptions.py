"""Exceptions to schedules: a pause or a slow-down that begins and ends by itself.

Nothing has to run for one to begin or to end: its windows are rows, made when somebody says it, and
whether a tick is held is decided when it is due (``kirby.judge_tick``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import cron, query, schedules, spans, windows
from kirby.server.environments import Environment
from kirby.server.schedules import Schedule

EFFECTS = ("pause", "schedule", "rate", "skip", "manual")
RETURNS = ("next_tick", "run_once", "catch_up")
SCOPES = ("job", "topic", "tag", "environment", "everything")
LONGEST = timedelta(days=366)
MOST_COUNTED = 5000  # ticks of one job that are counted before an exception is made

ADD = "select kirby.add_exception(%(document)s, %(actor)s)"
CHANGE = "select kirby.change_exception(%(id)s, %(document)s, %(actor)s, %(reason)s)"
END = "select kirby.end_exception(%(id)s, %(actor)s, %(reason)s)"
LISTING = """
    select x.id, e.name as environment, x.scope, x.target, v.version, v.from_at, v.until_at,
           v.recurs, v.lasts, v.tz, v.effect, v.schedules, v.most, v.per, v.on_return,
           v.return_most, v.reason, v.ticket, v.actor, v.change, v.recorded_at,
           case when v.change = 'ended' then 'ended'
                when v.until_at <= kirby.now() then 'over'
                when w.until_at is null then 'coming'
                else 'in force' end as status,
           coalesce(w.until_at, n.from_at) as next_at,
           cardinality(kirby.deployments_in(x.environment_id, x.scope, x.target)) as jobs
      from kirby.schedule_exception x
      left join kirby.environment e on e.id = x.environment_id
      join lateral (select * from kirby.exception_version l where l.exception_id = x.id
                     order by l.version desc limit 1) v on true
      left join lateral (select w.until_at from kirby.exception_window w
                          where w.exception_id = x.id and w.version = v.version
                            and w.from_at <= kirby.now() and w.until_at > kirby.now()
                          limit 1) w on true
      left join lateral (select w.from_at from kirby.exception_window w
                          where w.exception_id = x.id and w.version = v.version
                            and w.from_at > kirby.now() order by w.from_at limit 1) n on true
     where (%(id)s::integer is null or x.id = %(id)s)
       and (%(environment_id)s::integer is null or x.environment_id is null
            or x.environment_id = %(environment_id)s)
       and (%(deployment_id)s::integer is null
            or kirby.is_concerned(%(deployment_id)s, x.environment_id, x.scope, x.target))
       and (%(past)s or v.until_at > kirby.now())
     order by v.until_at <= kirby.now(), w.until_at is null, v.from_at desc, x.id desc
     limit %(limit)s
"""
HISTORY = """
    select version, change, from_at, until_at, effect, schedules, reason, actor, recorded_at
      from kirby.exception_version where exception_id = %(id)s order by version
"""
CONCERNED = """
    select d.id, e.name as environment, j.name, j.kind, v.schedules, v.tz
      from unnest(kirby.deployments_in(%(environment_id)s, %(scope)s, %(target)s)) as c (id)
      join kirby.deployment d on d.id = c.id
      join kirby.environment e on e.id = d.environment_id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     order by e.id, j.name
"""
EFFECTIVE = """
    select w.exception_id as id, w.scope, w.target, w.effect, w.schedules, w.from_at, w.until_at,
           w.reason, w.actor
      from kirby.exceptions_of(%(deployment_id)s, %(at)s, %(known_at)s) w
"""
NAMES = {
    "job": "select distinct j.name from kirby.deployment d join kirby.job j on j.id = d.job_id"
    " where %(environment_id)s::integer is null or d.environment_id = %(environment_id)s",
    "tag": "select distinct t from kirby.deployment d join kirby.deployment_version v"
    " on v.deployment_id = d.id and v.version = d.version, unnest(v.tags) as t"
    " where %(environment_id)s::integer is null or d.environment_id = %(environment_id)s",
    "topic": "select distinct t.name from kirby.topic t"
    " where %(environment_id)s::integer is null or t.environment_id = %(environment_id)s",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for. `most` and `per` (seconds): of rate, and `most` of skip.

    A recurring one (`recurs`, a cron line) holds for `lasts` seconds from each of its instants.
    """

    scope: str
    target: str
    effect: str
    until: datetime
    start: datetime | None = None
    tz: str = "UTC"
    schedules: tuple[str, ...] = ()
    most: int | None = None
    per: float | None = None
    recurs: str = ""
    lasts: float | None = None
    on_return: str = "next_tick"
    return_most: int = 10
    reason: str = ""
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleException:
    """One as it stands. `next_at`: when it ends if it is in force, begins if it is coming."""

    id: int
    environment: str | None
    scope: str
    target: str
    version: int
    from_at: datetime
    until_at: datetime
    recurs: str
    lasts: float | None
    tz: str
    effect: str
    schedules: list[str]
    most: int | None
    per: float | None
    on_return: str
    return_most: int
    reason: str
    ticket: str
    actor: str
    change: str
    recorded_at: datetime
    status: str
    next_at: datetime | None
    jobs: int

    @property
    def what(self) -> str:
        """Its effect, in words."""
        return effect_text(self.effect, self.schedules, self.most, self.per)

    @property
    def often(self) -> str:
        """When it holds, if it recurs: ``0 1 * * sun for 4h``."""
        lasts = spans.text(timedelta(seconds=self.lasts or 0))
        return f"{self.recurs} for {lasts}" if self.recurs else ""

    @property
    def where(self) -> str:
        """What it is about, in words."""
        place = self.environment or "all environments"
        if self.scope in ("environment", "everything"):
            return f"everything in {place}"
        return f"{self.scope} {self.target} in {place}"


@dataclass(frozen=True, slots=True)
class Change:
    """One version of an exception: what somebody made of it, and why."""

    version: int
    change: str
    from_at: datetime
    until_at: datetime
    effect: str
    schedules: list[str]
    reason: str
    actor: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Concerned:
    """A deployment that an exception is about."""

    id: int
    environment: str
    name: str
    kind: str
    schedules: list[str]
    tz: str


@dataclass(frozen=True, slots=True)
class Effective:
    """An exception in force for a job at a moment; the first of several decides."""

    id: int
    scope: str
    target: str
    effect: str
    schedules: list[str]
    from_at: datetime
    until_at: datetime
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a wish will do: to which jobs, and to how many of their ticks (a count, or "5000+")."""

    scheduled: list[Concerned]
    daemons: list[Concerned]
    manual: list[Concerned]
    ticks: int
    is_more: bool


def effect_text(effect: str, instead: Sequence[str], most: int | None, per: float | None) -> str:
    """What an effect does, in words."""
    if effect == "schedule":
        return f"runs at {', '.join(instead)} instead"
    if effect == "rate":
        return f"at most {most} in {spans.text(timedelta(seconds=per or 0))}"
    if effect == "skip":
        return f"skips {most} ticks"
    return {"pause": "paused", "manual": "only by hand"}[effect]


def listing(
    conn: Connection,
    environment: Environment | None,
    *,
    deployment_id: int | None = None,
    past: bool = False,
    limit: int = 100,
) -> list[ScheduleException]:
    """Those in force and coming, with `past` the others too; of an environment, of a job."""
    return _found(conn, environment, deployment_id=deployment_id, past=past, limit=limit)


def get(conn: Connection, id: int) -> ScheduleException:
    """The exception of that number; raises NotFound."""
    found = _found(conn, None, id=id, past=True)
    if not found:
        raise query.missing("exception", str(id), [])
    return found[0]


def history(conn: Connection, id: int) -> list[Change]:
    """All that was ever said of it, in order."""
    return query.rows(conn, Change, HISTORY, id=id)


def effective(
    conn: Connection, deployment_id: int, at: datetime, known_at: datetime | None = None
) -> list[Effective]:
    """What is in force for a deployment at a moment, past or to come, the decisive one first.

    Of the past, as it was known then; of the future, as it is known now; or as of `known_at`.
    """
    return query.rows(
        conn, Effective, EFFECTIVE, deployment_id=deployment_id, at=at, known_at=known_at
    )


def outlook(conn: Connection, environment: Environment | None, wish: Wish) -> Outlook:
    """What a wish would do. Raises Invalid if it says what cannot be, or is about nothing."""
    now: datetime = query.value(conn, "select kirby.now()")
    checked(wish, now)
    found = _concerned(conn, environment, wish)
    scheduled = [each for each in found if each.kind == "scheduled"]
    daemons = [each for each in found if each.kind == "daemon"]
    if found and not scheduled and not daemons:
        raise Invalid(f"{_names(found)} runs by hand only: there is no schedule to make a break in")
    if daemons and not scheduled and wish.effect not in ("pause", "manual"):
        raise Invalid(f"{_names(daemons)}: daemons have no schedule, they can be paused only")
    counts = [_held(each, wish, now) for each in scheduled]
    return Outlook(
        scheduled,
        daemons,
        [each for each in found if each.kind == "manual"],
        sum(counts),
        any(count >= MOST_COUNTED for count in counts),
    )


def add(conn: Connection, environment: Environment | None, wish: Wish, *, actor: str) -> int:
    """Make an exception; returns its number. Raises Invalid, NotFound; audited."""
    outlook(conn, environment, wish)
    now: datetime = query.value(conn, "select kirby.now()")
    document = {
        "environment_id": environment.id if environment else None,
        "scope": wish.scope,
        "target": wish.target,
        **_document(wish, max(wish.start or now, now)),
    }
    return int(query.value(conn, ADD, document=Jsonb(document), actor=actor))


def extend(conn: Connection, id: int, until: datetime, *, actor: str, reason: str = "") -> None:
    """Let it end at another time, sooner or later. Raises NotFound, Invalid, Conflict (over)."""
    found = get(conn, id)
    document: dict[str, Any] = {"until_at": until.isoformat()}
    if found.recurs and found.from_at < until:
        document["windows"] = windows.of(
            found.recurs, found.lasts or 0, found.tz, found.from_at, until
        )
    query.value(conn, CHANGE, id=id, document=Jsonb(document), actor=actor, reason=reason)


def end(conn: Connection, id: int, *, actor: str, reason: str = "") -> None:
    """End it now, or take it back before it begins. Raises NotFound, Conflict (it is over)."""
    query.value(conn, END, id=id, actor=actor, reason=reason)


# What a wish says


def checked(wish: Wish, now: datetime) -> Schedule | None:
    """Raise Invalid for what cannot be; the schedule that it puts in the place of others."""
    begin = max(wish.start or now, now)
    if wish.scope not in SCOPES or wish.effect not in EFFECTS or wish.on_return not in RETURNS:
        raise Invalid(f"{wish.scope} / {wish.effect} / {wish.on_return} is not known")
    if (wish.target == "") != (wish.scope in ("environment", "everything")):
        raise Invalid(f"say which {wish.scope}" if not wish.target else
                      f"{wish.scope} has no name")  # fmt: skip
    if not wish.reason.strip():
        raise Invalid("say why (--reason): who wonders why nothing runs will read it")
    if wish.until <= begin:
        raise Invalid(f"it would be over before it begins: {wish.until:%Y-%m-%d %H:%M} UTC")
    if wish.until > now + LONGEST:
        raise Invalid("an exception lasts a year at the most: it can be extended while it lasts")
    if wish.effect in ("rate", "skip") and not (wish.most and wish.most > 0):
        raise Invalid(f"say how many ticks: {wish.effect} needs a number above 0")
    if wish.effect == "rate" and not (wish.per and wish.per > 0):
        raise Invalid("say in which time: a rate is written like 4/1h")
    if not 1 <= wish.return_most <= 1000:
        raise Invalid("catch-up is from 1 to 1,000 ticks")
    if (wish.recurs == "") != (wish.lasts is None):
        raise Invalid("a recurring exception has both: when it begins (--recurs), and --lasts")
    cron.zone(wish.tz)
    return _instead(wish)


def _instead(wish: Wish) -> Schedule | None:
    if wish.effect != "schedule":
        return None
    found = schedules.parse(wish.schedules, wish.tz)
    if not found.has_ticks or found.after_jobs:
        raise Invalid("say what runs instead: a cron line, or 'every 2h'")
    return found


def _document(wish: Wish, begin: datetime) -> dict[str, Any]:
    instead = _instead(wish)
    document: dict[str, Any] = {
        "from_at": begin.isoformat(),
        "until_at": wish.until.isoformat(),
        "recurs": wish.recurs,
        "lasts": wish.lasts,
        "tz": wish.tz,
        "effect": wish.effect,
        "schedules": list(wish.schedules),
        "density": windows.density(instead, begin) if instead else 0,
        "most": wish.most,
        "per": wish.per,
        "on_return": wish.on_return,
        "return_most": wish.return_most,
        "reason": wish.reason.strip(),
        "ticket": wish.ticket,
    }
    if wish.recurs:
        document["windows"] = windows.of(wish.recurs, wish.lasts or 0, wish.tz, begin, wish.until)
    return document


# What it is about


def _concerned(conn: Connection, environment: Environment | None, wish: Wish) -> list[Concerned]:
    place = environment.id if environment else None
    found = query.rows(
        conn, Concerned, CONCERNED, environment_id=place, scope=wish.scope, target=wish.target
    )
    if not found and wish.scope in NAMES:
        known = query.column(conn, NAMES[wish.scope], environment_id=place)
        where = environment.name if environment else "any environment"
        what = {
            "job": f"job in {where} called",
            "tag": f"job in {where} with the tag",
            "topic": f"job in {where} that reads the topic",
        }[wish.scope]
        raise query.missing(what, wish.target, known)
    return found


def _held(each: Concerned, wish: Wish, now: datetime) -> int:
    """How many of its ticks fall into the wish; no more than are worth counting."""
    schedule = schedules.parse(each.schedules, each.tz)
    begin = max(wish.start or now, now)
    if not schedule.has_ticks:
        return 0
    held = [[begin.isoformat(), wish.until.isoformat()]]
    if wish.recurs:
        held = windows.of(wish.recurs, wish.lasts or 0, wish.tz, begin, wish.until)
    count = 0
    for first, last in held:
        start, stop = map(datetime.fromisoformat, (first, last))
        left = MOST_COUNTED - count
        inside = schedule.ticks(start - cron.INSTANT, n=left, until=stop - cron.INSTANT)
        count += sum(1 for _ in inside)
        if count >= MOST_COUNTED:
            break
    return count


def _names(found: Sequence[Concerned]) -> str:
    names = [each.name for each in found[:3]]
    return ", ".join(names) + (" …" if len(found) > 3 else "")


def _found(
    conn: Connection,
    environment: Environment | None,
    *,
    id: int | None = None,
    deployment_id: int | None = None,
    past: bool = False,
    limit: int = 100,
) -> list[ScheduleException]:
    return query.rows(
        conn,
        ScheduleException,
        LISTING,
        id=id,
        environment_id=environment.id if environment else None,
        deployment_id=deployment_id,
        past=past,
        limit=limit,
    )

"""Channels: where people hear of incidents, what is told there, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound, Taken
from kirby.server import addresses, environments, notices, query, scripts
from kirby.server.environments import Environment

SHOWN = 20
USUAL = ("opened", "resolved", "ending", "over")

LISTING = """
    select c.id, e.name as environment, c.name, c.url, c.description, c.failures, c.failing_since,
           c.delivered_at, at.waiting, at.parked, c.created_by, c.created_at
      from kirby.channel c
      left join kirby.environment e on e.id = c.environment_id
     cross join lateral (
           select count(*) filter (where n.parked_at is null) as waiting,
                  count(*) filter (where n.parked_at is not null) as parked
             from kirby.notices_at(c.id) n) at
     where (%(environment_id)s::smallint is null or c.environment_id is null
            or c.environment_id = %(environment_id)s)
       and (%(name)s::text is null or c.name = %(name)s)
     order by c.name, c.environment_id nulls first
"""
ROUTES = """
    select r.id, r.channel_id, e.name as environment, r.scope, r.target, r.events, r.kinds,
           r.created_by, r.created_at
      from kirby.route r
      left join kirby.environment e on e.id = r.environment_id
     where r.channel_id = any (%(ids)s)
     order by r.scope = 'everything' desc, r.scope, r.target, e.id nulls first
"""
ADD = """
    insert into kirby.channel (environment_id, name, url, description, created_by)
    select %(environment_id)s::smallint, %(name)s, %(url)s, %(description)s, %(actor)s
     where not exists (
           select from kirby.channel c
            where c.name = %(name)s
              and coalesce(c.environment_id = %(environment_id)s::smallint, true))
        on conflict do nothing
    returning id
"""
EDIT = """
    update kirby.channel set url = %(url)s, description = %(description)s where id = %(id)s
"""
REMOVE = "select kirby.remove_channel(%(id)s, %(actor)s)"
ADD_ROUTE = """
    insert into kirby.route (channel_id, environment_id, scope, target, events, kinds, created_by,
                             created_at)
    values (%(id)s, %(environment_id)s, %(scope)s, %(target)s, %(events)s, %(kinds)s, %(actor)s,
            kirby.now())
        on conflict (channel_id, environment_id, scope, target) do update
       set events = excluded.events, kinds = excluded.kinds
    returning id
"""
REMOVE_ROUTE = "delete from kirby.route where id = %(route)s and channel_id = %(id)s returning id"
JOBS = "select name from kirby.job order by name"
OF_JOB = """
    select c.name as channel, r.id, r.channel_id, coalesce(re.name, ce.name) as environment,
           r.scope, r.target, r.events, r.kinds, r.created_by, r.created_at
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
      join kirby.route r on coalesce(r.environment_id = d.environment_id, true)
       and case r.scope when 'job' then r.target = j.name
                        when 'tag' then r.target = any (v.tags) else true end
      join kirby.channel c on c.id = r.channel_id
       and coalesce(c.environment_id = d.environment_id, true)
      left join kirby.environment re on re.id = r.environment_id
      left join kirby.environment ce on ce.id = c.environment_id
     where d.environment_id = %(environment_id)s and j.name = %(job)s
     order by c.name, r.scope = 'everything' desc, r.scope, r.target
"""
DELIVERIES = """
    select position, incident_id, event, attempt, outcome, answer, seconds, at
      from kirby.delivery
     where channel_id = %(id)s and (%(position)s::bigint is null or position = %(position)s)
     order by id desc
     limit %(limit)s
"""
WAITING = """
    select position, environment, attempt, due_at, parked_at, reason, error,
           payload ->> 'event' as event, payload ->> 'title' as title,
           (payload ->> 'incident')::bigint as incident_id,
           (payload ->> 'exception')::integer as exception_id
      from kirby.notices_at(%(id)s)
     order by parked_at is null, position
     limit %(limit)s
"""
RESEND = "select kirby.resend_notices(%(id)s, %(actor)s)"
TEST = "select kirby.try_channel(%(id)s, %(environment_id)s::smallint, %(actor)s)"
AUDIT = "select kirby.audit(%(actor)s, %(verb)s, %(object)s, %(before)s, %(after)s)"


@dataclass(frozen=True, slots=True)
class Route:
    """What is told: of a job, of jobs with a tag, or everything; in one environment or in all.

    ``kinds`` of incidents; empty: all.
    """

    id: int
    channel_id: int
    environment: str | None
    scope: str
    target: str
    events: list[str]
    kinds: list[str]
    created_by: str
    created_at: datetime

    @property
    def said(self) -> str:
        """``jobs tagged etl in prod: opened, resolved; failing``."""
        what = {"job": f"job {self.target}", "tag": f"jobs tagged {self.target}"}
        where = f" in {self.environment}" if self.environment else ""
        kinds = f"; only {', '.join(self.kinds)}" if self.kinds else ""
        return f"{what.get(self.scope, 'everything')}{where}: {', '.join(self.events)}{kinds}"


@dataclass(frozen=True, slots=True)
class JobRoute(Route):
    """A route by which a channel is told of a job."""

    channel: str


@dataclass(frozen=True, slots=True)
class Channel:
    """``environment`` None: for all. ``failures``: deliveries in a row that went wrong.

    Of notices, ``waiting`` are tried again by themselves, ``parked`` are not.
    """

    id: int
    environment: str | None
    name: str
    url: str
    description: str
    failures: int
    failing_since: datetime | None
    delivered_at: datetime | None
    waiting: int
    parked: int
    created_by: str
    created_at: datetime
    routes: list[Route] = field(default_factory=list)

    @property
    def status(self) -> str:
        """new, works, failing (it is tried again) or broken (there is an incident of it)."""
        if self.parked or self.failures >= 3:
            return "broken"
        if self.failures:
            return "failing"
        return "works" if self.delivered_at else "new"

    @property
    def told(self) -> str:
        return " · ".join(each.said for each in self.routes) or "nothing: it has no route"


@dataclass(frozen=True, slots=True)
class Delivery:
    """``outcome``: delivered, failed (it is tried again) or parked."""

    position: int
    incident_id: int | None
    event: str
    attempt: int
    outcome: str
    answer: str
    seconds: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice that could not be delivered yet; ``parked_at``: it is not tried again by itself."""

    position: int
    environment: str
    attempt: int
    due_at: datetime | None
    parked_at: datetime | None
    reason: str
    error: str | None
    event: str
    title: str
    incident_id: int | None
    exception_id: int | None


def listing(conn: Connection, environment: Environment | None = None) -> list[Channel]:
    """The channels of an environment and those for all, by name; without one: all there are."""
    return _found(conn, environment, None)


def get(conn: Connection, environment: Environment | None, name: str) -> Channel:
    """The channel of that name. Raises NotFound with the closest name there is."""
    if found := _found(conn, environment, name):
        return found[0]
    raise query.missing("channel", name, [each.name for each in listing(conn, environment)])


def of_job(conn: Connection, environment: Environment, job: str) -> list[JobRoute]:
    """By which routes people hear of a job, by channel."""
    return query.rows(conn, JobRoute, OF_JOB, environment_id=environment.id, job=job)


def add(
    conn: Connection,
    environment: Environment | None,
    name: str,
    url: str,
    *,
    actor: str,
    description: str = "",
    route: bool = True,
) -> Channel:
    """Add a channel, of an environment or for all; audited.

    With a `route` it is told the beginning and the end of incidents, and the end of exceptions.
    Raises Invalid or Taken.
    """
    url, name = addresses.check(url), _name(name)
    added = query.value(
        conn,
        ADD,
        environment_id=environment.id if environment else None,
        name=name,
        url=url,
        description=description.strip(),
        actor=actor,
    )
    if added is None:
        raise Taken(f"there is a channel {name} already: remove it, or choose another name")
    _audit(
        conn, actor, "channel_added", name, None, {"url": url, "environment": _named(environment)}
    )
    channel = _by_id(conn, environment, name, added)
    return add_route(conn, channel, actor=actor) if route else channel


def edit(
    conn: Connection,
    channel: Channel,
    *,
    actor: str,
    url: str | None = None,
    description: str | None = None,
) -> None:
    """Change its address or description; audited. Raises Invalid."""
    after = {
        "url": channel.url if url is None else addresses.check(url),
        "description": channel.description if description is None else description.strip(),
    }
    before = {"url": channel.url, "description": channel.description}
    if after != before:
        query.execute(conn, EDIT, id=channel.id, **after)
        _audit(conn, actor, "channel_changed", channel.name, before, after)


def remove(conn: Connection, channel: Channel, *, actor: str) -> None:
    """Remove it; what is on its way there is given up; audited."""
    query.value(conn, REMOVE, id=channel.id, actor=actor)


def add_route(
    conn: Connection,
    channel: Channel,
    *,
    actor: str,
    job: str = "",
    tag: str = "",
    environment: str = "",
    events: Sequence[str] = USUAL,
    kinds: Sequence[str] = (),
) -> Channel:
    """Have more told there: of a job, of jobs with a tag, or (neither) everything; audited.

    A route of the same is changed. Returns the channel as it is now. Raises Invalid, NotFound.
    """
    scope, target = _scope(conn, job.strip(), tag.strip())
    where = environments.get(conn, environment) if environment else None
    if where and channel.environment not in (None, where.name):
        raise Invalid(
            f"the channel {channel.name} is of {channel.environment}, not of {where.name}"
        )
    chosen = {
        "scope": scope,
        "target": target,
        "events": _chosen("event", events, notices.EVENTS),
        "kinds": _chosen("kind of incident", kinds, notices.KINDS),
    }
    if not chosen["events"]:
        raise Invalid(f"say which events are told: {', '.join(notices.EVENTS)}")
    query.value(
        conn, ADD_ROUTE, id=channel.id, environment_id=where.id if where else None, actor=actor,
        **chosen,
    )  # fmt: skip
    after = {**chosen, "environment": _named(where)}
    _audit(conn, actor, "route_added", channel.name, None, after)
    return _again(conn, channel)


def remove_route(conn: Connection, channel: Channel, route_id: int, *, actor: str) -> Channel:
    """Have that told there no more; audited. Returns the channel as it is now. Raises NotFound."""
    if query.value(conn, REMOVE_ROUTE, id=channel.id, route=route_id) is None:
        raise NotFound(f"the channel {channel.name} has no route {route_id}")
    gone = next((each for each in channel.routes if each.id == route_id), None)
    before = {"route": gone.said} if gone else None
    _audit(conn, actor, "route_removed", channel.name, before, None)
    return _again(conn, channel)


def deliveries(conn: Connection, channel: Channel, *, limit: int = SHOWN) -> list[Delivery]:
    """What became of the last notices, newest first; no more than 200 are kept."""
    return query.rows(conn, Delivery, DELIVERIES, id=channel.id, position=None, limit=limit)


def waiting(conn: Connection, channel: Channel, *, limit: int = SHOWN) -> list[Waiting]:
    """What could not be delivered yet; first what is not tried again by itself."""
    return query.rows(conn, Waiting, WAITING, id=channel.id, limit=limit)


def resend(conn: Connection, channel: Channel, *, actor: str) -> int:
    """Send at once what waits, and what was given up; audited. Returns how many."""
    return int(query.value(conn, RESEND, id=channel.id, actor=actor))


def test(conn: Connection, channel: Channel, environment: Environment, *, actor: str) -> int:
    """Have a test sent by whoever delivers notices; its position, for ``outcome``. Audited."""
    return int(query.value(conn, TEST, id=channel.id, environment_id=environment.id, actor=actor))


def outcome(conn: Connection, channel: Channel, position: int) -> Delivery | None:
    """What became of a notice at its last try; None before the first."""
    return query.row(conn, Delivery, DELIVERIES, id=channel.id, position=position, limit=1)


def _found(conn: Connection, environment: Environment | None, name: str | None) -> list[Channel]:
    where = environment.id if environment else None
    found = query.rows(conn, Channel, LISTING, environment_id=where, name=name)
    by_id = {each.id: each for each in found}
    for route in query.rows(conn, Route, ROUTES, ids=list(by_id)):
        by_id[route.channel_id].routes.append(route)
    return found


def _again(conn: Connection, channel: Channel) -> Channel:
    where = environments.get(conn, channel.environment) if channel.environment else None
    return _by_id(conn, where, channel.name, channel.id)


def _by_id(conn: Connection, environment: Environment | None, name: str, id: int) -> Channel:
    return next(each for each in _found(conn, environment, name) if each.id == id)


def _name(name: str) -> str:
    if not scripts.NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of a channel: small letters, digits and . _ -")
    return name


def _scope(conn: Connection, job: str, tag: str) -> tuple[str, str]:
    if job and tag:
        raise Invalid("a route is for a job or for a tag: make two for both")
    if job and job not in (known := query.column(conn, JOBS)):
        raise query.missing("job", job, known)
    return ("job", job) if job else ("tag", tag) if tag else ("everything", "")


def _chosen(what: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    for each in given:
        if each not in known:
            raise Invalid(f"{each!r} is no {what}: {', '.join(known)}")
    return [each for each in known if each in given]


def _named(environment: Environment | None) -> str | None:
    return environment.name if environment else None


def _audit(conn: Connection, actor: str, verb: str, name: str, before: Any, after: Any) -> None:
    changed = [Jsonb(each) if each is not None else None for each in (before, after)]
    query.value(conn, AUDIT, actor=actor, verb=verb, object=f"channel/{name}", before=changed[0],
                after=changed[1])  # fmt: skip

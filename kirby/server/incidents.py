"""Incidents: episodes of something wrong, who sees to them, and the story of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import moments, query, spans
from kirby.server.environments import Environment

KINDS = (
    *("failing", "missed", "late", "stuck", "silent"),
    *("retrying", "channel", "storm", "platform"),
)
STATUSES = ("open", "resolved", "all")

COLUMNS = """
    select i.id, e.name as environment, j.name as job, i.kind, i.status, i.title, i.details,
           i.count, i.run_id, i.opened_at, i.updated_at, i.resolved_at, i.resolved_by,
           i.resolution, i.acknowledged_at, i.acknowledged_by,
           case when i.silenced_until > (select kirby.now()) then i.silenced_until end
             as silenced_until,
           i.announced_at, i.told_in, i.flapping
      from kirby.incident i
      left join kirby.environment e on e.id = i.environment_id
      left join kirby.deployment d on d.id = i.deployment_id
      left join kirby.job j on j.id = d.job_id
"""
# What no environment has is everybody's: Kirby itself was down.
LISTING = (
    COLUMNS
    + """
     where (i.environment_id = %(environment_id)s or i.environment_id is null)
       and (%(status)s = 'all' or i.status = %(status)s)
       and (%(of_kind)s::text is null or i.kind = %(of_kind)s)
       and (%(job)s::text is null or j.name = %(job)s)
       and (not %(top)s or i.told_in is null)
       and (%(before)s::bigint is null or i.id < %(before)s)
     order by i.id desc
     limit %(limit)s
"""
)
GET = COLUMNS + " where i.id = %(id)s"
TOLD = COLUMNS + " where i.told_in = %(id)s order by i.status, i.id limit %(limit)s"
TIMELINE = """
    select v.position, v.recorded_at as at, v.type, v.actor, v.data
      from kirby.job_event v
     where (v.data ->> 'incident')::bigint = %(id)s
       and v.type in ('incident_opened', 'incident_updated', 'incident_told', 'incident_resolved')
    union all
    select a.position, a.recorded_at, a.verb, a.actor,
           jsonb_strip_nulls(jsonb_build_object(
             'reason', nullif(a.reason, ''),
             'until', to_char((a.after ->> 'until')::timestamptz at time zone 'UTC',
                              'YYYY-MM-DD HH24:MI "UTC"')))
      from kirby.audit_event a
     where a.object = 'incident/' || %(id)s::bigint and a.verb <> 'incident_resolved'
     order by 1 desc
     limit %(limit)s
"""
LINES = """
    select l.text from (
      select position, text from kirby.log_line where run_id = %(run_id)s
       order by position desc limit %(limit)s) l
     order by l.position
"""
COUNT = """
    select count(*) from kirby.incident i
     where (i.environment_id = %(environment_id)s or i.environment_id is null)
       and i.status = 'open' and i.told_in is null
"""
NOW = "select kirby.now()"
ACKNOWLEDGE = "select kirby.acknowledge_incident(%(id)s, %(actor)s, %(reason)s)"
SILENCE = "select kirby.silence_incident(%(id)s, %(until)s, %(actor)s, %(reason)s)"
RESOLVE = "select kirby.resolve_incident(%(id)s, %(actor)s, %(reason)s)"


@dataclass(frozen=True, slots=True)
class Incident:
    """One episode. ``count``: how often it was seen (of a storm: how many it tells of).

    ``details["stage"]`` says where it came to a stand; ``told_in``: the incident that tells of
    this one; ``flapping``: it came and went too often and is kept open for an hour.
    """

    id: int
    environment: str | None
    job: str | None
    kind: str
    status: str
    title: str
    details: dict[str, Any]
    count: int
    run_id: int | None
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    silenced_until: datetime | None
    announced_at: datetime | None
    told_in: int | None
    flapping: bool

    @property
    def open(self) -> bool:
        return self.status == "open"

    @property
    def state(self) -> str:
        """In a word: open, flapping, acknowledged, silenced, resolved."""
        if not self.open:
            return "resolved"
        if self.silenced_until:
            return "silenced"
        if self.acknowledged_at:
            return "acknowledged"
        return "flapping" if self.flapping else "open"


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of an incident's story: ``type`` and ``data`` as the log has them."""

    position: int
    at: datetime
    type: str
    actor: str
    data: dict[str, Any]


def listing(
    conn: Connection,
    environment: Environment,
    *,
    status: str = "open",
    kind: str | None = None,
    job: str | None = None,
    top: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[Incident]:
    """The incidents of an environment and of Kirby itself, newest first.

    ``status``: open, resolved or all. ``top``: without those that another one tells of.
    Raises Invalid for a status or a kind that does not exist.
    """
    check(status, STATUSES, "status")
    if kind:
        check(kind, KINDS, "kind of incident")
    return query.rows(
        conn,
        Incident,
        LISTING,
        environment_id=environment.id,
        status=status,
        of_kind=kind or None,
        job=job or None,
        top=top,
        before=before,
        limit=limit,
    )


def check(given: str, known: tuple[str, ...], what: str) -> None:
    """Raise Invalid for what is none of the known words."""
    if given not in known:
        raise Invalid(f"{given[:40]!r} is no {what}: {', '.join(known)}")


def count(conn: Connection, environment: Environment) -> int:
    """How many are open; a storm is one."""
    return int(query.value(conn, COUNT, environment_id=environment.id))


def get(conn: Connection, incident_id: int) -> Incident:
    """One incident; raises NotFound."""
    found = query.row(conn, Incident, GET, id=incident_id)
    if found is None:
        raise NotFound(f"there is no incident {incident_id}")
    return found


def told(conn: Connection, incident: Incident, *, limit: int = 500) -> list[Incident]:
    """Those that a storm, or an outage, tells of; the open ones first."""
    return query.rows(conn, Incident, TOLD, id=incident.id, limit=limit)


def timeline(conn: Connection, incident: Incident, *, limit: int = 200) -> list[Moment]:
    """What happened to it, newest first: Kirby's events, and what people did."""
    return query.rows(conn, Moment, TIMELINE, id=incident.id, limit=limit)


def lines(conn: Connection, incident: Incident, *, limit: int = 20) -> list[str]:
    """The last lines of output of its run, redacted as they are stored."""
    return query.column(conn, LINES, run_id=incident.run_id, limit=limit)


def acknowledge(conn: Connection, incident_id: int, *, actor: str, reason: str = "") -> bool:
    """Somebody sees to it: no more digests. Whether that is news; audited.

    Raises NotFound, or WrongTransition when it is over.
    """
    return bool(query.value(conn, ACKNOWLEDGE, id=incident_id, actor=actor, reason=reason))


def silence(
    conn: Connection, incident_id: int, until: datetime | None, *, actor: str, reason: str = ""
) -> None:
    """Tell nobody of it, nor of the same when it comes back, until then; None: tell again.

    Audited. Raises NotFound, Invalid (in the past, too far away), WrongTransition (it is over).
    """
    query.execute(conn, SILENCE, id=incident_id, until=until, actor=actor, reason=reason)


def resolve(conn: Connection, incident_id: int, *, actor: str, reason: str = "") -> bool:
    """Somebody says that it is over; whether it was open. Audited. Raises NotFound."""
    said = reason or f"{actor} says that it is over"
    return bool(query.value(conn, RESOLVE, id=incident_id, actor=actor, reason=said))


def until(conn: Connection, text: str) -> datetime:
    """When a silence ends that lasts ``2h``, or until ``2027-03-28T08:00`` (UTC without a zone).

    Raises Invalid.
    """
    now: datetime = query.value(conn, NOW)
    given = text.strip()
    if written := spans.WRITTEN.fullmatch(given):
        if int(written[1]) == 0:
            raise Invalid(f"{given} is no time at all: write it like 2h, or end the silence")
        span = spans.parse(given) or timedelta()
        if span > timedelta(days=90):
            raise Invalid("a silence lasts 90 days at the most")
        return now + span
    found = moments.parse(given, now)
    if not isinstance(found, datetime):
        raise Invalid(f"{given[:40]!r} is no time: write it like 2h or 2027-03-28T08:00")
    if found <= now:
        raise Invalid(f"{given[:40]} is in the past: a silence must end in the future")
    return found

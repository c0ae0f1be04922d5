"""Supervisors: which are alive, what they have under way, and draining one before its host goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from kirby.core.errors import Conflict
from kirby.server import query

SUPERVISORS = """
    select s.id, s.host, s.folder, s.pid, s.slots, s.labels, s.version, s.protocol,
           s.registered_at, s.lease_until, s.ended_at, s.draining_at, s.stopping,
           count(r.id)::integer as live, count(r.replica)::integer as replicas,
           s.ended_at is null and s.lease_until > kirby.now() as alive
      from kirby.supervisor s
      left join kirby.run r on r.supervisor_id = s.id and r.status in ('starting', 'running')
     where s.ended_at is null or s.ended_at > kirby.now() - interval '1 day'
     group by s.id
     order by s.ended_at desc nulls first, s.host, s.registered_at desc
     limit 200
"""

WAITING = """
    select r.labels, count(*)::integer as runs, min(r.not_before) as since
      from kirby.run r
     where r.status = 'queued' and r.labels <> '{}'
       and r.not_before < kirby.now() - interval '1 minute'
       and not exists (select from kirby.supervisor s
                        where s.ended_at is null and s.lease_until > kirby.now()
                          and r.labels <@ s.labels)
     group by r.labels
     order by min(r.not_before)
     limit 20
"""

DRAIN = "select kirby.drain_supervisor(%(id)s, %(drain)s, %(stop)s)"
AUDIT = """
    select kirby.audit(%(actor)s, %(verb)s, 'supervisor/' || %(host)s::text || '/' || %(id)s::text,
                       null, jsonb_build_object('stop', %(stop)s::boolean), %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """One that is alive, or ended within a day. ``live``: runs under way, ``replicas`` of them
    are daemons'. ``stopping``: it ends when it has none left."""

    id: UUID
    host: str
    folder: str
    pid: int
    slots: int
    labels: list[str]
    version: str
    protocol: int
    registered_at: datetime
    lease_until: datetime
    ended_at: datetime | None
    draining_at: datetime | None
    stopping: bool
    live: int
    replicas: int
    alive: bool

    @property
    def status(self) -> str:
        """In a word: alive, draining, silent (its lease is over), ended."""
        if self.ended_at:
            return "ended"
        if not self.alive:
            return "silent"
        return "draining" if self.draining_at else "alive"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Runs that no living supervisor may take."""

    labels: list[str]
    runs: int
    since: datetime


def listing(conn: Connection) -> list[Supervisor]:
    """The supervisors, and those that ended within a day; the living first."""
    return query.rows(conn, Supervisor, SUPERVISORS)


def waiting(conn: Connection) -> list[Waiting]:
    """What has waited for a minute for labels that no living supervisor has."""
    return query.rows(conn, Waiting, WAITING)


def find(conn: Connection, name: str) -> Supervisor:
    """The living one whose id begins so, or whose host that is.

    Raises NotFound, or Conflict if there are several.
    """
    alive = [each for each in listing(conn) if each.ended_at is None]
    found = [each for each in alive if each.host == name or str(each.id) == name]
    found = found or [each for each in alive if name and str(each.id).startswith(name)]
    if not found:
        raise query.missing("supervisor", name, [each.host for each in alive])
    if len(found) > 1:
        ids = ", ".join(str(each.id)[:8] for each in found)
        raise Conflict(f"there are {len(found)} supervisors at {name}: name one by its id ({ids})")
    return found[0]


def drain(
    conn: Connection, which: Supervisor, *, actor: str, stop: bool = False, reason: str = ""
) -> bool:
    """Give it no more runs: its daemons move away, its other runs end by themselves.

    With ``stop`` it ends then. Whether that changes anything. Raises NotFound when it has ended.
    """
    return _change(conn, which, "supervisor_drained", actor, True, stop, reason)


def resume(conn: Connection, which: Supervisor, *, actor: str, reason: str = "") -> bool:
    """Give it runs again; whether that changes anything. Raises NotFound when it has ended."""
    return _change(conn, which, "supervisor_resumed", actor, False, False, reason)


def _change(
    conn: Connection,
    which: Supervisor,
    verb: str,
    actor: str,
    drain: bool,
    stop: bool,
    reason: str,
) -> bool:
    changed = bool(query.value(conn, DRAIN, id=which.id, drain=drain, stop=stop))
    if changed:
        what = {"verb": verb, "id": which.id, "host": which.host, "stop": stop}
        query.value(conn, AUDIT, actor=actor, reason=reason, **what)
        query.value(conn, "select pg_notify('kirby_run', '')")
    return changed

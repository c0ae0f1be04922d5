"""Health: the processes of Kirby, who leads, and the state of the database below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from kirby.server import query

SUPERVISORS = """
    select s.id, s.host, s.folder, s.pid, s.slots, s.registered_at, s.lease_until, s.ended_at,
           (select count(*) from kirby.run r
             where r.supervisor_id = s.id and r.status in ('starting', 'running')) as live,
           s.ended_at is null and s.lease_until > kirby.now() as alive
      from kirby.supervisor s
     where s.ended_at is null or s.ended_at > kirby.now() - interval '1 day'
     order by s.ended_at desc nulls first, s.registered_at desc
     limit 50
"""

LEASES = """
    select l.name, l.holder, l.term, l.until, l.until > kirby.now() as held, s.host, s.pid
      from kirby.lease l
      left join kirby.supervisor s on s.id = l.holder
     order by l.name
"""

DATABASE = """
    select current_setting('server_version') as version,
           pg_database_size(current_database()) as bytes,
           pg_postmaster_start_time() as started_at,
           (select last_value from kirby.position) as position,
           (select version_num from kirby.alembic_version) as schema,
           (select count(*) from pg_stat_activity
             where datname = current_database()) as connections,
           current_setting('max_connections')::int as max_connections
"""

# Sizes are of the files: cheap however many rows there are. Rows in a default partition mean that
# nobody opened the next range in time.
LOGS = """
    select l.name,
           count(*) as partitions,
           sum(pg_total_relation_size(c.oid))::bigint as bytes,
           greatest(sum(c.reltuples), 0)::bigint as estimate,
           coalesce(bool_or(right(c.relname, 8) = '_default' and pg_relation_size(c.oid) > 0),
                    false) as overflowed
      from unnest(array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access',
                        'audit_event']) with ordinality as l (name, n)
      join pg_inherits i on i.inhparent = ('kirby.' || l.name)::regclass
      join pg_class c on c.oid = i.inhrelid
     group by l.n, l.name
     order by l.n
"""

# A transaction that announced itself to a topic and then idles holds back that topic's readers.
HOLDERS = """
    select t.name as topic, e.name as environment, a.pid, a.application_name as application,
           a.state, a.xact_start as since
      from pg_locks k
      join pg_stat_activity a on a.pid = k.pid
      join kirby.topic t on kirby.topic_lock(t.id) = k.classid::bigint
      join kirby.environment e on e.id = t.environment_id
     where k.locktype = 'advisory' and k.objsubid = 2
       and k.database = (select oid from pg_database where datname = current_database())
       and a.xact_start < kirby.now() - interval '5 seconds'
     order by a.xact_start
     limit 20
"""


@dataclass(frozen=True, slots=True)
class Supervisor:
    id: UUID
    host: str
    folder: str
    pid: int
    slots: int
    registered_at: datetime
    lease_until: datetime
    ended_at: datetime | None
    live: int
    alive: bool


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    holder: UUID
    term: int
    until: datetime
    held: bool
    host: str | None
    pid: int | None


@dataclass(frozen=True, slots=True)
class Database:
    version: str
    bytes: int
    started_at: datetime
    position: int
    schema: str
    connections: int
    max_connections: int


@dataclass(frozen=True, slots=True)
class Log:
    """One of the six logs. ``estimate``: rows at the last ANALYZE."""

    name: str
    partitions: int
    bytes: int
    estimate: int
    overflowed: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """A transaction that has held back the readers of a topic for more than 5 seconds."""

    topic: str
    environment: str
    pid: int
    application: str
    state: str | None
    since: datetime


def supervisors(conn: Connection) -> list[Supervisor]:
    """The supervisors, and those that ended within a day; the living first."""
    return query.rows(conn, Supervisor, SUPERVISORS)


def leases(conn: Connection) -> list[Lease]:
    """Who holds what: the leader's duties above all."""
    return query.rows(conn, Lease, LEASES)


def database(conn: Connection) -> Database:
    """Facts about the database."""
    return query.one(conn, Database, DATABASE)


def logs(conn: Connection) -> list[Log]:
    """The six logs and their sizes."""
    return query.rows(conn, Log, LOGS)


def holders(conn: Connection) -> list[Holder]:
    """The transactions that hold back readers, oldest first."""
    return query.rows(conn, Holder, HOLDERS)

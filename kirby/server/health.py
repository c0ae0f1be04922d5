"""Health: the processes of Kirby, who leads, and the state of the database below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from kirby.server import query

HELD = 5.0  # seconds for which a transaction may hold back readers before it is told of

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

# A transaction that announced itself to a topic holds back that topic's readers, alive or prepared.
HOLDERS = """
    select t.name as topic, e.name as environment, k.pid,
           coalesce(a.application_name, 'prepared as ' || x.gid, '') as application, a.state,
           coalesce(a.xact_start, x.prepared) as since
      from pg_locks k
      left join pg_stat_activity a on a.pid = k.pid
      left join pg_locks o on k.pid is null and o.pid is null and o.locktype = 'transactionid'
                          and o.virtualtransaction = k.virtualtransaction
      left join pg_prepared_xacts x on x.transaction = o.transactionid
      join kirby.topic t on kirby.topic_lock(t.id) = k.classid::bigint
      join kirby.environment e on e.id = t.environment_id
     where k.locktype = 'advisory' and k.objsubid = 2
       and k.database = (select oid from pg_database where datname = current_database())
       and coalesce(a.xact_start, x.prepared)
             < clock_timestamp() - %(seconds)s * interval '1 second'
     order by since
     limit 20
"""

# Whoever keeps dead rows from being cleaned up, anywhere on the server.
SNAPSHOTS = """
    select 'session' as kind, a.pid, coalesce(a.datname, '') as name,
           a.application_name as application, a.state, a.xact_start as since,
           age(a.backend_xmin) as age, true as active
      from pg_stat_activity a
     where a.backend_xmin is not null and a.pid <> pg_backend_pid()
       and a.backend_type <> 'autovacuum worker'
     union all
    select 'slot', s.active_pid, s.slot_name, s.slot_type, null, null,
           greatest(age(s.xmin), age(s.catalog_xmin)), s.active
      from pg_replication_slots s
     where s.xmin is not null or s.catalog_xmin is not null or not s.active
     union all
    select 'prepared', null, x.gid, x.owner || ' in ' || x.database, null, x.prepared,
           age(x.transaction), true
      from pg_prepared_xacts x
     order by kind, age desc nulls last
     limit 50
"""

# Rows that are changed in place, over and over.
HOT = """
    select s.relname as name, s.n_live_tup as live, s.n_dead_tup as dead,
           greatest(s.last_autovacuum, s.last_vacuum) as cleaned_at
      from pg_stat_user_tables s
     where s.schemaname = 'kirby'
       and s.relname in ('claim', 'counted', 'cursor', 'due', 'key_rate', 'lease', 'run',
                         'state_entry', 'subscription', 'supervisor', 'tick', 'topic_count')
     order by s.relname
"""

SERVER = """
    select pg_notification_queue_usage()::float8 as notifications,
           array(select name from pg_settings
                  where name in ('fsync', 'full_page_writes', 'synchronous_commit')
                    and setting = 'off' order by name) as unsafe,
           coalesce(current_setting('kirby.throwaway', true), '') = 'on' as throwaway,
           (select max(age(datfrozenxid)) from pg_database)::bigint as transactions,
           (select max(mxid_age(datminmxid)) from pg_database)::bigint as multixacts,
           (select last_value from kirby.position) as position,
           pg_has_role('pg_read_all_stats', 'member') as sees_all,
           extract(epoch from clock_timestamp() - c.at)::float8 as counted_ago,
           s.last_value - c.position as uncounted
      from kirby.counted c, kirby.position s
"""

STUCK = """
    select s.id, s.name, t.name as topic, e.name as environment, lag.messages as behind,
           not lag.exact as more, lag.seconds, s.paused_at is not null as paused, due.parked,
           claim.expired
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id
      join kirby.environment e on e.id = t.environment_id
     cross join lateral kirby.lag(s.id) lag
     cross join lateral (select count(*) as parked from kirby.due d
                          where d.subscription_id = s.id and d.parked_at is not null) due
     cross join lateral (select count(*) as expired from kirby.claim c
                          where c.subscription_id = s.id
                            and c.lease_until < kirby.now() - interval '1 minute') claim
     where lag.seconds > %(seconds)s or due.parked > 0 or claim.expired > 0
     order by lag.seconds desc
"""


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
class Holder:
    """A transaction that holds back the readers of a topic; ``pid`` None: a prepared one."""

    topic: str
    environment: str
    pid: int | None
    application: str
    state: str | None
    since: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What keeps dead rows from being cleaned up: a ``session``, a replication ``slot`` or a
    ``prepared`` transaction. ``age`` in transactions; None: it holds back nothing."""

    kind: str
    pid: int | None
    name: str
    application: str
    state: str | None
    since: datetime | None
    age: int | None
    active: bool


@dataclass(frozen=True, slots=True)
class HotTable:
    """Rows of a table that is changed in place, as PostgreSQL's statistics have them."""

    name: str
    live: int
    dead: int
    cleaned_at: datetime | None


@dataclass(frozen=True, slots=True)
class Server:
    """``notifications``: how full their queue is, 0 to 1. ``unsafe``: settings that lose commits in
    a power cut. ``sees_all``: whether this role sees what other sessions do. Ages in transactions.
    The leader counted messages ``counted_ago`` seconds ago, all but ``uncounted`` positions."""

    notifications: float
    unsafe: list[str]
    throwaway: bool
    transactions: int
    multixacts: int
    position: int
    sees_all: bool
    counted_ago: float
    uncounted: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """A subscription that is behind, has parked messages, or claims that nobody takes over."""

    id: int
    name: str
    topic: str
    environment: str
    behind: int
    more: bool
    seconds: float
    paused: bool
    parked: int
    expired: int


def leases(conn: Connection) -> list[Lease]:
    """Who holds what: the leader's duties above all."""
    return query.rows(conn, Lease, LEASES)


def database(conn: Connection) -> Database:
    """Facts about the database."""
    return query.one(conn, Database, DATABASE)


def holders(conn: Connection, *, seconds: float = HELD) -> list[Holder]:
    """The transactions that hold back readers for so long, oldest first."""
    return query.rows(conn, Holder, HOLDERS, seconds=seconds)


def snapshots(conn: Connection) -> list[Snapshot]:
    """Old sessions, replication slots and prepared transactions of the whole server."""
    return query.rows(conn, Snapshot, SNAPSHOTS)


def hot_tables(conn: Connection) -> list[HotTable]:
    """The tables that are changed in place."""
    return query.rows(conn, HotTable, HOT)


def server(conn: Connection) -> Server:
    """Settings, queues and ages of the server."""
    return query.one(conn, Server, SERVER)


def stuck(conn: Connection, *, seconds: float) -> list[Stuck]:
    """The subscriptions of all environments that are so far behind, or need a person."""
    return query.rows(conn, Stuck, STUCK, seconds=seconds)

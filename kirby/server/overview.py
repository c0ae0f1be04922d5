"""Overview: what is wrong now, what runs, and how much went through in the last hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from kirby.server import query
from kirby.server.environments import Environment

COUNTED = 200_000  # positions: how far back the throughput is counted at the most

# What is wrong, each kind in one arm. Bounded: deployments and their last run, live runs, claims.
PROBLEMS = """
    with known as materialized (
      select i.deployment_id from kirby.incident i
       where i.environment_id = %(environment_id)s and i.status = 'open'
         and i.deployment_id is not null and i.kind in ('failing', 'missed'))
    select 'incident_' || i.kind as kind, coalesce(j.name, '') as subject, i.run_id,
           i.title as text, i.opened_at as since, i.id as incident_id
      from kirby.incident i
      left join kirby.deployment d on d.id = i.deployment_id
      left join kirby.job j on j.id = d.job_id
     where (i.environment_id = %(environment_id)s or i.environment_id is null)
       and i.status = 'open' and i.told_in is null
    union all
    select 'run_' || r.status as kind, j.name as subject, r.id as run_id,
           coalesce(r.reason, '') as text, r.ended_at as since, null::bigint as incident_id
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id
     cross join lateral (
           select l.id, l.status, l.reason, l.ended_at from kirby.run l
            where l.deployment_id = d.id and l.ended_at is not null and l.status <> 'cancelled'
            order by l.id desc limit 1) r
     where d.environment_id = %(environment_id)s and r.status in ('failed', 'timed_out', 'lost')
       and j.kind <> 'daemon' and d.id not in (select deployment_id from known)
    union all
    select 'daemon_down', j.name, latest.id,
           live.n || ' of ' || v.replicas
             || case v.replicas when 1 then ' replica' else ' replicas' end || ' running'
             || coalesce('; the last one ended: ' || latest.reason, ''),
           coalesce(latest.ended_at, v.created_at), null
      from kirby.deployment d
      join kirby.job j on j.id = d.job_id and j.kind = 'daemon'
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     cross join lateral (
           select count(*) as n from kirby.run l
            where l.deployment_id = d.id and l.replica is not null and not l.canary
              and l.status in ('queued', 'starting', 'running') and l.status = 'running') live
      left join lateral (
           select l.id, l.reason, l.ended_at from kirby.run l
            where l.deployment_id = d.id and l.ended_at is not null
            order by l.id desc limit 1) latest on true
     where d.environment_id = %(environment_id)s and live.n < v.replicas
       and d.id not in (select deployment_id from known)
    union all
    select 'parked', t.name || ' → ' || s.name, null,
           count(*) || case when count(*) = 1 then ' message' else ' messages' end || ' parked',
           min(u.parked_at), null
      from kirby.due u
      join kirby.subscription s on s.id = u.subscription_id
      join kirby.topic t on t.id = s.topic_id
     where t.environment_id = %(environment_id)s and u.parked_at is not null
     group by t.name, s.name
    union all
    select 'tick_overdue', j.name, null,
           count(*) || case when count(*) = 1 then ' planned run was' else ' planned runs were' end
             || ' not started', min(k.at), null
      from kirby.tick k
      join kirby.deployment d on d.id = k.deployment_id
      join kirby.job j on j.id = d.job_id
     where d.environment_id = %(environment_id)s and k.status = 'planned'
       and k.at < (select kirby.now() - interval '1 minute')
     group by j.name
    union all
    select 'no_supervisor', 'supervisor', null, 'no supervisor is alive: nothing will be started',
           (select max(lease_until) from kirby.supervisor), null
     where not exists (select from kirby.supervisor
                        where ended_at is null and lease_until > kirby.now())
     order by since desc nulls last
     limit 50
"""

COUNTS = """
    select count(*) filter (where r.status = 'running') as running,
           count(*) filter (where r.status in ('queued', 'starting')) as waiting
      from kirby.run r
     where r.environment_id = %(environment_id)s
       and (r.status = 'queued' or r.status in ('starting', 'running'))
"""

LAST_DAY = """
    select count(*) filter (where r.status = 'succeeded') as succeeded,
           count(*) filter (where r.status in ('failed', 'timed_out', 'lost')) as bad
      from (select status, ended_at from kirby.run
             where environment_id = %(environment_id)s and ended_at is not null
             order by id desc limit 5000) r
     where r.ended_at > (select kirby.now() - interval '1 day')
"""

# The BRIN indexes on position and recorded_at keep this to the newest blocks; COUNTED positions
# at the most, whatever an hour holds.
THROUGHPUT = """
    with clock as materialized (select kirby.now() as now),
         floor as materialized (select last_value - %(counted)s as position from kirby.position)
    select extract(epoch from (select now from clock) - date_trunc('second', m.recorded_at))::int
             as age,
           count(*) as messages
      from kirby.message m
     where m.position > (select position from floor)
       and m.recorded_at > (select now - interval '1 hour' from clock)
       and m.topic_id in (select id from kirby.topic where environment_id = %(environment_id)s)
     group by 1
"""

CUT = """
    select exists (
      select from kirby.message m, kirby.position p
       where m.position between p.last_value - %(counted)s - 10000 and p.last_value - %(counted)s
         and m.recorded_at > (select kirby.now() - interval '1 hour'))
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind``: incident_…, run_failed, run_timed_out, run_lost, daemon_down, parked,
    tick_overdue or no_supervisor."""

    kind: str
    subject: str
    run_id: int | None
    text: str
    since: datetime | None
    incident_id: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Day:
    """Runs that ended within a day (of the last 5,000)."""

    succeeded: int
    bad: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Messages in 60 equal steps up to now, oldest first; a step is 1, 10 or 60 seconds long."""

    step: int
    counts: list[int]

    @property
    def per_second(self) -> float:
        """Over the last five whole steps."""
        return sum(self.counts[-6:-1]) / (5 * self.step)


@dataclass(frozen=True, slots=True)
class _Second:
    age: int
    messages: int


def problems(conn: Connection, environment: Environment) -> list[Problem]:
    """What is wrong now, newest first."""
    return query.rows(conn, Problem, PROBLEMS, environment_id=environment.id)


def counts(conn: Connection, environment: Environment) -> Counts:
    """How many runs are under way."""
    return query.one(conn, Counts, COUNTS, environment_id=environment.id)


def last_day(conn: Connection, environment: Environment) -> Day:
    """How the runs of the last day ended."""
    return query.one(conn, Day, LAST_DAY, environment_id=environment.id)


def throughput(conn: Connection, environment: Environment) -> Throughput:
    """Messages of the last hour by minute; on a busy log, of the last 10 minutes or 1 minute."""
    seconds = query.rows(conn, _Second, THROUGHPUT, environment_id=environment.id, counted=COUNTED)
    known = 3600
    if query.value(conn, CUT, counted=COUNTED):
        known = max((each.age for each in seconds), default=3600)
    step = 60 if known >= 3000 else 10 if known >= 500 else 1
    bars = [0] * 60
    for each in seconds:
        if each.age // step < 60:
            bars[59 - each.age // step] += each.messages
    return Throughput(step, bars)

"""Partitions: the pieces that the logs are cut into, and how far those that are open reach."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from kirby.server import query

# Sizes are of the files: cheap however many rows there are. Positions a second are those of the
# last hour. Rows in a default partition mean that nobody opened the next range in time.
LOGS = """
    with now as materialized (
      select s.last_value as position, kirby.now() as at from kirby.position s
    ), speed as materialized (
      select (now.position - p.position)
               / greatest(1, extract(epoch from now.at - p.at))::float8 as per_second
        from now,
             (select * from kirby.pace
               where at > (select now.at - interval '1 hour' from now) order by at limit 1) p
    )
    select l.name, count(p.first) as partitions,
           count(*) filter (where p.first > now.position) as ahead,
           greatest(max(p.last) - now.position, 0) as positions_left,
           greatest(max(p.last) - now.position, 0)
             / nullif((select per_second from speed), 0) as seconds_left,
           sum(pg_total_relation_size(p.id))::bigint as bytes,
           greatest(sum(c.reltuples), 0)::bigint as estimate,
           coalesce(bool_or(p.first is null and pg_relation_size(p.id) > 0), false) as overflowed
      from now,
           unnest(array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access',
                        'audit_event']) with ordinality as l (name, n)
     cross join lateral kirby.partitions(l.name) p
      join pg_class c on c.oid = p.id
     group by l.n, l.name, now.position
     order by l.n
"""


@dataclass(frozen=True, slots=True)
class Log:
    """One of the six logs. ``estimate``: rows at the last ANALYZE. ``ahead``: partitions that are
    open beyond the current one; at the pace of the last hour they last for ``seconds_left``."""

    name: str
    partitions: int
    ahead: int
    positions_left: int
    seconds_left: float | None
    bytes: int
    estimate: int
    overflowed: bool


def logs(conn: Connection) -> list[Log]:
    """The six logs and how far their partitions reach."""
    return query.rows(conn, Log, LOGS)

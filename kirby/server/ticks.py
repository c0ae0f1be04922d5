"""Plan the instants at which scheduled deployments are due, as rows that are there before them."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from kirby.core import db
from kirby.core.errors import Invalid
from kirby.server import cron

log = logging.getLogger("kirby.ticks")

AHEAD = timedelta(hours=24)  # planned at least so far …
FEW, MANY = 10, 20  # … or at least FEW ticks; then MANY are planned at once

SCHEDULED = """
select d.id, d.version,
       cardinality(v.schedules) > 0 and t.n < %(few)s
         and coalesce(t.last, '-infinity') < kirby.now() + %(ahead)s as short
  from kirby.deployment d
  join kirby.job j on j.id = d.job_id and j.kind = 'scheduled'
  join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
 cross join lateral (select count(*) as n, max(t.at) as last
                       from kirby.tick t
                      where t.deployment_id = d.id and t.status = 'planned'
                        and t.at > kirby.now()) t
 order by d.id
"""
# The lock holds off a deploy meanwhile: no ticks of a version that is gone are left behind.
LOCK = """
select d.version, v.schedules, v.tz
  from kirby.deployment d
  join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
 where d.id = %s
   for no key update of d
"""
FORGET = (
    "delete from kirby.tick where deployment_id = %s and status = 'planned' and at > kirby.now()"
)
PLANNED = """
select kirby.now(), count(*), greatest(max(at), kirby.now())
  from kirby.tick
 where deployment_id = %s and status = 'planned' and at > kirby.now()
"""
ADD = """
insert into kirby.tick (deployment_id, at, local, note)
select %s, t.at, t.local, t.note
  from unnest(%s::timestamptz[], %s::text[], %s::text[]) as t (at, local, note)
on conflict do nothing
"""


class Planner:
    """Keeps ticks planned ahead; remembers which version of each deployment they were planned for.

    It may be forgotten at any time: a new one plans once more what is planned already.
    """

    def __init__(self) -> None:
        self._versions: dict[int, int] = {}
        self._broken: set[tuple[int, int]] = set()

    def plan(self, conn: db.Connection) -> int:
        """One round over all scheduled deployments; returns how many ticks were planned."""
        planned = 0
        for deployment_id, version, short in conn.execute(SCHEDULED, _PARAMS).fetchall():
            fresh = self._versions.get(deployment_id) != version
            if not (fresh or short) or (deployment_id, version) in self._broken:
                continue
            try:
                planned += replan(conn, deployment_id) if fresh else fill(conn, deployment_id)
            except Invalid as error:
                log.warning("deployment %s cannot be planned: %s", deployment_id, error)
                self._broken.add((deployment_id, version))
            self._versions[deployment_id] = version
        return planned


def replan(conn: db.Connection, deployment_id: int) -> int:
    """Plan anew after a change of the schedule: what was planned for the future is forgotten."""
    with conn.transaction():
        conn.execute(LOCK, [deployment_id])
        conn.execute(FORGET, [deployment_id])
        return fill(conn, deployment_id)


def fill(conn: db.Connection, deployment_id: int) -> int:
    """Plan ticks after those that are planned, never for the past; returns how many."""
    with conn.transaction():
        row = conn.execute(LOCK, [deployment_id]).fetchone()
        if row is None:
            return 0
        _, schedules, tz = row
        now, count, after = conn.execute(PLANNED, [deployment_id]).fetchall()[0]
        ticks = list(_next(schedules, tz, after, now + AHEAD, MANY - count))
        if ticks:
            conn.execute(ADD, [deployment_id, *_columns(ticks)])
        return len(ticks)


def _next(
    schedules: Sequence[str], tz: str, after: datetime, ahead: datetime, most: int
) -> Iterator[cron.Tick]:
    """At most so many ticks, and none after the first one that is beyond `ahead`."""
    series = [cron.ticks(cron.parse(schedule), tz, after) for schedule in schedules]
    last = after
    for tick in heapq.merge(*series, key=lambda tick: tick.at):
        if tick.at == last:  # two cron lines that meet
            continue
        last, most = tick.at, most - 1
        yield tick
        if most <= 0 or tick.at >= ahead:
            return


def _columns(ticks: Sequence[cron.Tick]) -> list[list[object]]:
    return [
        [tick.at for tick in ticks],
        [f"{tick.local:%Y-%m-%d %H:%M:%S %Z}" for tick in ticks],
        [tick.note for tick in ticks],
    ]


_PARAMS = {"few": FEW, "ahead": AHEAD}

"""The timetable of an environment: when its scheduled jobs run next, what became of the last tick.

What comes next is what is planned (kirby.tick); whether it will run is decided when it is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.server import cron, documents, exceptions, query, schedule_words
from kirby.server.environments import Environment

# Those that come first are chosen by one look at the ticks of each; the rest is asked of them only.
ENTRIES = """
    with chosen as materialized (
      select d.id, j.name as job, v.schedules, v.tz, n.at, n.begins, count(*) over () as total
        from kirby.deployment d
        join kirby.job j on j.id = d.job_id and j.kind = 'scheduled'
        join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
        left join lateral (
             select t.at, coalesce(t.fire_at, t.at) as begins from kirby.tick t
              where t.deployment_id = d.id and t.status = 'planned'
                and t.at > (select kirby.now() - interval '1 day')
              order by t.at limit 1) n on true
       where d.environment_id = %(environment_id)s
         and strpos(lower(j.name), lower(%(find)s)) > 0
       order by n.begins, j.name limit %(limit)s)
    select c.job, c.schedules, c.tz, c.at, c.begins, c.total,
           l.at as last_at, l.status as last, l.reason as last_reason, r.id as run_id,
           r.status as run_status, x.exception_id, x.effect, x.instead, x.most, x.per, x.until_at,
           x.exception_reason, x.actor
      from chosen c
      left join lateral (
           select t.at, t.status, t.reason, t.run_id from kirby.tick t
            where t.deployment_id = c.id and t.status <> 'planned' and t.at <= (select kirby.now())
            order by t.at desc limit 1) l on true
      left join kirby.run r on r.id = l.run_id
      left join lateral (
           select e.exception_id, e.effect, e.schedules as instead, e.most, e.per, e.until_at,
                  e.reason as exception_reason, e.actor
             from kirby.exceptions_of(c.id, (select kirby.now())) e limit 1) x on true
     order by c.begins, c.job
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A scheduled job. ``at``: its next tick, which ``begins`` by its jitter later; None: no time
    is named, or none is planned yet.

    ``last_at``: its last tick, which was queued as ``run_id`` or skipped for ``last_reason``.
    ``exception_id``: the exception that decides now, with what it says. ``total``: how many jobs
    there are, more than were asked for perhaps.
    """

    job: str
    schedules: list[str]
    tz: str
    at: datetime | None
    begins: datetime | None
    total: int
    last_at: datetime | None
    last: str | None
    last_reason: str | None
    run_id: int | None
    run_status: str | None
    exception_id: int | None
    effect: str | None
    instead: list[str] | None
    most: int | None
    per: float | None
    until_at: datetime | None
    exception_reason: str | None
    actor: str | None

    @property
    def says(self) -> str:
        """The schedule in words."""
        return schedule_words.explain(self.schedules, self.tz)

    @property
    def local(self) -> datetime | None:
        """The next tick on the wall of its zone."""
        return self.at and self.at.astimezone(cron.zone(self.tz))

    @property
    def exception(self) -> str:
        """What the exception in force does, in words; empty if there is none."""
        if self.effect is None:
            return ""
        return exceptions.effect_text(self.effect, self.instead or (), self.most, self.per)

    @property
    def document(self) -> dict[str, Any]:
        """What programs get: its fields, and what they say in words."""
        fields: dict[str, Any] = documents.plain(self)
        del fields["total"]
        return fields | {"says": self.says, "exception": self.exception or None}


def listing(
    conn: Connection, environment: Environment, *, find: str = "", limit: int = 100
) -> list[Entry]:
    """Those that run next, ``limit`` at the most, of the jobs whose names have ``find`` in them."""
    return query.rows(conn, Entry, ENTRIES, environment_id=environment.id, find=find, limit=limit)

"""Jobs that run after others (`after: JOB`): what a deploy would make of them in an environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import query, schedules
from kirby.server.database import driver
from kirby.server.schedules import Schedule

DEPLOYED = """
    select j.name, v.schedules, v.tz
      from kirby.deployment d
      join kirby.environment e on e.id = d.environment_id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where e.name = %(environment)s and d.version > 0
       and exists (select from unnest(v.schedules) as line where line ilike 'after%%')
"""
KNOWN = """
    select j.name
      from kirby.deployment d
      join kirby.environment e on e.id = d.environment_id
      join kirby.job j on j.id = d.job_id
     where e.name = %(environment)s and d.version > 0
"""


def check(conn: Connection, environment: str, name: str, schedule: Schedule) -> None:
    """Raise Invalid, naming the circle, if the job would in the end run after itself."""
    if not schedule.after_jobs:
        return
    rows = driver(conn).execute(DEPLOYED, {"environment": environment}).fetchall()
    follows = {job: schedules.parse(lines, tz).after_jobs for job, lines, tz in rows}
    follows[name] = schedule.after_jobs
    if circle := next(_circles(follows, (name,)), None):
        raise Invalid(f"{name} would run after itself: {' → '.join(reversed(circle))}")


def unknown(conn: Connection, environment: str, name: str, schedule: Schedule) -> list[str]:
    """The jobs that it is to run after and that the environment does not have."""
    if not schedule.after_jobs:
        return []
    known = {name, *query.column(conn, KNOWN, environment=environment)}
    return [job for job in schedule.after_jobs if job not in known]


def _circles(
    follows: Mapping[str, tuple[str, ...]], path: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """The ways from the first of the path back to it, each job once."""
    for job in follows.get(path[-1], ()):
        if job == path[0]:
            yield (*path, job)
        elif job not in path:
            yield from _circles(follows, (*path, job))

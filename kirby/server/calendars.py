"""Calendars: days and windows at which the schedules that name them do not run.

Each environment has its own; one of no environment is for all, unless an environment has another of
that name. A change plans the ticks of everything that names it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core.errors import Conflict, Invalid, NotFound
from kirby.server import cron, environments, exclusions, query, scripts
from kirby.server.environments import Environment
from kirby.server.exclusions import Calendars

# Of one name the environment's own goes before the one for all.
LISTING = """
    select distinct on (c.name)
           c.id, c.environment_id, e.name as environment, c.name, c.tz, c.days, c.windows,
           c.version, c.updated_by, c.updated_at, array(
             select format('%%s/%%s', ue.name, j.name)
               from kirby.deployment d
               join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
               join kirby.job j on j.id = d.job_id
               join kirby.environment ue on ue.id = d.environment_id
              where d.version > 0 and c.name = any (v.exclude)
                and (c.environment_id = d.environment_id
                     or c.environment_id is null and not exists (
                          select from kirby.calendar o
                           where o.environment_id = d.environment_id and o.name = c.name))
              order by ue.id, j.name) as used_by
      from kirby.calendar c
      left join kirby.environment e on e.id = c.environment_id
     where (c.environment_id is null or c.environment_id = %(environment_id)s)
       and (%(names)s::text[] is null or c.name = any (%(names)s))
     order by c.name, c.environment_id nulls last
"""
LOCK = """
    select days, windows, tz from kirby.calendar
     where environment_id is not distinct from %(environment_id)s and name = %(name)s for update
"""
KEEP = "select from kirby.calendar where name = %(name)s for key share"
ADD = """
    insert into kirby.calendar (environment_id, name, version, updated_by)
    values (%(environment_id)s, %(name)s, 0, %(actor)s) on conflict do nothing
"""
SET = """
    update kirby.calendar
       set days = %(days)s, windows = %(windows)s, tz = %(tz)s, version = version + 1,
           updated_by = %(actor)s, updated_at = kirby.now()
     where environment_id is not distinct from %(environment_id)s and name = %(name)s
"""
# Those that name it are planned anew; of one for all, in every environment.
REPLAN = """
    select kirby.plan_again(array_agg(d.id))
      from kirby.deployment d
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = d.version
     where %(name)s = any (v.exclude)
       and (%(environment_id)s::integer is null or d.environment_id = %(environment_id)s)
"""
REMOVE = """
    delete from kirby.calendar
     where environment_id is not distinct from %(environment_id)s and name = %(name)s
"""
AUDIT = """
    select kirby.audit(%(actor)s, %(verb)s, %(object)s, %(before)s, %(after)s, %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Calendar:
    """As it is stored; `environment` is None of one for all, `used_by` environment/job."""

    id: int
    environment_id: int | None
    environment: str | None
    name: str
    tz: str
    days: list[str]
    windows: list[dict[str, Any]]
    version: int
    updated_by: str
    updated_at: datetime
    used_by: list[str]

    @property
    def said(self) -> exclusions.Calendar:
        """What it says."""
        return exclusions.of(self.name, self.tz, self.days, self.windows)


def listing(conn: Connection, environment: Environment | None) -> list[Calendar]:
    """Those that schedules of the environment can name, by name; None: those for all."""
    return _found(conn, environment, None)


def get(conn: Connection, environment: Environment | None, name: str) -> Calendar:
    """The one that the name means in the environment; raises NotFound with the closest name."""
    found = _found(conn, environment, [name])
    if not found:
        where = f"in {environment.name}" if environment else "for all environments"
        known = [each.name for each in listing(conn, environment)]
        raise query.missing(f"calendar {where} called", name, known)
    return found[0]


def load(conn: Connection, environment_id: int, names: Sequence[str]) -> Calendars:
    """What schedules of an environment mean by these names; a name that is gone means nothing."""
    if not names:
        return Calendars()
    params = {"environment_id": environment_id, "names": list(names)}
    return Calendars(tuple(each.said for each in query.rows(conn, Calendar, LISTING, **params)))


def check(conn: Connection, environment: str, names: Sequence[str]) -> None:
    """Raise NotFound, with the closest name, if one of these calendars is not there.

    They stay there until the transaction ends.
    """
    place = environments.get(conn, environment) if names else None
    for name in names:
        query.execute(conn, KEEP, name=name)
        get(conn, place, name)


def add(
    conn: Connection,
    environment: Environment | None,
    name: str,
    *,
    days: Iterable[str] = (),
    windows: Iterable[str] = (),
    tz: str | None = None,
    actor: str,
    reason: str = "",
) -> Calendar:
    """Add days and windows (as people write them) to a calendar, a new one if need be."""
    _locked(conn, environment, _named(name), actor)
    before = _own(conn, environment, name)
    after = {
        "days": [*before.days, *(exclusions.day(each) for each in days)],
        "windows": [*before.windows, *(exclusions.window(each) for each in windows)],
        "tz": before.tz if tz is None else tz,
    }
    return _store(conn, environment, before, after, actor, reason)


def put(
    conn: Connection,
    environment: Environment | None,
    name: str,
    *,
    days: Iterable[str] = (),
    windows: Iterable[str] = (),
    tz: str = "",
    actor: str,
    reason: str = "",
) -> Calendar:
    """Make a calendar say this and nothing else, a new one if need be."""
    _locked(conn, environment, _named(name), actor)
    after = {
        "days": [exclusions.day(each) for each in days],
        "windows": [exclusions.window(each) for each in windows],
        "tz": tz,
    }
    return _store(conn, environment, _own(conn, environment, name), after, actor, reason)


def take(
    conn: Connection,
    environment: Environment | None,
    name: str,
    *,
    days: Iterable[str] = (),
    windows: Iterable[str] = (),
    actor: str,
    reason: str = "",
) -> Calendar:
    """Take days and windows out of a calendar; raises NotFound for one that it does not have."""
    before = _own(conn, environment, name, lock=True)
    gone_days = [exclusions.day(each) for each in days]
    gone_windows = [exclusions.window(each) for each in windows]
    said = [*before.days, *map(exclusions.said, before.windows)]
    for each in [*gone_days, *map(exclusions.said, gone_windows)]:
        if each not in said:
            raise NotFound(f"the calendar {name} does not say {each}")
    after = {
        "days": [each for each in before.days if each not in gone_days],
        "windows": [each for each in before.windows if each not in gone_windows],
        "tz": before.tz,
    }
    return _store(conn, environment, before, after, actor, reason)


def remove(
    conn: Connection, environment: Environment | None, name: str, *, actor: str, reason: str = ""
) -> None:
    """Remove a calendar; raises NotFound, and Conflict while schedules name it."""
    found = _own(conn, environment, name, lock=True)
    if found.used_by:
        used = ", ".join(found.used_by[:5]) + (" …" if len(found.used_by) > 5 else "")
        raise Conflict(f"the calendar {name} is in use by {used}: deploy them without it first")
    query.execute(conn, REMOVE, environment_id=found.environment_id, name=name)
    _audit(conn, found, "calendar_removed", _content(found), None, actor, reason)


# What is written


def _found(
    conn: Connection, environment: Environment | None, names: list[str] | None
) -> list[Calendar]:
    environment_id = environment.id if environment else None
    return query.rows(conn, Calendar, LISTING, environment_id=environment_id, names=names)


def _own(
    conn: Connection, environment: Environment | None, name: str, *, lock: bool = False
) -> Calendar:
    """The calendar of this very environment, not one for all; raises NotFound."""
    environment_id = environment.id if environment else None
    if lock:
        query.execute(conn, LOCK, environment_id=environment_id, name=name)
    found = get(conn, environment, name)
    if found.environment_id != environment_id:
        raise NotFound(f"the calendar {name} is one for all environments: say --everywhere")
    return found


def _locked(conn: Connection, environment: Environment | None, name: str, actor: str) -> None:
    """The row, a new one if need be, locked against another change."""
    environment_id = environment.id if environment else None
    query.execute(conn, ADD, environment_id=environment_id, name=name, actor=actor)
    query.execute(conn, LOCK, environment_id=environment_id, name=name)


def _store(
    conn: Connection,
    environment: Environment | None,
    before: Calendar,
    after: dict[str, Any],
    actor: str,
    reason: str,
) -> Calendar:
    after = {**after, "days": sorted(set(after["days"])), "windows": _distinct(after["windows"])}
    _check(after)
    if after == _content(before) and before.version > 0:
        return before
    query.execute(
        conn,
        SET,
        environment_id=before.environment_id,
        name=before.name,
        days=Jsonb(after["days"]),
        windows=Jsonb(after["windows"]),
        tz=after["tz"],
        actor=actor,
    )
    said = _content(before) if before.version > 0 else None
    _audit(
        conn, before, "calendar_changed" if said else "calendar_added", said, after, actor, reason
    )
    query.execute(conn, REPLAN, name=before.name, environment_id=before.environment_id)
    return get(conn, environment, before.name)


def _named(name: str) -> str:
    if not scripts.NAME.fullmatch(name):
        raise Invalid(f"calendar name {name!r} must be {scripts.NAME_RULE}")
    return name


def _check(after: dict[str, Any]) -> None:
    if after["tz"]:
        cron.zone(after["tz"])
    if max(len(after["days"]), len(after["windows"])) > exclusions.MOST:
        raise Invalid(f"a calendar has at most {exclusions.MOST:,} days and as many windows")


def _distinct(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({exclusions.said(each): each for each in windows}.values())


def _content(found: Calendar) -> dict[str, Any]:
    return {"days": found.days, "windows": found.windows, "tz": found.tz}


def _audit(
    conn: Connection,
    found: Calendar,
    verb: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    actor: str,
    reason: str,
) -> None:
    query.value(
        conn,
        AUDIT,
        actor=actor,
        verb=verb,
        object=f"calendar/{found.environment or '*'}/{found.name}",
        before=before and Jsonb(before),
        after=after and Jsonb(after),
        reason=reason,
    )

"""Recurring exceptions whose windows lie elsewhere now: time zones changed since they were made."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core import db
from kirby.core.errors import Invalid, KirbyError, Unavailable
from kirby.server import windows

log = logging.getLogger("kirby.ticks")

FOUND = """
    select v.exception_id as id, v.version, v.recurs, v.lasts, v.tz, v.from_at, v.until_at,
           kirby.now() as now, w.begins, w.ends
      from kirby.exception_version v
     cross join lateral (
           select array_agg(w.from_at order by w.from_at) as begins,
                  array_agg(w.until_at order by w.from_at) as ends
             from kirby.exception_window w
            where w.exception_id = v.exception_id and w.version = v.version) w
     where v.recurs <> '' and v.until_at > kirby.now() and v.change <> 'ended'
       and v.version = (select max(l.version) from kirby.exception_version l
                         where l.exception_id = v.exception_id)
     order by v.exception_id
"""
# A person may have changed it since it was read: then its windows are of today's rules already.
LOCK = """
    select max(v.version) from kirby.exception_version v
     where v.exception_id = (select x.id from kirby.schedule_exception x where x.id = %s for update)
"""
CHANGE = "select kirby.change_exception(%s, %s, 'kirby')"

Window = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Recurring:
    """One that is not over, and its windows."""

    id: int
    version: int
    recurs: str
    lasts: float
    tz: str
    from_at: datetime
    until_at: datetime
    now: datetime
    begins: list[datetime] | None
    ends: list[datetime] | None

    @property
    def made(self) -> list[Window]:
        """The windows that it has."""
        return list(zip(self.begins or [], self.ends or [], strict=True))

    def renewed(self) -> list[Window]:
        """The windows as the zone says now; those that have begun stay as they are."""
        begun = [window for window in self.made if window[0] <= self.now]
        behind = max([self.now, *(last for _, last in begun)])
        found = windows.of(self.recurs, self.lasts, self.tz, self.from_at, self.until_at)
        told = [
            (datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in found
        ]
        return begun + [(max(first, behind), last) for first, last in told if last > behind]


class Renewal:
    """Goes through those that are not over once, bit by bit."""

    def __init__(self) -> None:
        self._left: list[Recurring] = []

    def begin(self, conn: db.Connection) -> None:
        self._left = found(conn)

    def go_on(self, conn: db.Connection, until: float) -> None:
        """Until that moment of ``time.monotonic()``; the others stay. Raises Unavailable."""
        while self._left and time.monotonic() < until:
            each = self._left[-1]
            try:
                renew(conn, each)
            except Unavailable:
                raise
            except (KirbyError, psycopg.Error) as error:  # the others have their turn all the same
                log.warning("exception %s keeps its windows: %s", each.id, error)
            self._left.pop()


def found(conn: db.Connection) -> list[Recurring]:
    """Those that are not over."""
    with conn.cursor(row_factory=class_row(Recurring)) as cursor:
        return cursor.execute(FOUND).fetchall()


def renew(conn: db.Connection, each: Recurring) -> bool:
    """Give it its windows anew, as a change by Kirby, if its zone has changed; whether it had.

    Not if somebody changed or ended it since it was ``found``. Raises Unavailable.
    """
    try:
        wanted = each.renewed()
    except Invalid:  # it does not come any more: what it has stays
        return False
    if wanted == each.made:
        return False
    document = {"windows": [[first.isoformat(), last.isoformat()] for first, last in wanted]}
    with db.kirby_errors(), conn.transaction():
        if db.scalar(conn, LOCK, [each.id]) != each.version:
            return False
        conn.execute(CHANGE, [each.id, Jsonb(document)])
    return True

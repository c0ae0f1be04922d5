"""Recurring exceptions whose windows lie elsewhere now: time zones changed since they were made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from kirby.core import db
from kirby.core.errors import Invalid
from kirby.server import windows

FOUND = """
    select v.exception_id as id, v.recurs, v.lasts, v.tz, v.from_at, v.until_at,
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
CHANGE = "select kirby.change_exception(%s, %s, 'kirby')"

Window = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Recurring:
    """One that is not over, and its windows."""

    id: int
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


def renew(conn: db.Connection) -> int:
    """Give those their windows anew whose zone has changed, each as a change by Kirby; how many."""
    with conn.cursor(row_factory=class_row(Recurring)) as cursor:
        found = cursor.execute(FOUND).fetchall()
    return sum(_renew(conn, each) for each in found)


def _renew(conn: db.Connection, each: Recurring) -> bool:
    try:
        wanted = each.renewed()
    except Invalid:  # it does not come any more: what it has stays
        return False
    if wanted == each.made:
        return False
    document = {"windows": [[first.isoformat(), last.isoformat()] for first, last in wanted]}
    conn.execute(CHANGE, [each.id, Jsonb(document)])
    return True

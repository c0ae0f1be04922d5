"""Compaction: of its old versions a state keeps the last of each key and day, if it was told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection

from kirby.server import query, spans
from kirby.server.states import Blame, Moment, State

FOUND = """
    select c.keep, c.actor, c.reason, c.set_at, c.removed, c.exact_from, d.days, d.first, d.last,
           kirby.day_of(d.first_day) as first_day, kirby.day_of(d.last_day) as last_day, d.at,
           (kirby.compaction_hold(s.environment_id)).rewind_id as held_by
      from kirby.compaction c
      join kirby.state s on s.id = c.state_id
     cross join lateral (
           select count(*) as days, min(d.first) as first, max(d.last) as last,
                  min(d.day) as first_day, max(d.day) as last_day, max(d.at) as at
             from kirby.compacted_day d where d.state_id = c.state_id) d
     where c.state_id = %(state_id)s
"""

PLAN = """
    select p.versions, p.keys, p.days, p.first, p.last, p.first_at, p.last_at, p."of", p.upto,
           p.held_by
      from kirby.plan_compaction(%(state_id)s, %(keep)s) p
"""

SET = "select kirby.set_compaction(%(state_id)s, %(keep)s, %(actor)s, %(reason)s)"

GAPS = """
    select key, before_version, before_position, before_at, after_version, after_position, after_at
      from kirby.gaps_at(%(state_id)s, %(position)s, %(when)s, %(keys)s::text[], %(prefix)s)
"""

LOST = """
    select d.name, kirby.day_of(d.upto) as upto, d.exact_from
      from kirby.compacted_below(%(topic_id)s, %(position)s - 1) d
"""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a state keeps, and what of it is removed for good.

    All versions of the last ``keep`` (None: all that there are now), set by ``actor``. So far
    ``removed`` versions of so many ``days``, from the first to the last of which position and day;
    ``at``: the last time. From position ``exact_from`` on everything is there. ``held_by``: the
    rewind for which what it needs is kept meanwhile.
    """

    keep: timedelta | None
    actor: str
    reason: str
    set_at: datetime
    removed: int
    exact_from: int
    days: int
    first: int | None
    last: int | None
    first_day: date | None
    last_day: date | None
    at: datetime | None
    held_by: int | None

    @property
    def policy(self) -> str:
        """In words."""
        if self.keep is None:
            return "keeps all versions"
        return f"keeps all versions for {spans.text(self.keep)}, then the last of each day"

    def may_hide(self, blamed: Blame) -> bool:
        """Whether a removed version may have made a part of a value what it is."""
        return bool(self.removed) and not blamed.exact and blamed.position <= self.exact_from

    @property
    def note(self) -> str | None:
        """What is said wherever the past is shown; None if nothing was removed."""
        return f"compacted: daily up to {self.last_day}" if self.removed else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be removed by now: ``versions`` of ``of``, of so many ``keys`` and ``days``, from
    the ``first`` to the ``last`` position and moment. Days up to ``upto`` are old enough;
    ``held_by``: the rewind that it would stop at."""

    versions: int
    keys: int
    days: int
    first: int | None
    last: int | None
    first_at: datetime | None
    last_at: datetime | None
    of: int
    upto: datetime
    held_by: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A key of which it is not known for certain what it was then: versions around it are removed.

    The nearest ones that stayed, the one before (None: there is none) and the one after.
    """

    key: str
    before_version: int | None
    before_position: int | None
    before_at: datetime | None
    after_version: int
    after_position: int
    after_at: datetime


@dataclass(frozen=True, slots=True)
class Lost:
    """A state of which versions are removed that may have been made from a message: those up to
    the day ``upto``; from position ``exact_from`` on all are there."""

    name: str
    upto: date
    exact_from: int


def get(conn: Connection, state: State) -> Compaction | None:
    """What a state keeps and has lost; None if nobody ever said so: all of it is there."""
    return query.row(conn, Compaction, FOUND, state_id=state.id)


def plan(conn: Connection, state: State, keep: timedelta) -> Plan:
    """What would go by now; changes nothing. Raises Invalid: less than a day."""
    return query.one(conn, Plan, PLAN, state_id=state.id, keep=keep)


def policy(
    conn: Connection, state: State, keep: timedelta | None, *, actor: str, reason: str = ""
) -> None:
    """Keep all versions of so long (None: all from now on), of older ones the last of each day.

    Audited. The leader removes, bit by bit, what need not be kept. Raises Invalid.
    """
    query.execute(conn, SET, state_id=state.id, keep=keep, actor=actor, reason=reason)


def gaps(
    conn: Connection,
    state: State,
    point: Moment | None,
    *,
    keys: Sequence[str] | None = None,
    prefix: str = "",
) -> list[Gap]:
    """Keys of which it is not known what they were at a moment or position; None: now, so none."""
    return query.rows(
        conn,
        Gap,
        GAPS,
        state_id=state.id,
        position=point if isinstance(point, int) else None,
        when=point if isinstance(point, datetime) else None,
        keys=None if keys is None else list(keys),
        prefix=prefix,
    )


def lost(conn: Connection, topic_id: int, position: int) -> Lost | None:
    """Of the states that are fed by a topic the one that may have lost most of what was made of
    its messages from this position on; None: nothing is lost."""
    return query.row(conn, Lost, LOST, topic_id=topic_id, position=position)

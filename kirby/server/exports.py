"""Exports: slices of topics, and states as of their beginning, masked and stamped with where from.

Thin around kirby.begin_export, export_messages, export_entries and end_export.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from kirby.core import topics
from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import Invalid
from kirby.server import masks, spans

BEGIN = "select kirby.begin_export(%s, %s)"
MESSAGES = """
    select coalesce(lines, ''), messages, position, done
      from kirby.export_messages(%s, %s, %s, %s, %s)
"""
ENTRIES = """
    select coalesce(lines, ''), entries, after from kirby.export_entries(%s, %s, %s, %s, %s)
"""
END = "select kirby.end_export(%s, %s)"

ENTRIES_A_PAGE = 50_000  # each page puts the whole state together again


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants: times are ISO 8601 or how long ago (``2h``); ``limit`` is of each topic.

    ``all_states``: every state of the environment; ``states`` some of them.
    """

    topics: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    all_states: bool = False
    since: str | None = None
    until: str | None = None
    after: int | None = None
    keys: tuple[str, ...] = ()
    limit: int | None = None

    def checked(self) -> Asked:
        """Itself; raises Invalid for what cannot be asked for."""
        for name in self.topics:
            topics.checked_name(name)
        for text in (self.since, self.until):
            _moment("since", text)
        return self

    def plain(self) -> dict[str, Any]:
        """As JSON has it, without what is not given."""
        given = {name: value for name, value in asdict(self).items() if value}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
        }

    def document(self) -> dict[str, Any]:
        """As kirby.begin_export takes it. Raises Invalid for a time that is none."""
        given = {
            "topics": list(self.topics),
            "states": True if self.all_states else list(self.states),
            "after": self.after,
            "keys": list(self.keys) or None,
            "limit": self.limit,
            **_moment("since", self.since),
            **_moment("until", self.until),
        }
        return {name: value for name, value in given.items() if value is not None}


def _moment(name: str, text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    if spans.WRITTEN.fullmatch(text.strip()):
        span = spans.parse(text)
        return {f"{name}_ago": span.total_seconds()} if span else {}
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            f"{text!r} is no time: write it like 2027-03-28T01:00, or 2h for two hours ago"
        ) from None
    given = given if given.tzinfo else given.replace(tzinfo=UTC)
    return {name: given.isoformat()}


@dataclass(frozen=True, slots=True)
class Export:
    """An export that was begun: ``plan`` is what kirby.begin_export answered."""

    plan: dict[str, Any]

    @property
    def id(self) -> int:
        return int(self.plan["export"])

    @property
    def origin(self) -> dict[str, Any]:
        """Where it comes from: installation, environment, by, exported, at (a position)."""
        names = ("installation", "environment", "by", "exported", "at", "export")
        return {name: self.plan[name] for name in names}

    @property
    def topics(self) -> dict[str, dict[str, Any]]:
        return dict(sorted(self.plan["topics"].items()))

    @property
    def states(self) -> dict[str, dict[str, Any]]:
        return dict(sorted(self.plan["states"].items()))

    def masks(self) -> dict[str, Any]:
        """The masks it is made with, those of states as "state NAME"; of what has any."""
        parts = {**self.topics, **{f"state {name}": part for name, part in self.states.items()}}
        return {
            name: masks.described(part["masks"], part["deny"])
            for name, part in parts.items()
            if part["masks"] or part["deny"]
        }


@dataclass(frozen=True, slots=True)
class Page:
    """Whole lines of JSON; ``position``: how far it came, to go on after."""

    lines: str
    messages: int
    position: int
    done: bool


@dataclass(frozen=True, slots=True)
class Entries:
    """Whole lines of JSON; ``after``: the key to go on after, None at the end."""

    lines: str
    entries: int
    after: str | None


def begin(conn: Connection, asked: Asked, *, actor: str | None = None) -> Export:
    """Fix what leaves, and say so in the audit log. Raises Invalid, NotFound, Denied."""
    with kirby_errors():
        [(plan,)] = conn.execute(BEGIN, [Jsonb(asked.document()), actor]).fetchall()
    return Export(plan)


def page(
    conn: Connection,
    export: int,
    topic: str,
    *,
    after: int,
    limit: int | None,
    actor: str | None = None,
) -> Page:
    """The next messages. Raises NotFound, Denied, Conflict (it has ended; masks changed)."""
    with kirby_errors():
        rows = conn.execute(MESSAGES, [export, topic, after, limit, actor]).fetchall()
    return Page(*rows[0])


def entries(
    conn: Connection, export: int, state: str, *, after: str | None, actor: str | None = None
) -> Entries:
    """The next entries of a state. Raises as ``page``."""
    with kirby_errors():
        params = [export, state, after, ENTRIES_A_PAGE, actor]
        rows = conn.execute(ENTRIES, params).fetchall()
    return Entries(*rows[0])


def end(conn: Connection, export: int, *, actor: str | None = None) -> dict[str, int]:
    """Forget its salt, and say in the audit log how much left: by topic, and by "state NAME"."""
    with kirby_errors():
        [(sent,)] = conn.execute(END, [export, actor]).fetchall()
    return dict(sent)

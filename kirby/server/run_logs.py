"""What runs wrote: reading on, the last of it, what matches, and all of it piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg
from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import query

STREAMS = ("stdout", "stderr", "kirby")
LEVELS = ("debug", "info", "warning", "error", "critical")
MOST = 1000  # lines of a page, unless said otherwise
MOST_BYTES = 4_000_000  # of text in a page, of which one line may be more

# A run's lines have one writer, its supervisor, one transaction after the other: by position is in
# the order of becoming visible, so reading on after the last position misses none.
AFTER: LiteralString = """
    select position, run_id, stream, level, text, at
      from (select l.*, sum(octet_length(text)) over (order by position)
                        - octet_length(text) as sent
              from (select position, run_id, stream, level, text, at
                      from kirby.log_line
                     where run_id = %(run_id)s and position > %(after)s
                       and (%(upto)s::bigint is null or position <= %(upto)s)
                       and (%(streams)s::text[] is null or stream = any (%(streams)s))
                       and (%(levels)s::text[] is null or level = any (%(levels)s))
                       and (%(text)s::text is null or strpos(lower(text), lower(%(text)s)) > 0)
                     order by position
                     limit %(limit)s) l) s
     where sent < %(bytes)s
     order by position
"""

BEFORE: LiteralString = """
    select position, run_id, stream, level, text, at
      from (select l.*, sum(octet_length(text)) over (order by position desc)
                        - octet_length(text) as sent
              from (select position, run_id, stream, level, text, at
                      from kirby.log_line
                     where run_id = %(run_id)s
                       and (%(before)s::bigint is null or position < %(before)s)
                       and (%(streams)s::text[] is null or stream = any (%(streams)s))
                       and (%(levels)s::text[] is null or level = any (%(levels)s))
                       and (%(text)s::text is null or strpos(lower(text), lower(%(text)s)) > 0)
                     order by position desc
                     limit %(limit)s) l) s
     where sent < %(bytes)s
     order by position
"""

LAST: LiteralString = """
    select coalesce((select position from kirby.log_line where run_id = %(run_id)s
                      order by position desc offset %(offset)s limit 1), 0)
"""


@dataclass(frozen=True, slots=True)
class Line:
    position: int
    run_id: int
    stream: str
    level: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines of a log: of a stream, at least of a level, with a text in them in any case."""

    stream: str = ""
    level: str = ""
    text: str = ""

    @classmethod
    def of(cls, stream: str = "", level: str = "", text: str = "") -> Choice:
        """A choice that makes sense; raises Invalid."""
        if stream and stream not in STREAMS:
            raise Invalid(f"{stream} is not a stream of a log: {', '.join(STREAMS)}")
        if level and level not in LEVELS:
            raise Invalid(f"{level} is not a level of a line: {', '.join(LEVELS)}")
        return cls(stream, level, text)

    def __bool__(self) -> bool:
        """Whether it is not simply all."""
        return bool(self.stream or self.level or self.text)

    @property
    def parameters(self) -> dict[str, object]:
        return {
            "streams": [self.stream] if self.stream else None,
            "levels": list(LEVELS[LEVELS.index(self.level) :]) if self.level else None,
            "text": self.text or None,
        }


ALL = Choice()


def after(
    conn: Connection,
    run_id: int,
    position: int = 0,
    *,
    upto: int | None = None,
    limit: int = MOST,
    choice: Choice = ALL,
) -> list[Line]:
    """Lines that follow a position, oldest first; go on with the last one's position.

    No more than `limit` lines, and no more than about MOST_BYTES of text, but at least one if
    there is one. Raises Invalid if it takes too long to find the chosen ones.
    """
    return _find(
        conn, AFTER, choice, run_id=run_id, after=position, upto=upto, limit=limit, bytes=MOST_BYTES
    )


def tail(
    conn: Connection,
    run_id: int,
    *,
    before: int | None = None,
    limit: int = MOST,
    choice: Choice = ALL,
) -> list[Line]:
    """The last lines, or those just before a position; oldest first, bounded as ``after``."""
    return _find(conn, BEFORE, choice, run_id=run_id, before=before, limit=limit, bytes=MOST_BYTES)


def last(conn: Connection, run_id: int, *, but: int = 0) -> int:
    """The position of the last line, or of the one so many lines before it; 0 if there is none."""
    return int(query.value(conn, LAST, run_id=run_id, offset=but))


def pieces(
    unit: Callable[[], AbstractContextManager[Connection]],
    run_id: int,
    position: int = 0,
    choice: Choice = ALL,
) -> Iterator[list[Line]]:
    """All lines after a position that are there by now, each piece read in a unit of its own."""
    with unit() as conn:
        upto = last(conn, run_id)
    while position < upto:
        with unit() as conn:
            found = after(conn, run_id, position, upto=upto, limit=5 * MOST, choice=choice)
        if not found:
            return
        yield found
        position = found[-1].position


def as_text(lines: list[Line]) -> str:
    """When, where and what, a line each."""
    return "".join(f"{line.at.isoformat()} {line.stream:6} {line.text}\n" for line in lines)


def as_json_lines(lines: list[Line]) -> str:
    """One JSON object a line; with the position to go on after."""
    return "".join(json.dumps(document(line), ensure_ascii=False) + "\n" for line in lines)


def document(line: Line) -> dict[str, object]:
    """A line as JSON has it."""
    return {
        "position": line.position,
        "at": line.at.isoformat(),
        "stream": line.stream,
        "level": line.level,
        "text": line.text,
    }


def _find(
    conn: Connection, statement: LiteralString, choice: Choice, **params: object
) -> list[Line]:
    try:
        return query.rows(conn, Line, statement, **params, **choice.parameters)
    except psycopg.errors.QueryCanceled:
        if not choice:
            raise
        raise Invalid("this log is too long to be searched as a whole: download it") from None

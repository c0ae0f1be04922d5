"""Topics: write to them and read them, by the functions of the protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from kirby.core.backends import answered
from kirby.core.db import Connection, is_pooled, kirby_errors, scalar
from kirby.core.errors import Invalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

WRITE = "select positions, topics from kirby.write(%s::jsonb, %s::jsonb)"

READ = """
    select position, key, payload as value, headers, run_id, parents, recorded_at
      from kirby.read(%s, after => %s, max => %s, since => %s, until => %s)
"""

OPEN = "select kirby.open_topic(%s, %s, %s)"
RETRACT = "select kirby.retract(%s, %s)"

# Nobody waits for a hint to reach the disk.
NOTIFY = """
    select set_config('synchronous_commit', 'off', true), pg_notify('kirby_topic_' || topic, '')
      from unnest(%s::integer[]) topic
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it stands in the log."""

    position: int
    key: str | None
    value: Any
    headers: dict[str, Any] | None
    run_id: int | None
    parents: list[int] | None
    recorded_at: datetime


def checked_name(name: object) -> str:
    """The name of a topic. Raises Invalid; the database refuses the same ones (kirby.topic_id)."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise Invalid(
        f"{name!r:.100} is not a name for a topic: letters, digits, dots, dashes and underscores,"
        " at most 200"
    )


@answered
def write(conn: Connection, messages: str, mutations: str) -> tuple[list[int], list[int]]:
    """Publish and change states in one transaction; both are JSON documents (kirby.write).

    Returns the positions and the ids of the topics, which are to be notified after the commit.
    """
    with kirby_errors():
        [(positions, topics)] = conn.execute(WRITE, [messages, mutations]).fetchall()
    return positions, topics


@answered
def write_all(conn: Connection, documents: Iterable[str]) -> tuple[list[int], list[int]]:
    """Publish documents one after the other in one transaction; as ``write``.

    Each is made while the database works on those before; what making one raises goes through, and
    nothing is written. No other thread may use the connection meanwhile.
    """
    with kirby_errors():
        if is_pooled(conn):
            documents = list(documents)
        with nullcontext() if is_pooled(conn) else conn.pipeline(), conn.transaction():
            cursors = [conn.execute(WRITE, [each, "{}"]) for each in documents]
        rows = [row for cursor in cursors for row in cursor.fetchall()]
    positions = [position for found, _ in rows for position in found]
    return positions, sorted({topic for _, found in rows for topic in found})


@answered
def change_all(conn: Connection, documents: Iterable[str]) -> list[int]:
    """Change states by documents one after the other in one transaction (kirby.write), all or none.

    Returns the ids of the topics that were written to. Raises Conflict.
    """
    written: set[int] = set()
    with kirby_errors(), conn.transaction():
        for each in documents:
            [(_, topics)] = conn.execute(WRITE, ["{}", each]).fetchall()
            written.update(topics)
    return sorted(written)


@answered
def open(
    conn: Connection, topic: str, *, lanes: int | None = None, bands: int | None = None
) -> int:
    """Make a topic at its first use; an existing one stays as it is. Returns its id.

    ``bands`` divide its lanes: messages of band 0 are handed out before those of band 1, and so on.
    """
    with kirby_errors():
        return int(scalar(conn, OPEN, [topic, lanes, bands]))


@answered
def retract(conn: Connection, topic: str, id: str) -> bool:
    """Take a message back by the id it was published under; whether nobody had it in hands yet.

    Raises NotFound if no message has this id.
    """
    with kirby_errors():
        return bool(scalar(conn, RETRACT, [topic, id]))


def channel(topic_id: int) -> str:
    """The channel on which a topic is said to have been written to."""
    return f"kirby_topic_{topic_id}"


@answered
def notify(conn: Connection, topics: list[int]) -> None:
    """Wake the readers of these topics. Only a hint: they poll as well."""
    with kirby_errors():
        conn.execute(NOTIFY, [topics])


@answered
def read(
    conn: Connection,
    topic: str,
    *,
    after: int = 0,
    limit: int = 100,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Entry]:
    """Return up to ``limit`` messages that follow position ``after``, in the order of the log."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(READ, [topic, after, limit, since, until]).fetchall()

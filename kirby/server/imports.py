"""Imports: messages and entries that were exported, into an environment of this installation.

Keys, values, headers with their origin, and the order stay. What was imported before is not again:
a message is known by where it comes from (kirby.import_messages).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from kirby.core import payload
from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import Invalid, KirbyError

AT_ONCE = 1000  # lines of a transaction,
BYTES_AT_ONCE = 4_000_000  # or so many bytes

MESSAGES = "select kirby.import_messages(%s, %s::jsonb, %s, %s)"
ENTRIES = "select kirby.import_entries(%s, %s::jsonb, %s)"
CHECK = """
    select kirby.checked_origin(%s, e.id)
      from kirby.environment e where e.name = current_setting('kirby.environment')
"""
AUDIT = "select kirby.audit(%s, %s, %s, null, %s)"


@dataclass(frozen=True, slots=True)
class Done:
    """How much was read, and how much of it is new here."""

    read: int = 0
    new: int = 0

    def __add__(self, other: Done) -> Done:
        return Done(self.read + other.read, self.new + other.new)


def check_origin(conn: Connection, origin: dict[str, Any]) -> None:
    """Raise Denied for what comes back to the installation and environment it was exported from."""
    with kirby_errors():
        conn.execute(CHECK, [Jsonb({"origin": origin})])


def messages(conn: Connection, topic: str, lines: list[bytes], *, source: str, first: int) -> Done:
    """Publish some lines in one statement; ``first``: the number of the first in its source.

    Raises Invalid, naming the line, and Denied for a message that comes back.
    """
    with _named(lines, first):
        params = [topic, _array(lines), source, first]
        [(new,)] = conn.execute(MESSAGES, params).fetchall()
    return Done(len(lines), new)


def entries(
    conn: Connection, state: str, lines: list[bytes], *, origin: dict[str, Any], first: int
) -> Done:
    """Set keys of a state; those that have this value already stay as they are. As ``messages``."""
    with _named(lines, first):
        [(new,)] = conn.execute(ENTRIES, [state, _array(lines), Jsonb(origin)]).fetchall()
    return Done(len(lines), new)


def audit(conn: Connection, actor: str, subject: str, done: Done, origin: dict[str, Any]) -> None:
    """Say in the audit log what came in."""
    after = {"read": done.read, "new": done.new, "origin": origin}
    with kirby_errors():
        conn.execute(AUDIT, [actor, "imported", subject, Jsonb(after)])


def batches(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in groups that fit a transaction."""
    group: list[bytes] = []
    size = 0
    for block in blocks:
        for line in block.split(b"\n"):
            if not line.strip():
                continue
            group.append(line)
            size += len(line)
            if len(group) == AT_ONCE or size > BYTES_AT_ONCE:
                yield group
                group, size = [], 0
    if group:
        yield group


def _array(lines: list[bytes]) -> str:
    try:
        return f"[{','.join(line.decode() for line in lines)}]"
    except UnicodeDecodeError:
        raise _Unreadable from None


class _Unreadable(KirbyError):
    """Some line is not UTF-8."""


@contextmanager
def _named(lines: list[bytes], first: int) -> Iterator[None]:
    """Raise what is wrong with a line as Invalid that names it."""
    try:
        with kirby_errors():
            yield
    except (_Unreadable, psycopg.DataError, Invalid) as error:
        for number, line in enumerate(lines, first):
            if fault := _fault(line):
                raise Invalid(f"line {number} {fault}") from None
        if isinstance(error, psycopg.DataError):
            raise Invalid(f"lines {first} and on cannot be stored: {error}") from None
        raise


def _fault(line: bytes) -> str:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(found, dict) or "value" not in found:
        return 'is no envelope: {"key": …, "value": …}'
    key, headers = found.get("key"), found.get("headers")
    if key is not None and not isinstance(key, str):
        return "has a key that is no text"
    if headers is not None and not isinstance(headers, dict):
        return "has headers that are no object"
    try:
        payload.dumps(found, "it")
    except Invalid as error:
        return f"cannot be stored: {error}"
    return ""

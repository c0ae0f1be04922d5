"""Tasks: what became of one, by the id that it was published under."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from kirby.core.backends import answered
from kirby.core.db import Connection, kirby_errors, scalar

STATUS = "select * from kirby.task_status(%s, %s)"
NOW = "select kirby.now()"


@dataclass(frozen=True, slots=True)
class Status:
    """``status``: unknown, scheduled, pending, running, retrying, succeeded, failed, revoked or
    expired. ``result`` is the message of results, if one was kept."""

    status: str
    position: int | None
    attempt: int | None
    error: str | None
    due_at: datetime | None
    result_position: int | None
    result: dict[str, Any] | None


@answered
def status(conn: Connection, topic: str, id: str) -> Status:
    """What became of the task with this id in the topic of its kind."""
    with kirby_errors(), conn.cursor(row_factory=class_row(Status)) as cursor:
        [found] = cursor.execute(STATUS, [topic, id]).fetchall()
    return found


@answered
def now(conn: Connection) -> datetime:
    """What the clock of the database says: the only clock there is."""
    with kirby_errors():
        moment: datetime = scalar(conn, NOW)
    return moment

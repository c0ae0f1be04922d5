"""Effects: what a handler does outside of the database, noted before and after."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from kirby.core.backends import answered
from kirby.core.db import Connection, kirby_errors

BEGIN = "select id, key, verdict from kirby.begin_effect(%s, %s, %s, %s, %s, %s, %s)"
CONFIRM = "select kirby.confirm_effect(%s)"


@dataclass(frozen=True, slots=True)
class Begun:
    """``verdict``: do, done (it was confirmed already) or in_doubt (a person has to look)."""

    id: int
    key: str
    verdict: str


@answered
def begin(
    conn: Connection,
    name: str,
    key: str | None,
    subscription_id: int | None,
    position: int | None,
    number: int,
    *,
    idempotent: bool,
    attempt: UUID,
) -> Begun:
    """Note that something is about to be done; durable on return (kirby.begin_effect)."""
    params = [name, key, subscription_id, position, number, idempotent, attempt]
    with kirby_errors(), conn.cursor(row_factory=class_row(Begun)) as cursor:
        [found] = cursor.execute(BEGIN, params).fetchall()
    return found


@answered
def confirm(conn: Connection, effect_id: int) -> None:
    """Note that it was done; durable on return."""
    with kirby_errors():
        conn.execute(CONFIRM, [effect_id])

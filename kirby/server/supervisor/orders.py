"""What a supervisor and the database tell each other: who it is, which runs are its own."""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kirby.core import db
from kirby.server import schema

VERSION = importlib.metadata.version("kirby")
REGISTER = """
select kirby.register_supervisor(%s, %s, %s, %s, %s, make_interval(secs => %s), %s, %s, %s)
"""
CLAIM = "select count(*) from kirby.claim_runs(%s, %s)"
MINE = """
select id, cancel_at is not null, progress_at from kirby.run
 where supervisor_id = %s and status in ('starting', 'running')
"""
IS_TO_STOP = "select stopping from kirby.supervisor where id = %s"
GOODBYE = "select kirby.end_supervisor(%s, 'the supervisor was stopped')"
NOTIFY = "select pg_notify('kirby_job', id::text) from unnest(%s::bigint[]) as id"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a supervisor says of itself; `lease` is in seconds."""

    host: str
    folder: str
    slots: int
    labels: Sequence[str]
    lease: float


def register(conn: db.Connection, owner: uuid.UUID, who: Identity) -> None:
    """Say that it is alive, for the time of a lease. Raises Fenced, WrongSchema, Unavailable."""
    me = [owner, who.host, who.folder, os.getpid(), who.slots, who.lease]
    with db.kirby_errors():
        conn.execute(REGISTER, [*me, list(who.labels), VERSION, schema.PROTOCOL])


def claim(conn: db.Connection, owner: uuid.UUID, slots: int) -> None:
    """Get at most so many runs. Raises Fenced, Unavailable."""
    with db.kirby_errors():
        conn.execute(CLAIM, [owner, slots])


def mine(conn: db.Connection, owner: uuid.UUID) -> dict[int, tuple[bool, datetime | None]]:
    """Its runs: whether each is to be cancelled, and when it last told its progress."""
    return {run_id: (asked, at) for run_id, asked, at in conn.execute(MINE, [owner])}


def is_to_stop(conn: db.Connection, owner: uuid.UUID) -> bool:
    """Whether it is to end when it has no run left."""
    return any(stopping for (stopping,) in conn.execute(IS_TO_STOP, [owner]))


def say_goodbye(conn: db.Connection, owner: uuid.UUID) -> None:
    """Give its runs back, to be run again elsewhere."""
    with db.kirby_errors():
        conn.execute(GOODBYE, [owner])
        conn.execute("notify kirby_run")


def tell(conn: db.Connection, changed: Sequence[int]) -> None:
    """Hint at changes of runs, outside of the transactions that made them (P9)."""
    conn.execute(NOTIFY, [list(changed)])

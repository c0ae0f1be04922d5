"""More lanes for a topic that is in use, without disturbing the order of any key."""

from __future__ import annotations

import time

from kirby.core import db
from kirby.core.errors import Conflict

PATIENCE = 10.0  # seconds for those who write to the topic to come to an end
LOOK = 0.05

CHANGE = "select kirby.change_lanes(%s, %s, %s)"
UNDO = "select kirby.undo_lanes(%s, %s)"
SKIP = "select kirby.skip_positions(%s)"
# Who writes to the topic: each announcement is a lock of its own (kirby.announce).
WRITERS = """
    select k.pid, k.objid::bigint, coalesce(a.application_name, '') as application
      from pg_locks k
      left join pg_stat_activity a on a.pid = k.pid
     where k.locktype = 'advisory' and k.objsubid = 2
       and k.database = (select oid from pg_database where datname = current_database())
       and k.classid::bigint = kirby.topic_lock(%s)
"""


def change(
    conn: db.Connection, topic_id: int, lanes: int, *, actor: str, patience: float = PATIENCE
) -> int:
    """Give a topic more lanes; returns the position above which its messages lie in them.

    ``conn`` is in autocommit: each step is a transaction. The new number holds above a position
    ahead. Whoever wrote to the topic before the first step may still use the old number, so the
    log is taken past that position only when they are gone. An ordered subscription settles all
    below it before it goes on (kirby.barrier), so every key stays in order.

    Raises Conflict, and takes the change back, if a transaction that wrote to the topic stays open
    for ``patience`` seconds; Invalid for fewer lanes, or a topic with priorities.
    """
    with db.kirby_errors():
        position = int(db.scalar(conn, CHANGE, [topic_id, lanes, actor]))
        if writers := _wait_for(conn, topic_id, patience):
            db.scalar(conn, UNDO, [topic_id, actor])
            raise Conflict(
                f"the lanes stay as they are: {writers} wrote to the topic and is still open;"
                " end it, and try again"
            )
        db.scalar(conn, SKIP, [position])
    return position


def _wait_for(conn: db.Connection, topic_id: int, patience: float) -> str:
    """Wait until all who write now are gone; those who are not, in words."""
    until = time.monotonic() + patience
    before = set(conn.execute(WRITERS, [topic_id]).fetchall())
    while before and time.monotonic() < until:
        time.sleep(LOOK)
        before &= set(conn.execute(WRITERS, [topic_id]).fetchall())
    found = sorted({(pid, application) for pid, _, application in before})
    return ", ".join(f"the transaction of pid {pid} ({application})" for pid, application in found)

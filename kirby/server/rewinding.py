"""Which subscriptions are being rewound now: what pages about other things say of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from kirby.server import query
from kirby.server.environments import Environment

# Few rows: those that are not over.
OPEN = """
    select w.id, t.name as topic, w.status, w.actor,
           coalesce(w.subscriptions, '{}') as subscriptions
      from kirby.rewind w
      join kirby.topic t on t.id = w.topic_id
     where w.environment_id = %(environment_id)s
       and w.status in ('preparing', 'running', 'paused', 'aborting')
       and (%(topic)s::text is null or t.name = %(topic)s)
     order by w.id desc
     limit 50
"""


@dataclass(frozen=True, slots=True)
class Open:
    """A rewind that is not over, and the subscriptions that it moved back."""

    id: int
    topic: str
    status: str
    actor: str
    subscriptions: list[str]


def now(conn: Connection, environment: Environment, *, topic: str | None = None) -> list[Open]:
    """The rewinds of an environment, or of one of its topics, that are not over; newest first."""
    return query.rows(conn, Open, OPEN, environment_id=environment.id, topic=topic)

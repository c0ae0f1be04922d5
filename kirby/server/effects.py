"""Effects: what handlers did outside of the database, and what is in doubt of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from kirby.server import query
from kirby.server.environments import Environment

LISTING = """
    select e.id, e.name, e.key, t.name as topic, s.name as subscription, e.position, e.run_id,
           case e.status when 'begun' then 'in doubt' else e.status end as status,
           e.idempotent, e.times, e.begun_at, e.confirmed_at, e.resolved_by, e.resolved_at
      from kirby.effect e
      left join kirby.subscription s on s.id = e.subscription_id
      left join kirby.topic t on t.id = s.topic_id
     where e.environment_id = %(environment_id)s
       and (not %(in_doubt)s or e.status = 'begun')
       and (%(name)s::text is null or e.name = %(name)s)
     order by e.id desc
     limit %(limit)s
"""
RESOLVE = "select kirby.resolve_effect(%(environment_id)s::smallint, %(id)s, %(done)s, %(actor)s)"


@dataclass(frozen=True, slots=True)
class Effect:
    """``status``: confirmed, again (it is to be done once more), or in doubt: it was begun and not
    confirmed, or is under way just now. ``times``: how often it was begun."""

    id: int
    name: str
    key: str
    topic: str | None
    subscription: str | None
    position: int | None
    run_id: int | None
    status: str
    idempotent: bool
    times: int
    begun_at: datetime
    confirmed_at: datetime | None
    resolved_by: str | None
    resolved_at: datetime | None


def listing(
    conn: Connection,
    environment: Environment,
    *,
    in_doubt: bool = False,
    name: str | None = None,
    limit: int = 50,
) -> list[Effect]:
    """The effects of an environment, newest first."""
    return query.rows(
        conn,
        Effect,
        LISTING,
        environment_id=environment.id,
        in_doubt=in_doubt,
        name=name,
        limit=limit,
    )


def resolve(
    conn: Connection, environment: Environment, effect_id: int, *, done: bool, actor: str
) -> int:
    """Say that an effect in doubt happened, or that it is to be done again; audited.

    Its message is delivered again if it was parked: returns how many go on (0 or 1). Raises
    NotFound, Conflict (it is not in doubt).
    """
    return int(
        query.value(
            conn, RESOLVE, environment_id=environment.id, id=effect_id, done=done, actor=actor
        )
    )

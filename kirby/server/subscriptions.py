"""Subscriptions: who reads a topic, and how far behind each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import NotFound
from kirby.core.payload import dumps
from kirby.server import query, topics
from kirby.server.environments import Environment

COUNTED = 10_000  # at most so many retries and parked messages are counted

SUBSCRIPTIONS = """
    select s.id, s.name, t.name as topic, s.mode, s.on_failure, s.max_attempts, s.paused_at,
           s.created_at, s.max_in_flight, s.rate, s.key_in_flight, s.key_rate,
           lag.messages as behind, not lag.exact as more, held.claims, due.retries, due.parked,
           case when lag.messages > 0 then kirby.now() - make_interval(secs => lag.seconds)
             end as oldest,
           lag.seconds
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id
     cross join lateral kirby.lag(s.id) lag
     cross join lateral (
           select count(*) as claims from kirby.claim c where c.subscription_id = s.id) held
     cross join lateral (
           select count(*) filter (where d.parked_at is null) as retries,
                  count(*) filter (where d.parked_at is not null) as parked
             from (select parked_at from kirby.due
                    where subscription_id = s.id and reason <> 'done' limit %(counted)s) d) due
     where t.environment_id = %(environment_id)s
       and (%(topic)s::text is null or t.name = %(topic)s)
     order by t.name, s.name
"""

# Those that do not go on by themselves first.
UNDONE = """
    select d.position, d.key, d.reason, d.attempt, d.due_at = 'infinity' as waits,
           nullif(d.due_at, 'infinity') as due_at, d.parked_at, d.error,
           coalesce(d.payload, m.payload) as payload, d.payload is not null as edited
      from kirby.due d
      join kirby.message m on m.topic_id = %(topic_id)s and m.position = d.position
                          and m.lane = d.lane
     where d.subscription_id = %(id)s and d.reason <> 'done'
     order by d.parked_at nulls last, d.due_at, d.position
     limit %(limit)s
"""
PARKED_OF = """
    select t.name as topic, s.name as subscription, count(*) as messages, min(u.parked_at) as since
      from kirby.due u
      join kirby.subscription s on s.id = u.subscription_id
      join kirby.topic t on t.id = s.topic_id
     where t.environment_id = %(environment_id)s and u.parked_at is not null
       and (s.name = %(job)s or exists (select from kirby.declaration d
                                         where d.subscription_id = s.id and d.job = %(job)s))
     group by t.name, s.name order by t.name, s.name
"""
UNPARK = "select kirby.unpark(%(id)s, %(positions)s, %(actor)s)"
EDIT = """
    select kirby.edit_parked(%(id)s, %(position)s, %(payload)s::jsonb, %(actor)s, %(reason)s)
"""
LIMIT = "select kirby.limit_subscription(%(id)s, %(limits)s::jsonb)"
AUDIT_LIMIT = """
    select kirby.audit(%(actor)s, 'subscription_limited', %(object)s, null, %(limits)s::jsonb)
"""
DROP = "select kirby.drop_parked(%(id)s, %(positions)s, %(actor)s)"
PAUSE = "select kirby.pause_subscription(%(id)s, %(paused)s, %(actor)s)"


@dataclass(frozen=True, slots=True)
class Subscription:
    """``behind`` messages are not settled (at least so many if there are ``more``; parked and
    delayed ones not among them), the oldest has been waiting for ``seconds``: kirby.lag."""

    id: int
    name: str
    topic: str
    mode: str
    on_failure: str
    max_attempts: int
    paused_at: datetime | None
    created_at: datetime
    behind: int
    more: bool
    claims: int
    retries: int
    parked: int
    oldest: datetime | None
    seconds: float
    max_in_flight: int | None
    rate: float | None
    key_in_flight: int | None
    key_rate: float | None


def listing(
    conn: Connection, environment: Environment, *, topic: str | None = None
) -> list[Subscription]:
    """The subscriptions of an environment, or of one of its topics, by name."""
    return query.rows(
        conn,
        Subscription,
        SUBSCRIPTIONS,
        environment_id=environment.id,
        topic=topic,
        counted=COUNTED,
    )


@dataclass(frozen=True, slots=True)
class Undone:
    """A message that is delivered by itself: parked, to be tried again, or waiting for its key."""

    position: int
    key: str | None
    reason: str
    attempt: int
    waits: bool
    due_at: datetime | None
    parked_at: datetime | None
    error: str | None
    payload: Any
    edited: bool

    @property
    def status(self) -> str:
        """In a word: parked, waiting, in hands, delayed, limited, or to be tried again."""
        if self.parked_at is not None:
            return "parked"
        if self.reason in ("waiting", "delayed", "limited"):
            return self.reason
        return "in hands" if self.waits else "retry"


def get(conn: Connection, environment: Environment, topic: str, name: str) -> Subscription:
    """The subscription of that name; raises NotFound with the closest one."""
    found = listing(conn, environment, topic=topic)
    for each in found:
        if each.name == name:
            return each
    raise query.missing(f"subscription of topic {topic}:", name, [each.name for each in found])


@dataclass(frozen=True, slots=True)
class Parked:
    """So many messages of a topic that a subscription could not handle, since the first of them."""

    topic: str
    subscription: str
    messages: int
    since: datetime


def parked_of(conn: Connection, environment: Environment, job: str) -> list[Parked]:
    """What a job could not handle, by the topics that it reads."""
    return query.rows(conn, Parked, PARKED_OF, environment_id=environment.id, job=job)


def undone(
    conn: Connection, environment: Environment, subscription: Subscription, *, limit: int = 50
) -> list[Undone]:
    """What is parked, due again, or waiting for a message of its key; the parked ones first."""
    topic_id = topics.get(conn, environment, subscription.topic).id
    return query.rows(conn, Undone, UNDONE, id=subscription.id, topic_id=topic_id, limit=limit)


def unpark(
    conn: Connection, subscription: Subscription, positions: list[int] | None, *, actor: str
) -> int:
    """Deliver parked messages again, all or those named; audited. Returns how many."""
    return int(query.value(conn, UNPARK, id=subscription.id, positions=positions, actor=actor))


PARKED = """
    select d.position, d.key, d.reason, d.attempt, false as waits, null as due_at, d.parked_at,
           d.error, coalesce(d.payload, m.payload) as payload, d.payload is not null as edited
      from kirby.due d
      join kirby.message m on m.topic_id = %(topic_id)s and m.position = d.position
                          and m.lane = d.lane
     where d.subscription_id = %(id)s and d.position = %(position)s and d.parked_at is not null
"""


def parked(
    conn: Connection, environment: Environment, subscription: Subscription, position: int
) -> Undone:
    """A parked message; raises NotFound."""
    topic_id = topics.get(conn, environment, subscription.topic).id
    found = query.row(
        conn, Undone, PARKED, id=subscription.id, topic_id=topic_id, position=position
    )
    if found is None:
        raise NotFound(f"no message is parked at position {position}")
    return found


def limit(
    conn: Connection,
    subscription: Subscription,
    limits: Mapping[str, float | str | None],
    *,
    actor: str,
) -> None:
    """Set limits (LIMITS of kirby.core.subscriptions; None: no limit); audited. Raises Invalid."""
    text = dumps(dict(limits))
    query.value(conn, LIMIT, id=subscription.id, limits=text)
    query.value(
        conn, AUDIT_LIMIT, actor=actor, object=f"subscription/{subscription.id}", limits=text
    )


def edit(
    conn: Connection,
    subscription: Subscription,
    position: int,
    payload: Any,
    *,
    actor: str,
    reason: str | None = None,
) -> None:
    """Change what a parked message says to this subscription when it is tried again; audited.

    The topic keeps the message as it was published. Raises NotFound, Invalid.
    """
    query.value(
        conn,
        EDIT,
        id=subscription.id,
        position=position,
        payload=dumps(payload),
        actor=actor,
        reason=reason,
    )


def drop(
    conn: Connection, subscription: Subscription, positions: list[int] | None, *, actor: str
) -> int:
    """Give up on parked messages, all or those named; audited. Returns how many."""
    return int(query.value(conn, DROP, id=subscription.id, positions=positions, actor=actor))


def pause(conn: Connection, subscription: Subscription, paused: bool, *, actor: str) -> None:
    """Hand out nothing more until it is resumed; audited."""
    query.value(conn, PAUSE, id=subscription.id, paused=paused, actor=actor)

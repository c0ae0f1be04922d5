"""Subscriptions: who reads a topic, and how far behind each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from kirby.server import query
from kirby.server.environments import Environment

COUNTED = 10_000  # beyond it a lag is shown as "10,000+"

# Behind: not handed out yet. Waiting: the oldest message that is not handed out or not settled.
SUBSCRIPTIONS = """
    select s.id, s.name, t.name as topic, s.mode, s.created_at,
           least(lag.behind, %(counted)s) as behind, lag.behind > %(counted)s as more,
           held.claims, due.retries, due.parked,
           least(oldest.at, held.oldest) as oldest,
           coalesce(greatest(extract(epoch from kirby.now() - least(oldest.at, held.oldest)), 0),
                    0)::float8 as seconds
      from kirby.subscription s
      join kirby.topic t on t.id = s.topic_id
     cross join lateral (
           select count(*) as behind
             from (select from kirby.cursor c
                    cross join lateral (
                          select from kirby.message m
                           where m.topic_id = t.id and m.lane = c.lane and m.position > c.position
                           limit %(counted)s + 1) m
                    where c.subscription_id = s.id
                    limit %(counted)s + 1) counted) lag
     cross join lateral (
           select min(m.recorded_at) as at
             from kirby.cursor c
            cross join lateral (
                  select m.recorded_at from kirby.message m
                   where m.topic_id = t.id and m.lane = c.lane and m.position > c.position
                   order by m.position limit 1) m
            where c.subscription_id = s.id) oldest
     cross join lateral (
           select count(*) as claims, min(m.recorded_at) as oldest
             from kirby.claim c
             left join kirby.message m
                    on m.topic_id = t.id and m.lane = c.lane and m.position = c.first
            where c.subscription_id = s.id) held
     cross join lateral (
           select count(*) filter (where d.parked_at is null) as retries,
                  count(*) filter (where d.parked_at is not null) as parked
             from (select parked_at from kirby.due
                    where subscription_id = s.id limit %(counted)s) d) due
     where t.environment_id = %(environment_id)s
       and (%(topic)s::text is null or t.name = %(topic)s)
     order by t.name, s.name
"""


@dataclass(frozen=True, slots=True)
class Subscription:
    """``behind`` messages are not handed out yet (at most COUNTED; ``more`` says that there are
    more); the oldest message not settled has been waiting for ``seconds``."""

    id: int
    name: str
    topic: str
    mode: str
    created_at: datetime
    behind: int
    more: bool
    claims: int
    retries: int
    parked: int
    oldest: datetime | None
    seconds: float


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

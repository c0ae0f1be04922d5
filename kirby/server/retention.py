"""Retention: how long the messages of a topic, and the other logs, are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kirby.server import query, spans, topics
from kirby.server.environments import Environment

TOPICS = """
    select t.id, t.name as topic, e.name as environment, r.*
      from kirby.topic t
      join kirby.environment e on e.id = t.environment_id
     cross join lateral kirby.retention_of(t.id) r
     where (%(id)s::integer is null and r.keep is not null or t.id = %(id)s)
     order by e.id, t.name
"""

LOGS = """
    select l.name as log, k.keep, old.at as oldest_at,
           coalesce(greatest(extract(epoch from kirby.now() - old.at - k.keep), 0), 0)::float8
             as late
      from unnest(array['message', 'job_event', 'log_line', 'state_mutation', 'secret_access',
                        'audit_event']) with ordinality as l (name, n)
      left join kirby.log_retention k on k.log = l.name
     cross join lateral kirby.oldest_in(l.name) as old (at)
     order by l.n
"""

SET_TOPIC = "select kirby.keep_topic(%(id)s, %(keep)s, %(even_unread)s, %(actor)s)"
SET_LOG = "select kirby.keep_log(%(log)s, %(keep)s, %(actor)s)"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a topic stands to its policy. ``keep`` None: for ever.

    The oldest message is ``late`` seconds older than that; the subscription ``blocked_by`` is not
    done with it, for ``blocked_reason``. Everything up to position ``gone_to`` was removed, and
    everything recorded after ``gone_at`` is there.
    """

    id: int
    topic: str
    environment: str
    keep: timedelta | None
    even_unread: bool
    gone_to: int
    gone_at: datetime | None
    oldest: int | None
    oldest_at: datetime | None
    late: float
    blocked_by: str | None
    blocked_reason: str | None


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """How a log stands to its policy. ``keep`` None: for ever (messages: by topic)."""

    log: str
    keep: timedelta | None
    oldest_at: datetime | None
    late: float

    @property
    def kept(self) -> str:
        """How long, in words."""
        return "by topic" if self.log == "message" else spans.text(self.keep)


def topic(conn: Connection, environment: Environment, name: str) -> Policy:
    """How a topic stands to its policy; raises NotFound."""
    found = topics.get(conn, environment, name)
    return query.one(conn, Policy, TOPICS, id=found.id)


def listing(conn: Connection) -> list[Policy]:
    """Every topic that is not kept for ever, in all environments."""
    return query.rows(conn, Policy, TOPICS, id=None)


def logs(conn: Connection) -> list[LogPolicy]:
    """The six logs."""
    return query.rows(conn, LogPolicy, LOGS)


def set_topic(
    conn: Connection,
    environment: Environment,
    name: str,
    keep: timedelta | None,
    *,
    even_unread: bool = False,
    actor: str,
) -> None:
    """Keep the messages of a topic so long (None: for ever); audited. Raises NotFound, Invalid.

    ``even_unread``: also those go that a subscription is not done with.
    """
    found = topics.get(conn, environment, name)
    query.value(conn, SET_TOPIC, id=found.id, keep=keep, even_unread=even_unread, actor=actor)


def set_log(conn: Connection, log: str, keep: timedelta | None, *, actor: str) -> None:
    """Keep a log so long (None: for ever); audited. Raises NotFound, Invalid."""
    query.value(conn, SET_LOG, log=log, keep=keep, actor=actor)

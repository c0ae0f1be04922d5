"""Topics: what stands in them, newest first, by key or position; publishing one by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.core.payload import MAX_BYTES, dumps
from kirby.server import query, spans
from kirby.server.environments import Environment

COUNTED = 10_000  # beyond so many that the leader has not counted yet, their number is estimated
SEARCHED = 100_000  # messages of a lane that one search by key looks at

NAMES = "select name from kirby.topic where environment_id = %(environment_id)s"

# No statement reads a whole topic: the oldest and the newest row of each lane, at most 50 of each
# lane for the rate, at most COUNTED + 1 index entries of what is not counted yet.
TOPICS = """
    select t.id, t.name, t.environment_id, t.lanes, t.created_at,
           newest.position as last_position, newest.recorded_at as last_at,
           (select count(*) from kirby.subscription s where s.topic_id = t.id) as subscriptions,
           coalesce(rate.per_second, 0)::float8 as rate,
           counted.messages + new.messages as messages, new.messages > %(counted)s as estimated,
           kept.keep, kept.even_unread, kept.oldest_at, kept.late, kept.blocked_by
      from kirby.topic t
      join lateral (
           select coalesce(sum(n.messages - n.gone), 0)::bigint as messages
             from kirby.topic_count n where n.topic_id = t.id) counted on true
      join lateral (
           select count(*) as messages
             from (select from generate_series(0, t.lanes - 1) as l (lane)
                     left join kirby.topic_count n on n.topic_id = t.id and n.lane = l.lane
                    cross join lateral (
                          select from kirby.message m
                           where m.topic_id = t.id and m.lane = l.lane
                             and m.position > coalesce(n.position, 0)
                           limit %(counted)s + 1) m
                    limit %(counted)s + 1) uncounted) new on true
      join lateral kirby.retention_of(t.id) kept on true
      left join lateral (
           select m.position, m.recorded_at
             from generate_series(0, t.lanes - 1) as l (lane)
            cross join lateral (
                  select m.position, m.recorded_at from kirby.message m
                   where m.topic_id = t.id and m.lane = l.lane
                   order by m.position desc limit 1) m
            order by m.position desc limit 1) newest on true
      left join lateral (
           select sum(lane.n / case when lane.n < 50 then 600 else greatest(0.001,
                                extract(epoch from kirby.now() - lane.oldest)) end) as per_second
             from generate_series(0, t.lanes - 1) as l (lane)
            cross join lateral (
                  select count(*) as n, min(newer.recorded_at) as oldest
                    from (select m.recorded_at from kirby.message m
                           where m.topic_id = t.id and m.lane = l.lane
                           order by m.position desc limit 50) newer
                   where newer.recorded_at > (select kirby.now() - interval '10 minutes')) lane
           ) rate on newest.recorded_at > kirby.now() - interval '10 minutes'
     where t.environment_id = %(environment_id)s
       and (%(name)s::text is null or t.name = %(name)s)
     order by t.name
"""

ESTIMATE = "explain (format json) select from kirby.message where topic_id = %(topic_id)s"

MESSAGES: LiteralString = """
    select m.position, t.name as topic, e.name as environment, m.lane, m.key, m.payload, m.headers,
           m.run_id, m.parents, m.recorded_at
      from kirby.message m
      join kirby.topic t on t.id = m.topic_id
      join kirby.environment e on e.id = t.environment_id
"""

LAST = """
    select m.position, %(topic)s as topic, %(environment)s as environment, m.lane, m.key, m.payload,
           m.headers, m.run_id, m.parents, m.recorded_at
      from generate_series(0, %(lanes)s - 1) as l (lane)
     cross join lateral (
           select * from kirby.message m
            where m.topic_id = %(topic_id)s and m.lane = l.lane
              and (%(before)s::bigint is null or m.position < %(before)s)
            order by m.position desc
            limit %(limit)s) m
     order by m.position desc
     limit %(limit)s
"""

# There is no index by key: the search looks at a bounded stretch of the lanes the key may lie in.
BY_KEY = """
    with stretch as (
      select m.position, m.key from kirby.message m
       where m.topic_id = %(topic_id)s
         and m.lane = any (kirby.lanes_of(%(topic_id)s, %(key)s))
         and (%(before)s::bigint is null or m.position < %(before)s)
       order by m.position desc
       limit %(searched)s
    )
    select count(*) as searched, min(position) as lowest,
           (array_agg(position order by position desc)
              filter (where key = %(key)s))[:%(limit)s] as found
      from stretch
"""

AT = (
    MESSAGES
    + """
     where m.topic_id = %(topic_id)s
       and m.lane = any (kirby.lanes_of(%(topic_id)s, %(key)s))
       and m.position = any (%(positions)s)
     order by m.position desc
"""
)

GET = MESSAGES + " where m.position = %(position)s"

SET_ENVIRONMENT = "select set_config('kirby.environment', %(name)s, true)"
PUBLISH = "select kirby.publish(%(topic)s, %(payload)s::jsonb, %(key)s, %(headers)s::jsonb)"
AUDIT_PUBLISH = """
    select kirby.audit(%(actor)s, 'message_published', %(object)s,
                       null, jsonb_build_object('position', %(position)s::bigint))
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """``rate``: messages a second of the last 10 minutes, sampled. ``messages``: those that are
    there; an estimate, which says so, while the leader has more than COUNTED of them to count.
    ``late``: seconds that the oldest one is older than the topic keeps them, for which the
    subscription ``blocked_by`` is the reason if it is not None."""

    id: int
    name: str
    environment_id: int
    lanes: int
    created_at: datetime
    last_position: int | None
    last_at: datetime | None
    subscriptions: int
    rate: float
    messages: int
    estimated: bool
    keep: timedelta | None
    even_unread: bool
    oldest_at: datetime | None
    late: float
    blocked_by: str | None

    @property
    def kept(self) -> str:
        """How long its messages are kept, in words."""
        return spans.text(self.keep)


@dataclass(frozen=True, slots=True)
class Message:
    position: int
    topic: str
    environment: str
    lane: int
    key: str | None
    payload: Any
    headers: dict[str, Any] | None
    run_id: int | None
    parents: list[int] | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Messages with one key, newest first, and how far the search went back."""

    messages: list[Message]
    searched: int
    lowest: int | None  # go on with before=lowest; None: the whole lane was searched


@dataclass(frozen=True, slots=True)
class _Stretch:
    searched: int
    lowest: int | None
    found: list[int] | None


def listing(conn: Connection, environment: Environment) -> list[Topic]:
    """Every topic of the environment, by name."""
    found = query.rows(
        conn, Topic, TOPICS, environment_id=environment.id, name=None, counted=COUNTED
    )
    return [_estimated(conn, topic) for topic in found]


def get(conn: Connection, environment: Environment, name: str) -> Topic:
    """The topic of that name; raises NotFound with the closest name."""
    found = query.row(
        conn, Topic, TOPICS, environment_id=environment.id, name=name, counted=COUNTED
    )
    if found is None:
        known = query.column(conn, NAMES, environment_id=environment.id)
        raise query.missing(f"topic in {environment.name} called", name, known)
    return _estimated(conn, found)


def _estimated(conn: Connection, topic: Topic) -> Topic:
    if not topic.estimated:
        return topic
    [plan] = query.value(conn, ESTIMATE, topic_id=topic.id)
    return replace(topic, messages=max(int(plan["Plan"]["Plan Rows"]), topic.messages))


def last(
    conn: Connection,
    environment: Environment,
    topic: Topic,
    *,
    before: int | None = None,
    limit: int = 50,
) -> list[Message]:
    """The newest messages, or those just before a position; newest first."""
    return query.rows(
        conn,
        Message,
        LAST,
        topic_id=topic.id,
        topic=topic.name,
        environment=environment.name,
        lanes=topic.lanes,
        before=before,
        limit=limit,
    )


def by_key(
    conn: Connection, topic: Topic, key: str, *, before: int | None = None, limit: int = 50
) -> Found:
    """The newest messages with a key, among the last SEARCHED of its lane (before a position)."""
    where: dict[str, Any] = {"topic_id": topic.id, "key": key}
    stretch = query.one(
        conn, _Stretch, BY_KEY, **where, before=before, limit=limit, searched=SEARCHED
    )
    positions = stretch.found or []
    messages = query.rows(conn, Message, AT, **where, positions=positions)
    if len(positions) == limit:
        return Found(messages, stretch.searched, positions[-1])
    return Found(
        messages, stretch.searched, stretch.lowest if stretch.searched == SEARCHED else None
    )


def message(conn: Connection, position: int) -> Message:
    """The message at a position; raises NotFound."""
    found = query.row(conn, Message, GET, position=position)
    if found is None:
        raise NotFound(f"there is no message at position {position}")
    return found


def publish(
    conn: Connection,
    environment: Environment,
    topic: str,
    payload: str,
    *,
    actor: str,
    key: str | None = None,
    headers: str | None = None,
) -> int:
    """Publish one JSON document given as text and return its position; audited. Raises Invalid."""
    check_json("payload", payload)
    if headers and not isinstance(check_json("headers", headers), dict):
        raise Invalid('the headers must be a JSON object, such as {"origin": "by hand"}')
    if key and "\x00" in key:
        raise Invalid("the key holds a NUL character, which PostgreSQL cannot keep")
    query.value(conn, SET_ENVIRONMENT, name=environment.name)
    position = int(
        query.value(
            conn, PUBLISH, topic=topic, payload=payload, key=key or None, headers=headers or None
        )
    )
    subject = f"topic/{environment.name}/{topic}"
    query.value(conn, AUDIT_PUBLISH, actor=actor, object=subject, position=position)
    return position


def check_json(what: str, text: str) -> Any:
    """The document that a text holds; raises Invalid, saying where, for what jsonb cannot keep."""
    if not text.strip():
        raise Invalid(f'the {what} is empty: give a JSON document, such as {{"a": 1}}')
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Invalid(f"the {what} is larger than 16 MB")
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Invalid(f"the {what} is not JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise Invalid(f"the {what} is nested too deeply") from None
    except ValueError:
        raise Invalid(f"the {what} holds a number of thousands of digits") from None
    dumps(document, f"the {what}")
    return document


def _refuse_constant(name: str) -> None:
    raise Invalid(f"{name} is not JSON: use null or a string")

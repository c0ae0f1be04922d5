"""Subscriptions: claim a range of a topic, settle it, keep it, or give it back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from kirby.core.backends import answered
from kirby.core.db import Connection, kirby_errors, scalar

LEASE = timedelta(seconds=15)
NEVER = math.inf  # seconds until something comes up in what will not grow any more
LIMITS = ("max_in_flight", "rate", "key_in_flight", "key_rate")
MAX_LIMIT = 1_000_000_000

SUBSCRIBE = "select subscription_id, topic_id from kirby.subscribe(%s, %s, %s, %s, %s)"
CLAIM = """
    select claim_id, fence, attempt, positions, keys, payloads, headers, recorded_at,
           run_ids, parents, dense
      from kirby.claim(%s, %s, %s, p_flush => false)
"""
SETTLE = """
    select topics, claim_id, fence, attempt, positions, keys, payloads, headers, recorded_at,
           run_ids, parents, dense
      from kirby.settle(%s, %s, %s::jsonb, %s::jsonb, p_upto => %s, p_next => %s, p_lease => %s,
                        p_failures => %s)
"""
LIMIT = "select kirby.limit_subscription(%s, %s)"
OPEN_SHADOW = "select subscription_id, topic_id, until from kirby.open_shadow(%s, %s, %s, %s)"
SERVE = "select kirby.serve(%s, %s, %s)"
NEXT_DUE = "select kirby.next_due(%s)"
RENEW = "select kirby.renew(%s, %s, %s)"
RELEASE = "select kirby.release(%s, %s, %s)"
BURY = "select kirby.bury(%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Batch:
    """A claimed range: nobody else gets these messages while the claim is held.

    The lists have one item for each message, in the order of the log; ``headers`` and
    ``parents`` are None if no message has any. ``attempt`` counts deliveries, this one included.
    ``dense``: no message of the lane is left out between them.
    """

    claim_id: int
    fence: int
    attempt: int
    positions: list[int]
    keys: list[str | None]
    payloads: list[Any]
    headers: list[dict[str, Any] | None] | None
    recorded_at: list[datetime]
    run_ids: list[int | None]
    parents: list[list[int] | None] | None
    dense: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that is not done: ``retry``, ``park``, or ``wait`` for the one that holds its key.

    ``pause``: seconds before a retry, else a back-off.
    """

    position: int
    action: str
    error: str | None = None
    pause: float | None = None

    def document(self) -> dict[str, Any]:
        return {"p": self.position, "a": self.action, "e": self.error, "d": self.pause}


@dataclass(frozen=True, slots=True)
class Lost:
    """A message of a claim that was the end of its process, and what is said of it."""

    claim_id: int
    fence: int
    position: int
    error: str

    def document(self) -> dict[str, Any]:
        return {"c": self.claim_id, "f": self.fence, "p": self.position, "e": self.error}


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settle did: the topics that were written to, and the next batch if there was one."""

    topics: list[int]
    next: Batch | None


@answered
def subscribe(
    conn: Connection,
    topic: str,
    name: str,
    mode: str = "ordered",
    *,
    on_failure: str | None = None,
    max_attempts: int | None = None,
) -> tuple[int, int]:
    """Open a subscription, at the topic's beginning if it is new; its id and the topic's.

    ``on_failure`` ("block" or "park") and ``max_attempts`` are changed if they are given.
    """
    params = [topic, name, mode, on_failure, max_attempts]
    with kirby_errors():
        [(subscription_id, topic_id)] = conn.execute(SUBSCRIBE, params).fetchall()
    return subscription_id, topic_id


def open_shadow(
    conn: Connection, shadow_id: int, topic: str, name: str, mode: str
) -> tuple[int, int, int] | None:
    """Open the subscription of a shadow: its id, the topic's, and the last position to handle.

    None for a topic that the shadow does not read.
    """
    with kirby_errors():
        [row] = conn.execute(OPEN_SHADOW, [shadow_id, topic, name, mode]).fetchall()
    return None if row[0] is None else row


@answered
def limit(conn: Connection, subscription_id: int, limits: Mapping[str, float | None]) -> None:
    """Set max_in_flight, rate, key_in_flight, key_rate; None is no limit. Raises Invalid."""
    with kirby_errors():
        conn.execute(LIMIT, [subscription_id, Jsonb(dict(limits))])


@answered
def serve(
    conn: Connection, subscription_id: int, on_replay: str, declaration: dict[str, Any]
) -> None:
    """Say how it is going to be served: what becomes of replays (process, ignore, divert, dry_run),
    and what the code says of itself (kirby.declare). Raises Invalid."""
    with kirby_errors():
        conn.execute(SERVE, [subscription_id, on_replay, Jsonb(declaration)])


@answered
def next_due(conn: Connection, subscription_ids: Sequence[int]) -> float | None:
    """In how many seconds something comes up that no new message announces; None: nothing.

    NEVER: a folder is at its end.
    """
    with kirby_errors():
        seconds = scalar(conn, NEXT_DUE, [list(subscription_ids)])
    return None if seconds is None else float(seconds)


@answered
def claim(conn: Connection, subscription_id: int, limit: int) -> Batch | None:
    """Claim the next batch, or None if there is nothing to do."""
    with kirby_errors():
        row = conn.execute(CLAIM, [subscription_id, limit, LEASE]).fetchone()
    return Batch(*row) if row else None


@answered
def settle(
    conn: Connection,
    batch: Batch,
    *,
    messages: str = "{}",
    mutations: str = "{}",
    upto: int | None = None,
    next: int = 0,
    failures: Sequence[Failure] = (),
) -> Settled:
    """Acknowledge a batch (up to a position) together with what its handler wrote.

    ``failures`` are delivered again by themselves, or parked. With ``next``, claim the next batch
    of at most so many messages in the same round trip.
    Raises Fenced (lost to another worker) or Conflict (a state moved on); then nothing is written.
    """
    params = [batch.claim_id, batch.fence, messages, mutations, upto, next, LEASE]
    params.append(Jsonb([failure.document() for failure in failures]))
    with kirby_errors():
        [(topics, *following)] = conn.execute(SETTLE, params).fetchall()
    return Settled(topics or [], Batch(*following) if following[0] is not None else None)


@answered
def renew(conn: Connection, batch: Batch) -> None:
    """Keep the claim for another lease. Raises Fenced if it was lost."""
    with kirby_errors():
        conn.execute(RENEW, [batch.claim_id, batch.fence, LEASE])


@answered
def release(conn: Connection, batch: Batch, *, suspect: bool = False) -> None:
    """Give the claim back at once, unsettled; ``suspect`` if its handling broke off."""
    with kirby_errors():
        conn.execute(RELEASE, [batch.claim_id, batch.fence, suspect])


@answered
def bury(
    conn: Connection, holders: Sequence[str], lost: Sequence[Lost] = (), *, suspect: bool
) -> None:
    """Give back at once what sessions held that are seen to be dead.

    The attempt of what is ``lost`` has failed. ``suspect``: nobody knows what their end was, so
    the messages come again one by one, and are counted.
    """
    documents = Jsonb([each.document() for each in lost])
    with kirby_errors():
        conn.execute(BURY, [list(holders), suspect, documents])

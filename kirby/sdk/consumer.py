"""A subscription in the hands of a worker: claim, settle, keep the lease, give back."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg

from kirby.core import subscriptions, topics
from kirby.core.db import Connection
from kirby.core.errors import Conflict, Fenced, Invalid, KirbyError
from kirby.core.subscriptions import Batch
from kirby.sdk import session, shadows, work
from kirby.sdk.behind import Behind
from kirby.sdk.stamps import Origin, release
from kirby.sdk.stop import Stop
from kirby.sdk.streams import DEFAULT, Policy

SOON = 0.02  # seconds between looks at what should be there and is not


class NotShadowed(Invalid):
    """A shadow does not read this topic."""


class Consumer:
    """One subscription of one thread: the batch it holds, and how to get the next."""

    def __init__(
        self,
        mine: session.Session,
        topic: str,
        name: str,
        limit: int,
        policy: Policy = DEFAULT,
        *,
        job: str | None = None,
        lists: bool = False,
        declared: dict[str, Any] | None = None,
    ) -> None:
        self._session = mine
        self._topic = topic
        self._name = name
        self._policy = policy
        self._declared = {
            "job": job or name,
            "release": release(),
            "on_replay": policy.on_replay,
            **(declared or {}),
        }
        self.limit = limit
        self.batch: Batch | None = None
        self.first = 0  # the first message of the batch that is not settled
        self._next: list[Batch] = []  # those that are claimed and come after it
        self._settling: tuple[Batch, Behind[subscriptions.Settled]] | None = None
        self.stop = Stop()
        self.until: int | None = None  # of a shadow: the last position that it handles
        self.id, self.topic_id = mine.persist(self._subscribe)
        self.origin = Origin(topic, job or name, self.id, lists=lists, on_replay=policy.on_replay)
        mine.holding(self._claims)

    def _subscribe(self) -> tuple[int, int]:
        conn = self._session.connection
        if (shadow := shadows.current()) is not None:
            return self._open_shadow(conn, shadow)
        found, topic_id = subscriptions.subscribe(
            conn,
            self._topic,
            self._name,
            "ordered" if self._policy.ordered else "shared",
            on_failure=self._policy.on_failure,
            max_attempts=self._policy.max_attempts,
        )
        limits = {name: limit for name, limit in self._policy.limits.items() if limit is not None}
        if limits:  # others are an operator's to set
            subscriptions.limit(conn, found, limits)
        subscriptions.serve(conn, found, self._policy.on_replay, self._declared)
        return found, topic_id

    def _open_shadow(self, conn: Connection, shadow: int) -> tuple[int, int]:
        mode = "ordered" if self._policy.ordered else "shared"
        found = subscriptions.open_shadow(conn, shadow, self._topic, self._name, mode)
        if found is None:
            raise NotShadowed(f"shadow {shadow} does not read topic {self._topic}")
        subscription_id, topic_id, self.until = found
        return subscription_id, topic_id

    @property
    def over(self) -> bool:
        """Whether nothing more will come: of a shadow, once there is nothing at hand."""
        if self.until is None or self.holds:
            return False
        mine = self._session
        return mine.persist(lambda: subscriptions.next_due(mine.connection, [self.id])) is None

    def listen(self) -> None:
        """Have the session woken by what is published to the topic."""
        self._session.persist(lambda: self._session.listen(self.topic_id))

    @property
    def channel(self) -> str:
        """Where a publish to the topic is announced."""
        return topics.channel(self.topic_id)

    @property
    def holds(self) -> bool:
        """Whether it has anything in its hands, or on its way."""
        return self.batch is not None or bool(self._next) or self._settling is not None

    def claim(self) -> Batch | None:
        """The batch that is held, a new one if need be; None if there is nothing to do."""
        if self.batch is None:
            if not self._next:
                self._end_settling()
            self._hold(self._next.pop(0) if self._next else self._persist_claim())
        return self.batch

    def _persist_claim(self) -> Batch | None:
        try:
            return self._session.persist(
                lambda: subscriptions.claim(self._session.connection, self.id, self.limit),
                lambda: self.stop.asked,
            )
        except Invalid:  # so many messages of that size do not fit into one answer
            if self.limit == 1:
                raise
            self.limit = max(1, self.limit // 10)
            return self._persist_claim()

    def await_database(self) -> None:
        """Return when the database answers, or when it is time to stop. Raises Unavailable then."""
        mine = self._session
        mine.drop()
        mine.persist(lambda: mine.connection, lambda: self.stop.asked)

    def _hold(self, batch: Batch | None) -> None:
        self.batch, self.first = batch, 0
        if batch is not None:
            self._session.found()

    def _claims(self) -> list[int]:
        return [batch.claim_id for batch in self._all()]

    def _all(self) -> list[Batch]:
        """Every batch that is claimed: in hands, next, and on its way to be settled."""
        settling = [self._settling[0]] if self._settling is not None else []
        return ([self.batch] if self.batch is not None else []) + self._next + settling

    def settle(self, batch: Batch, done: work.Work, count: int, *, more: bool) -> None:
        """Acknowledge the next ``count`` messages with what they wrote; with ``more``, claim on.

        A settle whose outcome was lost with the connection is tried again: if it had happened, the
        claim is gone and the batch is dropped, otherwise it happens now. Raises Conflict.
        """
        self._end_settling()
        last = self.first + count
        whole = last == len(batch.positions)
        upto = batch.positions[last - 1]
        try:
            settled = self._persist_settle(batch, done, upto, self.limit if whole and more else 0)
        except Fenced:
            self._hold(None)
            return
        self._session.notifier.notify(settled.topics)
        if whole:
            self._hold(settled.next)
        else:
            self.first = last

    def settle_behind(self, batch: Batch, done: work.Work) -> None:
        """``settle`` the whole batch while the next one is handled already.

        For a backlog of messages that are handled quickly: database and handler take turns
        otherwise. Whatever the next handler asks of the database waits for this. A conflict is
        found out later; then the batch is handled again.
        """
        self._end_settling()
        if not self._next and (another := self._persist_claim()) is not None:
            self._next.append(another)
        upto, limit = batch.positions[-1], self.limit
        act = partial(self._persist_settle, batch, done, upto, limit)
        self._settling = batch, self._session.behind(act)
        self._hold(self._next.pop(0) if self._next else None)

    def _end_settling(self) -> None:
        """Wait for the settle that goes on behind, if one does, and take what it brought."""
        if self._settling is None:
            return
        batch, behind = self._settling
        try:
            settled = behind.result()
        except Conflict:
            self._next.append(batch)
            return
        except Fenced:
            return
        finally:
            self._settling = None
        self._session.notifier.notify(settled.topics)
        if settled.next is not None:
            self._next.append(settled.next)

    def _persist_settle(
        self, batch: Batch, done: work.Work, upto: int, next: int
    ) -> subscriptions.Settled:
        messages, mutations = done.messages(), done.mutations()
        try:
            return self._session.persist(
                lambda: subscriptions.settle(
                    self._session.connection,
                    batch,
                    messages=messages,
                    mutations=mutations,
                    upto=upto,
                    next=next,
                    failures=done.failures,
                )
            )
        except Invalid as error:
            if next == 0:
                if done.beware():  # a value did not merge: the message at fault is found out now
                    raise Conflict(str(error)) from error
                raise
            return self._persist_settle(batch, done, upto, 0)

    def renew(self, by: session.Session | None = None) -> None:
        """Keep the batch for another lease; if it is lost, the next settle says so."""
        for batch in self._all():
            with contextlib.suppress(KirbyError, psycopg.Error):
                subscriptions.renew((by or self._session).connection, batch)

    def release(self, *, suspect: bool = False, by: session.Session | None = None) -> None:
        """Give back what is not settled, so that others need not wait for the lease to end.

        ``suspect``: the handling broke off, so the messages come again one by one, and are counted.
        """
        with contextlib.suppress(KirbyError):
            self._end_settling()
        held, self._next = self._next, []
        for unused in held:
            with contextlib.suppress(KirbyError):
                subscriptions.release((by or self._session).connection, unused)
        if (batch := self.batch) is not None:
            self._hold(None)
            with contextlib.suppress(KirbyError):
                subscriptions.release((by or self._session).connection, batch, suspect=suspect)


def pause(mine: session.Session, consumers: Sequence[Consumer], poll: float, stop: Stop) -> float:
    """For how many seconds nothing is to be done unless a topic is written to. Raises Unavailable
    when it is time to stop."""
    ids = [consumer.id for consumer in consumers]
    planned = mine.persist(lambda: subscriptions.next_due(mine.connection, ids), lambda: stop.asked)
    if planned == subscriptions.NEVER:
        stop.asked = True
        return 0.0
    jittered = poll * random.uniform(0.75, 1.25)  # noqa: S311
    return jittered if planned is None else min(jittered, max(planned, SOON))


class Renewal:
    """A thread that renews the leases of all consumers while handlers run."""

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        self._consumers = consumers
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirby-leases", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(renewal_pause()):
            for consumer in self._consumers:
                consumer.renew()


def renewal_pause() -> float:
    """Seconds between renewals: two may fail before a lease ends."""
    return subscriptions.LEASE.total_seconds() / 3

"""Deliver notices to channels, beside the leader: at least once, each channel in order."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from kirby.core import db, subscriptions
from kirby.core.errors import Fenced, Invalid, Unavailable
from kirby.core.subscriptions import Batch, Failure
from kirby.server import addresses, notices
from kirby.server.addresses import Outcome
from kirby.server.supervisor.beside import Beside

log = logging.getLogger("kirby.supervisor")

EVERY = 1.0  # seconds between two looks, while nothing is under way
SOON = 0.05
WITHIN = 8.0  # seconds that a delivery may take; the lease of its claim is about twice as long
AT_ONCE = 16  # deliveries
PAUSES = (10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)  # seconds between two tries: 1 h 47 min
ATTEMPTS = len(PAUSES) + 1

PLACES = """
    select e.name as environment, s.id as subscription, coalesce(s.max_attempts, 0) as attempts
      from kirby.topic t
      join kirby.environment e on e.id = t.environment_id
      left join kirby.subscription s on s.topic_id = t.id and s.name = %s
     where t.name = %s and (s.id is null or s.paused_at is null)
     order by e.id
"""
URL = "select url from kirby.channel where id = %s"
RECORD = "select kirby.record_delivery(%s, %s, %s, %s, %s, %s, %s, %s)"

Send = Callable[[str, addresses.Letter, Mapping[str, str], float], Outcome]


@dataclass(frozen=True, slots=True)
class Place:
    """Where notices wait: the subscription of an environment, None if it was never opened."""

    environment: str
    subscription: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice in our hands, and what will become of it; None: its channel is gone."""

    place: Place
    batch: Batch
    future: Future[Outcome] | None

    @property
    def notice(self) -> dict[str, Any]:
        payload = self.batch.payloads[0]
        return payload if isinstance(payload, dict) else {}


class Notifier(Beside):
    """Delivers while `leads` says so; when it stops, what is under way is settled if it soon ends.

    `url` is the public address of the pages, `environ` has the secrets of the channels. Notices are
    claimed one by one, sent outside of any transaction, and settled together with what became of
    them. A killed one leaves claims whose lease ends: they are sent again, under the same key.
    """

    def __init__(
        self,
        dsn: str,
        leads: Callable[[], bool],
        *,
        url: str = "",
        environ: Mapping[str, str],
        send: Send = addresses.send,
        within: float = WITHIN,
    ) -> None:
        super().__init__(dsn, "notices")
        self._leads = leads
        self._url = url
        self._environ = environ
        self._send = send
        self._within = within
        self._under_way: list[Delivery] = []

    def tick(self) -> bool:
        """Settle what was sent, and send what is due; whether anything is under way.

        Raises Unavailable.
        """
        with self._link.use() as conn:
            for delivery in list(self._under_way):
                if delivery.future is None or delivery.future.done():
                    self._settle(conn, delivery)
                    self._under_way.remove(delivery)
            if self._leads() and not self._stopping.is_set():
                self._claim(conn)
        return bool(self._under_way)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._round()
            pause = SOON if self._under_way else EVERY * random.uniform(0.8, 1.2)  # noqa: S311
            self._stopping.wait(pause)
        until = time.monotonic() + self._within
        while self._under_way and time.monotonic() < until:
            self._round()
            time.sleep(SOON)
        self._link.drop()

    def _round(self) -> None:
        try:
            if self._under_way or self._leads():
                self.tick()
            else:
                self._link.drop()
        except Unavailable:
            pass  # the link says so, once
        except Exception:  # one bad notice must not keep the others from being told
            log.exception("telling people stumbled")

    def _claim(self, conn: db.Connection) -> None:
        with conn.cursor(row_factory=class_row(Place)) as cursor:
            found = cursor.execute(PLACES, [notices.SUBSCRIPTION, notices.TOPIC]).fetchall()
        for place in found:
            db.configure(conn, {"kirby.environment": place.environment})
            subscription = place.subscription or _subscribe(conn)
            while len(self._under_way) < AT_ONCE:
                batch = subscriptions.claim(conn, subscription, 1)
                if batch is None:
                    break
                self._under_way.append(Delivery(place, batch, self._begin(conn, batch)))

    def _begin(self, conn: db.Connection, batch: Batch) -> Future[Outcome] | None:
        """Send a notice in a thread of its own, so that a channel that hangs holds up no other."""
        future: Future[Outcome] = Future()
        try:
            if _is_foreign(batch):
                raise Invalid("it was published by a run or comes from elsewhere, not from Kirby")
            notice, position = batch.payloads[0], batch.positions[0]
            letter = notices.letter(notice, position, self._url)
            row = conn.execute(URL, [int(notice["channel_id"])]).fetchone()
        except (Invalid, KeyError, TypeError, ValueError) as error:
            future.set_exception(Invalid(str(error)))
            return future
        if row is None:
            return None
        name = f"kirby notice {position}"
        work = (future, row[0], letter)
        threading.Thread(target=self._deliver, args=work, name=name, daemon=True).start()
        return future

    def _deliver(self, future: Future[Outcome], url: str, letter: addresses.Letter) -> None:
        try:
            future.set_result(self._send(url, letter, self._environ, self._within))
        except Exception as error:  # a service of apprise may raise anything
            future.set_result(Outcome(False, f"sending failed: {type(error).__name__}", 0.0))

    def _settle(self, conn: db.Connection, delivery: Delivery) -> None:
        """What became of it and its acknowledgement are one transaction."""
        db.configure(conn, {"kirby.environment": delivery.place.environment})
        try:
            with conn.transaction():
                failures = [failure] if (failure := self._record(conn, delivery)) else []
                subscriptions.settle(conn, delivery.batch, failures=failures)
        except Fenced:
            log.warning("notice %s is delivered by another supervisor", delivery.batch.positions[0])

    def _record(self, conn: db.Connection, delivery: Delivery) -> Failure | None:
        """How it is settled: None if it is done with."""
        batch, future = delivery.batch, delivery.future
        position = batch.positions[0]
        if future is None:
            return None
        if error := future.exception():
            return Failure(position, "park", str(error))
        outcome, notice = future.result(), delivery.notice
        is_test = notice["event"] == "test"
        is_last = batch.attempt >= (delivery.place.attempts or ATTEMPTS)
        became = "delivered" if outcome.delivered else "parked" if is_last else "failed"
        conn.execute(RECORD, [
            notice["channel_id"], position, notice.get("incident"), notice["event"], batch.attempt,
            became, outcome.answer, outcome.seconds,
        ])  # fmt: skip
        if outcome.delivered or is_test:
            return None
        log.warning("the channel %s: %s", notice["channel"], outcome.answer)
        pause = PAUSES[min(batch.attempt, len(PAUSES)) - 1] * random.uniform(0.8, 1.2)  # noqa: S311
        return Failure(position, "park" if is_last else "retry", outcome.answer, pause)


def _is_foreign(batch: Batch) -> bool:
    """Whether a script wrote it, or it was pulled: nobody here is to be told of that."""
    headers = (batch.headers or [None])[0] or {}
    return batch.run_ids[0] is not None or "origin" in headers


def _subscribe(conn: db.Connection) -> int:
    return subscriptions.subscribe(
        conn, notices.TOPIC, notices.SUBSCRIPTION, on_failure="park", max_attempts=ATTEMPTS
    )[0]

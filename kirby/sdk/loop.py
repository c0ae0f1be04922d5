"""The loop of a worker: claim, handle, settle; renew leases meanwhile; stop on SIGTERM."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import psycopg

from kirby.core import subscriptions
from kirby.core.errors import Conflict, Fenced, Invalid, KirbyError, Unavailable
from kirby.core.subscriptions import Batch
from kirby.sdk import session, work
from kirby.sdk.messages import Message
from kirby.sdk.streams import REGISTERED, Stream

POLL = 1.0  # seconds between looks when no notification comes
SLICE = 0.25  # seconds of work after which a batch is settled as far as it is done
SLICE_BYTES = 16 * 1024 * 1024  # of published messages after which it is settled as well
FIRST_LIMIT = 100
MAX_LIMIT = 1000


class Stop:
    """Set by SIGTERM and SIGINT: finish the message at hand, settle, and go."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, signum: int = 0, frame: FrameType | None = None) -> None:
        self.asked = True

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen for the signals while the block runs, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class Consumer:
    """One subscription of this process: the batch it holds, and how to get the next."""

    def __init__(self, mine: session.Session, topic: str, name: str, limit: int) -> None:
        self._session = mine
        self._topic = topic
        self._name = name
        self.limit = limit
        self.batch: Batch | None = None
        self.first = 0  # the first message of the batch that is not settled
        self.stop = Stop()
        self._id, topic_id = mine.persist(self._subscribe)
        mine.persist(lambda: mine.listen(topic_id))

    def _subscribe(self) -> tuple[int, int]:
        return subscriptions.subscribe(self._session.connection, self._topic, self._name)

    def claim(self) -> Batch | None:
        """The batch that is held, a new one if need be; None if there is nothing to do."""
        if self.batch is None:
            self._hold(self._persist_claim())
        return self.batch

    def _persist_claim(self) -> Batch | None:
        try:
            return self._session.persist(
                lambda: subscriptions.claim(self._session.connection, self._id, self.limit),
                lambda: self.stop.asked,
            )
        except Invalid:  # so many messages of that size do not fit into one answer
            if self.limit == 1:
                raise
            self.limit = max(1, self.limit // 10)
            return self._persist_claim()

    def _hold(self, batch: Batch | None) -> None:
        self.batch, self.first = batch, 0

    def settle(self, batch: Batch, done: work.Work, count: int, *, more: bool) -> None:
        """Acknowledge the next ``count`` messages with what they wrote; with ``more``, claim on.

        A settle whose outcome was lost with the connection is tried again: if it had happened, the
        claim is gone and the batch is dropped, otherwise it happens now. Raises Conflict.
        """
        last = self.first + count
        whole = last == len(batch.positions)
        upto = None if whole else batch.positions[last - 1]
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

    def _persist_settle(
        self, batch: Batch, done: work.Work, upto: int | None, next: int
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
                )
            )
        except Invalid:
            if next == 0:
                raise
            return self._persist_settle(batch, done, upto, 0)

    def renew(self) -> None:
        """Keep the batch for another lease; if it is lost, the next settle says so."""
        if (batch := self.batch) is not None:
            with contextlib.suppress(KirbyError, psycopg.Error):
                subscriptions.renew(self._session.connection, batch)

    def release(self) -> None:
        """Give back what is not settled, so that others need not wait for the lease to end."""
        if (batch := self.batch) is not None:
            self._hold(None)
            with contextlib.suppress(KirbyError):
                subscriptions.release(self._session.connection, batch)


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
        while not self._end.wait(subscriptions.LEASE.total_seconds() / 3):
            for consumer in self._consumers:
                consumer.renew()


class Server:
    """Serves one stream: takes its batches through the handler and settles them."""

    def __init__(self, mine: session.Session, stream: Stream, name: str) -> None:
        self.stream = stream
        self.consumer = Consumer(mine, stream.topic, name, stream.batch or FIRST_LIMIT)

    def step(self) -> bool:
        """Handle and settle one slice of work; False if there was none."""
        batch = self.consumer.claim()
        if batch is None:
            return False
        started = time.monotonic()
        done, count, error = self._handle(batch, self.consumer.first)
        if count:
            try:
                more = error is None and not self.consumer.stop.asked
                self.consumer.settle(batch, done, count, more=more)
            except Conflict:
                return True  # a state moved on: the same messages again, on its newer version
        if error is not None:
            raise error
        self._adapt(count, time.monotonic() - started)
        return True

    def _handle(self, batch: Batch, first: int) -> tuple[work.Work, int, Exception | None]:
        """Run the handler until the batch ends, it is enough, or it fails: what, and how many."""
        total = len(batch.positions) - first
        width = total if self.stream.batch is not None else 1
        until = time.monotonic() + SLICE
        with work.entered(work.Work()) as done:
            for count in range(0, total, width):
                at = first + count
                try:
                    self.stream.handle(done, batch, at, at + width - 1)
                except Exception as error:
                    done.undo()
                    error.add_note(
                        f"kirby: while handling message {batch.positions[at]} of topic"
                        f" {self.stream.topic} (key {batch.keys[at]!r}); it will be delivered again"
                    )
                    return done, count, error
                enough = done.size >= SLICE_BYTES or time.monotonic() >= until
                if enough or self.consumer.stop.asked:
                    return done, count + width, None
        return done, total, None

    def _adapt(self, count: int, seconds: float) -> None:
        """Ask for as many messages as fit into a slice: small batches for slow handlers."""
        if self.stream.batch is None:
            fitting = int(count * SLICE / max(seconds, 1e-6))
            self.consumer.limit = max(1, min(fitting, 2 * self.consumer.limit, MAX_LIMIT))


def run() -> None:
    """Serve every stream of this process until SIGTERM, then finish the message at hand and return.

    A handler that raises ends the run with that error, after what came before it is settled: the
    message is delivered again, to whoever asks next. Raises Invalid if there is nothing to serve.
    """
    if not REGISTERED:
        raise Invalid("kirby.run() has nothing to serve: decorate a function with @kirby.stream")
    mine = session.get()
    stop = Stop()
    with stop.on_signals():
        servers = [Server(mine, stream, name) for stream, name in named(REGISTERED, mine.job)]
        consumers = [server.consumer for server in servers]
        for consumer in consumers:
            consumer.stop = stop
        with Renewal(consumers):
            try:
                while not stop.asked:
                    if not any([server.step() for server in servers]):
                        idle(mine, stop)
            except Unavailable:
                if not stop.asked:
                    raise
            finally:
                for consumer in consumers:
                    consumer.release()
                mine.notifier.close()


def idle(mine: session.Session, stop: Stop) -> None:
    """Wait for a notification, or for the time of the next look."""
    with contextlib.suppress(Unavailable):
        if not stop.asked:
            mine.wait(POLL * random.uniform(0.75, 1.25))  # noqa: S311


def named(streams: Sequence[Stream], job: str) -> list[tuple[Stream, str]]:
    """Each stream with the name of its subscription. Raises Invalid if two would share one."""
    taken: dict[tuple[str, str], Stream] = {}
    for stream in streams:
        name = stream.name or job
        if (other := taken.get((stream.topic, name))) is not None:
            raise Invalid(
                f"{other.function.__name__} and {stream.function.__name__} both read topic"
                f' {stream.topic} as {name}: name one, @kirby.stream("{stream.topic}", name="…")'
            )
        taken[stream.topic, name] = stream
    return [(stream, name) for (_, name), stream in taken.items()]


def consume(topic: str, name: str | None) -> Iterator[Message]:
    """The loop form: see ``Topic.consume``."""
    mine = session.get()
    consumer = Consumer(mine, topic, name or mine.job, FIRST_LIMIT)
    with consumer.stop.on_signals(), Renewal([consumer]):
        try:
            while not consumer.stop.asked:
                if (batch := consumer.claim()) is None:
                    idle(mine, consumer.stop)
                else:
                    yield from _deliver(consumer, batch, topic)
        finally:
            consumer.release()
            mine.notifier.close()


def _deliver(consumer: Consumer, batch: Batch, topic: str) -> Iterator[Message]:
    """Yield the message at hand, and settle it when the next one is asked for.

    If a state that the body read was changed by somebody else, the message is yielded again.
    """
    mine = work.Work()
    mine.mark(batch.positions[consumer.first])
    token = work.CURRENT.set(mine)
    try:
        yield Message.of_batch(topic, batch, consumer.first)
    finally:
        work.CURRENT.reset(token)
    with contextlib.suppress(Conflict):
        consumer.settle(batch, mine, 1, more=not consumer.stop.asked)

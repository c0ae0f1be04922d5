"""The loop of a worker: claim, handle, settle; renew leases meanwhile; stop on SIGTERM."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import psycopg

from kirby.core import subscriptions
from kirby.core.errors import (
    Conflict,
    Denied,
    Fenced,
    Invalid,
    KirbyError,
    Unavailable,
    WrongSchema,
)
from kirby.core.subscriptions import Batch, Failure
from kirby.sdk import session, work
from kirby.sdk.messages import Message
from kirby.sdk.streams import DEFAULT, REGISTERED, Policy, Stream

POLL = 1.0  # seconds between looks when no notification comes
SLICE = 0.25  # seconds of work after which a batch is settled as far as it is done
SLICE_BYTES = 16 * 1024 * 1024  # of published messages after which it is settled as well
FIRST_LIMIT = 100
MAX_LIMIT = 1000
SDK = str(Path(__file__).parent)
MAX_ERROR = 8000  # characters of a traceback that are kept with a failed message


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

    def __init__(
        self, mine: session.Session, topic: str, name: str, limit: int, policy: Policy = DEFAULT
    ) -> None:
        self._session = mine
        self._topic = topic
        self._name = name
        self._policy = policy
        self.limit = limit
        self.batch: Batch | None = None
        self.first = 0  # the first message of the batch that is not settled
        self.stop = Stop()
        self._id, topic_id = mine.persist(self._subscribe)
        mine.persist(lambda: mine.listen(topic_id))

    def _subscribe(self) -> tuple[int, int]:
        return subscriptions.subscribe(
            self._session.connection,
            self._topic,
            self._name,
            "ordered" if self._policy.ordered else "shared",
            on_failure=self._policy.on_failure,
            max_attempts=self._policy.max_attempts,
        )

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

    def await_database(self) -> None:
        """Return when the database answers, or when it is time to stop. Raises Unavailable then."""
        mine = self._session
        mine.drop()
        mine.persist(lambda: mine.connection, lambda: self.stop.asked)

    def _hold(self, batch: Batch | None) -> None:
        self.batch, self.first = batch, 0

    def settle(self, batch: Batch, done: work.Work, count: int, *, more: bool) -> None:
        """Acknowledge the next ``count`` messages with what they wrote; with ``more``, claim on.

        A settle whose outcome was lost with the connection is tried again: if it had happened, the
        claim is gone and the batch is dropped, otherwise it happens now. Raises Conflict.
        """
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
        except Invalid:
            if next == 0:
                raise
            return self._persist_settle(batch, done, upto, 0)

    def renew(self) -> None:
        """Keep the batch for another lease; if it is lost, the next settle says so."""
        if (batch := self.batch) is not None:
            with contextlib.suppress(KirbyError, psycopg.Error):
                subscriptions.renew(self._session.connection, batch)

    def release(self, *, suspect: bool = False) -> None:
        """Give back what is not settled, so that others need not wait for the lease to end.

        ``suspect``: the handling broke off, so the messages come again one by one, and are counted.
        """
        if (batch := self.batch) is not None:
            self._hold(None)
            with contextlib.suppress(KirbyError):
                subscriptions.release(self._session.connection, batch, suspect=suspect)


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


class Held:
    """The keys of a batch that a failed message holds: later ones of them wait for it."""

    def __init__(self, claim_id: int = 0, keys: frozenset[str] = frozenset()) -> None:
        self._claim_id = claim_id
        self._keys = set(keys)

    def of(self, batch: Batch) -> Held:
        """A copy for the next slice of this batch; empty for another batch."""
        if batch.claim_id != self._claim_id:
            return Held(batch.claim_id)
        return Held(batch.claim_id, frozenset(self._keys))

    def has(self, key: str | None) -> bool:
        return key in self._keys

    def add(self, key: str | None) -> None:
        if key is not None:
            self._keys.add(key)


class Server:
    """Serves one stream: takes its batches through the handler and settles them."""

    def __init__(self, mine: session.Session, stream: Stream, name: str) -> None:
        self.stream = stream
        limit = stream.batch or FIRST_LIMIT
        self.consumer = Consumer(mine, stream.topic, name, limit, stream.policy)
        self._held = Held()

    def step(self) -> bool:
        """Handle and settle one slice of work; False if there was none."""
        batch = self.consumer.claim()
        if batch is None:
            return False
        started = time.monotonic()
        held = self._held.of(batch)
        done, count = self._handle(batch, self.consumer.first, held)
        if count:
            try:
                self.consumer.settle(batch, done, count, more=not self.consumer.stop.asked)
            except Conflict:
                return True  # a state moved on: the same messages again, on its newer version
            self._held = held
        else:
            self.consumer.await_database()
        self._adapt(count, time.monotonic() - started)
        return True

    def _handle(self, batch: Batch, first: int, held: Held) -> tuple[work.Work, int]:
        """Run the handler until the batch ends or it is enough: what was done, and how many.

        A message that fails leaves nothing behind but a failure; those of its key wait for it.
        """
        total = len(batch.positions) - first
        width = total if self.stream.batch is not None else 1
        until = time.monotonic() + SLICE
        with work.entered(work.Work()) as done:
            for count in range(0, total, width):
                at = range(first + count, first + count + width)
                try:
                    self._handle_some(done, batch, at, held)
                except Unavailable:
                    done.undo()
                    return done, count  # the database went away: nobody's fault, tried again
                enough = done.size >= SLICE_BYTES or time.monotonic() >= until
                if enough or self.consumer.stop.asked:
                    return done, count + width
        return done, total

    def _handle_some(self, done: work.Work, batch: Batch, at: range, held: Held) -> None:
        """Handle one message, or a list of them, and note what failed."""
        if len(at) == 1 and held.has(batch.keys[at[0]]):
            done.failures.append(Failure(batch.positions[at[0]], "wait"))
            return
        try:
            self.stream.handle(done, batch, at[0], at[-1])
        except (Unavailable, Denied, WrongSchema):
            raise
        except Exception as error:
            done.undo()
            self._fail(done, batch, at, held, error)

    def _fail(self, done: work.Work, batch: Batch, at: range, held: Held, error: Exception) -> None:
        """File a failure for each message; of a list, each is then tried by itself."""
        action = self.stream.policy.action(error)
        if action == "ignore":
            return
        text = story(error)
        print(
            f"kirby: message {batch.positions[at[0]]} of topic {self.stream.topic} (key"
            f" {batch.keys[at[0]]!r}) failed at attempt {batch.attempt}:\n{text}",
            file=sys.stderr, end="", flush=True,
        )  # fmt: skip
        pause = 0.0 if len(at) > 1 else None
        for index in at:
            key = batch.keys[index]
            held_back = self.stream.policy.ordered and held.has(key)
            mine = "wait" if held_back else action
            done.failures.append(Failure(batch.positions[index], mine, text[-MAX_ERROR:], pause))
            if self.stream.policy.ordered:
                held.add(key)

    def _adapt(self, count: int, seconds: float) -> None:
        """Ask for as many messages as fit into a slice: small batches for slow handlers."""
        if self.stream.batch is None:
            fitting = int(count * SLICE / max(seconds, 1e-6))
            self.consumer.limit = max(1, min(fitting, 2 * self.consumer.limit, MAX_LIMIT))


def story(error: Exception) -> str:
    """The traceback of a handler's error, without our own frames above it, as PostgreSQL takes it.

    What an error says must never keep the error from being filed.
    """
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(SDK):
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb or error.__traceback__))
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode()


def run() -> None:
    """Serve every stream of this process until SIGTERM, then finish the message at hand and return.

    A message whose handler raises is delivered again after a pause, by itself, and parked after
    its last attempt; meanwhile the messages of its key wait, the others go on. Raises Invalid if
    there is nothing to serve.
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
            except BaseException:  # a handler that left the process, or a second Ctrl-C
                for consumer in consumers:
                    consumer.release(suspect=True)
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
        except GeneratorExit:  # the loop was left with a message in its hands
            consumer.release(suspect=True)
            raise
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

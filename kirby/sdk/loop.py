"""The loop of a worker: claim, handle, settle; renew leases meanwhile; stop on SIGTERM."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kirby.core.errors import Conflict, Denied, Unavailable, WrongSchema
from kirby.core.subscriptions import Batch, Failure
from kirby.sdk import declared, session, stamps, work
from kirby.sdk.consumer import Consumer, Renewal, pause
from kirby.sdk.failures import MAX_ERROR, Retry, pause_of, story, tell
from kirby.sdk.messages import Message
from kirby.sdk.rota import Rota
from kirby.sdk.stop import Stop
from kirby.sdk.streams import Stream
from kirby.sdk.tasks import Task

POLL = 1.0  # seconds between looks when no notification comes
SLICE = 0.25  # seconds of work after which a batch is settled as far as it is done
SLICE_BYTES = 16 * 1024 * 1024  # of published messages after which it is settled as well
FIRST_LIMIT = 100
FIRST_TASKS = 10  # who knows how long they take, and others may be idle
MAX_LIMIT = 1000
AHEAD = 50  # messages of a batch from which on it is settled while the next is handled
WORTH, MUCH = 0.001, 0.03  # seconds that it took, at the least and at the most


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

    def __init__(
        self, mine: session.Session, stream: Stream | Task[..., Any], name: str, stop: Stop
    ) -> None:
        self.stream = stream
        first = FIRST_TASKS if isinstance(stream, Task) else FIRST_LIMIT
        limit = stream.batch or first
        self.consumer = Consumer(
            mine,
            stream.topic,
            name,
            limit,
            stream.policy,
            job=mine.job if isinstance(stream, Task) else name,
            lists=stream.batch is not None,
            declared=declared.of(stream.function, stream.to),
        )
        self.consumer.stop = stop
        self._held = Held()

    @property
    def holds(self) -> bool:
        """Whether it has messages in its hands that are not settled."""
        return self.consumer.holds

    def step(self) -> bool:
        """Handle and settle one slice of work; False if there was none."""
        batch = self.consumer.claim()
        if batch is None:
            return False
        started = time.monotonic()
        held = self._held.of(batch)
        done, count = self._handle(batch, self.consumer.first, held)
        if count and self._goes_ahead(batch, done, count, time.monotonic() - started):
            self.consumer.settle_behind(batch, done)
            self._held = held
        elif count:
            try:
                self.consumer.settle(batch, done, count, more=not self.consumer.stop.asked)
            except Conflict:
                return True  # a state moved on: the same messages again, on its newer version
            self._held = held
        else:
            self.consumer.await_database()
        self._adapt(count, time.monotonic() - started)
        return True

    def _goes_ahead(self, batch: Batch, done: work.Work, count: int, seconds: float) -> bool:
        """Whether the next batch may be handled before this one is settled: there is a backlog, and
        no message would wait for long in our hands. For less than ``WORTH`` it is not worth it;
        beyond ``MUCH`` settling is little of it, and another worker needs the lane more."""
        whole = self.consumer.first == 0 and count == len(batch.positions)
        many = count >= self.consumer.limit and count >= AHEAD
        plain = not done.changes and not done.failures and not self.consumer.stop.asked
        return whole and many and plain and WORTH < seconds < MUCH

    def _handle(self, batch: Batch, first: int, held: Held) -> tuple[work.Work, int]:
        """Run the handler until the batch ends or it is enough: what was done, and how many.

        A message that fails leaves nothing behind but a failure; those of its key wait for it.
        """
        until = time.monotonic() + SLICE
        with work.entered(work.Work(origin=self.consumer.origin)) as done:
            for at in stamps.parts(batch, first, lists=self.consumer.origin.lists):
                try:
                    self._handle_some(done, batch, at, held)
                except Unavailable:
                    done.undo()
                    return done, at[0] - first  # the database went away: nobody's fault
                enough = done.size >= SLICE_BYTES or time.monotonic() >= until
                if enough or self.consumer.stop.asked:
                    return done, at[-1] + 1 - first
        return done, len(batch.positions) - first

    def _handle_some(self, done: work.Work, batch: Batch, at: range, held: Held) -> None:
        """Handle one message, or a list of them, and note what failed."""
        if (until := self.consumer.until) is not None:
            at = range(at[0], at[0] + sum(batch.positions[index] <= until for index in at))
            if not at:
                return
        if len(at) == 1 and held.has(batch.keys[at[0]]):
            done.failures.append(Failure(batch.positions[at[0]], "wait"))
            return
        policy = self._on_replay(batch, at[0])
        if policy == "ignore":
            return
        try:
            self.stream.handle(done, batch, at[0], at[-1])
            if policy == "divert":
                done.divert()
            elif policy == "dry_run":
                done.undo()
        except (Unavailable, Denied, WrongSchema):
            raise
        except Exception as error:
            done.undo()
            self._fail(done, batch, at, held, error)

    def _on_replay(self, batch: Batch, index: int) -> str:
        policy = self.stream.policy.on_replay
        plain = policy == "process" or not stamps.replayed(batch, index)
        return "process" if plain else policy

    def _fail(self, done: work.Work, batch: Batch, at: range, held: Held, error: Exception) -> None:
        """File a failure for each message; of a list, each is then tried by itself."""
        retry = isinstance(error, Retry)
        action = "retry" if retry else self.stream.policy.action(error)
        if action == "ignore":
            return
        text = story(error)
        tell(self.stream.topic, batch, at[0], text)
        pause = 0.0 if len(at) > 1 else pause_of(error)
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


def serve(mine: session.Session, servers: Sequence[Server], stop: Stop) -> None:
    """Serve in this thread, on its one connection, until it is time to stop."""
    rota = Rota(len(servers), POLL)
    consumers = [server.consumer for server in servers]
    channels: dict[str, list[int]] = {}
    for index, consumer in enumerate(consumers):
        consumer.listen()
        channels.setdefault(consumer.channel, []).append(index)
    with Renewal(consumers), given_back(mine, consumers, stop):
        while not stop.asked:
            if turn(servers, rota, stop):
                heard = mine.heard() if len(servers) > 1 else set()
            elif all(consumer.over for consumer in consumers):
                return
            elif (heard := idle(mine, stop, consumers) or set()) == set():
                rota.wake(None)
            for channel in heard:
                rota.wake(channels.get(channel, ()))


def turn(servers: Sequence[Server], rota: Rota, stop: Stop) -> bool:
    """Handle a slice of each that has work, one after the other; whether any had."""
    busy = False
    for index, server in enumerate(servers):
        if stop.asked:
            break
        if (server.holds or rota.take(index)) and server.step():
            rota.again(index)  # first of all: other threads may take of it meanwhile
            _go_on(server, stop)
            busy = True
    return busy


def _go_on(server: Server, stop: Stop) -> None:
    """So many batches as fit into a slice: what comes message by message after a death would take
    for ever if the other streams had a slice after each."""
    until = time.monotonic() + SLICE
    while server.holds and not stop.asked and time.monotonic() < until:
        server.step()


@contextlib.contextmanager
def given_back(mine: session.Session, consumers: Sequence[Consumer], stop: Stop) -> Iterator[None]:
    """Whatever ends the block, nothing stays claimed. What a handler broke off is counted."""
    try:
        yield
    except Unavailable:
        if not stop.asked:
            raise
    except BaseException:  # a handler that left the process; a second signal is not its fault
        for consumer in consumers:
            consumer.release(suspect=not stop.asked)
        raise
    finally:
        for consumer in consumers:
            consumer.release()
        mine.notifier.close()


def idle(mine: session.Session, stop: Stop, consumers: Sequence[Consumer]) -> set[str] | None:
    """Wait for a notification, or for the time of the next look; what was heard, or None."""
    with contextlib.suppress(Unavailable):
        if not stop.asked:
            seconds = pause(mine, consumers, POLL, stop)
            return mine.wait(seconds) or None
    return None


def consume(topic: str, name: str | None) -> Iterator[Message]:
    """The loop form: see ``Topic.consume``."""
    mine = session.get()
    consumer = Consumer(mine, topic, name or mine.job, FIRST_LIMIT)
    consumer.listen()
    with consumer.stop.on_signals(), Renewal([consumer]):
        try:
            while not consumer.stop.asked:
                if (batch := consumer.claim()) is not None:
                    yield from _deliver(consumer, batch, topic)
                elif consumer.over:
                    return
                else:
                    idle(mine, consumer.stop, [consumer])
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
    mine = work.Work(origin=consumer.origin)
    if consumer.until is not None and batch.positions[consumer.first] > consumer.until:
        consumer.settle(batch, mine, 1, more=not consumer.stop.asked)
        return
    mine.mark(batch, consumer.first)
    token = work.CURRENT.set(mine)
    try:
        yield Message.of_batch(topic, batch, consumer.first)
    finally:
        work.CURRENT.reset(token)
    with contextlib.suppress(Conflict):
        consumer.settle(batch, mine, 1, more=not consumer.stop.asked)

"""What a folder answers to the functions of kirby.core, each named after its module and itself."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from kirby.core.backends import Backend
from kirby.core.effects import Begun
from kirby.core.errors import Invalid, NotFound, Taken
from kirby.core.folder import files
from kirby.core.folder.claims import Subscription
from kirby.core.folder.run import EFFECTS, Run
from kirby.core.folder.unit import Unit
from kirby.core.protocol import Greeting
from kirby.core.states import Column, Flight, Past, Version
from kirby.core.states import Entry as StateEntry
from kirby.core.subscriptions import NEVER, Batch, Failure, Settled
from kirby.core.tasks import Status
from kirby.core.topics import Entry, channel

P = ParamSpec("P")
R = TypeVar("R")

SOON = 0.02  # seconds between looks while other threads are at work
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
FEED = re.compile(r"state\.([a-z][a-z0-9_]{0,49})(?<!_history)")
WORKERS = "workers"


def alone(method: Callable[P, R]) -> Callable[P, R]:
    """One thread at a time."""

    @functools.wraps(method)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        mine: Any = args[0]
        with mine.run.lock:
            return method(*args, **kwargs)

    return ask


class Folder(Backend):
    """A thread's connection to a folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._channels: set[str] = set()
        self._heard: set[str] = set()
        with run.lock:
            run.handles.add(self)

    def close(self) -> None:
        with self.run.lock:
            self.run.handles.discard(self)

    # kirby.core.db and kirby.core.protocol

    def protocol_greet(self, *, environment: str | None, **_: Any) -> Greeting:
        return Greeting(environment or "dev", None)

    def protocol_resume(self, claims: Sequence[int]) -> None:
        pass

    def db_hear(self, *channels: str) -> None:
        self._channels.update(channels)

    def db_wait(self, seconds: float) -> set[str]:
        if not self._heard:
            time.sleep(min(seconds, SOON))
        heard, self._heard = self._heard, set()
        return heard

    @alone
    def topics_notify(self, topics: list[int]) -> None:
        named = {channel(topic) for topic in topics}
        for handle in self.run.handles:
            handle._heard |= named & handle._channels

    # kirby.core.topics

    @alone
    def topics_write(self, messages: str, mutations: str) -> tuple[list[int], list[int]]:
        return self._write([(messages, mutations)])

    def topics_write_all(self, documents: Iterable[str]) -> tuple[list[int], list[int]]:
        given = [(document, "{}") for document in documents]
        with self.run.lock:
            return self._write(given)

    def topics_change_all(self, documents: Iterable[str]) -> list[int]:
        given = [("{}", document) for document in documents]
        with self.run.lock:
            return self._write(given)[1]

    def _write(self, documents: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
        unit = Unit(self.run)
        for messages, mutations in documents:
            unit.add(messages, mutations)
        written = unit.commit()
        return unit.positions, written

    @alone
    def topics_open(self, topic: str, *, lanes: int | None = None, bands: int | None = None) -> int:
        found = self.run.topic(topic)
        found.opened = True
        return found.id

    @alone
    def topics_read(
        self,
        topic: str,
        *,
        after: int = 0,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Entry]:
        found = self.run.topics.get(topic)
        if found is None or not (found.opened or found.parts()):
            raise NotFound(f"there is no topic {topic} in this environment")
        every = (
            Entry(
                each.position, each.key, each.value, each.headers,
                each.run_id, each.parents, each.recorded_at,
            )
            for each in found.read(after)
            if (since is None or each.recorded_at >= since)
            and (until is None or each.recorded_at < until)
        )  # fmt: skip
        return list(islice(every, limit))

    @alone
    def topics_retract(self, topic: str, id: str) -> bool:
        found = self.run.topics.get(topic)
        position = found.produced.get(id) if found is not None else None
        if found is None or position is None:
            raise NotFound(f"topic {topic} has no message with id {id}")
        if position in found.retracted:
            return True
        now = self.run.now()
        readers = [each for each in self.run.subscriptions if each.topic is found]
        if not all(each.is_free(position) for each in readers):
            return False
        for each in readers:
            each.retract(position, now)
        found.retracted.add(position)
        return True

    # kirby.core.states

    @alone
    def states_get(self, state: str, keys: list[str]) -> list[StateEntry]:
        return self.run.state(state).get(keys, self.run.now())

    @alone
    def states_items(
        self,
        state: str,
        prefix: str = "",
        *,
        start: str | None = None,
        stop: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[StateEntry]:
        now = self.run.now()
        found = self.run.state(state).items(prefix, start, stop, now, reverse=reverse)
        return iter(list(islice(found, limit)))

    @alone
    def states_at(
        self,
        state: str,
        *,
        when: datetime | None = None,
        position: int | None = None,
        keys: list[str] | None = None,
        prefix: str = "",
    ) -> Iterator[Past]:
        found = self.run.state(state).past(self.run.history(state), when, position)
        wanted = None if keys is None else set(keys)
        return iter(
            [
                each
                for each in found
                if each.key.startswith(prefix) and (wanted is None or each.key in wanted)
            ]
        )

    @alone
    def states_history(
        self, state: str, key: str, *, before: int | None = None, limit: int = 1000
    ) -> list[Version]:
        found = self.run.state(state).versions(self.run.history(state), key)
        return [each for each in reversed(found) if before is None or each.position < before][
            :limit
        ]

    def states_declare(self, state: str, columns: list[Column]) -> None:
        """There is no SQL, so no columns."""

    def states_fly(
        self, state: str, key: str, ttl: float | None, holder: str, lease: float
    ) -> Flight:
        """There are no other processes: whoever asks computes."""
        found = self.states_get(state, [key])
        if not found or found[0].value is None:
            return Flight(None, None, fresh=False, compute=True)
        fresh = ttl is None or found[0].age < ttl
        return Flight(found[0].value, found[0].age, fresh=fresh, compute=not fresh)

    def states_land(self, state: str, key: str, holder: str) -> None:
        """It was computed, or could not be."""

    # kirby.core.subscriptions

    @alone
    def subscriptions_subscribe(
        self,
        topic: str,
        name: str,
        mode: str = "ordered",
        *,
        on_failure: str | None = None,
        max_attempts: int | None = None,
    ) -> tuple[int, int]:
        if not NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' is not a name for a subscription: letters, digits, dots, dashes and"
                " underscores, at most 200"
            )
        if feed := FEED.fullmatch(topic):
            self._open_feed(feed[1])
        found = self._subscription(topic, name, mode)
        found.on_failure = on_failure or found.on_failure
        found.max_attempts = max_attempts or found.max_attempts
        return found.id, found.topic.id

    def _subscription(self, topic: str, name: str, mode: str) -> Subscription:
        of, known = self.run.topic(topic), self.run.subscriptions
        of.opened = True
        for each in known:
            if each.topic is of and each.name == name:
                if each.mode != mode:
                    raise Taken(f"subscription {name} of topic {topic} is {each.mode}, not {mode}")
                return each
        known.append(Subscription(len(known), of, name, mode))
        return known[-1]

    def _open_feed(self, name: str) -> None:
        state = self.run.state(name)
        if not state.fed:
            unit = Unit(self.run)
            for mutation in state.now(self.run.now()):
                unit.feed(state, mutation)
            unit.commit()
            state.fed = True

    def subscriptions_limit(self, id: int, limits: Mapping[str, float | None]) -> None:
        """One process, as fast as it can."""

    def subscriptions_serve(self, id: int, on_replay: str, declaration: dict[str, Any]) -> None:
        pass

    @alone
    def subscriptions_claim(self, id: int, limit: int) -> Batch | None:
        return self.run.subscriptions[id].claim(limit, self, self.run.now())

    @alone
    def subscriptions_settle(
        self,
        batch: Batch,
        *,
        messages: str = "{}",
        mutations: str = "{}",
        upto: int | None = None,
        next: int = 0,
        failures: Sequence[Failure] = (),
    ) -> Settled:
        of, now = self._of(batch), self.run.now()
        claim = of.held(batch.claim_id)
        _, written = self._write([(messages, mutations)])
        of.settle(claim, upto, failures, now)
        whole = batch.claim_id not in of.claims
        return Settled(written, of.claim(next, self, now) if next and whole else None)

    def _of(self, batch: Batch) -> Subscription:
        """The subscription of a batch; any other says that it was lost."""
        every = self.run.subscriptions
        return next((each for each in every if batch.claim_id in each.claims), every[0])

    def subscriptions_renew(self, batch: Batch) -> None:
        """A claim is held for as long as the process lives."""

    @alone
    def subscriptions_release(self, batch: Batch, *, suspect: bool = False) -> None:
        of = self._of(batch)
        if (claim := of.claims.get(batch.claim_id)) is not None:
            of.release(claim, self.run.now(), suspect=suspect)

    def subscriptions_bury(self, *_: Any, **__: Any) -> None:
        """What a dead process held is read again by the next run, which begins anew."""

    @alone
    def subscriptions_next_due(self, ids: Sequence[int]) -> float | None:
        """When there is something to do, or NEVER: time passes at once if nothing else is done."""
        run, now = self.run, self.run.now()
        mine = [run.subscriptions[id] for id in ids]
        if any(each.has_more(now) and not self._is_busy(each) for each in mine):
            return 0.0
        if any(
            claim.holder is not self for each in run.subscriptions for claim in each.claims.values()
        ):
            return SOON
        moments = [due for each in mine if (due := each.next_due()) is not None]
        if not moments:
            return NEVER
        run.wait_until(min(moments))
        return 0.0

    def _is_busy(self, of: Subscription) -> bool:
        return of.ordered and bool(of.claims)

    # kirby.core.tasks and kirby.core.effects

    def tasks_now(self) -> datetime:
        return self.run.now()

    @alone
    def tasks_status(self, topic: str, id: str) -> Status:
        found = self.run.topics.get(topic)
        position = found.produced.get(id) if found is not None else None
        if found is None or position is None:
            return Status("unknown", None, None, None, None, None, None)
        results = self.run.topics.get(f"{topic}.results")
        answer = results.answers.get(position) if results is not None else None
        if results is not None and answer is not None:
            kept = results.at(answer)
            value = kept.value if kept is not None else {}
            error = (value.get("error") or {}).get("message")
            return Status(value["status"], position, None, error, None, answer, value)
        if position in found.retracted:
            return Status("revoked", position, None, None, None, None, None)
        served = self.run.subscriptions
        by = next((each for each in served if each.topic is found and each.name == WORKERS), None)
        return (by or Subscription(-1, found, WORKERS, "shared")).status(position, self.run.now())

    @alone
    def effects_begin(
        self,
        name: str,
        key: str | None,
        subscription_id: int | None,
        position: int | None,
        number: int,
        *,
        idempotent: bool,
        attempt: UUID,
    ) -> Begun:
        """Outside effects are left out, and noted: a folder is a rehearsal."""
        of = self.run.subscriptions[subscription_id] if subscription_id is not None else None
        where = f"{of.topic.name} {of.name} {position} {name} {number}" if of is not None else name
        key = key or sha256(where.encode()).hexdigest()[:32]
        known = self.run.effects
        if (name, key) not in known:
            line = {"effect": name, "key": key, "position": position}
            self.run.append({EFFECTS: files.dumps(line).encode() + b"\n"})
            known[name, key] = len(known) + 1
        return Begun(known[name, key], key, "done")

    def effects_confirm(self, effect_id: int) -> None:
        pass

    # What became of it

    @alone
    def failures(self) -> list[str]:
        """A line for each message that is parked."""
        return [
            f"message {due.message.position} of topic {each.topic.name} (key {due.message.key!r}),"
            f" subscription {each.name}, is parked after {due.attempt} attempt"
            f"{'s' if due.attempt != 1 else ''}: {_last_line(due.error)}"
            + (f"; {behind} of its key wait behind it" if behind else "")
            for each in self.run.subscriptions
            for due, behind in each.failed()
        ]

    @alone
    def save(self) -> None:
        """Let what was written so far be seen in ``out``."""
        self.run.save()


def _last_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else "nothing is known of its error"

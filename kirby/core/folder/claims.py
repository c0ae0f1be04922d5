"""A subscription of a folder: what is handed out, what waits, and what failed.

The rules are those of kirby.claim and kirby.settle; a topic has one lane here.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kirby.core.errors import Fenced
from kirby.core.folder.files import BadFolder, Stored
from kirby.core.folder.log import Reader, Topic
from kirby.core.subscriptions import Batch, Failure
from kirby.core.tasks import Status

DUE = {
    "parked": "failed", "failed": "retrying", "delayed": "scheduled",
    "waiting": "pending", "ready": "pending",
}  # fmt: skip
_ids = itertools.count(1)


@dataclass(slots=True)
class Due:
    """A message that is delivered by itself. ``reason``: failed, delayed, waiting (its key is held
    by one before it), ready (no more), or parked."""

    message: Stored
    reason: str
    due_at: datetime
    attempt: int = 0
    error: str | None = None
    claimed: bool = False


@dataclass(slots=True)
class Claim:
    """Messages in somebody's hands; ``done`` is how many are settled."""

    id: int
    holder: object
    attempt: int
    messages: list[Stored]
    due: Due | None = None
    done: int = 0

    def batch(self) -> Batch:
        found = self.messages[self.done :]
        headers = [each.headers for each in found]
        parents = [each.parents for each in found]
        return Batch(
            self.id,
            1,
            self.attempt,
            [each.position for each in found],
            [each.key for each in found],
            [each.value for each in found],
            headers if any(headers) else None,
            [each.recorded_at for each in found],
            [each.run_id for each in found],
            parents if any(parents) else None,
        )


@dataclass(slots=True)
class Subscription:
    """A named reader of a topic."""

    id: int
    topic: Topic
    name: str
    mode: str
    on_failure: str = "block"
    max_attempts: int = 3
    claims: dict[int, Claim] = field(default_factory=dict)
    due: dict[int, Due] = field(default_factory=dict)  # by position
    expired: set[int] = field(default_factory=set)
    _keys: dict[str, list[int]] = field(default_factory=dict)  # positions of due ones, by key
    _ripe: list[tuple[datetime, int]] = field(default_factory=list)  # a heap; some are outdated
    _back: list[Stored] = field(default_factory=list)  # given back, to be read again
    _reader: Reader | None = None

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.topic)
        return self._reader

    @property
    def ordered(self) -> bool:
        return self.mode == "ordered"

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    # Handing out

    def claim(self, limit: int, holder: object, now: datetime) -> Batch | None:
        """The next batch: a message that is due, else what follows in the topic."""
        if self.ordered and self.claims:
            return None
        if (due := self._take_due(now)) is not None:
            due.claimed = True
            return self._open([due.message], holder, due.attempt + 1, due)
        found = self._take_fresh(limit, now)
        return self._open(found, holder, 1) if found else None

    def _take_fresh(self, limit: int, now: datetime) -> list[Stored]:
        """Those before a line that is none come first."""
        found: list[Stored] = []
        try:
            for each in itertools.islice(self._fresh(now), limit):
                found.append(each)
        except BadFolder:
            if not found:
                raise
        return found

    def _open(
        self, messages: list[Stored], holder: object, attempt: int, due: Due | None = None
    ) -> Batch:
        claim = Claim(next(_ids), holder, attempt, messages, due)
        self.claims[claim.id] = claim
        return claim.batch()

    def _take_due(self, now: datetime) -> Due | None:
        while (due_at := self.next_due()) is not None and due_at <= now:
            return self.due[heapq.heappop(self._ripe)[1]]
        return None

    def next_due(self) -> datetime | None:
        """When the next message comes up that is delivered by itself."""
        while self._ripe:
            due_at, position = self._ripe[0]
            due = self.due.get(position)
            waits = due is None or due.claimed or due.reason in ("waiting", "parked")
            if due is not None and not waits and due.due_at == due_at:
                return due_at
            heapq.heappop(self._ripe)
        return None

    def _fresh(self, now: datetime) -> Iterator[Stored]:
        """What follows in the topic and can be handed out in its turn."""
        while (found := self._read()) is not None:
            if found.position in self.topic.retracted:
                continue
            if found.expires_at is not None and found.expires_at <= now:
                self.expired.add(found.position)
            elif found.deliver_at is not None and found.deliver_at > now:
                self._file(Due(found, "delayed", found.deliver_at))
            elif self.is_held(found.key):
                self._file(Due(found, "waiting", now))
            else:
                yield found

    def _read(self) -> Stored | None:
        return self._back.pop() if self._back else self.reader.next()

    def has_more(self, now: datetime) -> bool:
        """Whether a claim may find something."""
        due_at = self.next_due()
        return bool(self._back) or not self.reader.ended() or (due_at is not None and due_at <= now)

    # Keys

    def is_held(self, key: str | None) -> bool:
        """Whether a message that failed holds this key: later ones of it wait."""
        return self.ordered and key is not None and any(self._holding(key))

    def _holding(self, key: str) -> Iterator[bool]:
        for position in self._keys.get(key, ()):
            due = self.due[position]
            parked = due.reason == "parked" and self.on_failure != "block"
            yield due.reason != "delayed" and not parked

    def _free(self, key: str | None, now: datetime) -> None:
        """Let out the first one that waits for a key, if nothing holds it any more."""
        if key is None:
            return
        for position in self._keys.get(key, ()):
            due = self.due[position]
            if due.reason == "waiting":
                due.reason, due.due_at = "ready", now
                heapq.heappush(self._ripe, (now, position))
                return
            if due.reason != "delayed" and not (
                due.reason == "parked" and self.on_failure != "block"
            ):
                return

    def _file(self, due: Due) -> None:
        position, key = due.message.position, due.message.key
        if position not in self.due and key is not None:
            positions = self._keys.setdefault(key, [])
            positions.append(position)
            positions.sort()
        self.due[position] = due
        if due.reason not in ("waiting", "parked"):
            heapq.heappush(self._ripe, (due.due_at, position))

    def _close(self, position: int, now: datetime) -> None:
        due = self.due.pop(position, None)
        if due is None or (key := due.message.key) is None:
            return
        self._keys[key].remove(position)
        if not self._keys[key]:
            del self._keys[key]
        self._free(key, now)

    # Settling

    def held(self, claim_id: int) -> Claim:
        """Raises Fenced."""
        claim = self.claims.get(claim_id)
        if claim is None:
            raise Fenced(
                "the claim was lost to another worker: its lease ended before the work was done"
            )
        return claim

    def settle(
        self, claim: Claim, upto: int | None, failures: Sequence[Failure], now: datetime
    ) -> None:
        """What is done of a claim, up to a position, apart from what failed."""
        failed = {each.position: each for each in failures}
        rest = claim.messages[claim.done :]
        done = [each for each in rest if upto is None or each.position <= upto]
        for each in done:
            if (failure := failed.get(each.position)) is not None:
                self._fail(claim, each, failure, now)
            elif claim.due is not None:
                self._close(each.position, now)
        claim.done += len(done)
        for key in {each.key for each in done if each.position in failed}:
            self._free(key, now)
        if claim.done == len(claim.messages):
            del self.claims[claim.id]

    def _fail(self, claim: Claim, message: Stored, failure: Failure, now: datetime) -> None:
        used_up = failure.action == "retry" and claim.attempt >= self.max_attempts
        if failure.action == "park" or used_up:
            due = Due(message, "parked", now, claim.attempt, failure.error)
        elif failure.action == "retry":
            pause = failure.pause
            if pause is None:
                pause = random.random() * min(600, 2 ** min(claim.attempt - 1, 10))  # noqa: S311
            later = now + timedelta(seconds=pause)
            due = Due(message, "failed", later, claim.attempt, failure.error)
        else:
            due = Due(message, "waiting", now)
        self._file(due)

    def release(self, claim: Claim, now: datetime, *, suspect: bool) -> None:
        """Give back what is not settled; ``suspect``: message by message, and it is counted."""
        del self.claims[claim.id]
        rest = claim.messages[claim.done :]
        if claim.due is not None:
            claim.due.claimed = False
            claim.due.attempt += suspect
            heapq.heappush(self._ripe, (claim.due.due_at, claim.due.message.position))
        elif suspect:
            for each in rest:
                self._file(Due(each, "failed", now, 1))
        else:
            self._back += reversed(rest)

    def is_free(self, position: int) -> bool:
        """Whether nobody has a message in hands, or was done with it."""
        if (due := self.due.get(position)) is not None:
            return not due.claimed
        back = any(each.position == position for each in self._back)
        return back or position > self.reader.position

    def retract(self, position: int, now: datetime) -> None:
        """A message that is free is not handed out any more."""
        self._close(position, now)

    def status(self, position: int, now: datetime) -> Status:
        """What is becoming of the task at a position that has no result."""
        due, claim = self.due.get(position), self._holder(position)
        attempt = claim.attempt if claim is not None else 0 if due is None else due.attempt
        error, due_at = (due.error, due.due_at) if due is not None else (None, None)
        return Status(
            self._status(position, due, claim), position, attempt, error, due_at, None, None
        )

    def _status(self, position: int, due: Due | None, claim: Claim | None) -> str:
        if claim is not None:
            return "running"
        if due is not None:
            return DUE[due.reason]
        if position in self.expired:
            return "expired"
        return "pending" if self.is_free(position) else "succeeded"

    def _holder(self, position: int) -> Claim | None:
        for claim in self.claims.values():
            if any(each.position == position for each in claim.messages[claim.done :]):
                return claim
        return None

    def failed(self) -> list[tuple[Due, int]]:
        """What is parked, and how many wait behind each."""
        found = [due for due in self.due.values() if due.reason == "parked"]
        return [(due, self._behind(due)) for due in sorted(found, key=_position)]

    def _behind(self, due: Due) -> int:
        positions = self._keys.get(due.message.key or "", ())
        return sum(self.due[position].reason == "waiting" for position in positions)


def _position(due: Due) -> int:
    return due.message.position

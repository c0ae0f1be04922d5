"""The unit of work: what a handler published and changed, collected until it is written at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kirby.core import merges, payload, topics
from kirby.core.errors import Invalid
from kirby.core.subscriptions import Batch, Failure
from kirby.sdk import shadows, stamps
from kirby.sdk.stamps import Origin, Stamp

MAX_KEY = 1024  # bytes; an index of PostgreSQL holds keys of less than 2704
MAX_ID = 200  # characters of a producer's id
MAX_MESSAGES = 128 * 1024 * 1024  # bytes of one document; jsonb holds less than 256 MB
BESIDE = ".replay"  # ends the name of a topic to which replays are diverted
MAX_CAREFUL = 10_000
CAREFUL: set[tuple[str, str]] = set()  # keys whose values did not merge: they are read first
CURRENT: ContextVar[Work | None] = ContextVar("kirby_work", default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """What this unit of work knows of one key: the version it read, and what it becomes."""

    op: str  # "check" (only read), "set", "delete" or "merge"
    value: str | None  # JSON text; None as well for a merge, which does not know it
    read: int | None = None  # the version that was read; None if the key was written blindly
    parents: tuple[int, ...] = ()
    merges: tuple[merges.Merge, ...] = ()
    stamp: Stamp | None = None


@dataclass(slots=True)
class Work:
    """Messages and changes that become visible together, or not at all.

    ``parents`` are the positions of the messages being handled: everything written meanwhile
    carries them, and the ``stamp``. ``mark`` and ``undo`` take back what the message at hand has
    done.
    """

    parents: tuple[int, ...] = ()
    origin: Origin | None = None
    stamp: Stamp | None = None
    changes: dict[tuple[str, str], Change] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)  # of messages that are not done
    size: int = 0  # bytes of the messages
    ended: bool = False
    effects: dict[str, int] = field(default_factory=dict)  # of the message at hand, by their names
    _messages: list[tuple[str, str]] = field(default_factory=list)
    _undo: list[tuple[tuple[str, str], Change | None]] = field(default_factory=list)
    _mark: int = 0

    def publish(self, topic: str, item: str) -> None:
        self._grow(len(item))
        self._messages.append((topic, item))

    def publish_all(self, topic: str, items: Iterable[str]) -> int:
        fresh = [(topic, item) for item in items]  # first of all: one of them may be refused
        self._grow(sum(len(item) for _, item in fresh))
        self._messages += fresh
        return len(fresh)

    def _grow(self, size: int) -> None:
        if self.size + size > MAX_MESSAGES:
            raise Invalid(
                f"a handler or transaction publishes at most {MAX_MESSAGES >> 20} MB at once, not"
                f" {(self.size + size) >> 20} MB: publish in smaller units"
            )
        self.size += size

    def change(self, state: str, key: str, change: Change) -> None:
        self._undo.append(((state, key), self.changes.get((state, key))))
        self.changes[state, key] = change

    def write(self, state: str, key: str, op: str, value: str | None) -> None:
        """Set or delete a key, on the version that was read of it if it was read."""
        old = self.changes.get((state, key))
        if old is None:
            new = Change(op, value, parents=self.parents, stamp=self.stamp)
        else:
            parents, stamp = self._parents(old), self._stamp(old)
            new = replace(old, op=op, value=value, parents=parents, stamp=stamp, merges=())
        self.change(state, key, new)

    def merge(self, state: str, key: str, op: str, given: Any) -> None:
        """Merge into a key (kirby.core.merges): at once if its value is known here, else by the
        database, whatever the value is by then. Raises Invalid if the value is of another kind.
        """
        old = self.changes.get((state, key))
        if old is not None and old.op != "merge":
            what = f"key {key} of state {state}"
            self.write(state, key, "set", merges.applied(old.value, [(op, given)], what))
            return
        if old is None:
            first = ((op, given),)
            new = Change("merge", None, parents=self.parents, merges=first, stamp=self.stamp)
        else:
            several = merges.combined(old.merges, op, given)
            parents, stamp = self._parents(old), self._stamp(old)
            new = replace(old, parents=parents, stamp=stamp, merges=several)
        self.change(state, key, new)

    def beware(self) -> bool:
        """After a merge was refused: read these keys first, so that the message at fault fails by
        itself; whether there are any."""
        found = {at for at, change in self.changes.items() if change.op == "merge"}
        if len(CAREFUL) > MAX_CAREFUL:
            CAREFUL.clear()
        CAREFUL.update(found)
        return bool(found)

    def _parents(self, old: Change) -> tuple[int, ...]:
        again = old.parents[-1:] == self.parents[-1:]
        return old.parents if again else old.parents + self.parents

    def _stamp(self, old: Change) -> Stamp | None:
        """That of the message at hand; but what was changed in a replay stays marked as such."""
        stays = old.stamp is not None and old.stamp.replay
        return old.stamp if stays else self.stamp

    def mark(self, batch: Batch, first: int, last: int | None = None) -> None:
        """From here on for these messages of a batch; ``undo`` comes back to this point."""
        self.parents = stamps.parents(batch, first, first if last is None else last)
        if self.origin is not None:
            self.stamp = Stamp(self.origin, batch, first)
        if self.effects:
            self.effects = {}
        self._mark = len(self._messages)
        self._undo.clear()

    def undo(self) -> None:
        self._back_to(self._mark, 0)

    def divert(self) -> None:
        """What the message at hand published goes to topics beside, what it changed is undone."""
        self._messages[self._mark :] = [
            (topics.checked_name(f"{topic}{BESIDE}"), item)
            for topic, item in self._messages[self._mark :]
        ]
        self._back_to(len(self._messages), 0)

    @contextmanager
    def part(self) -> Iterator[None]:
        """All of what the block does joins this unit of work, or, on an error in it, nothing."""
        messages, changes = len(self._messages), len(self._undo)
        try:
            yield
        except BaseException:
            self._back_to(messages, changes)
            raise

    def _back_to(self, messages: int, changes: int) -> None:
        self.size -= sum(len(item) for _, item in self._messages[messages:])
        del self._messages[messages:]
        for at, old in reversed(self._undo[changes:]):
            if old is None:
                del self.changes[at]
            else:
                self.changes[at] = old
        del self._undo[changes:]

    def messages(self) -> str:
        """The document of kirby.append_messages."""
        topics: dict[str, list[str]] = {}
        for topic, item in self._messages:
            topics.setdefault(topic, []).append(item)
        return document({shadows.topic(name): items for name, items in topics.items()})

    def mutations(self) -> str:
        """The document of kirby.append_mutations."""
        states: dict[str, list[str]] = {}
        for (state, key), change in self.changes.items():
            states.setdefault(state, []).append(mutation(key, change))
        return document(states)


def document(groups: dict[str, list[str]]) -> str:
    """A JSON object of arrays whose items are JSON text already."""
    return (
        "{"
        + ",".join(f"{json.dumps(name)}:{_group(items)}" for name, items in groups.items())
        + "}"
    )


def _group(items: list[str]) -> str:
    array = f"[{','.join(items)}]"
    return f'{{"m":{array}}}' if Special in set(map(type, items)) else array


class Special(str):
    """A message of the document with more to it: a time, an id (kirby.append_special)."""

    __slots__ = ()


def message(
    value: Any,
    key: str | None,
    headers: dict[str, Any] | None,
    parents: tuple[int, ...],
    stamp: Stamp | None = None,
    *,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    id: str | None = None,
    band: int | None = None,
    reply_to: int | None = None,
) -> str:
    """One message of the document. Raises Invalid for what cannot be stored.

    ``parents`` and ``stamp`` are those of the unit of work (``cause``).

    Times without a zone are local. ``band``: the priority, 0 first. ``reply_to``: the position of
    the task that this message is the result of.
    """
    parts = [f'"v":{payload.dumps(value)}']
    if key is not None:
        parts.append(f'"k":{checked_key(key)}')
    if headers is not None and not isinstance(headers, dict):
        raise Invalid(f"headers are a dictionary, not of type {type(headers).__name__}")
    if stamp is not None:
        parts.append(f'"h":{stamp.over(headers) if headers else stamp.text}')
    elif headers:
        parts.append(f'"h":{payload.dumps(headers, "the headers")}')
    if parents:
        parts.append(f'"p":[{",".join(map(str, parents))}]')
    plain = len(parts)
    if deliver_at is not None:
        parts.append(f'"d":"{checked_time(deliver_at, "deliver_at")}"')
    if expires_at is not None:
        parts.append(f'"x":"{checked_time(expires_at, "expires_at")}"')
    if id is not None:
        parts.append(f'"i":{checked_id(id)}')
    if band is not None:
        parts.append(f'"b":{band}')
    if reply_to is not None:
        parts.append(f'"r":{reply_to}')
    text = "{" + ",".join(parts) + "}"
    return text if len(parts) == plain else Special(text)


def mutation(key: str, change: Change) -> str:
    """One change of the document."""
    parts = [f'"k":{json.dumps(key)}', f'"o":"{change.op}"']
    if change.op == "set":
        parts.append(f'"v":{change.value}')
    elif change.op == "merge":
        parts.append(f'"v":{payload.dumps(change.merges, "what is merged")}')
    if change.read is not None:
        parts.append(f'"e":{change.read}')
    if change.parents:
        parts.append(f'"p":[{",".join(map(str, change.parents))}]')
    if change.stamp is not None:
        parts.append(f'"h":{change.stamp.text}')
    return "{" + ",".join(parts) + "}"


def checked_key(key: Any) -> str:
    """A key as JSON text. Raises Invalid unless it is a string of at most 1024 bytes of UTF-8."""
    if not isinstance(key, str):
        raise Invalid(f"a key is a string, not of type {type(key).__name__}: {key!r:.100}")
    text = payload.dumps(key, "the key")
    if len(text) > MAX_KEY and (size := len(key.encode())) > MAX_KEY:
        raise Invalid(f"a key has at most {MAX_KEY} bytes, this one has {size}: {key!r:.60}…")
    return text


def checked_id(id: Any) -> str:
    """A producer's id as JSON text. Raises Invalid unless it is a string of 1 to 200 characters."""
    if not isinstance(id, str) or not 1 <= len(id) <= MAX_ID:
        raise Invalid(f"an id is a string of 1 to {MAX_ID} characters, not {id!r:.100}")
    return payload.dumps(id, "the id")


def checked_time(moment: Any, what: str) -> str:
    """A moment as PostgreSQL reads it; without a zone it is local time. Raises Invalid."""
    if not isinstance(moment, datetime):
        raise Invalid(f"{what} is a datetime, not of type {type(moment).__name__}: {moment!r:.100}")
    return (moment if moment.tzinfo is not None else moment.astimezone()).isoformat()


def current() -> Work | None:
    """The unit of work that this code runs in, if any. Raises Invalid if it has ended already."""
    unit = CURRENT.get()
    if unit is not None and unit.ended:
        raise Invalid(
            "the transaction or handler in which this task was started has ended, and nothing can"
            " join it any more: start the task outside of it"
        )
    return unit


def cause() -> tuple[tuple[int, ...], Stamp | None]:
    """What is handled while this code runs: the positions and the stamp for what it writes."""
    unit = current()
    return ((), None) if unit is None else (unit.parents, unit.stamp)


@contextmanager
def entered(work: Work) -> Iterator[Work]:
    """Let publishes and changes of states join ``work`` while this block runs."""
    token = CURRENT.set(work)
    try:
        yield work
    finally:
        work.ended = True
        CURRENT.reset(token)

"""The unit of work: what a handler published and changed, collected until it is written at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from kirby.core import payload
from kirby.core.errors import Invalid
from kirby.core.subscriptions import Failure

MAX_KEY = 1024  # bytes; an index of PostgreSQL holds keys of less than 2704
MAX_MESSAGES = 128 * 1024 * 1024  # bytes of one document; jsonb holds less than 256 MB
CURRENT: ContextVar[Work | None] = ContextVar("kirby_work", default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """What this unit of work knows of one key: the version it read, and what it becomes."""

    op: str  # "check" (only read), "set" or "delete"
    value: str | None  # JSON text
    read: int | None = None  # the version that was read; None if the key was written blindly
    parents: tuple[int, ...] = ()


@dataclass(slots=True)
class Work:
    """Messages and changes that become visible together, or not at all.

    ``parents`` are the positions of the messages being handled: everything written meanwhile
    carries them. ``mark`` and ``undo`` take back what the message at hand has done.
    """

    parents: tuple[int, ...] = ()
    changes: dict[tuple[str, str], Change] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)  # of messages that are not done
    size: int = 0  # bytes of the messages
    _messages: list[tuple[str, str]] = field(default_factory=list)
    _undo: list[tuple[tuple[str, str], Change | None]] = field(default_factory=list)
    _mark: int = 0

    def publish(self, topic: str, item: str) -> None:
        self._add([(topic, item)])

    def publish_all(self, topic: str, items: Iterable[str]) -> int:
        fresh = [(topic, item) for item in items]  # first of all: one of them may be refused
        self._add(fresh)
        return len(fresh)

    def _add(self, fresh: list[tuple[str, str]]) -> None:
        size = self.size + sum(len(item) for _, item in fresh)
        if size > MAX_MESSAGES:
            raise Invalid(
                f"a handler or transaction publishes at most {MAX_MESSAGES >> 20} MB at once, not"
                f" {size >> 20} MB: publish in smaller units"
            )
        self.size = size
        self._messages += fresh

    def change(self, state: str, key: str, change: Change) -> None:
        self._undo.append(((state, key), self.changes.get((state, key))))
        self.changes[state, key] = change

    def write(self, state: str, key: str, op: str, value: str | None) -> None:
        """Set or delete a key, on the version that was read of it if it was read."""
        old = self.changes.get((state, key))
        if old is None:
            new = Change(op, value, parents=self.parents)
        else:
            again = old.parents[-1:] == self.parents[-1:]
            parents = old.parents if again else old.parents + self.parents
            new = replace(old, op=op, value=value, parents=parents)
        self.change(state, key, new)

    def mark(self, *parents: int) -> None:
        """From here on for these messages; ``undo`` comes back to this point."""
        self.parents = parents
        self._mark = len(self._messages)
        self._undo.clear()

    def undo(self) -> None:
        self._back_to(self._mark, 0)

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
        return document(topics)

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
        + ",".join(f"{json.dumps(name)}:[{','.join(items)}]" for name, items in groups.items())
        + "}"
    )


def message(
    value: Any, key: str | None, headers: dict[str, Any] | None, parents: tuple[int, ...]
) -> str:
    """One message of the document. Raises Invalid for what cannot be stored."""
    parts = [f'"v":{payload.dumps(value)}']
    if key is not None:
        parts.append(f'"k":{checked_key(key)}')
    if headers is not None and not isinstance(headers, dict):
        raise Invalid(f"headers are a dictionary, not of type {type(headers).__name__}")
    if headers:
        parts.append(f'"h":{payload.dumps(headers, "the headers")}')
    if parents:
        parts.append(f'"p":[{",".join(map(str, parents))}]')
    return "{" + ",".join(parts) + "}"


def mutation(key: str, change: Change) -> str:
    """One change of the document."""
    parts = [f'"k":{json.dumps(key)}', f'"o":"{change.op}"']
    if change.op == "set":
        parts.append(f'"v":{change.value}')
    if change.read is not None:
        parts.append(f'"e":{change.read}')
    if change.parents:
        parts.append(f'"p":[{",".join(map(str, change.parents))}]')
    return "{" + ",".join(parts) + "}"


def checked_key(key: Any) -> str:
    """A key as JSON text. Raises Invalid unless it is a string of at most 1024 bytes of UTF-8."""
    if not isinstance(key, str):
        raise Invalid(f"a key is a string, not of type {type(key).__name__}: {key!r:.100}")
    text = payload.dumps(key, "the key")
    if len(text) > MAX_KEY and (size := len(key.encode())) > MAX_KEY:
        raise Invalid(f"a key has at most {MAX_KEY} bytes, this one has {size}: {key!r:.60}…")
    return text


def current() -> Work | None:
    """The unit of work that this code runs in, if any."""
    return CURRENT.get()


@contextmanager
def entered(work: Work) -> Iterator[Work]:
    """Let publishes and changes of states join ``work`` while this block runs."""
    token = CURRENT.set(work)
    try:
        yield work
    finally:
        CURRENT.reset(token)

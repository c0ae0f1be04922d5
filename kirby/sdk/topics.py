"""Topics in a script's words: publish, read, consume."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kirby.core import topics
from kirby.core.db import kirby_errors
from kirby.sdk import session, work
from kirby.sdk.messages import Message

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A named stream of messages in this process's environment; made at its first use."""

    name: str

    def publish(
        self, value: Any, key: str | None = None, headers: dict[str, Any] | None = None
    ) -> int | None:
        """Append one message; messages of one key stay in order.

        Outside a unit of work it is durable on return, and its position is returned. In a handler,
        a consume loop or a transaction it is written together with everything else there, and
        None is returned. Raises Invalid, with the place, for a value that is not JSON.
        """
        item = work.message(value, key, headers, _parents())
        if (mine := work.current()) is not None:
            mine.publish(self.name, item)
            return None
        [position] = _write(self.name, [item])
        return position

    def publish_many(self, values: Iterable[Any], key: str | None = None) -> int:
        """Append many messages, all or none, and return how many.

        An item is a value, or an ``Out`` with a key and headers of its own.
        """
        items = (_item(value, key) for value in values)
        if (mine := work.current()) is not None:
            return mine.publish_all(self.name, items)
        return self._write_pages(items)

    def _write_pages(self, items: Iterator[str]) -> int:
        first = list(itertools.islice(items, PAGE))
        if len(first) < PAGE:
            return len(_write(self.name, first)) if first else 0
        count = 0
        with kirby_errors(), session.get().connection.transaction():
            for page in itertools.chain([first], _pages(items)):
                count += len(_write(self.name, page))
        return count

    def read(
        self,
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Message]:
        """Yield what the topic holds now, in order; nothing is acknowledged.

        ``after`` is a position; ``since`` and ``until`` bound the time of recording.
        Raises NotFound if there is no such topic.
        """
        left = limit if limit is not None else float("inf")
        while left > 0:
            page = topics.read(
                session.get().connection,
                self.name,
                after=after,
                limit=int(min(PAGE, left)),
                since=since,
                until=until,
            )
            for entry in page:
                yield Message.of_entry(self.name, entry)
            left -= len(page)
            if len(page) < PAGE:
                return
            after = page[-1].position

    def consume(self, name: str | None = None) -> Iterator[Message]:
        """Yield messages for ever, each exactly once over all runs of this job.

        A message is acknowledged when the next one is asked for, in one transaction with what was
        published and the states that were changed meanwhile. SIGTERM ends the loop after the
        message at hand. ``name`` is the subscription's, else the job's.
        """
        from kirby.sdk.loop import consume

        return consume(self.name, name)


@dataclass(frozen=True, slots=True)
class Out:
    """What a handler returns to say more than a value: a key, headers, another topic."""

    value: Any
    key: str | None = None
    headers: dict[str, Any] | None = None
    to: str | None = None


def topic(name: str) -> Topic:
    """A topic of this process's environment."""
    return Topic(name)


def _parents() -> tuple[int, ...]:
    mine = work.current()
    return mine.parents if mine is not None else ()


def _item(value: Any, key: str | None) -> str:
    if isinstance(value, Out):
        return work.message(value.value, value.key or key, value.headers, _parents())
    return work.message(value, key, None, _parents())


def _pages(items: Iterator[str]) -> Iterator[list[str]]:
    while page := list(itertools.islice(items, PAGE)):
        yield page


def _write(name: str, items: list[str]) -> list[int]:
    """Write messages outside a unit of work, and wake the readers."""
    mine = session.get()
    positions, written = topics.write(mine.connection, work.document({name: items}), "{}")
    mine.notifier.notify(written)
    return positions

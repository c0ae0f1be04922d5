"""Topics in a script's words: publish, read, consume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from kirby.core import topics
from kirby.sdk import asynchronous, outbox, session, shadows, work
from kirby.sdk.messages import Message
from kirby.sdk.stamps import Stamp

PAGE = 1000
CHUNK = 250  # messages of a document while the database works on the one before
CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """A named stream of messages in this process's environment; made at its first use."""

    name: str

    def __post_init__(self) -> None:
        topics.checked_name(self.name)

    def publish(
        self,
        value: Any,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        *,
        deliver_at: datetime | None = None,
        expires_at: datetime | None = None,
        id: str | None = None,
        connection: Any = None,
    ) -> int | None:
        """Append one message; messages of one key stay in order.

        It is handed out not before ``deliver_at``, by itself and without holding its key, and not
        after ``expires_at`` (without a zone: local time). Publishing again under the same ``id``
        does nothing: the position of the first is returned.

        Outside a unit of work it is durable on return, and its position is returned. In a handler,
        a consume loop or a transaction it is written together with everything else there, and
        None is returned. Raises Invalid, with the place, for a value that is not JSON.

        ``connection`` is an application's own, of psycopg, SQLAlchemy or Django: the message
        commits with the application's rows, or vanishes with them (see ``kirby.sdk.outbox``).
        """
        item = work.message(
            value,
            key,
            headers,
            *work.cause(),
            deliver_at=deliver_at,
            expires_at=expires_at,
            id=id,
        )
        if connection is not None:
            return outbox.publish(connection, [self._document([item])])[0]
        if (mine := work.current()) is not None:
            mine.publish(self.name, item)
            return None
        [position] = _write(self.name, [item])
        return position

    async def apublish(
        self, value: Any, key: str | None = None, headers: dict[str, Any] | None = None, **more: Any
    ) -> int | None:
        """``publish`` for asynchronous applications: it does not hold the event loop up.

        Cancelled, it has either published or not begun to. ``connection`` is an asynchronous one of
        psycopg or SQLAlchemy.
        """
        if (connection := more.pop("connection", None)) is not None:
            item = work.message(value, key, headers, *work.cause(), **more)
            return (await outbox.apublish(connection, [self._document([item])]))[0]
        if work.current() is not None:
            return self.publish(value, key, headers, **more)  # joins it, which takes no time
        return await asynchronous.in_thread(self.publish, value, key, headers, **more)

    def publish_many(
        self, values: Iterable[Any], key: str | None = None, *, connection: Any = None
    ) -> int:
        """Append many messages, all or none, and return how many.

        An item is a value, or an ``Out`` with a key, headers, times and an id of its own. With an
        application's own ``connection`` they commit with its rows, as in ``publish``.
        """
        values = list(values)  # whatever makes them is not to run inside the transaction
        items = (_item(value, key) for value in values)
        if connection is not None:
            return len(outbox.publish(connection, self._documents(items)))
        if (mine := work.current()) is not None:
            return mine.publish_all(self.name, items)
        return self._write_all(items, len(values))

    async def apublish_many(
        self, values: Iterable[Any], key: str | None = None, *, connection: Any = None
    ) -> int:
        """``publish_many`` for asynchronous applications, as ``apublish``."""
        if connection is not None:
            items = (_item(value, key) for value in values)
            return len(await outbox.apublish(connection, self._documents(items)))
        if work.current() is not None:
            return self.publish_many(values, key)
        return await asynchronous.in_thread(self.publish_many, list(values), key)

    def _document(self, items: list[str]) -> str:
        return work.document({shadows.topic(self.name): items})

    def _documents(self, items: Iterable[str]) -> list[str]:
        return [self._document(chunk) for chunk in _chunks(items, PAGE)]

    def _write_all(self, items: Iterable[str], count: int) -> int:
        """Write messages in one transaction; while one part is written the next is made."""
        chunks = _chunks(items)
        first = next(chunks, [])
        if len(first) == count:
            return len(_write(self.name, first)) if first else 0
        mine = session.get()
        documents = (self._document(each) for each in chain([first], chunks))
        with mine.notifier.silent():
            positions, written = topics.write_all(mine.connection, documents)
        mine.notifier.notify(written)
        return len(positions)

    def read(
        self,
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Message]:
        """Yield what the topic holds now, in order; nothing is acknowledged.

        ``after`` is a position; ``since`` and ``until`` bound the time of recording (without a
        zone: local time). Raises NotFound if there is no such topic.
        """
        left = limit if limit is not None else float("inf")
        while left > 0:
            page = self._page(after, int(min(PAGE, left)), since, until)
            for entry in page:
                yield Message.of_entry(self.name, entry)
            left -= len(page)
            if len(page) < PAGE:
                return
            after = page[-1].position

    def _page(
        self, after: int, limit: int, since: datetime | None, until: datetime | None
    ) -> list[topics.Entry]:
        mine = session.get()
        return mine.ask(
            lambda: topics.read(
                mine.connection,
                self.name,
                after=after,
                limit=limit,
                since=since and since.astimezone(),
                until=until and until.astimezone(),
            )
        )

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
    """What a handler returns to say more than a value: a key, headers, another topic, times."""

    value: Any
    key: str | None = None
    headers: dict[str, Any] | None = None
    to: str | None = None
    deliver_at: datetime | None = None
    expires_at: datetime | None = None
    id: str | None = None

    def item(self, key: str | None, parents: tuple[int, ...], stamp: Stamp | None = None) -> str:
        """It as a message; ``key`` unless it has its own."""
        return work.message(
            self.value,
            key if self.key is None else self.key,
            self.headers,
            parents,
            stamp,
            deliver_at=self.deliver_at,
            expires_at=self.expires_at,
            id=self.id,
        )


def topic(name: str) -> Topic:
    """A topic of this process's environment."""
    return Topic(name)


def _item(value: Any, key: str | None) -> str:
    if isinstance(value, Out):
        return value.item(key, *work.cause())
    return work.message(value, key, None, *work.cause())


def _chunks(items: Iterable[str], most: int = CHUNK) -> Iterator[list[str]]:
    """Lists of so many messages, and of some 4 MB, at most."""
    chunk: list[str] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += len(item)
        if len(chunk) == most or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _write(name: str, items: list[str]) -> list[int]:
    """Write messages outside a unit of work, and wake the readers."""
    mine = session.get()
    positions, written = _insert(mine, name, items)
    mine.notifier.notify(written)
    return positions


def _insert(mine: session.Session, name: str, items: list[str]) -> tuple[list[int], list[int]]:
    return topics.write(mine.connection, work.document({shadows.topic(name): items}), "{}")

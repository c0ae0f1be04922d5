"""The stamp: what everything that a handler writes says of where it comes from.

It is made at most once for each handled message, as JSON text, and pasted into whatever is written.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from kirby.core import payload
from kirby.core.subscriptions import Batch

MOST_HOPS = 16
encode = json.JSONEncoder(separators=(",", ":")).encode  # of what the database gave us
OWN = frozenset({"via", "replay"})  # nobody else's to set while a message is handled
TRACE = ("traceparent", "tracestate")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")


def release() -> str | None:
    """What this process executes, in words: the supervisor says so."""
    return os.environ.get("KIRBY_RELEASE") or None


class Origin:
    """Who handles messages, and out of which topic. ``name`` is the job's, or the subscription's
    own if it has one.

    ``lists``: messages are handled in lists. ``on_replay``: what becomes of replays.
    """

    __slots__ = ("lists", "on_replay", "start", "subscription_id")

    def __init__(
        self,
        topic: str,
        name: str,
        subscription_id: int,
        *,
        lists: bool = False,
        on_replay: str = "process",
    ) -> None:
        self.subscription_id = subscription_id
        self.lists = lists
        self.on_replay = on_replay
        hop = payload.dumps([name, release(), topic], "the name of the job")
        self.start = f"{hop[:-1]},"


class Stamp:
    """The headers that a message gives to what its handler writes: ``via``, ``replay`` and the
    W3C trace. Of a list of messages the first one counts."""

    __slots__ = ("_batch", "_index", "_text", "headers", "origin")

    def __init__(self, origin: Origin, batch: Batch, index: int) -> None:
        self.origin = origin
        self.headers: dict[str, Any] = (batch.headers and batch.headers[index]) or {}
        self._batch = batch
        self._index = index
        self._text: str | None = None

    @property
    def position(self) -> int:
        return self._batch.positions[self._index]

    @property
    def replay(self) -> bool:
        """Whether the message is delivered again by a rewind, or was made of such."""
        return bool(self.headers.get("replay"))

    @property
    def text(self) -> str:
        """A JSON object."""
        if self._text is None:
            self._text = self._made()
        return self._text

    def over(self, headers: dict[str, Any]) -> str:
        """The same with headers of the handler's own. It cannot set those of the stamp; a trace of
        its own goes before ours, unless it is the one that the message came with."""
        seen = self.headers
        own = {
            name: value
            for name, value in headers.items()
            if name not in OWN and not (name in TRACE and seen.get(name) == value)
        }
        text = payload.dumps(own, "the headers")
        return f"{self.text[:-1]},{text[1:]}" if own else self.text

    def _made(self) -> str:
        batch, index, seen = self._batch, self._index, self.headers
        at = batch.recorded_at[index].astimezone(UTC).isoformat()
        hop = f'{self.origin.start}{batch.positions[index]},"{at}"]'
        if not seen:
            return f'{{"via":[{hop}]}}'
        before = seen.get("via")
        if isinstance(before, list) and before:
            hop = f"{encode(before[1 - MOST_HOPS :])[1:-1]},{hop}"
        again = f',"replay":{encode(seen["replay"])}' if self.replay else ""
        trace = "".join(_trace(seen)) if "traceparent" in seen else ""
        return f'{{"via":[{hop}]{again}{trace}}}'


def _trace(seen: dict[str, Any]) -> Iterator[str]:
    """The trace goes on, with a span of its own; what is none is left out."""
    found = TRACEPARENT.fullmatch(str(seen["traceparent"]))
    if found is None:
        return
    yield f',"traceparent":"00-{found[1]}-{secrets.token_hex(8)}-{found[2]}"'
    if isinstance(state := seen.get("tracestate"), str):
        yield f',"tracestate":{encode(state)}'


def parts(batch: Batch, first: int, *, lists: bool) -> Iterator[range]:
    """What is handled at once of a batch: message by message, or in lists.

    A list is whole of one rewind, or of none.
    """
    end = len(batch.positions)
    while first < end:
        last = first + 1
        if lists:
            last = _alike(batch, first, end)
        yield range(first, last)
        first = last


def _alike(batch: Batch, first: int, end: int) -> int:
    """Before which message the list ends that begins with this one."""
    headers = batch.headers
    if headers is None:
        return end
    marks = ((each or {}).get("replay") for each in headers[first:end])
    mark = next(marks)
    return next((first + n for n, other in enumerate(marks, 1) if other != mark), end)


def replayed(batch: Batch, index: int) -> bool:
    """Whether this message is delivered again by a rewind, or was made of such."""
    return batch.headers is not None and bool((batch.headers[index] or {}).get("replay"))


def parents(batch: Batch, first: int, last: int) -> tuple[int, ...]:
    """The positions of messages ``first`` to ``last`` of a batch, as they stand with what is made
    of them: of many in a row (nothing of the lane between them was left out) the first one, and the
    last one negative (kirby.expand_parents)."""
    if first == last:
        return (batch.positions[first],)
    if batch.dense and last - first > 1:
        return batch.positions[first], -batch.positions[last]
    return tuple(batch.positions[first : last + 1])

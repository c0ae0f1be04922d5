"""What a handler may ask for beside the value: the message as it stands in the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from kirby.core.subscriptions import Batch
from kirby.core.topics import Entry


class Hop(NamedTuple):
    """A message that was handled on the way, and by whom: ``time`` is that of its recording, ISO
    8601 in UTC. Of a list of messages it is the first one."""

    job: str
    release: str | None
    topic: str
    position: int
    time: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a topic.

    ``replay`` is true for what a rewind delivers again, and for what was derived from such. In a
    handler ``attempt`` counts its deliveries; in a task ``id`` is that of its result.
    """

    topic: str
    position: int
    key: str | None
    value: Any
    headers: dict[str, Any] = field(default_factory=dict)
    recorded_at: datetime | None = None
    run_id: int | None = None
    parents: tuple[int, ...] = ()
    attempt: int = 1
    id: str | None = None

    @property
    def replay(self) -> bool:
        return bool(self.headers.get("replay"))

    @property
    def via(self) -> tuple[Hop, ...]:
        """The way that it came: what it was made of, newest last, at most 16 hops."""
        found = self.headers.get("via")
        hops = found if isinstance(found, list) else []
        return tuple(Hop(*hop) for hop in hops if isinstance(hop, list) and len(hop) == 5)

    @classmethod
    def of_entry(cls, topic: str, entry: Entry) -> Message:
        return cls(
            topic,
            entry.position,
            entry.key,
            entry.value,
            entry.headers or {},
            entry.recorded_at,
            entry.run_id,
            tuple(entry.parents or ()),
        )

    @classmethod
    def of_batch(cls, topic: str, batch: Batch, index: int, id: str | None = None) -> Message:
        headers = batch.headers[index] if batch.headers else None
        parents = batch.parents[index] if batch.parents else None
        return cls(
            topic,
            batch.positions[index],
            batch.keys[index],
            batch.payloads[index],
            headers or {},
            batch.recorded_at[index],
            batch.run_ids[index],
            tuple(parents or ()),
            batch.attempt,
            id,
        )

"""The states of a folder: in memory; their versions are a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kirby.core import merges, payload
from kirby.core.errors import Conflict
from kirby.core.folder import files
from kirby.core.states import Entry, Flight, Past, Version


@dataclass(slots=True, frozen=True)
class Held:
    """The latest version of a key; ``value`` is JSON text, None if it was deleted."""

    version: int
    value: str | None
    at: datetime


@dataclass(slots=True, frozen=True)
class Mutation:
    """A new version of a key."""

    position: int
    key: str
    version: int
    op: str
    value: str | None
    parents: list[int] | None
    headers: dict[str, Any] | None
    recorded_at: datetime

    def line(self) -> bytes:
        document = {
            "position": self.position,
            "key": self.key,
            "version": self.version,
            "op": self.op,
            "value": None if self.value is None else payload.loads(self.value),
            "parents": self.parents,
            "headers": self.headers,
            "recorded_at": self.recorded_at.isoformat(),
        }
        return files.dumps(document).encode() + b"\n"

    @property
    def change(self) -> dict[str, Any]:
        """What its feed says of it."""
        value = None if self.value is None else payload.loads(self.value)
        return {"key": self.key, "op": self.op, "version": self.version, "value": value}


class State:
    """A computed table. ``given`` is its file at the beginning, if there is one."""

    def __init__(self, name: str, given: Path | None, start: datetime) -> None:
        self.name = name
        self.given = given
        self.start = start
        self.changed = False
        self.fed = False
        self.flights: dict[str, tuple[str, datetime]] = {}  # who computes a key, and until when
        self._sorted: list[str] | None = None
        self._entries = {key: Held(1, text, start) for key, text in self._initial()}

    def _initial(self) -> Iterator[tuple[str, str]]:
        if self.given is not None:
            for key, value in files.entries(self.given):
                yield key, payload.dumps(value, f"{self.given}: the value of {key!r:.60}")

    # Reading

    def get(self, keys: list[str], now: datetime) -> list[Entry]:
        found = ((key, self._entries.get(key)) for key in keys)
        return [_entry(key, held, now) for key, held in found if held is not None]

    def items(
        self, prefix: str, start: str | None, stop: str | None, now: datetime, *, reverse: bool
    ) -> Iterator[Entry]:
        keys = self._keys()
        first = bisect_left(keys, max(prefix, start or ""))
        last = len(keys) if stop is None else bisect_left(keys, stop)
        for key in reversed(keys[first:last]) if reverse else keys[first:last]:
            held = self._entries[key]
            if held.value is not None and key.startswith(prefix):
                yield _entry(key, held, now)

    def _keys(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self._entries)
        return self._sorted

    def values(self) -> Iterator[tuple[str, Any]]:
        """What it holds now, by key."""
        for key in self._keys():
            if (text := self._entries[key].value) is not None:
                yield key, payload.loads(text)

    def now(self, mutated: datetime) -> Iterator[Mutation]:
        """What it holds, as what its feed begins with."""
        for key in self._keys():
            held = self._entries[key]
            if held.value is not None:
                yield Mutation(0, key, held.version, "set", held.value, None, None, mutated)

    def fly(self, key: str, ttl: float | None, holder: str, lease: float, now: datetime) -> Flight:
        """A value that is young enough, or the right to compute it (kirby.fly)."""
        held = self._entries.get(key)
        found = None if held is None or held.value is None else _entry(key, held, now)
        value, age = (found.value, found.age) if found is not None else (None, None)
        if age is not None and (ttl is None or age < ttl):
            return Flight(value, age, fresh=True, compute=False)
        by, until = self.flights.get(key, (holder, now))
        if by != holder and until > now:
            return Flight(value, age, fresh=False, compute=False)
        self.flights[key] = holder, now + timedelta(seconds=lease)
        return Flight(value, age, fresh=False, compute=True)

    def land(self, key: str, holder: str) -> None:
        if self.flights.get(key, ("",))[0] == holder:
            del self.flights[key]

    # Changing

    def planned(
        self,
        change: dict[str, Any],
        before: dict[str, Held],
        position: int,
        now: datetime,
    ) -> Mutation | None:
        """What becomes of a change (kirby.append_mutations); None if it only checks.

        ``before``: what the same unit of work did already. Raises Conflict, Invalid.
        """
        key, op = change["k"], change["o"]
        held = before.get(key) or self._entries.get(key)
        version = 0 if held is None else held.version
        if change.get("e") is not None and change["e"] != version:
            raise Conflict(
                f"key {key} of state {self.name} was changed by somebody else since it was read"
            )
        if op == "check":
            return None
        value = None
        if op == "merge":
            what = f"key {key} of state {self.name}"
            old = None if held is None else held.value
            value = merges.applied(old, [(name, given) for name, given in change["v"]], what)
            op = "set"
        elif op == "set":
            value = payload.dumps(change.get("v"))
        return Mutation(
            position, key, version + 1, op, value, change.get("p"), change.get("h"), now
        )

    def apply(self, mutation: Mutation) -> None:
        self.changed = True
        if mutation.key not in self._entries:
            self._sorted = None
        self._entries[mutation.key] = Held(mutation.version, mutation.value, mutation.recorded_at)

    # The past

    def versions(self, path: Path, key: str) -> list[Version]:
        """Those of a key, oldest first; ``path`` has what the run has changed."""
        first = [
            Version(1, "set", text, 0, None, None, None, self.start)
            for name, text in self._initial()
            if name == key
        ]
        return first + [
            Version(
                each.version, each.op, each.value, each.position,
                None, each.parents, each.headers, each.recorded_at,
            )
            for each in mutations(path)
            if each.key == key
        ]  # fmt: skip

    def past(self, path: Path, when: datetime | None, position: int | None) -> Iterator[Past]:
        """What it held at a moment or a position, by key. What was given was always there."""
        found = {key: Past(key, 1, text, 0, None, self.start) for key, text in self._initial()}
        for each in mutations(path):
            if position is not None and each.position > position:
                break
            if when is not None and each.recorded_at > when:
                break
            if each.value is None:
                found.pop(each.key, None)
            else:
                at, recorded = each.position, each.recorded_at
                found[each.key] = Past(each.key, each.version, each.value, at, None, recorded)
        return (found[key] for key in sorted(found))


def _entry(key: str, held: Held, now: datetime) -> Entry:
    age = max(0.0, (now - held.at).total_seconds())
    return Entry(key, held.version, held.value is None, held.value, age)


def mutations(path: Path) -> Iterator[Mutation]:
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            found = payload.loads(line)
            deleted = found["op"] == "delete"
            yield Mutation(
                found["position"],
                found["key"],
                found["version"],
                found["op"],
                None if deleted else payload.dumps(found["value"]),
                found["parents"],
                found["headers"],
                datetime.fromisoformat(found["recorded_at"]),
            )

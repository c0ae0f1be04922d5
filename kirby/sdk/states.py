"""States in a script's words: a mapping whose every change is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from kirby.core import merges, payload, states, topics
from kirby.core.errors import Conflict, Invalid
from kirby.sdk import past, session, shadows, work
from kirby.sdk.cached import Cached, cached
from kirby.sdk.topics import Topic
from kirby.sdk.transactions import transaction

P = ParamSpec("P")
T = TypeVar("T")

MAX_TRIES = 100
PIECE = 1000  # changes of one document of a bulk load
MISSING = object()


class State(Mapping[str, Any]):
    """A computed table of this process's environment: keys to JSON values.

    In a handler, a consume loop or a transaction, changes join the unit of work, and a key that was
    read is checked: if somebody else changed it meanwhile, nothing is written and the handler runs
    again. Outside, each change is written at once. Values are copies: to change one, set it again.
    """

    def __init__(self, name: str, columns: Iterable[states.Column] = ()) -> None:
        self.name = states.checked_name(shadows.state(name))
        self._columns = list(columns)  # of its views; declared at its first use

    def __repr__(self) -> str:
        return f"kirby.state({self.name!r})"

    def __getitem__(self, key: str) -> Any:
        value = self._read(key)[1]
        if value is None:
            raise KeyError(key)
        return payload.loads(value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read(key)[1] is not None

    def __setitem__(self, key: str, value: Any) -> None:
        self._write(key, "set", payload.dumps(value, f"the value of {key!r} in state {self.name}"))

    def __delitem__(self, key: str) -> None:
        if self._read(key)[1] is None:
            raise KeyError(key)
        self._write(key, "delete", None)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._items())

    def __len__(self) -> int:
        return sum(1 for _ in self._items())

    def items(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        stop: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Any:
        """The keys that begin with ``prefix`` and their values, in the order of the keys.

        ``start`` and ``stop`` are a range, from the one up to the other and without it.
        ``reverse``: from the last one backwards. ``limit``: no more than so many.
        """
        if limit is not None and limit < 0:
            raise Invalid(f"limit is {limit}: how many keys at the most")
        scan = Scan(prefix, start, stop, reverse, limit)
        return [(key, payload.loads(value)) for key, value in self._items(scan)]

    def _session(self) -> session.Session:
        """This thread's session; the columns are declared there first, once."""
        mine = session.get()
        if self._columns:
            mine.ask(lambda: states.declare(mine.connection, self.name, self._columns))
            self._columns = []
        return mine

    # Versions

    def history(self, key: str, limit: int | None = None) -> list[past.Version]:
        """Every version of a key, newest first. What this unit of work changed is not there yet."""
        return past.versions(self.name, key, limit)

    def at(self, moment: datetime | int) -> past.StateAt:
        """The state as it was at a moment (without a zone: local time), or at a position."""
        return past.StateAt(self.name, moment)

    def version(self, key: str) -> int:
        """The version of a key, to be given to ``put``; 0 if it was never written.

        In a unit of work it depends on it from then on, as on what it reads.
        """
        return self._read(key, version=True)[0]

    def put(self, key: str, value: Any, *, version: int | None = None) -> None:
        """Set a key, with ``version`` only if that is still its version (0: never written).

        Raises Conflict if it is not; in a unit of work at its end.
        """
        if version is None:
            self[key] = value
            return
        work.checked_key(key)
        text = payload.dumps(value, f"the value of {key!r} in state {self.name}")
        if (mine := work.current()) is not None:
            mine.write(self.name, key, "set", text)
            mine.change(self.name, key, replace(mine.changes[self.name, key], read=version))
            return
        alone = work.Work()
        alone.change(self.name, key, work.Change("set", text, read=version))
        self._session().commit(alone)

    # Changes that do not conflict

    def increment(self, key: str, by: Any = 1) -> None:
        """Add to a number (0 if there is none), or to fields of an object: ``{"flights": 1}``.

        As all that follow, it is applied by the database, to whatever the value is by then: it
        never conflicts with others that do the same, and nothing is lost. In a unit of work it is
        written with everything else, several as one; whoever reads the key after it there depends
        on its value, as after any read. Raises Invalid if the value is of another kind.
        """
        self._merge(key, "increment", by)

    def maximum(self, key: str, value: Any) -> None:
        """Keep the greater of the value and this one: a number, a text, or an object of those."""
        self._merge(key, "maximum", value)

    def minimum(self, key: str, value: Any) -> None:
        """Keep the lesser of the value and this one: a number, a text, or an object of those."""
        self._merge(key, "minimum", value)

    def merge(self, key: str, fields: dict[str, Any]) -> None:
        """Set fields of an object; its others stay as they are."""
        self._merge(key, "merge", fields)

    def append(self, key: str, *items: Any) -> None:
        """Put items at the end of a list."""
        self._merge(key, "append", list(items))

    def add(self, key: str, *items: Any) -> None:
        """Put items at the end of a list, those that it does not have yet."""
        self._merge(key, "add", list(items))

    def load(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> int:
        """Set many keys, all or none, and return how many; the last one of a key counts."""
        pairs = items.items() if isinstance(items, Mapping) else items
        values = {}
        for key, value in pairs:
            work.checked_key(key)
            values[key] = payload.dumps(value, f"the value of {key!r} in state {self.name}")
        if (mine := work.current()) is not None:
            with mine.part():
                for key, text in values.items():
                    mine.write(self.name, key, "set", text)
        elif values:
            self._load(values)
        return len(values)

    def cached(
        self,
        key: str | Callable[..., str] | None = None,
        *,
        ttl: float | timedelta | None = None,
        single_flight: bool = True,
        stale: float | timedelta = 0,
    ) -> Callable[[Callable[P, T]], Cached[P, T]]:
        """Keep the results of a function in this state, for all processes: a decorator.

        ``key`` names a result: "{carrier}" with the names of the parameters, or a function of the
        arguments; all of them by default. Older than ``ttl`` (seconds; None: never too old), it is
        computed again, with ``single_flight`` by one of all processes at a time: the others wait,
        or take the old result if that is at most ``stale`` seconds too old. It is written at once,
        whatever unit of work the caller is in. Results are JSON.
        """
        return cached(self.name, key, ttl, single_flight, stale)

    @property
    def changes(self) -> Topic:
        """The feed: a topic with a message for every change, in the transaction of the change.

        A message has the key of the entry and ``{"key", "op", "version", "value"}``. The topic is
        made when somebody first subscribes to it; what the state held then comes first.
        """
        return Topic(f"state.{self.name}")

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Delete a key and return its value, or ``default`` if there is none."""
        try:
            value = self[key]
        except KeyError:
            if default is MISSING:
                raise
            return default
        del self[key]
        return value

    def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Replace the value of a key (``default`` if it has none) by ``fn(value)``, and return it.

        A concurrent change is never lost: outside a unit of work ``fn`` is called again with the
        newer value; inside, the handler runs again.
        """
        if work.current() is not None:
            self[key] = value = fn(self.get(key, default))
            return value
        return self._update_alone(key, fn, default)

    def _update_alone(self, key: str, fn: Callable[[Any], Any], default: Any) -> Any:
        for _ in range(MAX_TRIES):
            try:
                with transaction():
                    self[key] = value = fn(self.get(key, default))
                return value
            except Conflict:
                continue
        raise Conflict(self._too_fast(key))

    def _read(self, key: str, *, version: bool = False) -> tuple[int, str | None]:
        """The version and the JSON text of a key (None: absent), as this unit of work sees it.

        What it set itself depends on no version, unless it is asked for.
        """
        work.checked_key(key)
        unit = work.current()
        known = None if unit is None else unit.changes.get((self.name, key))
        if known is not None:
            needed = known.op == "merge" or (version and known.read is None)
            if not needed:
                return known.read or 0, known.value
        mine = self._session()
        found = mine.ask(lambda: states.get(mine.connection, self.name, [key]))
        read, value = (found[0].version, found[0].value) if found else (0, None)
        if unit is not None:
            seen = self._seen(key, known, read, value)
            unit.change(self.name, key, seen)
            value = seen.value
        return read, value

    def _seen(
        self, key: str, known: work.Change | None, version: int, value: str | None
    ) -> work.Change:
        """What is known of a key once it was read: what was merged into it is its value now."""
        if known is None:
            return work.Change("check", value, read=version)
        if known.op == "merge":
            value = merges.applied(value, known.merges, f"key {key} of state {self.name}")
            return replace(known, op="set", value=value, read=version, merges=())
        return replace(known, read=version)

    def _write(self, key: str, op: str, value: str | None) -> None:
        work.checked_key(key)
        if (mine := work.current()) is not None:
            mine.write(self.name, key, op, value)
            return
        alone = work.Work()
        alone.write(self.name, key, op, value)
        for _ in range(MAX_TRIES):  # it depends on nothing, so it can always be tried again
            with contextlib.suppress(Conflict):
                self._session().commit(alone)
                return
        raise Conflict(self._too_fast(key))

    def _merge(self, key: str, op: str, given: Any) -> None:
        work.checked_key(key)
        given = merges.checked(op, given, f"what is merged into {key!r} of state {self.name}")
        if (mine := work.current()) is not None:
            if (self.name, key) in work.CAREFUL:
                self._read(key)
            mine.merge(self.name, key, op, given)
            return
        alone = work.Work()
        alone.merge(self.name, key, op, given)
        for _ in range(MAX_TRIES):  # who sets a new key at the same moment may be in its way
            with contextlib.suppress(Conflict):
                self._session().commit(alone)
                return
        raise Conflict(self._too_fast(key))

    def _load(self, values: dict[str, str]) -> None:
        mine = self._session()
        pairs = [work.mutation(key, work.Change("set", text)) for key, text in values.items()]
        pieces = [pairs[first : first + PIECE] for first in range(0, len(pairs), PIECE)]
        documents = [work.document({self.name: piece}) for piece in pieces]
        for _ in range(MAX_TRIES):
            with contextlib.suppress(Conflict):
                mine.notifier.notify(topics.change_all(mine.connection, documents))
                return
        raise Conflict(f"the keys of state {self.name} change faster than they can be loaded")

    def _too_fast(self, key: str) -> str:
        return f"key {key!r} of state {self.name} changes faster than it can be written"

    def _items(self, scan: Scan | None = None) -> Iterator[tuple[str, str]]:
        """What is stored, overlaid with what this unit of work knows; it has read all of them."""
        scan = scan or Scan()
        unit = work.current()
        if unit is None:
            stored = self._stored(scan, 0)
            return ((each.key, each.value) for each in stored if each.value is not None)
        known = [key for name, key in unit.changes if name == self.name and scan.has(key)]
        for key in known:
            if unit.changes[self.name, key].op == "merge":
                self._read(key)
        found = self._stored(scan, len(known))
        return self._overlaid(unit, scan, found, set(known))

    def _stored(self, scan: Scan, more: int) -> list[states.Entry]:
        """The entries of the database, and so many more as may turn out to be deleted here."""
        mine = self._session()
        limit = None if scan.limit is None else scan.limit + more
        return mine.ask(
            lambda: list(
                states.items(
                    mine.connection,
                    self.name,
                    scan.prefix,
                    start=scan.start,
                    stop=scan.stop,
                    reverse=scan.reverse,
                    limit=limit,
                )
            )
        )

    def _overlaid(
        self, unit: work.Work, scan: Scan, found: list[states.Entry], known: set[str]
    ) -> Iterator[tuple[str, str]]:
        stored = {entry.key: entry for entry in found}
        shown: list[tuple[str, str]] = []
        for key in sorted(stored.keys() | known, reverse=scan.reverse):
            if len(shown) == scan.limit:
                break
            if key not in known:
                entry = stored[key]
                unit.change(self.name, key, work.Change("check", entry.value, read=entry.version))
            if (value := unit.changes[self.name, key].value) is not None:
                shown.append((key, value))
        return iter(shown)


@dataclass(frozen=True, slots=True)
class Scan:
    """Which keys are asked for, and from which end."""

    prefix: str = ""
    start: str | None = None
    stop: str | None = None
    reverse: bool = False
    limit: int | None = None

    def has(self, key: str) -> bool:
        """In the order of the code points, as in the database."""
        return (
            key.startswith(self.prefix)
            and (self.start is None or key >= self.start)
            and (self.stop is None or key < self.stop)
        )


def state(name: str, *, columns: dict[str, str] | None = None, index: Iterable[str] = ()) -> State:
    """A state of this process's environment; made at its first change.

    ``columns`` are what its SQL views show of its values beside ``value``: {"minutes": "integer",
    "city": "text=address.city"}; a type is integer, number, text, boolean, time, date or json, and
    what does not fit is NULL. Those of ``index`` can be searched for quickly.
    """
    if columns is None:
        return State(name)
    if not isinstance(columns, dict):
        raise Invalid(f"columns are a dictionary of names and types, not {columns!r:.60}")
    indexed = list(index)
    for each in indexed:
        if each not in columns:
            raise Invalid(f"there is no column {each} to have an index")
    return State(name, [states.column(key, kind, key in indexed) for key, kind in columns.items()])

"""States in a script's words: a mapping whose every change is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kirby.core import payload, states
from kirby.core.errors import Conflict
from kirby.sdk import session, work
from kirby.sdk.transactions import transaction

MAX_TRIES = 100
MISSING = object()


class State(Mapping[str, Any]):
    """A computed table of this process's environment: keys to JSON values.

    In a handler, a consume loop or a transaction, changes join the unit of work, and a key that was
    read is checked: if somebody else changed it meanwhile, nothing is written and the handler runs
    again. Outside, each change is written at once. Values are copies: to change one, set it again.
    """

    def __init__(self, name: str) -> None:
        self.name = states.checked_name(name)

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
        return (key for key, _ in self._items(""))

    def __len__(self) -> int:
        return sum(1 for _ in self._items(""))

    def items(self, prefix: str = "") -> Any:
        """The keys that begin with ``prefix`` and their values, in the order of the keys."""
        return [(key, payload.loads(value)) for key, value in self._items(prefix)]

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

    def _read(self, key: str) -> tuple[int, str | None]:
        """The version and the JSON text of a key (None: absent), as this unit of work sees it."""
        work.checked_key(key)
        unit = work.current()
        if unit is not None and (known := unit.changes.get((self.name, key))) is not None:
            return known.read or 0, known.value
        mine = session.get()
        found = mine.ask(lambda: states.get(mine.connection, self.name, [key]))
        version, value = (found[0].version, found[0].value) if found else (0, None)
        if unit is not None:
            unit.change(self.name, key, work.Change("check", value, read=version))
        return version, value

    def _write(self, key: str, op: str, value: str | None) -> None:
        work.checked_key(key)
        if (mine := work.current()) is not None:
            mine.write(self.name, key, op, value)
            return
        alone = work.Work()
        alone.write(self.name, key, op, value)
        for _ in range(MAX_TRIES):  # it depends on nothing, so it can always be tried again
            with contextlib.suppress(Conflict):
                session.get().commit(alone)
                return
        raise Conflict(self._too_fast(key))

    def _too_fast(self, key: str) -> str:
        return f"key {key!r} of state {self.name} changes faster than it can be written"

    def _items(self, prefix: str) -> Iterator[tuple[str, str]]:
        """What is stored, overlaid with what this unit of work knows; it has read all of them."""
        mine = session.get()
        found = mine.ask(lambda: list(states.items(mine.connection, self.name, prefix)))
        if (unit := work.current()) is None:
            return ((entry.key, entry.value) for entry in found if entry.value is not None)
        for entry in found:
            if (self.name, entry.key) not in unit.changes:
                read = work.Change("check", entry.value, read=entry.version)
                unit.change(self.name, entry.key, read)
        known = sorted(
            (key, change.value)
            for (name, key), change in unit.changes.items()
            if name == self.name and key.startswith(prefix)
        )
        return ((key, value) for key, value in known if value is not None)


def state(name: str) -> State:
    """A state of this process's environment; made at its first change."""
    return State(name)

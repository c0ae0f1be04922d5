"""A state as it was, and the versions of a key, in a script's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kirby.core import payload, states
from kirby.core.errors import Invalid
from kirby.sdk import session, work


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key. ``deleted``: it is the key's deletion, and ``value`` is None.

    ``parents`` are the positions of the messages that it was made of.
    """

    version: int
    value: Any
    deleted: bool
    position: int
    at: datetime
    run_id: int | None
    parents: tuple[int, ...] = ()
    headers: dict[str, Any] = field(default_factory=dict)


def versions(state: str, key: str, limit: int | None) -> list[Version]:
    """The versions of a key, newest first; all of them without a ``limit``."""
    work.checked_key(key)
    mine = session.get()
    found: list[Version] = []
    before: int | None = None
    while limit is None or len(found) < limit:
        size = states.PAGE if limit is None else min(states.PAGE, limit - len(found))
        page = mine.ask(
            lambda before=before, size=size: states.history(  # type: ignore[misc]
                mine.connection, state, key, before=before, limit=size
            )
        )
        found += [_version(each) for each in page]
        if len(page) < size:
            break
        before = page[-1].position
    return found


def _version(each: states.Version) -> Version:
    return Version(
        each.version,
        None if each.value is None else payload.loads(each.value),
        each.op == "delete",
        each.position,
        each.recorded_at,
        each.run_id,
        tuple(each.parents or ()),
        each.headers or {},
    )


class StateAt(Mapping[str, Any]):
    """A state as it was at a moment, or at a position of the log: it can only be read.

    What it says of the past stays so; what transactions write that are open at that moment may
    still come.
    """

    def __init__(self, name: str, moment: datetime | int) -> None:
        self.name = states.checked_name(name)
        if isinstance(moment, datetime):
            moment = moment.astimezone()
        elif not isinstance(moment, int) or isinstance(moment, bool):
            raise Invalid(
                f"a state is asked for at a datetime, or at a position (a whole number), not at"
                f" {moment!r:.100}"
            )
        self.moment = moment

    def __repr__(self) -> str:
        return f"kirby.state({self.name!r}).at({self.moment!r})"

    def __getitem__(self, key: str) -> Any:
        work.checked_key(key)
        for found in self._at(keys=[key]):
            return payload.loads(found.value)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._at(keys=[key]))

    def __iter__(self) -> Iterator[str]:
        return (found.key for found in self._at())

    def __len__(self) -> int:
        return len(self._at())

    def items(self, prefix: str = "") -> Any:
        """The keys that begin with ``prefix`` and their values, in the order of the keys."""
        return [(found.key, payload.loads(found.value)) for found in self._at(prefix=prefix)]

    def values(self) -> Any:
        return [value for _, value in self.items()]

    def version(self, key: str) -> int:
        """Which version of a key it was; 0: it had no value."""
        return next((found.version for found in self._at(keys=[key])), 0)

    def _at(self, keys: list[str] | None = None, prefix: str = "") -> list[states.Past]:
        mine = session.get()
        when = self.moment if isinstance(self.moment, datetime) else None
        position = self.moment if isinstance(self.moment, int) else None
        return mine.ask(
            lambda: list(
                states.at(
                    mine.connection,
                    self.name,
                    when=when,
                    position=position,
                    keys=keys,
                    prefix=prefix,
                )
            )
        )

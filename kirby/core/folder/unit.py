"""A unit of work on a folder: planned in memory, appended at once, or not at all."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from kirby.core import payload
from kirby.core.errors import Invalid
from kirby.core.folder import files
from kirby.core.folder.files import Stored
from kirby.core.folder.log import Topic
from kirby.core.folder.run import HISTORY, Run
from kirby.core.folder.states import Held, Mutation, State


class Unit:
    """Messages and changes of states (documents of kirby.write) that become visible together."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._now = run.now()
        self._position = run.position
        self._messages: list[tuple[Topic, Stored, bytes]] = []
        self._mutations: list[tuple[State, Mutation]] = []
        self._changed: dict[str, dict[str, Held]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._answers: list[tuple[Topic, int, int]] = []
        self.positions: list[int] = []

    def add(self, messages: str, mutations: str) -> None:
        """Raises Conflict, Invalid."""
        for name, items in _read(messages).items():
            found = items["m"] if isinstance(items, dict) else items
            topic = self._run.topic(name)
            self.positions += [self._publish(topic, item) for item in found]
        for name, changes in _read(mutations).items():
            for change in sorted(changes, key=lambda change: str(change["k"])):
                self._change(self._run.state(name), change)

    def _publish(self, topic: Topic, item: dict[str, Any]) -> int:
        """The position of a message, or of the one that was published under its id before."""
        id = item.get("i")
        if id is not None:
            known = topic.produced.get(id) or self._ids.get((topic.name, id))
            if known is not None:
                return known
        stored = Stored(
            self._next(),
            item.get("k"),
            item.get("v"),
            item.get("h"),
            item.get("p"),
            self._now,
            None,
            id,
            _moment(item.get("d")),
            _moment(item.get("x")),
        )
        self._messages.append((topic, stored, stored.line()))
        if id is not None:
            self._ids[topic.name, id] = stored.position
        if item.get("r") is not None:
            self._answers.append((topic, item["r"], stored.position))
        return stored.position

    def _change(self, state: State, change: dict[str, Any]) -> None:
        before = self._changed.setdefault(state.name, {})
        mutation = state.planned(change, before, self._position + 1, self._now)
        if mutation is None:
            return
        self._next()
        before[mutation.key] = Held(mutation.version, mutation.value, self._now)
        self._mutations.append((state, mutation))
        if state.fed:
            self.feed(state, mutation)

    def feed(self, state: State, mutation: Mutation) -> None:
        """Publish a change of a state to the topic that it feeds."""
        item = {"k": mutation.key, "v": mutation.change, "h": mutation.headers}
        parents = [mutation.position] if mutation.position else None
        self._publish(self._run.topic(f"state.{state.name}"), {**item, "p": parents})

    def _next(self) -> int:
        self._position += 1
        return self._position

    def commit(self) -> list[int]:
        """Write it; the ids of the topics that were written to. Raises BadFolder."""
        lines: dict[str, list[bytes]] = {}
        for topic, _, line in self._messages:
            lines.setdefault(f"{topic.name}{files.LINES}", []).append(line)
        for state, mutation in self._mutations:
            lines.setdefault(f"{HISTORY}/{state.name}{files.LINES}", []).append(mutation.line())
        if lines:
            self._run.append({name: b"".join(each) for name, each in lines.items()})
        self._apply()
        return sorted({topic.id for topic, _, _ in self._messages})

    def _apply(self) -> None:
        run = self._run
        run.position, out = self._position, run.out
        for topic, stored, line in self._messages:
            topic.wrote(out, stored, len(line))
            if stored.id is not None:
                topic.produced[stored.id] = stored.position
        for topic, task, position in self._answers:
            topic.answers[task] = position
        for state, mutation in self._mutations:
            state.apply(mutation)


def _read(document: str) -> dict[str, Any]:
    found: dict[str, Any] = payload.loads(document)
    return found


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{json.dumps(text)} is not a time") from None

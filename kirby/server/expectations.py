"""What came out against what was expected: matchers, and differences that a person can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kirby.core.errors import Invalid
from kirby.core.folder import files

VOLATILE = frozenset({"via", "traceparent", "tracestate", "origin", "replay"})  # of headers
COMPARED = ("key", "value", "headers")
MOST = 20  # differences of one topic or state that are shown
SHOWN = 80  # characters of a value
ABSENT = object()
Found = tuple[tuple[str, ...], Any, Any]  # where, what was expected, and what is there


@dataclass(frozen=True, slots=True)
class Rules:
    """``ignore``: dotted paths that are not compared, ``*`` for any name or number in between.
    ``unordered``: topics whose messages may come in any order."""

    ignore: tuple[str, ...] = ()
    unordered: frozenset[str] = frozenset()

    def ignores(self, path: tuple[str, ...]) -> bool:
        return any(_fits(pattern.split("."), path) for pattern in self.ignore)


def _fits(pattern: list[str], path: tuple[str, ...]) -> bool:
    together = zip(pattern, path, strict=False)
    return len(pattern) == len(path) and all(one in ("*", other) for one, other in together)


# Matchers


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MATCHERS: dict[str, Callable[[Any], bool]] = {
    "<any>": lambda value: True,
    "<time>": _is_time,
    "<uuid>": _is_uuid,
    "<number>": _is_number,
    "<string>": lambda value: isinstance(value, str),
}
REGEX, ABOUT = "<regex:", "<about:"


def matcher(expected: Any) -> Callable[[Any], bool] | None:
    """What an expected value stands for, if it stands for others. Raises Invalid."""
    if not isinstance(expected, str) or not (expected.startswith("<") and expected.endswith(">")):
        return None
    if expected.startswith(REGEX):
        return _regex(expected[len(REGEX) : -1])
    if expected.startswith(ABOUT):
        return _about(expected[len(ABOUT) : -1])
    return MATCHERS.get(expected)


def _regex(pattern: str) -> Callable[[Any], bool]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise Invalid(f"{REGEX}{pattern}> is no regular expression: {error}") from None
    return lambda value: isinstance(value, str) and bool(compiled.fullmatch(value))


def _about(text: str) -> Callable[[Any], bool]:
    """A number that differs by a millionth of it at most."""
    try:
        number = float(text)
    except ValueError:
        raise Invalid(f"{ABOUT}{text}> is no number") from None
    return lambda value: _is_number(value) and abs(value - number) <= abs(number) * 1e-6


# Differences


def differences(
    name: str, expected: dict[str, Any] | list[Any], made: Any, rules: Rules
) -> Iterator[str]:
    """A line for each, the first ``MOST`` of them. Raises Invalid for a bad matcher."""
    found = (
        _of_state(name, expected, made, rules)
        if isinstance(expected, dict)
        else _of_topic(name, expected, made, rules)
    )
    for number, line in enumerate(found):
        if number == MOST:
            yield f"{name}: … and more"
            return
        yield line


def _of_state(
    name: str, expected: dict[str, Any], made: dict[str, Any], rules: Rules
) -> Iterator[str]:
    for key in sorted(expected.keys() | made.keys()):
        wanted, found = expected.get(key, ABSENT), made.get(key, ABSENT)
        for path, one, other in _parts((key,), wanted, found, rules, ("value",)):
            where = ".".join(path[1:])
            yield f"{name}: key {key!r}{f', {where}' if where else ''}: {_versus(one, other)}"


def _of_topic(name: str, expected: list[Any], made: list[Any], rules: Rules) -> Iterator[str]:
    pairs = _paired(name, expected, made, rules)
    for number, (wanted, found) in enumerate(pairs, 1):
        if wanted is ABSENT:
            yield f"{name}: message {number} was not expected: {_shown(_shape(found))}"
        elif found is ABSENT:
            yield f"{name}: message {number} is missing: {_shown(_shape(wanted))}"
        else:
            for path, one, other in _of_message(wanted, found, rules):
                yield f"{name}: message {number}, {'.'.join(path)}: {_versus(one, other)}"


def _paired(
    name: str, expected: list[Any], made: list[Any], rules: Rules
) -> Iterator[tuple[Any, Any]]:
    if name in rules.unordered:
        expected, made = _aligned(expected, made, rules)
    for number in range(max(len(expected), len(made))):
        yield (
            expected[number] if number < len(expected) else ABSENT,
            made[number] if number < len(made) else ABSENT,
        )


def _aligned(expected: list[Any], made: list[Any], rules: Rules) -> tuple[list[Any], list[Any]]:
    """Those that fit first, side by side; what is left over on both sides last."""
    left = list(made)
    fitting: list[tuple[Any, Any]] = []
    rest: list[Any] = []
    for wanted in expected:
        for at, found in enumerate(left):
            if not [*_of_message(wanted, found, rules)]:
                fitting.append((wanted, left.pop(at)))
                break
        else:
            rest.append(wanted)
    return [one for one, _ in fitting] + rest, [other for _, other in fitting] + left


def _of_message(wanted: Any, found: Any, rules: Rules) -> Iterator[Found]:
    """Of an envelope what it says of key, value and headers; of a payload the value alone."""
    one, other = _shape(wanted), _shape(found)
    for member in COMPARED:
        if member in one:
            yield from _parts((member,), one[member], other.get(member), rules)


def _shape(message: Any) -> dict[str, Any]:
    """A message without what is different in every run."""
    if not files.is_envelope(message):
        return {"value": message}
    found = {name: message[name] for name in COMPARED if name in message}
    headers = found.get("headers") or {}
    found["headers"] = {name: each for name, each in headers.items() if name not in VOLATILE}
    return found


def _parts(
    path: tuple[str, ...], wanted: Any, found: Any, rules: Rules, before: tuple[str, ...] = ()
) -> Iterator[Found]:
    """The innermost parts in which two values differ."""
    if rules.ignores(path) or rules.ignores((*before, *path[1:])):
        return
    fits = matcher(wanted)
    if fits is not None:
        if found is ABSENT or not fits(found):
            yield path, wanted, found
    elif isinstance(wanted, dict) and isinstance(found, dict):
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            one, other = wanted.get(name, ABSENT), found.get(name, ABSENT)
            yield from _parts((*path, name), one, other, rules, before)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _parts((*path, str(number)), one, other, rules, before)
    elif not _same(wanted, found):
        yield path, wanted, found


def _same(one: Any, other: Any) -> bool:
    """true is not 1, as in JSON; 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _versus(wanted: Any, found: Any) -> str:
    if wanted is ABSENT:
        return f"{_shown(found)} was not expected"
    if found is ABSENT:
        return f"expected {_shown(wanted)}, it is missing"
    return f"expected {_shown(wanted)}, got {_shown(found)}"


def _shown(value: Any) -> str:
    text = files.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


# What --update writes


def kept(expected: Any, made: Any, *, is_state: bool) -> Any:
    """What came out, in the shape of expectations; what fits a matcher stays one."""
    if is_state:
        old = expected or {}
        return {key: _kept(old.get(key, ABSENT), value) for key, value in made.items()}
    old = expected or []
    return [
        _kept_message(old[number] if number < len(old) else ABSENT, each)
        for number, each in enumerate(made)
    ]


def _kept_message(old: Any, made: Any) -> dict[str, Any]:
    shape = _shape(made)
    if not shape.get("headers"):
        shape.pop("headers", None)
    if old is ABSENT:
        return shape
    before = _shape(old)
    return {name: _kept(before.get(name, ABSENT), each) for name, each in shape.items()}


def _kept(old: Any, made: Any) -> Any:
    if old is not ABSENT and (fits := matcher(old)) is not None and fits(made):
        return old
    if isinstance(old, dict) and isinstance(made, dict):
        return {name: _kept(old.get(name, ABSENT), each) for name, each in made.items()}
    if isinstance(old, list) and isinstance(made, list):
        pairs = zip([*old, *[ABSENT] * len(made)], made, strict=False)
        return [_kept(one, other) for one, other in pairs]
    return made

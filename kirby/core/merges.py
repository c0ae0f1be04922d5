"""Merges: changes of a value that need not know it. The database applies them under the key's lock.

Here is the same in Python (kirby.merged is its twin), for a unit of work that reads what it merged,
and how several merges become one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

from kirby.core import payload
from kirby.core.errors import Invalid

Merge = tuple[str, Any]

COUNTING = ("increment", "maximum", "minimum")  # of numbers; the last two of texts as well
LISTS = ("append", "add")
EXACT = Context(prec=2000)
KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


def checked(op: str, given: Any, what: str) -> Any:
    """A copy of what is to be merged. Raises Invalid unless it suits ``op``."""
    given = payload.loads(payload.dumps(given, what))
    if op in LISTS and not isinstance(given, list):
        raise Invalid(f"{op} takes a list, not a {_kind(given)}")
    if op == "merge" and not isinstance(given, dict):
        raise Invalid(f"merge takes an object, not a {_kind(given)}")
    if op in COUNTING:
        for part in given.values() if isinstance(given, dict) else [given]:
            if not _is_number(part) and (op == "increment" or not isinstance(part, str)):
                raise Invalid(f"{op} by {part!r:.60}: that is no number")
    return given


def combined(merges: tuple[Merge, ...], op: str, given: Any) -> tuple[Merge, ...]:
    """These merges and one more, as few as possible."""
    if merges and merges[-1][0] == op:
        one = _combined(op, merges[-1][1], given)
        if one is not None:
            return (*merges[:-1], (op, one))
    return (*merges, (op, given))


def _combined(op: str, old: Any, new: Any) -> Any:
    """Two of a kind as one; None if they cannot be."""
    if op == "merge":
        return {**old, **new}
    if op in LISTS:
        return old + new
    if isinstance(old, dict) and isinstance(new, dict):
        parts = dict(old)
        for field, part in new.items():
            if (one := part if field not in old else _one(op, old[field], part)) is None:
                return None
            parts[field] = one
        return parts
    return None if isinstance(old, dict) or isinstance(new, dict) else _one(op, old, new)


def _one(op: str, old: Any, new: Any) -> Any:
    texts = isinstance(old, str) and isinstance(new, str)
    if not texts and not (isinstance(old, int) and isinstance(new, int)):
        return None  # fractions are left to the database, which is exact
    return old + new if op == "increment" else _part(op, old, new, "")


def applied(value: str | None, merges: Sequence[Merge], what: str) -> str:
    """A value (JSON text; None: there is none yet) after merges. Raises Invalid, about ``what``."""
    found = None if value is None else payload.loads(value)
    absent = value is None
    for op, given in merges:
        found = _applied(op, found, absent, given, what)
        absent = False
    return payload.dumps(found, what)


def _applied(op: str, value: Any, absent: bool, given: Any, what: str) -> Any:
    if op in COUNTING and not isinstance(given, dict):
        return given if absent else _part(op, value, given, what)
    needed: type[Any] = list if op in LISTS else dict
    value = needed() if absent else value
    if not isinstance(value, needed):
        raise Invalid(f"{what} is of kind {_kind(value)}: {op} needs an {KINDS[needed]}")
    if op == "merge":
        return {**value, **given}
    if op == "append":
        return value + given
    if op == "add":
        return _added(value, given)
    return value | {
        field: _part(op, value[field], part, f"{field} of {what}") if field in value else part
        for field, part in given.items()
    }


def _part(op: str, value: Any, given: Any, what: str) -> Any:
    text = isinstance(given, str)
    if isinstance(value, str) != text or not (text or _is_number(value)):
        kind = "string" if text else "number"
        raise Invalid(
            f"{what} is {json.dumps(value, ensure_ascii=False)[:60]}, not a {kind}: {op} needs one"
        )
    if op == "increment":
        return _sum(value, given)
    smaller = value < given if text else _exact(value) < _exact(given)
    return given if smaller == (op == "maximum") else value


def _sum(value: Any, given: Any) -> Any:
    """Fractions are added as they are written, as the database does: 0.1 + 0.2 is 0.3."""
    if isinstance(value, int) and isinstance(given, int):
        return value + given
    return float(EXACT.add(_exact(value), _exact(given)))


def _added(value: list[Any], given: list[Any]) -> list[Any]:
    found = list(value)
    for item in given:
        if not any(_same(item, other) for other in found):
            found.append(item)
    return found


def _same(one: Any, other: Any) -> bool:
    """As in JSON: true is not 1, and 1 is 1.0."""
    if _is_number(one) and _is_number(other):
        return _exact(one) == _exact(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _exact(number: Any) -> Decimal:
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "number")

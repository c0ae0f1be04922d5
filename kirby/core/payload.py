"""What may be a message or a value of a state: JSON that PostgreSQL gives back unchanged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from kirby.core.errors import Invalid

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 500  # Python's own reader gives up at less than a thousand
MAX_INTEGER = 10**4300  # from here on Python refuses to write and read the digits
SHOWN = 60  # characters of a key that a message shows
CONTAINERS = (dict, list, tuple)
SCALARS = frozenset({str, int, float, bool, type(None)})

_STRING_OR_EXPONENT = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+')


def _writer(encoder: json.JSONEncoder) -> Callable[[Any, int], Iterable[str]]:
    """What ``encoder.encode`` makes anew for each value, made once: of a small one that is half the
    time. Where CPython's accelerator is not there, its own words."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _: encoder.iterencode(value)
    found: Callable[[Any, int], Iterable[str]] = make(
        None, encoder.default, json.encoder.encode_basestring_ascii, encoder.indent,
        encoder.key_separator, encoder.item_separator, encoder.sort_keys, encoder.skipkeys,
        encoder.allow_nan,
    )  # fmt: skip
    return found


_chunks = _writer(json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False))


def dumps(value: Any, what: str = "the payload") -> str:
    """Return ``value`` as JSON text of at most 16 MB; read back, it equals the value.

    Raises Invalid, with the path of the offending part, for what JSON, PostgreSQL's jsonb or
    another reader cannot hold: other types, NaN and infinities, the NUL character, lone surrogates,
    integers of more than 4300 digits, keys that are not strings, nesting of more than 500 levels.
    """
    try:
        text = "".join(_chunks(value, 0))
    except (TypeError, ValueError, RecursionError, OverflowError):
        fault = _fault(value) or "it contains something that JSON does not have"
        raise Invalid(f"{what} cannot be stored: {fault}") from None
    suspect = "\\u0000" in text or "\\ud" in text or not _is_plain(value)
    if suspect and (fault := _fault(value)):
        raise Invalid(f"{what} cannot be stored: {fault}")
    if "e+" in text:
        text = _STRING_OR_EXPONENT.sub(_without_exponent, text)
    if len(text) > MAX_BYTES:
        raise Invalid(f"{what} is {len(text):,} bytes of JSON, the most is {MAX_BYTES:,} (16 MB)")
    return text


def loads(text: str | bytes) -> Any:
    """Read what is stored. An SQL client may have stored integers of any length: they are exact."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))


def _without_exponent(found: re.Match[str]) -> str:
    """jsonb turns 1e+23 into an integer, which is another number; 99…2.0 stays what it is."""
    text = found[0]
    return text if text[0] == '"' else format(float(text), ".1f")


def _is_plain(value: Any) -> bool:
    """Whether all keys are strings and the nesting is bounded; level by level, and quick."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            parts: Iterable[Any] = item
            if isinstance(item, dict):
                for key in item:
                    if type(key) is not str and not isinstance(key, str):
                        return False
                parts = item.values()
            elif not isinstance(item, CONTAINERS):
                continue
            for part in parts:
                if type(part) not in SCALARS:
                    below.append(part)
        if not below:
            return True
        level = below
    return False


def _fault(value: Any) -> str:
    """Say what in ``value`` cannot be stored, and where; empty if nothing is wrong."""
    open_parts = [iter([(value, "value")])]  # one for each level, since recursion has its bounds
    while open_parts:
        for item, path in open_parts[-1]:
            if fault := _own_fault(item, path, len(open_parts)):
                return fault
            if isinstance(item, CONTAINERS):
                open_parts.append(_parts(item, path))
                break
        else:
            open_parts.pop()
    return ""


def _own_fault(value: Any, path: str, depth: int) -> str:
    """What is wrong with this value itself, its parts aside."""
    if isinstance(value, str):
        return _text_fault(value, path)
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path} is {value}, which JSON does not have"
    if isinstance(value, int):
        return f"{path} has more than 4300 digits" if abs(value) >= MAX_INTEGER else ""
    if isinstance(value, CONTAINERS):
        if depth > MAX_DEPTH:
            return f"{path[:SHOWN]}… is nested more than {MAX_DEPTH} deep, or contains itself"
        return _key_fault(value, path) if isinstance(value, dict) else ""
    return "" if value is None else f"{path} is of type {type(value).__name__}"


def _key_fault(value: dict[Any, Any], path: str) -> str:
    for key in value:
        if not isinstance(key, str):
            kind = type(key).__name__
            return f"a key of {path} is of type {kind}, not a string: {_shown(key)}"
        if fault := _text_fault(key, f"a key of {path}"):
            return fault
    return ""


def _parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return ((item, f"{path}[{_shown(key)}]") for key, item in parts)


def _text_fault(text: str, path: str) -> str:
    if "\0" in text:
        return f"{path} contains the NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"{path} contains a lone surrogate (half a character)"
    return ""


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

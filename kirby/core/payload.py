"""What may be a message or a value of a state: JSON that PostgreSQL gives back unchanged."""

from __future__ import annotations

import json
import math
from typing import Any

from kirby.core.errors import Invalid

MAX_BYTES = 16 * 1024 * 1024


def dumps(value: Any, what: str = "the payload") -> str:
    """Return ``value`` as JSON text of at most 16 MB.

    Raises Invalid, with the path of the offending part, for what JSON or PostgreSQL's jsonb cannot
    hold: other types, NaN and infinities, the NUL character, lone surrogates, numbers of thousands
    of digits, keys that are not strings.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError, OverflowError):
        raise Invalid(f"{what} is not JSON: {_fault(value, 'value')}") from None
    if len(text) > MAX_BYTES:
        raise Invalid(f"{what} is {len(text):,} bytes of JSON, the most is {MAX_BYTES:,} (16 MB)")
    if ("\\u0000" in text or "\\ud" in text) and (fault := _text_fault(value, "value")):
        raise Invalid(f"{what} cannot be stored: {fault}")
    return text


def _fault(value: Any, path: str, depth: int = 0) -> str:
    """Say what in ``value`` is not JSON, and where."""
    if depth > 500:
        return f"{path[:80]}… is nested too deeply, or contains itself"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int | float | bool | None):
                return f"a key of {path} is a {type(key).__name__}, not a string"
            if fault := _fault(item, f"{path}[{key!r}]", depth + 1):
                return fault
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if fault := _fault(item, f"{path}[{index}]", depth + 1):
                return fault
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON does not have"
    elif not isinstance(value, str | int | float | bool | None):
        return f"{path} is a {type(value).__name__}"
    elif isinstance(value, int) and abs(value) >= 10**4300:
        return f"{path} is a number of more than 4300 digits"
    return "" if depth else f"{path} contains something that is not JSON"


def _text_fault(value: Any, path: str) -> str:
    """Say which string of ``value`` PostgreSQL refuses, and where; empty if none."""
    if isinstance(value, str):
        if "\0" in value:
            return f"{path} contains the NUL character"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return f"{path} contains a lone surrogate (half a character)"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and (fault := _text_fault(key, f"a key of {path}")):
                return fault
            if fault := _text_fault(item, f"{path}[{key!r}]"):
                return fault
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if fault := _text_fault(item, f"{path}[{index}]"):
                return fault
    return ""

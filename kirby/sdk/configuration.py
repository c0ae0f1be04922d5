"""Configuration of a script: environment variables, with types."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from kirby.core.errors import Invalid, NotFound

MISSING = object()
WORDS = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def config(name: str, default: Any = MISSING, *, type: Callable[[str], Any] = str) -> Any:
    """The variable ``name`` as ``type``: str, int, float, bool, dict or list (JSON), or a function.

    An empty or zero value is a value. Raises NotFound without a default, Invalid for a value that
    is not of the type.
    """
    text = os.environ.get(name)
    if text is None:
        if default is MISSING:
            raise NotFound(f"the variable {name} is not set: 'kirby config set {name}=…' sets it")
        return default
    try:
        return _parser(type)(text)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        expected = getattr(type, "__name__", str(type))
        raise Invalid(f"the variable {name} is not of type {expected}: {text[:80]!r}") from error


def _parser(type: Callable[[str], Any]) -> Callable[[str], Any]:
    if type is bool:
        return lambda text: WORDS[text.strip().lower()]
    if type in (dict, list):
        return lambda text: _json(text, type)
    return type


def _json(text: str, type: Any) -> Any:
    value = json.loads(text)
    if not isinstance(value, type):
        raise TypeError(text)
    return value

"""Configuration of a script: environment variables, with types."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any

from kirby.core import folder
from kirby.core.errors import Invalid, NotFound

MISSING = object()
WORDS = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def config(name: str, default: Any = MISSING, *, type: Callable[[str], Any] = str) -> Any:
    """The variable ``name`` as ``type``: str, int, float, bool, dict or list (JSON), or a function.

    An empty or zero value is a value. Values that are too large for the environment are found too.
    Raises NotFound without a default, Invalid for a value that is not of the type.
    """
    text = os.environ.get(name)
    if text is None and (fd := os.environ.get("KIRBY_VALUES_FD")):
        text = _large(fd, os.environ.get("KIRBY_RUN", "")).get(name)
    if text is None:
        text = folder.variables(os.environ).get(name)
    if text is None:
        if default is MISSING:
            raise NotFound(f"the variable {name} is not set: 'kirby config set {name}=…' sets it")
        return default
    try:
        return _parser(type)(text)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        expected = getattr(type, "__name__", str(type))
        raise Invalid(f"the variable {name} is not of type {expected}: {text[:80]!r}") from error


@functools.cache
def _large(fd: str, run: str) -> dict[str, str]:
    """The values that the supervisor handed over by an open descriptor; any process may have it."""
    try:
        found = json.loads(_content(int(fd)))
        if found["run"] == run:
            values: dict[str, str] = found["values"]
            return values
    except (OSError, ValueError, LookupError, TypeError):
        pass  # closed, or by now another file: a child whose parent did not pass it on
    return {}


def _content(fd: int) -> bytes:
    """All of the file, wherever others have read it to. Raises ValueError if it is another one."""
    found = os.pread(fd, 1 << 16, 0)
    if not found.startswith(b'{"run": '):
        raise ValueError(fd)
    while piece := os.pread(fd, 1 << 20, len(found)):
        found += piece
    return found


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

"""What the code of a handler says of itself: for the flow graph, the catalogue and plans."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from kirby.sdk.states import State

MAX_DOC = 4000  # characters of a docstring
MAX_NAMES = 100  # states of a handler


def of(function: Callable[..., Any], to: str | None) -> dict[str, Any]:
    """What a handler writes to, and what its docstring says (kirby.declare).

    Its states are those that it names: variables of its module.
    """
    return {
        "to": [] if to is None else [to],
        "states": _states(function),
        "doc": _doc(function),
    }


def _doc(function: Callable[..., Any]) -> str:
    """PostgreSQL has no NUL, and no halves of characters."""
    text = (inspect.getdoc(function) or "")[:MAX_DOC].replace("\0", "")
    return text.encode("utf-8", "replace").decode()


def _states(function: Callable[..., Any]) -> list[str]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return []
    known = getattr(inspect.unwrap(function), "__globals__", {})
    closed = inspect.getclosurevars(function).nonlocals if code.co_freevars else {}
    named = [closed.get(name, known.get(name)) for name in (*code.co_names, *code.co_freevars)]
    return sorted({each.name for each in named if isinstance(each, State)})[:MAX_NAMES]

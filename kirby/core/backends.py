"""What may stand in for PostgreSQL: the functions of kirby.core ask it instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Backend:
    """A connection that is none. It has a method for each function of kirby.core that is
    ``answered``, named after its module and the function: ``topics_write``."""

    closed = False
    info = SimpleNamespace(transaction_status=0)  # nobody is ever torn out of a statement


def answered(function: Callable[P, R]) -> Callable[P, R]:
    """Let a backend answer, if the first argument is one."""
    name = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"

    @functools.wraps(function)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(args[0], Backend):
            answer: Callable[..., Any] = getattr(args[0], name)
            found: R = answer(*args[1:], **kwargs)
            return found
        return function(*args, **kwargs)

    return ask

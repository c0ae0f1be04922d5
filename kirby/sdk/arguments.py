"""The arguments of a task: checked where it is sent, completed where it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from kirby.core.errors import Invalid
from kirby.sdk.messages import Message

BY_BOTH = inspect.Parameter.POSITIONAL_OR_KEYWORD


class Arguments:
    """What a function takes, without the message that a worker hands in."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise Invalid(f"{function.__name__} is async: a task is a plain function")
        every = inspect.signature(function).parameters.values()
        self.message = next((each.name for each in every if _is_message(each)), None)
        own = [each for each in every if each.name != self.message]
        self._signature = inspect.Signature(own)
        by_place = [each for each in own if each.kind in (each.POSITIONAL_ONLY, BY_BOTH)]
        self._least = sum(each.default is each.empty for each in by_place)
        self._most = len(by_place)
        if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in own):
            self._most = -1  # nothing is right without keywords
        self._place = [each.name for each in every].index(self.message) if self.message else 0

    def __str__(self) -> str:
        return str(self._signature)

    def fault(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What is wrong with these arguments, if anything is."""
        if not kwargs and self._least <= len(args) <= self._most:
            return None  # the usual case, and binding is slow
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return str(error)
        return None

    def with_message(
        self, args: list[Any], kwargs: dict[str, Any], message: Message
    ) -> tuple[list[Any], dict[str, Any]]:
        if len(args) > self._place:
            return [*args[: self._place], message, *args[self._place :]], kwargs
        return args, {**kwargs, str(self.message): message}


def _is_message(parameter: inspect.Parameter) -> bool:
    told = parameter.annotation
    return told is Message or (
        isinstance(told, str) and told.strip().split(".")[-1] in ("Message", "Message | None")
    )

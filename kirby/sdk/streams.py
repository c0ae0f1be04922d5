"""Stream handlers: what a decorated function reads, what it wants, and where its results go."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kirby.core import topics
from kirby.core.errors import Invalid
from kirby.core.subscriptions import LIMITS, MAX_LIMIT, Batch
from kirby.sdk import work
from kirby.sdk.failures import InDoubt
from kirby.sdk.messages import Message
from kirby.sdk.topics import Out, Topic

ON_REPLAY = ("process", "ignore", "divert", "dry_run")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a message whose handler raises, whether keys keep their order, and limits."""

    ordered: bool = True
    on_failure: str = "block"
    max_attempts: int = 3
    park: tuple[type[Exception], ...] = ()
    ignore: tuple[type[Exception], ...] = ()
    max_in_flight: int | None = None
    rate: float | None = None
    key_in_flight: int | None = None
    key_rate: float | None = None
    on_replay: str = "process"

    @property
    def limits(self) -> dict[str, float | None]:
        """Under the names of kirby.limit_subscription."""
        return {name: getattr(self, name) for name in LIMITS}

    def action(self, error: Exception) -> str:
        """What to do about this error: retry, park or ignore."""
        if isinstance(error, InDoubt):
            return "park"  # a person is needed, whatever else its handler says of errors
        if isinstance(error, self.ignore):
            return "ignore"
        return "park" if isinstance(error, self.park) else "retry"


DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class Stream:
    """A function that handles the messages of a topic, one by one or in lists."""

    function: Callable[..., Any]
    topic: str
    to: str | None
    name: str | None
    batch: int | None
    wants: tuple[bool, ...]  # for each parameter: the message (True) or its value (False)
    policy: Policy = DEFAULT

    def handle(self, done: work.Work, batch: Batch, first: int, last: int) -> None:
        """Handle messages ``first`` to ``last`` of a batch (one, or a whole list)."""
        done.mark(batch, first, last)
        if self.batch is None:
            arguments = [
                Message.of_batch(self.topic, batch, first) if wanted else batch.payloads[first]
                for wanted in self.wants
            ]
        else:
            arguments = [
                [Message.of_batch(self.topic, batch, index) for index in range(first, last + 1)]
                if wanted
                else batch.payloads[first : last + 1]
                for wanted in self.wants
            ]
        key = batch.keys[first] if self.batch is None else None
        for result in results(self.function(*arguments)):
            self._publish(done, result, key)

    def _publish(self, done: work.Work, result: Any, key: str | None) -> None:
        if isinstance(result, Out):
            item = result.item(key, done.parents, done.stamp)
            done.publish(self._topic(result.to), item)
        else:
            item = work.message(result, key, None, done.parents, done.stamp)
            done.publish(self._topic(None), item)

    def _topic(self, named: str | None) -> str:
        """Where a result goes; that of the stream was checked when it was declared."""
        if named is not None:
            return topics.checked_name(named)
        to = self.to
        if to is None:
            raise Invalid(
                f"{self.function.__name__} returned a value, but its stream has no topic for it:"
                f' say @kirby.stream("{self.topic}", to="…"), or return None'
            )
        return to


def results(returned: Any) -> Iterator[Any]:
    """What a handler returned: nothing (None), the items of an iterator, or one value."""
    if returned is None:
        return
    if isinstance(returned, Iterator):
        yield from (result for result in returned if result is not None)
    else:
        yield returned


REGISTERED: list[Stream] = []


def stream(
    topic: str | Topic,
    to: str | Topic | None = None,
    *,
    batch: int | None = None,
    name: str | None = None,
    ordered: bool = True,
    on_failure: str = "block",
    max_attempts: int = 3,
    park: tuple[type[Exception], ...] = (),
    ignore: tuple[type[Exception], ...] = (),
    max_in_flight: int | None = None,
    rate: float | None = None,
    key_in_flight: int | None = None,
    key_rate: float | None = None,
    on_replay: str = "process",
) -> Callable[[Function], Function]:
    """Let a function handle every message of ``topic``, each exactly once.

    The function gets the value; a parameter annotated ``kirby.Message`` gets the message. What it
    returns is published to ``to`` with the key of the message: None for nothing, a value, an
    ``Out``, or an iterator of those. With ``batch=500`` it gets lists of up to so many. The
    subscription is named after the job, or ``name``. ``kirby.run()`` serves it.

    A message whose handler raises is delivered again by itself, after a pause that grows, and
    parked after ``max_attempts``, or at once for an error of ``park``; for one of ``ignore`` it is
    done. Meanwhile later messages of its key wait, and no others. ``on_failure``: once it is
    parked, its key goes on waiting ("block") or does without it ("park"). With ``ordered=False``
    there is no order: any number of workers take from the topic as from a queue.

    Limits hold for all workers together: ``max_in_flight`` messages are handled at once, ``rate``
    a second; ``key_in_flight`` and ``key_rate`` are the same for each key.

    ``on_replay``: what becomes of what a rewind delivers again, and of what was made of such:
    "process" (as any other), "ignore" (it is done, the function is not called), "divert" (what
    comes of it is published to ``<topic>.replay`` instead, states stay as they are) or "dry_run"
    (the function is called, and nothing of what it does is written).
    """
    if on_failure not in ("block", "park"):
        raise Invalid(f"on_failure is {on_failure!r}: block or park")
    if not 1 <= max_attempts <= 1000:
        raise Invalid(f"max_attempts is {max_attempts}: from 1 to 1000")
    policy = Policy(
        ordered,
        on_failure,
        max_attempts,
        park,
        ignore,
        max_in_flight,
        rate,
        key_in_flight,
        key_rate,
        checked_on_replay(on_replay),
    )
    checked_limits(policy)
    if batch is not None and not 1 <= batch <= 10_000:
        raise Invalid(f"batch is {batch}: from 1 to 10000")
    source = _named(topic)
    target = None if to is None else _named(to)

    def register(function: Function) -> Function:
        REGISTERED.append(Stream(function, source, target, name, batch, wants(function), policy))
        return function

    return register


def checked_on_replay(on_replay: str) -> str:
    """Raises Invalid for what cannot become of a replay; the database refuses the same."""
    if on_replay not in ON_REPLAY:
        raise Invalid(f"on_replay is {on_replay!r}: {', '.join(ON_REPLAY[:-1])} or {ON_REPLAY[-1]}")
    return on_replay


def _named(topic: str | Topic) -> str:
    return topics.checked_name(topic.name if isinstance(topic, Topic) else topic)


def checked_limits(policy: Policy) -> None:
    """Raises Invalid for a limit that lets nothing out; the database refuses the same ones."""
    for name, limit in policy.limits.items():
        kinds = (int, float) if name.endswith("rate") else (int,)
        if limit is not None and (not isinstance(limit, kinds) or not 0 < limit <= MAX_LIMIT):
            raise Invalid(f"{name} is {limit!r}: a number above zero, or None for no limit")


def wants(function: Callable[..., Any]) -> tuple[bool, ...]:
    """Which parameters want the message. Raises Invalid for a function that cannot be a handler."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Invalid(f"{function.__name__} is async: a handler is a plain function")
    needed = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    parameters = [each for each in needed if each.kind is not each.KEYWORD_ONLY]
    found = tuple(
        each.annotation is Message
        or (
            isinstance(each.annotation, str)
            and each.annotation.split(".")[-1].startswith("Message")
        )
        or "Message" in str(each.annotation)
        or (each.annotation is each.empty and each.name == "message" and len(parameters) > 1)
        for each in parameters
    )
    if not 1 <= len(found) <= 2 or found.count(False) > 1 or len(needed) > len(found):
        raise Invalid(
            f"{function.__name__}{inspect.signature(function)} cannot be a handler: it takes the"
            " value, the message (annotated kirby.Message), or both"
        )
    return found

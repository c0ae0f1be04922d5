"""Results of a function that are kept in a state: computed once for all processes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, ParamSpec, TypeVar

import psycopg

from kirby.core import payload, states
from kirby.core.errors import Conflict, Invalid, KirbyError
from kirby.sdk import session, work

P = ParamSpec("P")
T = TypeVar("T")

LEASE = 15.0  # seconds after which somebody who computes and does not say so any more is given up
SOONEST, LATEST = 0.02, 0.25  # seconds between two looks at what somebody else computes
MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class Terms:
    """How old a result may be, in seconds (None: of any age), and whose work it is."""

    ttl: float | None
    stale: float
    single_flight: bool


class Cached(Generic[P, T]):
    """The function, with its results in a state. ``forget`` makes the next call compute again."""

    def __init__(
        self,
        state: str,
        function: Callable[P, T],
        key: str | Callable[..., str] | None,
        terms: Terms,
    ) -> None:
        functools.update_wrapper(self, function)
        self._state = state
        self._function = function
        self._signature = inspect.signature(function)
        self._key = key
        self._terms = terms

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the state that the result for these arguments is kept under."""
        if callable(self._key):
            key = self._key(*args, **kwargs)
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            what = f"the arguments of {self._signature_name()}"
            key = payload.dumps(given, what) if self._key is None else self._key.format(**given)
        work.checked_key(key)
        return key

    def _signature_name(self) -> str:
        return getattr(self._function, "__name__", "the function")

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Delete the result for these arguments, at once."""
        self._write(session.get(), self.key(*args, **kwargs), "delete", None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        key = self.key(*args, **kwargs)
        mine = session.get()
        holder = uuid.uuid4().hex if self._terms.single_flight else ""
        pause = SOONEST
        while True:
            found = self._look(mine, key, holder)
            if found.value is not None and self._may_be_used(found):
                value: T = payload.loads(found.value)
                return value
            if found.compute:
                return self._compute(mine, key, holder, lambda: self._function(*args, **kwargs))
            time.sleep(pause)
            pause = min(pause * 1.5, LATEST)

    def _look(self, mine: session.Session, key: str, holder: str) -> states.Flight:
        """What there is, and whether it is ours to compute."""
        ttl = self._terms.ttl
        if holder:
            return mine.ask(
                lambda: states.fly(mine.connection, self._state, key, ttl, holder, LEASE)
            )
        found = mine.ask(lambda: states.get(mine.connection, self._state, [key]))
        if not found or found[0].value is None:
            return states.Flight(None, None, fresh=False, compute=True)
        fresh = ttl is None or found[0].age < ttl
        return states.Flight(found[0].value, found[0].age, fresh=fresh, compute=not fresh)

    def _may_be_used(self, found: states.Flight) -> bool:
        """While somebody else computes, an old result will do as well, up to a point."""
        if found.fresh:
            return True
        ttl, age = self._terms.ttl, found.age
        return not found.compute and None not in (ttl, age) and age < ttl + self._terms.stale  # type: ignore[operator]

    def _compute(self, mine: session.Session, key: str, holder: str, act: Callable[[], T]) -> T:
        try:
            with self._kept(mine, key, holder) if holder else contextlib.nullcontext():
                value = act()
            what = f"the result of {self._signature_name()}"
            self._write(mine, key, "set", payload.dumps(value, what))
        finally:
            if holder:
                with contextlib.suppress(KirbyError):
                    states.land(mine.connection, self._state, key, holder)
        return value

    @contextlib.contextmanager
    def _kept(self, mine: session.Session, key: str, holder: str) -> Iterator[None]:
        """Say every few seconds that it is still being computed."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(LEASE / 3):
                with contextlib.suppress(KirbyError, psycopg.Error):
                    states.fly(mine.connection, self._state, key, 0.0, holder, LEASE)

        thread = threading.Thread(target=renew, name="kirby-cached", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _write(self, mine: session.Session, key: str, op: str, value: str | None) -> None:
        """At once, whatever unit of work the caller is in: others wait for it."""
        parents, stamp = work.cause()
        alone = work.Work(parents=parents, stamp=stamp)
        alone.write(self._state, key, op, value)
        for _ in range(MAX_TRIES):
            with contextlib.suppress(Conflict):
                mine.commit(alone)
                return
        raise Conflict(f"key {key!r} of state {self._state} changes faster than it can be written")


def cached(
    state: str,
    key: str | Callable[..., str] | None,
    ttl: float | timedelta | None,
    single_flight: bool,
    stale: float | timedelta,
) -> Callable[[Callable[P, T]], Cached[P, T]]:
    """See ``State.cached``."""
    terms = Terms(
        None if ttl is None else _seconds(ttl, "ttl"), _seconds(stale, "stale"), single_flight
    )

    def wrap(function: Callable[P, T]) -> Cached[P, T]:
        if inspect.iscoroutinefunction(function):
            raise Invalid(f"{function.__name__} is async: what is cached is a plain function")
        return Cached(state, function, key, terms)

    return wrap


def _seconds(span: float | timedelta, what: str) -> float:
    if isinstance(span, timedelta):
        span = span.total_seconds()
    if isinstance(span, bool) or not isinstance(span, int | float) or not 0 <= span < float("inf"):
        raise Invalid(f"{what} is {span!r:.60}: seconds, or a timedelta")
    return float(span)

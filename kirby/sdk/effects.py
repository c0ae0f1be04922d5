"""Effects: what a handler does in the outside world, once for each message."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from kirby.core import effects
from kirby.core.effects import Begun
from kirby.core.errors import Invalid
from kirby.sdk import session, shadows, work
from kirby.sdk.failures import InDoubt


@dataclass(frozen=True, slots=True)
class Effect:
    """What is about to be done. ``key`` is the same whenever it is tried again, after a crash and
    in a rewind too: give it to whoever does it, as its idempotency key."""

    name: str
    key: str


def effect(
    name: str, key: str | None = None, *, idempotent: bool = True, on_replay: str = "skip"
) -> Iterator[Effect]:
    """Do something outside of the database: a body that runs until it was confirmed, then no more.

    ``for effect in kirby.effect("charge"): pay(…, idempotency_key=effect.key)`` runs its body
    once, or not at all if that was done for this message before. It is noted before the body, and
    confirmed when the body comes to its end (not after an error, ``break`` or ``return``), each
    in a transaction of its own, whatever becomes of the message. When the process dies in between,
    nobody knows whether it happened: then the body runs again if it is ``idempotent``; if not,
    InDoubt is raised and the message parked until somebody says `kirby effect resolve`.

    In a rewind, and for what was made of a replay, the body does not run; with ``on_replay="do"``
    it does, unless it was confirmed. ``key`` names it, else the message, the name and its number
    there do; outside of handlers and for lists of messages it is needed.
    """
    if on_replay not in ("skip", "do"):
        raise Invalid(f"on_replay is {on_replay!r}: skip or do")
    if not isinstance(name, str) or not 1 <= len(name) <= 200:
        raise Invalid(f"an effect's name is a string of 1 to 200 characters, not {name!r:.100}")
    if key is not None:
        work.checked_id(key)
    return _once(name, key, idempotent, on_replay, _number(name, key))


def _once(
    name: str, key: str | None, idempotent: bool, on_replay: str, number: int
) -> Iterator[Effect]:
    unit = work.current()
    stamp = None if unit is None else unit.stamp
    replay = stamp is not None and stamp.replay
    if stamp is not None and stamp.origin.on_replay == "dry_run":
        on_replay = "skip"
    if shadows.current() is not None or (replay and on_replay == "skip"):
        return
    begun = _begin(name, key, idempotent, number)
    if begun.verdict == "in_doubt":
        raise InDoubt(
            f"effect {name} ({begun.key}) was begun before, and nobody knows whether it happened:"
            f" look, then say 'kirby effect resolve {begun.id} --done', or --again"
        )
    if begun.verdict == "do":
        yield Effect(name, begun.key)
        mine = session.get()
        mine.persist(lambda: effects.confirm(mine.connection, begun.id))


def _begin(name: str, key: str | None, idempotent: bool, number: int) -> Begun:
    unit = work.current()
    stamp = None if unit is None else unit.stamp
    mine, attempt = session.get(), uuid.uuid4()
    return mine.persist(
        lambda: effects.begin(
            mine.connection,
            name,
            key,
            None if stamp is None else stamp.origin.subscription_id,
            None if stamp is None else stamp.position,
            number,
            idempotent=idempotent,
            attempt=attempt,
        )
    )


def _number(name: str, key: str | None) -> int:
    """Which effect of this name it is in the handler of this message. Raises Invalid for one that
    has neither a message nor a key."""
    unit = work.current()
    if key is not None:
        return 0
    if unit is None or unit.stamp is None:
        raise Invalid(f"effect {name} is outside of a handler: it needs a key, effect(…, key=…)")
    if unit.stamp.origin.lists:
        raise Invalid(
            f"effect {name} is in a handler of lists, which are others when they come again: it"
            " needs a key, effect(…, key=…)"
        )
    unit.effects[name] = number = unit.effects.get(name, 0) + 1
    return number

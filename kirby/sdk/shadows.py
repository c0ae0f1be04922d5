"""Shadow runs: another release handles the same messages, and what it writes stands beside.

KIRBY_SHADOW has the id of the shadow that a process is. It reads its part of the topics under
subscriptions of its own, writes to topics and states of its own, has no effects, and ends.
"""

from __future__ import annotations

import os

from kirby.core.errors import Invalid


def current() -> int | None:
    """The shadow that this process is. Raises Invalid for what is no id."""
    given = os.environ.get("KIRBY_SHADOW")
    if not given:
        return None
    if not given.isdecimal():
        raise Invalid(f"KIRBY_SHADOW is {given!r}: the id of a shadow, from kirby shadow start")
    return int(given)


def topic(name: str) -> str:
    """Where messages for a topic are published to."""
    shadow = current()
    return name if shadow is None else f"{name}.shadow-{shadow}"


def state(name: str) -> str:
    """The state that stands for another one; empty at first."""
    shadow = current()
    return name if shadow is None else f"{name}__shadow_{shadow}"

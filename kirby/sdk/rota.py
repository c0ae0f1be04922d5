"""Which subscriptions are worth a look: what the threads of a process know together."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable

SOON = 0.01  # seconds between two looks that nobody has a reason for
LOOKS = 50  # a second at the most that a process spends on subscriptions where nothing is


class Rota:
    """When each of ``count`` subscriptions is to be looked at next, by whichever thread is free.

    One that had nothing is left alone until it is woken or ``poll`` seconds have passed (longer if
    there are very many).
    """

    def __init__(self, count: int, poll: float) -> None:
        self._pause = max(poll, count / LOOKS)
        self._least = max(SOON, count / LOOKS - 1)  # even if whoever wakes does not know which
        self._looked = [float("-inf")] * count
        self._next = [float("-inf")] * count
        self._changed = threading.Condition()
        self._waiting = 0

    def take(self, index: int) -> bool:
        """Whether it is time for a look; whoever is told so takes it."""
        now = time.monotonic()
        with self._changed:
            if self._next[index] > now:
                return False
            self._looked[index] = now
            self._next[index] = now + self._pause * random.uniform(0.75, 1.25)  # noqa: S311
            return True

    def again(self, index: int) -> None:
        """There was something: it is worth another look, by another thread if one is free."""
        with self._changed:
            self._next[index] = float("-inf")
            if self._waiting:
                self._changed.notify()

    def wake(self, indexes: Iterable[int] | None) -> None:
        """Something was published to these; None: perhaps to any."""
        with self._changed:
            if indexes is None:
                self._next = [
                    min(next, looked + self._least)
                    for next, looked in zip(self._next, self._looked, strict=True)
                ]
            else:
                for index in indexes:
                    self._next[index] = float("-inf")
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Return when a look is due, or somebody called ``wake`` or ``again``; true: after that."""
        with self._changed:
            left = min(self._next) - time.monotonic()
            if left <= 0:
                return False
            self._waiting += 1
            called = self._changed.wait(min(left, seconds))
            self._waiting -= 1
            return not called and seconds <= left

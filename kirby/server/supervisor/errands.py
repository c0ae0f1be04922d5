"""Work that may take long, done in threads beside the loop: virtualenvs, scripts, clearing up."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from kirby.server.supervisor.wake import Wake

Result = TypeVar("Result")


class Errands(Generic[Result]):
    """``send`` work off under a number; ``fetch`` what came back. `wake` is set when it does.

    Each has its own thread: one that is ready at once does not wait for one that takes minutes,
    and no supervisor sends off more than it has slots. The threads are daemons, so that a build
    does not keep the supervisor from ending.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._back: deque[tuple[int, Result | Exception]] = deque()

    def send(self, number: int, work: Callable[[], Result]) -> None:
        """Have it done; its result, or what it raised, comes back under this number."""
        name = f"kirby errand {number}"
        threading.Thread(target=self._run, args=(number, work), name=name, daemon=True).start()

    def do(self, work: Callable[[], object]) -> None:
        """Have it done; nobody waits for it."""
        threading.Thread(target=work, name="kirby errand", daemon=True).start()

    def fetch(self) -> list[tuple[int, Result | Exception]]:
        """What came back since the last call."""
        found = []
        while self._back:
            found.append(self._back.popleft())
        return found

    def _run(self, number: int, work: Callable[[], Result]) -> None:
        try:
            result: Result | Exception = work()
        except Exception as error:  # the loop decides what it means
            result = error
        self._back.append((number, result))
        self._wake.set()

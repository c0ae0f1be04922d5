"""Work on the connection that goes on while the handler works on something else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SWITCH = 0.0005  # seconds until a busy handler lets the answer of the database in; Python has 5 ms


class Behind(Generic[T]):
    """A call in a thread of its own, that whoever needs its outcome waits for."""

    def __init__(self, act: Callable[[], T]) -> None:
        if sys.getswitchinterval() > SWITCH:
            sys.setswitchinterval(SWITCH)
        self._act = act
        self._outcome: T | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()  # join() that was broken off believes that it has ended
        self._thread = threading.Thread(target=self._run, name="kirby-behind", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._act()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    @property
    def goes_on(self) -> bool:
        return not self._ended.is_set()

    def wait(self) -> None:
        """Return when it has ended; at once in its own thread."""
        if self._thread is not threading.current_thread():
            self._ended.wait()

    def result(self) -> T:
        """What it returned, or raise what it raised."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._outcome  # type: ignore[return-value]

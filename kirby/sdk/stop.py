"""How a worker is asked to stop: SIGTERM and SIGINT finish the message at hand."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Set by SIGTERM and SIGINT: finish the message at hand, settle, and go.

    A second signal is impatient: it breaks off what is at hand, which comes again later. With
    ``patient`` it says nothing new (the child of a pool: its parent decides).
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self._signalled = False
        self._patient = patient

    def __call__(self, signum: int = 0, frame: FrameType | None = None) -> None:
        if self._signalled and not self._patient:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + signum)
        self._signalled = self.asked = True

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen for the signals while the block runs, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

"""Interrupt a wait from another thread, or from a signal handler."""

from __future__ import annotations

import contextlib
import os


class Wake:
    """A pipe with at most a few bytes in it; wait for its descriptor together with others."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """What to wait for: it can be read once somebody called ``set``."""
        return self._read

    def set(self) -> None:
        """End the wait. Never blocks, may be called in a signal handler, and after ``close``."""
        with contextlib.suppress(OSError):  # full: it is awake already
            os.write(self._write, b"!")

    def clear(self) -> None:
        """Forget all that ``set`` was called for so far."""
        with contextlib.suppress(OSError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        for end in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(end)
        self._read = self._write = -1

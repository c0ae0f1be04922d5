"""Wake readers after a commit: at most one notification per topic in ten milliseconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg

from kirby.core.errors import KirbyError

PAUSE = 0.01
LOOK = 0.005  # seconds between looks for what was gathered and nobody came by to send
LOOKS = 100  # so many in vain, and the looking ends until there is something again


class Notifier:
    """Sends the first notification of a topic at once and gathers those that follow closely.

    NOTIFY inside the transaction would make all commits of the database queue up, so it is sent
    after the commit; it is only a hint, readers poll as well. What was gathered goes out with the
    next call; a thread sends the last of it, and is there only while there is something to send.
    """

    def __init__(self, send: Callable[[list[int]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._sent: dict[int, float] = {}
        self._pending: set[int] = set()
        self._looking: threading.Thread | None = None

    def notify(self, topics: Sequence[int]) -> None:
        """Wake the readers of these topics, now or some ten milliseconds after the last time."""
        self._try(lambda: self._due(topics))

    def flush(self) -> None:
        """Send what was gathered."""
        self._try(self._gathered)

    def _gathered(self) -> list[int]:
        with self._lock:
            pending, self._pending = sorted(self._pending), set()
            self._sent.update(dict.fromkeys(pending, time.monotonic()))
        return pending

    def _due(self, topics: Sequence[int] = ()) -> list[int]:
        """Those of these and of what was gathered whose pause is over; the others are gathered."""
        now = time.monotonic()
        with self._lock:
            self._pending.update(topics)
            due = [topic for topic in self._pending if now - self._sent.get(topic, -PAUSE) >= PAUSE]
            self._pending.difference_update(due)
            self._sent.update(dict.fromkeys(due, now))
            if self._pending and (self._looking is None or not self._looking.is_alive()):
                self._looking = threading.Thread(
                    target=self._look, name="kirby-notifier", daemon=True
                )
                self._looking.start()
        return due

    def _look(self) -> None:
        vain = 0
        while True:
            time.sleep(LOOK)
            with self._lock:
                vain = 0 if self._pending else vain + 1
                if vain == LOOKS:
                    self._looking = None
                    return
            self._try(self._due)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Send nothing until the block ends: it has the connection for itself."""
        with self._sending:
            yield

    @contextmanager
    def rested(self, timeout: float) -> Iterator[bool]:
        """Wait until nobody sends, `timeout` seconds at the most; whether that is so."""
        is_free = self._sending.acquire(timeout=timeout)
        try:
            yield is_free
        finally:
            if is_free:
                self._sending.release()

    def close(self) -> None:
        """Leave nothing unsent, and nobody sending: the connection may be closed after that.

        To close it under a thread that uses it frees memory which that one still reads.
        """
        if self._pending:
            self.flush()
        with self._sending:
            return

    def _try(self, due: Callable[[], list[int]]) -> None:
        """A lost hint costs a second at the most, so it is never worth an error.

        What is taken to be sent is sent before anybody else may use the connection.
        """
        with self._sending:
            if topics := due():
                with suppress(KirbyError, psycopg.Error):
                    self._send(topics)

"""Wake readers after a commit: at most one notification per topic in ten milliseconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from kirby.core.errors import KirbyError

PAUSE = 0.01


class Notifier:
    """Sends the first notification of a topic at once and gathers those that follow closely.

    NOTIFY inside the transaction would make all commits of the database queue up, so it is sent
    after the commit; it is only a hint, readers poll as well.
    """

    def __init__(self, send: Callable[[list[int]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._sent: dict[int, float] = {}
        self._pending: set[int] = set()
        self._timer: threading.Timer | None = None

    def notify(self, topics: Sequence[int]) -> None:
        """Wake the readers of these topics, now or within ten milliseconds."""
        now = time.monotonic()
        with self._lock:
            free = set(topics) - self._pending
            fresh = [topic for topic in free if now - self._sent.get(topic, -PAUSE) >= PAUSE]
            self._sent.update(dict.fromkeys(fresh, now))
            self._pending.update(set(topics) - set(fresh))
            if self._pending and self._timer is None:
                self._timer = threading.Timer(PAUSE, self.flush)
                self._timer.daemon = True
                self._timer.start()
        self._try(fresh)

    def flush(self) -> None:
        """Send what was gathered."""
        with self._lock:
            pending, self._pending, self._timer = sorted(self._pending), set(), None
            self._sent.update(dict.fromkeys(pending, time.monotonic()))
        self._try(pending)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Send nothing until the block ends: it has the connection for itself."""
        with self._sending:
            yield

    def close(self) -> None:
        """Leave nothing unsent, and nobody sending: the connection may be closed after that.

        To close it under a thread that uses it frees memory which that one still reads.
        """
        if self._pending:
            self.flush()
        with self._sending:
            return

    def _try(self, topics: list[int]) -> None:
        """A lost hint costs a second at the most, so it is never worth an error."""
        if topics:
            try:
                with self._sending:
                    self._send(topics)
            except (KirbyError, psycopg.Error):
                return

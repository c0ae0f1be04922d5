"""What works beside the supervisor's loop: in a thread and on a connection of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from kirby.core import db
from kirby.server.supervisor.link import Link


class Beside(ABC):
    """Runs ``_run`` from ``start`` until ``stop``. `name` is that of its thread and connection.

    ``_run`` returns once ``_stopping`` is set, and lets its link go.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._link = Link(dsn, f"kirby supervisor: {name}", self._prepare)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kirby {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Ask it to end; what is under way is waited for so many seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        else:
            self._link.drop()

    @abstractmethod
    def _run(self) -> None: ...

    def _prepare(self, conn: db.Connection) -> None:
        """Set a new connection up."""
        db.configure(conn, {"statement_timeout": "30s"})

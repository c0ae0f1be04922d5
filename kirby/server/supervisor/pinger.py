"""Tell a watcher outside that Kirby does its duties: it raises the alarm when that stops."""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

log = logging.getLogger("kirby.supervisor")

EVERY = 60.0  # seconds between two pings
AGAIN = 10.0  # … when the last one failed
WITHIN = 10.0  # that one may take
LOOK = 1.0


class Pinger:
    """Asks for an address (``KIRBY_PING_URL``) once a minute while `is_well`, in its own thread.

    What goes wrong is logged once and tried again: it never disturbs anything else. Of the address
    the log says the host alone, as the rest of it is often a secret.
    """

    def __init__(self, url: str, is_well: Callable[[], bool], *, every: float = EVERY) -> None:
        self._url, self._is_well, self._every = url, is_well, every
        self._host = urlsplit(url).hostname or ""
        self._fails = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirby pinger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """One that is under way is not waited for longer than that."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def ping(self) -> bool:
        """Ask once; whether it was answered."""
        request = urllib.request.Request(self._url, headers={"User-Agent": "kirby"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:  # noqa: S310
                answer.read(1)
        except (OSError, ValueError) as error:  # an HTTP status and a broken answer as well
            self._say(f"{self._host} does not take pings: {error}")
            return False
        self._say("")
        return True

    def _say(self, problem: str) -> None:
        if problem and not self._fails:
            log.warning("%s", problem)
        elif self._fails and not problem:
            log.info("%s takes pings again", self._host)
        self._fails = bool(problem)

    def _run(self) -> None:
        due = 0.0
        while not self._stopping.wait(min(LOOK, self._every)):
            if time.monotonic() < due or not self._is_well():
                continue
            answered = self.ping()
            due = time.monotonic() + (self._every if answered else min(AGAIN, self._every))

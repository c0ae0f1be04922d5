"""Tell how far a run is, without ever holding up the script or failing it."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import psycopg

from kirby.core import db, dsn, protocol
from kirby.core.errors import Invalid, KirbyError

EVERY = 1.0  # seconds between two reports; of several in between the newest is sent
LINGER = 5.0  # seconds after which a connection that nothing was reported on is closed
LAST = 2.0  # seconds that the last report may take when the script ends
REPORT = "select kirby.report_progress(%s, %s)"


class Progress(NamedTuple):
    """A part between 0 and 1, or None, and a few words."""

    done: float | None
    text: str | None


def progress(done: float | None, text: str | None = None) -> None:
    """Show how far this run is: a part between 0 and 1, or None if nobody knows, and a few words.

    It is sent in the background, once a second at the most, and counts as a sign of life for a
    job's ``no_progress_timeout``. Outside of a run it does nothing. Raises Invalid.
    """
    if done is not None and not 0 <= done <= 1:
        raise Invalid(f"progress is {done!r}: a part between 0 and 1, or None")
    if os.environ.get("KIRBY_RUN") and os.environ.get("KIRBY_TOKEN"):
        _reporter.put(Progress(done, text and text.replace("\0", " ")))


class Reporter:
    """Sends the newest of what was ``put``, in a thread with a connection of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: Progress | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def put(self, given: Progress) -> None:
        with self._changed:
            self._next = given
            if self._thread is None and not self._ending:
                name = "kirby progress"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def end(self) -> None:
        """Send what is left."""
        with self._changed:
            self._ending, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(LAST)

    def _run(self) -> None:
        while True:
            with contextlib.suppress(KirbyError, psycopg.Error), _connection() as connection:
                self._send(connection)
            with self._changed:
                self._changed.wait_for(lambda: self._ending, EVERY)  # no wild attempts to connect
                if self._ending or self._next is None:
                    self._thread = None
                    return

    def _send(self, connection: db.Connection) -> None:
        """Until nothing came for a while."""
        while (given := self._take()) is not None:
            with db.kirby_errors():
                connection.execute(REPORT, given)
            with self._changed:
                self._changed.wait_for(lambda: self._ending, EVERY)

    def _take(self) -> Progress | None:
        with self._changed:
            self._changed.wait_for(lambda: self._next or self._ending, LINGER)
            given, self._next = self._next, None
            return given


@contextlib.contextmanager
def _connection() -> Iterator[db.Connection]:
    environ = os.environ
    connection = db.connect(dsn.find(environ), application=f"kirby {environ.get('KIRBY_JOB', '')}")
    try:
        token, environment = environ.get("KIRBY_TOKEN"), environ.get("KIRBY_ENVIRONMENT")
        protocol.greet(connection, token=token, environment=environment)
        yield connection
    finally:
        connection.close()


_reporter = Reporter()
atexit.register(lambda: _reporter.end())


def _forget() -> None:
    """After a fork: the thread is the parent's."""
    global _reporter
    _reporter = Reporter()


os.register_at_fork(after_in_child=_forget)

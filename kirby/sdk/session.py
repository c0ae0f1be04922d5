"""The one connection of this process, and who it is for the database."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from kirby.core import db, dsn, protocol, topics
from kirby.core.errors import Conflict, Unavailable
from kirby.sdk import work
from kirby.sdk.notifier import Notifier

T = TypeVar("T")
MAX_WAIT = 5.0


class Session:
    """A connection that comes back: opened when first needed, opened again after it was lost."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self._lock = threading.RLock()
        self._connection: db.Connection | None = None
        self._channels: set[str] = set()
        self.notifier = Notifier(self._notify)

    @property
    def job(self) -> str:
        """The name of the job, or of the script when it runs outside a deployment."""
        return self._environ.get("KIRBY_JOB") or Path(sys.argv[0] or "interactive").stem

    @property
    def connection(self) -> db.Connection:
        """The connection, opened if need be. Raises Unavailable, Denied, NotFound, WrongSchema."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._open()
            return self._connection

    def _open(self) -> db.Connection:
        connection = db.connect(dsn.find(self._environ), application=f"kirby {self.job}")
        try:
            protocol.greet(
                connection,
                token=self._environ.get("KIRBY_TOKEN"),
                environment=self._environ.get("KIRBY_ENVIRONMENT"),
            )
            for channel in self._channels:
                connection.execute(db.listen(channel))
        except BaseException:
            connection.close()
            raise
        return connection

    def listen(self, topic_id: int) -> None:
        """Be woken when this topic is written to, over lost connections too."""
        channel = f"kirby_topic_{topic_id}"
        if channel not in self._channels:
            with db.kirby_errors():
                self.connection.execute(db.listen(channel))
            self._channels.add(channel)

    def wait(self, seconds: float) -> None:
        """Return when a topic was written to, or after ``seconds``: polling is the truth."""
        self.notifier.close()  # nothing can be sent while the connection waits
        with db.kirby_errors():
            for _ in self.connection.notifies(timeout=seconds, stop_after=1):
                pass

    def persist(self, act: Callable[[], T], stopping: Callable[[], bool] = lambda: False) -> T:
        """Call ``act`` until the database answers, waiting longer each time, up to 5 s.

        Only for what may be repeated. Raises Unavailable when ``stopping()`` says so.
        """
        delay = 0.1
        while True:
            try:
                return act()
            except Unavailable as error:
                if stopping():
                    raise
                print(f"kirby: {error}; trying again", file=sys.stderr, flush=True)
                self.drop()
                time.sleep(delay)
                delay = min(delay * 2, MAX_WAIT)

    def ask(self, act: Callable[[], T]) -> T:
        """Call ``act``, which only reads; while a message is handled, until there is an answer."""
        handling = (mine := work.current()) is not None and mine.parents
        return self.persist(act) if handling else act()

    def drop(self) -> None:
        """Close the connection if it is no longer of use."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _notify(self, written: list[int]) -> None:
        topics.notify(self.connection, written)

    def commit(self, done: work.Work) -> list[int]:
        """Write a unit of work; the positions of its messages. On Conflict nothing is written."""
        positions, written = topics.write(self.connection, done.messages(), done.mutations())
        self.notifier.notify(written)
        return positions

    def close(self) -> None:
        self.notifier.close()
        self.drop()


_session: Session | None = None


def get() -> Session:
    """The session of this process; a forked child gets one of its own."""
    global _session
    if _session is None:
        _session = Session(dict(os.environ))
    return _session


@atexit.register
def _close() -> None:
    if _session is not None:
        _session.close()


def _forget() -> None:
    """After a fork: connection and unit of work belong to the parent, which goes on with them."""
    global _session
    _session = None
    work.CURRENT.set(None)


os.register_at_fork(after_in_child=_forget)


@contextmanager
def transaction() -> Iterator[None]:
    """Group publishes and changes of states: at the end of the block they are written at once.

    Inside a handler or another transaction it joins that unit of work. On an error in the block
    nothing of it is written. Raises Conflict if a key that was read in the block was changed by
    somebody else: run the block again.
    """
    if (outer := work.current()) is not None:
        with outer.part():
            yield
        return
    with work.entered(work.Work()) as mine:
        yield
    try:
        get().commit(mine)
    except Conflict as error:
        raise Conflict(f"{error}; nothing was written, run the block again") from error

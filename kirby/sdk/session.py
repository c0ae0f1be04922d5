"""The connection of this thread, and who it is for the database."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg

from kirby.core import db, dsn, folder, protocol, topics
from kirby.core.errors import Unavailable
from kirby.core.folder import Folder
from kirby.sdk import work
from kirby.sdk.behind import Behind
from kirby.sdk.looking import Looking
from kirby.sdk.notifier import Notifier

T = TypeVar("T")
MAX_WAIT = 5.0
SENDING = 1.0  # seconds that a lost connection is kept for a notification that is on its way
IDLE = psycopg.pq.TransactionStatus.IDLE
POOLED = (
    "kirby: the database is behind a connection pooler: new messages are looked for, up to a second"
    " apart, instead of being announced"
)


class Session:
    """A connection that comes back: opened when first needed, opened again after it was lost."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self._lock = threading.RLock()
        self._connection: db.Connection | None = None
        self._channels: set[str] = set()
        self._held: list[Callable[[], Iterable[int]]] = []
        self._behind: Behind[Any] | None = None
        self._was_open = False
        self._looking = Looking()
        self.holder = uuid.uuid4().hex  # whose claims are whose, over lost connections
        self.notifier = Notifier(self._notify)

    @property
    def job(self) -> str:
        """The name of the job, or of the script when it runs outside a deployment."""
        return self._environ.get("KIRBY_JOB") or script_name()

    @property
    def connection(self) -> db.Connection:
        """The connection, opened if need be. Raises Unavailable, Denied, NotFound, WrongSchema.

        What goes on behind comes first: whoever asks sees what it did.
        """
        if (behind := self._behind) is not None:
            behind.wait()
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._open()
            return self._connection

    def _open(self) -> db.Connection:
        connection = self._connect(dsn.find(self._environ))
        try:
            self._greet(connection)
        except BaseException:
            connection.close()
            raise
        self._was_open = True
        return connection

    def _connect(self, address: str) -> db.Connection:
        if folder.is_folder(address):
            return cast("db.Connection", folder.connect(address))  # it answers all that we ask
        return db.connect(address, application=f"kirby {self.job}")

    def _greet(self, connection: db.Connection) -> None:
        protocol.greet(
            connection,
            token=self._environ.get("KIRBY_TOKEN"),
            environment=self._environ.get("KIRBY_ENVIRONMENT"),
            holder=self.holder,
        )
        if db.is_pooled(connection):
            _say_once(POOLED)
        with db.kirby_errors():
            db.hear(connection, *self._channels)
        if self._was_open and self._held:
            claims = [claim for held in self._held for claim in held()]
            protocol.resume(connection, claims)

    def holding(self, claims: Callable[[], Iterable[int]]) -> None:
        """Register a consumer: ``claims()`` are those that it holds at this moment.

        When a lost connection was opened again, every other claim of this session is given back:
        its messages were on their way when the connection broke.
        """
        self._held.append(claims)

    def listen(self, topic_id: int) -> None:
        """Be woken when this topic is written to, over lost connections too."""
        channel = topics.channel(topic_id)
        if channel not in self._channels:
            with db.kirby_errors():
                db.hear(self.connection, channel)
            self._channels.add(channel)

    def wait(self, seconds: float) -> set[str]:
        """Return when a topic was written to, or after ``seconds``: polling is the truth.

        Returns the channels that were heard. Behind a pooler nobody can be woken: it returns
        sooner after something was ``found``.
        """
        self.notifier.close()  # nothing can be sent while the connection waits
        seconds = self.until_look(seconds)
        with db.kirby_errors():
            return db.wait(self.connection, seconds)

    def until_look(self, seconds: float) -> float:
        """How long to wait for what may come within ``seconds``: shorter if nobody announces it."""
        return self._looking.pause(seconds) if db.is_pooled(self.connection) else seconds

    def heard(self) -> set[str]:
        """The channels that were heard meanwhile, without waiting."""
        if db.is_pooled(self.connection):
            return set()
        with db.kirby_errors():
            return db.wait(self.connection, 0)

    def found(self) -> None:
        """There was something, so more may follow soon."""
        self._looking.found()

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

    def behind(self, act: Callable[[], T]) -> Behind[T]:
        """Start ``act``, which works on the connection, and go on without it."""
        if self._behind is not None:
            self._behind.wait()
        self._behind = started = Behind(act)
        return started

    def ask(self, act: Callable[[], T]) -> T:
        """Call ``act``, which only reads; while a message is handled, until there is an answer."""
        handling = (mine := work.current()) is not None and mine.parents
        return self.persist(act) if handling else act()

    def drop(self) -> None:
        """Close the connection if it is no longer of use.

        Not under somebody who still sends on it: then it goes when that one lets go of it.
        """
        with self.notifier.rested(SENDING) as is_free, self._lock:
            if self._connection is not None and is_free:
                self._connection.close()
            self._connection = None

    def tidy(self) -> None:
        """Drop the connection if this thread was torn out of the middle of a statement on it."""
        if self._behind is not None and self._behind.goes_on:
            return  # the statement is that one's, and whoever comes waits for it
        connection = self._connection
        if connection is not None and connection.info.transaction_status != IDLE:
            self.drop()

    def _notify(self, written: list[int]) -> None:
        topics.notify(self.connection, written)

    def commit(self, done: work.Work) -> list[int]:
        """Write a unit of work; the positions of its messages. On Conflict nothing is written."""
        positions, written = topics.write(self.connection, done.messages(), done.mutations())
        self.notifier.notify(written)
        return positions

    @property
    def folder(self) -> Folder | None:
        """The folder that stands in for a database, if one does."""
        found: Any = self._connection
        return found if isinstance(found, Folder) else None

    def close(self) -> None:
        self.notifier.close()
        self.drop()


def script_name() -> str:
    """What a process without a job is called: after its file."""
    return Path(sys.argv[0] or "interactive").stem


class Seat:
    """What a thread has of its own: its session, closed when the thread ends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._process = os.getpid()

    def __del__(self) -> None:
        if self._process == os.getpid():  # a fork has no part in the connections of its parent
            _sessions.discard(self.session)
            self.session.close()


_mine = threading.local()
_sessions: set[Session] = set()


def get() -> Session:
    """The session of this thread; a forked child gets one of its own."""
    seat: Seat | None = getattr(_mine, "seat", None)
    if seat is None:
        seat = _mine.seat = Seat(Session(dict(os.environ)))
        _sessions.add(seat.session)
    return seat.session


def close() -> None:
    """Close the sessions of all threads; one that goes on opens another."""
    global _mine
    _mine = threading.local()
    for session in list(_sessions):
        _sessions.discard(session)
        session.close()
    folder.end_all()


atexit.register(close)


_said: set[str] = set()


def _say_once(line: str) -> None:
    """Tell the person who runs this process, once however many sessions it has."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def _forget() -> None:
    """After a fork: connection and unit of work belong to the parent, which goes on with them."""
    global _mine, _sessions
    _mine, _sessions = threading.local(), set()
    work.CURRENT.set(None)


os.register_at_fork(after_in_child=_forget)

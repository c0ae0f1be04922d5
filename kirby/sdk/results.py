"""What became of a task: wait for it, look at it, take it back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from kirby.core import tasks, topics
from kirby.core.errors import Invalid, KirbyError, NotFound, Unavailable
from kirby.core.tasks import Status
from kirby.sdk import asynchronous, session, work

PREFIX = "task."
SUFFIX = ".results"
POLL = 1.0  # seconds between looks when no notification comes
SOON = 0.02  # seconds until the second look where nobody listens
ENDS = frozenset({"succeeded", "failed", "revoked", "expired"})


class TaskFailed(KirbyError):
    """The task raised: ``type``, ``message`` and ``traceback`` are those of its error there."""

    def __init__(self, task: str, id: str, type: str, message: str, traceback: str) -> None:
        super().__init__(f"task {task} {id} failed: {type}: {message}")
        self.task, self.id = task, id
        self.type, self.message, self.traceback = type, message, traceback
        if traceback:
            self.add_note(f"where it ran:\n{traceback}")


class Timeout(KirbyError, TimeoutError):
    """There is no result yet; the task goes on."""


class Revoked(KirbyError):
    """The task was taken back before it began."""


class Expired(Revoked):
    """The task had not begun when its time was over."""


class Result:
    """The answer to one task; ``kirby.result(task, id)`` is the same in another process."""

    __slots__ = ("_sent", "_unit", "id", "task")

    def __init__(
        self, task: str, id: str, *, sent: bool = False, unit: work.Work | None = None
    ) -> None:
        topics.checked_name(f"{PREFIX}{task}{SUFFIX}")
        work.checked_id(id)
        self.task = task
        self.id = id
        self._sent = sent  # by this process, perhaps in a transaction that is not committed yet
        self._unit = unit

    def __repr__(self) -> str:
        return f"kirby.result({self.task!r}, {self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and (self.task, self.id) == (other.task, other.id)

    def __hash__(self) -> int:
        return hash((self.task, self.id))

    @property
    def topic(self) -> str:
        """Where the task is a message."""
        return f"{PREFIX}{self.task}"

    @property
    def status(self) -> str:
        """unknown (not committed yet, or never sent), scheduled, pending, running, retrying,
        succeeded, failed, revoked or expired."""
        return self.look().status

    def look(self) -> Status:
        """The status with its attempt, error and times."""
        mine = session.get()
        return mine.ask(lambda: tasks.status(mine.connection, self.topic, self.id))

    def ready(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.look().status in ENDS

    def revoke(self) -> bool:
        """Take the task back; whether that was in time: what a worker has begun goes on.

        Also between two attempts. It happens at once, in a unit of work too. Raises NotFound if
        there is no such task, or it is not committed yet.
        """
        mine = session.get()
        return topics.retract(mine.connection, self.topic, self.id)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the task, and return its value: None if it keeps no result.

        Raises TaskFailed, Revoked, Expired; Timeout after so many seconds; NotFound for an id that
        nobody sent. In a handler it needs a timeout, as it keeps a worker waiting.
        """
        self._refuse_deadlock(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        mine = session.get()
        mine.found()  # where nobody is woken, look soon
        listens = False
        while (found := self._persist_look(mine, until)).status not in ENDS:
            if mine.folder is not None:
                self._left(found, timeout, until, POLL)
                self._serve_here()
                continue
            left = self._left(found, timeout, until, POLL * random.uniform(0.75, 1.25))  # noqa: S311
            with contextlib.suppress(Unavailable):
                if listens:
                    mine.wait(left)
                else:
                    listens = self._listen(mine)  # then look again: it may have come meanwhile
        return self._value(found)

    def _serve_here(self) -> None:
        """In a folder there is no other worker. Raises Timeout if it cannot be done here either."""
        from kirby.sdk import worker

        if work.current() is not None or not worker.serve_once():
            raise Timeout(f"task {self.task} {self.id} is served by nobody while this waits for it")

    def _persist_look(self, mine: session.Session, until: float | None) -> Status:
        """Look, whatever becomes of the connection, for as long as there is time."""
        return mine.persist(
            lambda: tasks.status(mine.connection, self.topic, self.id),
            lambda: until is not None and time.monotonic() >= until,
        )

    async def aget(self, timeout: float | None = None) -> Any:
        """``get`` for asynchronous applications: it does not hold the event loop up."""
        self._refuse_deadlock(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        pause = SOON
        while (found := await asynchronous.in_thread(self.look)).status not in ENDS:
            await asyncio.sleep(self._left(found, timeout, until, pause))
            pause = min(2 * pause, POLL)
        return self._value(found)

    def _left(
        self, found: Status, timeout: float | None, until: float | None, pause: float
    ) -> float:
        """How long to wait for it now. Raises NotFound, Timeout."""
        if found.status == "unknown" and not self._sent:
            raise NotFound(
                f"there is no task {self.task} with id {self.id}; what a transaction sends is"
                " there once it is committed"
            )
        left = pause if until is None else until - time.monotonic()
        if left <= 0:
            raise Timeout(f"task {self.task} {self.id} is {found.status} after {timeout:g} s")
        return min(left, pause)

    def _listen(self, mine: session.Session) -> bool:
        results = f"{self.topic}{SUFFIX}"
        mine.listen(mine.ask(lambda: topics.open(mine.connection, results)))
        return True

    def _refuse_deadlock(self, timeout: float | None) -> None:
        mine = work.current()
        if mine is not None and mine is self._unit:
            raise Invalid(
                f"task {self.task} {self.id} is sent when this handler or transaction is done:"
                " its result cannot be waited for in it"
            )
        if mine is not None and mine.parents and timeout is None:
            raise Invalid("a handler waits for a result with a timeout only: get(timeout=…)")

    def _value(self, found: Status) -> Any:
        if found.status == "succeeded":
            return (found.result or {}).get("value")
        if found.status == "revoked":
            raise Revoked(f"task {self.task} {self.id} was revoked")
        if found.status == "expired":
            raise Expired(f"task {self.task} {self.id} expired before a worker had time for it")
        error = (found.result or {}).get("error")
        if not isinstance(error, dict):
            error = _error_of(found.error or "")
        raise TaskFailed(self.task, self.id, error["type"], error["message"], error["traceback"])


def _error_of(filed: str) -> dict[str, str]:
    """What is known of a failure without a result: a traceback, or a sentence of Kirby's."""
    last = (filed.strip().splitlines() or ["nothing is known of its error"])[-1]
    kind, colon, message = last.partition(": ")
    if colon and "Traceback" in filed:
        return {"type": kind, "message": message, "traceback": filed}
    return {"type": "Killed", "message": filed.strip() or last, "traceback": ""}

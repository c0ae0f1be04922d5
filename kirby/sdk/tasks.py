"""Tasks: functions that are called elsewhere, later, and as often as it takes."""

from __future__ import annotations

import functools
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from json.encoder import encode_basestring_ascii as encode
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from kirby.core import payload, topics
from kirby.core.errors import Denied, Invalid, Unavailable, WrongSchema
from kirby.core.subscriptions import Batch, Failure
from kirby.sdk import asynchronous, limits, outbox, session, work
from kirby.sdk.arguments import Arguments
from kirby.sdk.failures import MAX_ERROR, Retry, pause_of, storable, story, tell
from kirby.sdk.messages import Message
from kirby.sdk.results import PREFIX, SUFFIX, Result
from kirby.sdk.streams import Policy, checked_limits, checked_on_replay
from kirby.sdk.times import MAX_SECONDS, Times
from kirby.sdk.topics import Topic

P = ParamSpec("P")
R = TypeVar("R")

SUBSCRIPTION = "workers"
PRIORITY = 5
BANDS = (2, 2, 2, 1, 1, 1, 1, 0, 0, 0)  # of each priority: 9 is the most urgent, band 0 comes first
MIDDLE = 1


class CurrentTask(NamedTuple):
    """The task that runs in this thread."""

    name: str
    id: str
    attempt: int
    message: Message


class Task(Generic[P, R]):
    """A function that can be called as before, or sent to the workers that serve it."""

    batch = None  # tasks are handled one by one
    to = None

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        policy: Policy,
        *,
        soft_time_limit: float | None,
        time_limit: float | None,
        result: bool,
        priority: int,
    ) -> None:
        self.function = function
        self.name = name
        self.topic = f"{PREFIX}{name}"
        self.results = f"{self.topic}{SUFFIX}"
        topics.checked_name(self.results)
        self.policy = policy
        self.soft_time_limit = soft_time_limit
        self.time_limit = time_limit
        self.keeps_result = result
        self.priority = priority
        self._limited = soft_time_limit is not None or time_limit is not None
        self._takes = Arguments(function)
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        return self.function(*args, **kwargs)

    # Sending

    def delay(self, *args: Any, **kwargs: Any) -> Result:
        """Send it with these arguments, as ``apply_async`` does."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
        key: str | None = None,
        id: str | None = None,
        headers: dict[str, Any] | None = None,
        connection: Any = None,
    ) -> Result:
        """Send it to the workers, and return what will be its result.

        In a handler or a transaction it is sent together with everything else there; with an
        application's own ``connection`` it commits with its rows; otherwise it is durable on
        return. ``countdown``: not before so many seconds; ``eta``: not before this moment (without
        a zone: local time). ``expires``: seconds, or the moment, after which it is not begun any
        more. ``priority``: 0 to 9, 9 first. ``key``: what limits of keys go by. ``id``: sending
        again under the same one does nothing. Raises Invalid for arguments that the function does
        not take or that are not JSON.
        """
        when = Times.of(countdown, eta, expires)
        found = self._result(uuid.uuid4().hex if id is None else id, connection)
        item = self._item(found.id, tuple(args), kwargs or {}, when, priority, key, headers)
        self._send([item], connection)
        return found

    def map(self, values: Iterable[Any], **options: Any) -> list[Result]:
        """Send it once for each value, all or none, in a round trip for a thousand."""
        return self.starmap(((value,) for value in values), **options)

    def starmap(
        self,
        calls: Iterable[Iterable[Any]],
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        connection: Any = None,
    ) -> list[Result]:
        """``map`` for several arguments each."""
        when = Times.of(countdown, eta, expires)
        found: list[Result] = []
        items: list[str] = []
        for args in calls:
            found.append(self._result(uuid.uuid4().hex, connection))
            items.append(self._item(found[-1].id, tuple(args), {}, when, priority, key, headers))
        if items:
            self._send(items, connection)
        return found

    async def adelay(self, *args: Any, **kwargs: Any) -> Result:
        """``delay`` for asynchronous applications: it does not hold the event loop up."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Any,
    ) -> Result:
        """``apply_async`` for asynchronous applications; so is their ``connection``."""
        if connection is not None:
            parents, stamp = work.cause()
            unit = work.Work(parents, stamp=stamp)  # only to take what is to be sent there
            with work.entered(unit):
                found = self.apply_async(args, kwargs, **options)
            await outbox.apublish(connection, [unit.messages()])
            return self._result(found.id, connection)
        if work.current() is not None:
            return self.apply_async(args, kwargs, **options)  # joins it, which takes no time
        return await asynchronous.in_thread(self.apply_async, args, kwargs, **options)

    def _result(self, id: str, connection: Any) -> Result:
        unit = work.current() if connection is None else None
        return Result(self.name, id, sent=True, unit=unit)

    def _item(
        self,
        id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        when: Times,
        priority: int | None,
        key: str | None,
        headers: dict[str, Any] | None,
    ) -> str:
        if (fault := self._takes.fault(args, kwargs)) is not None:
            raise Invalid(f"task {self.name}{self._takes} cannot be called so: {fault}")
        band = _band(self.priority if priority is None else priority)
        body: dict[str, Any] = {"id": id, "args": args, "kwargs": kwargs}
        if not self.keeps_result:
            body["result"] = False  # for the database, should the task's process be killed
        return work.message(
            body,
            key,
            headers,
            *work.cause(),
            deliver_at=when.deliver_at,
            expires_at=when.expires_at,
            id=id,
            band=None if band == MIDDLE else band,
        )

    def _send(self, items: list[str], connection: Any) -> None:
        to = Topic(self.topic)
        if connection is not None:
            outbox.publish(connection, to._documents(items))
        elif (mine := work.current()) is not None:
            mine.publish_all(self.topic, items)
        else:
            try:
                to._write_all(items, len(items))
            except Unavailable:
                # If they were stored after all, their ids keep them from coming twice.
                to._write_all(items, len(items))

    # Serving: what the loop asks of a stream

    def handle(self, done: work.Work, batch: Batch, first: int, last: int) -> None:
        """Call the function for message ``first`` of a batch, and publish what came of it."""
        done.mark(batch, first)
        body = batch.payloads[first]
        try:
            id, args, kwargs = body["id"], body["args"], body["kwargs"]
            shown = encode(id)
        except (TypeError, KeyError):
            error = Invalid(f"this is not a task: {payload.dumps(body):.200}")
            self._failed(done, batch, first, "", error, "park")
            return
        try:
            value = self._call(batch, first, args, kwargs)
        except (Unavailable, Denied, WrongSchema):
            raise
        except Exception as error:
            self._failed(done, batch, first, shown, error, self._action(error))
            return
        if self.keeps_result:
            try:
                text = "null" if value is None else payload.dumps(value, f"the result of {self!r}")
            except Invalid as error:  # another try would do it all again
                self._failed(done, batch, first, shown, error, "park")
                return
            done.publish(self.results, _answer(done, shown, "succeeded", "value", text))

    def _call(self, batch: Batch, index: int, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if self._takes.message is not None:
            args, kwargs = self._takes.with_message(args, kwargs, self._message(batch, index))
        _here.current = self, batch, index
        try:
            if self._limited and (guard := limits.guard()) is not None:
                position = batch.positions[index]
                with guard.over(batch, position, self.soft_time_limit, self.time_limit):
                    return self.function(*args, **kwargs)
            return self.function(*args, **kwargs)
        finally:
            _here.current = None

    def _message(self, batch: Batch, index: int) -> Message:
        return Message.of_batch(self.topic, batch, index, batch.payloads[index]["id"])

    def _action(self, error: Exception) -> str:
        return "retry" if isinstance(error, Retry) else self.policy.action(error)

    def _failed(
        self, done: work.Work, batch: Batch, index: int, id: str, error: Exception, action: str
    ) -> None:
        """Leave nothing of the attempt but a failure, and a result if it was the last."""
        done.undo()
        if action == "ignore":
            if self.keeps_result:
                done.publish(self.results, _answer(done, id, "succeeded", "value", "null"))
            return
        text = story(error)
        tell(self.topic, batch, index, text)
        position, pause = batch.positions[index], pause_of(error)
        done.failures.append(Failure(position, action, text[-MAX_ERROR:], pause))
        over = action == "park" or batch.attempt >= self.policy.max_attempts
        if over and self.keeps_result and id:
            done.publish(self.results, _answer(done, id, "failed", "error", _told(error, text)))


def _answer(done: work.Work, id: str, status: str, kind: str, text: str) -> str:
    """A message of results; put together of JSON texts, since there is one for each task."""
    [task] = done.parents
    stamped = "" if done.stamp is None else f',"h":{done.stamp.text}'
    value = f'{{"id":{id},"status":"{status}","{kind}":{text}}}'
    return work.Special(f'{{"v":{value}{stamped},"p":[{task}],"r":{task}}}')


def _told(error: Exception, text: str) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    message = storable(str(error))[:MAX_ERROR]
    return payload.dumps({"type": name, "message": message, "traceback": text[-MAX_ERROR:]})


def _band(priority: Any) -> int:
    if type(priority) is int and 0 <= priority <= 9:
        return BANDS[priority]
    raise Invalid(f"priority is {priority!r}: from 0 to 9, 9 is the most urgent")


def result(task: Task[..., Any] | str, id: str) -> Result:
    """The result of a task that was sent from anywhere, by its id."""
    return Result(task.name if isinstance(task, Task) else task, id)


# The task of this thread

_here = threading.local()


def current_task() -> CurrentTask | None:
    """The task that runs in this thread: its name, id, attempt (1 at first) and message."""
    found = getattr(_here, "current", None)
    if found is None:
        return None
    task, batch, index = found
    return CurrentTask(
        task.name, batch.payloads[index]["id"], batch.attempt, task._message(batch, index)
    )


# Declaring

REGISTERED: dict[str, Task[..., Any]] = {}


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    name: str | None = ...,
    max_attempts: int = ...,
    park: tuple[type[Exception], ...] = ...,
    ignore: tuple[type[Exception], ...] = ...,
    soft_time_limit: float | None = ...,
    time_limit: float | None = ...,
    max_in_flight: int | None = ...,
    rate: float | None = ...,
    key_in_flight: int | None = ...,
    key_rate: float | None = ...,
    result: bool = ...,
    priority: int = ...,
    on_replay: str = ...,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_attempts: int = 5,
    park: tuple[type[Exception], ...] = (),
    ignore: tuple[type[Exception], ...] = (),
    soft_time_limit: float | None = None,
    time_limit: float | None = None,
    max_in_flight: int | None = None,
    rate: float | None = None,
    key_in_flight: int | None = None,
    key_rate: float | None = None,
    result: bool = True,
    priority: int = PRIORITY,
    on_replay: str = "process",
) -> Any:
    """Let a function be called by workers: ``send.delay(…)`` sends it, ``send(…)`` still calls it.

    A call that raises is tried again after a pause that grows, and parked after ``max_attempts``,
    or at once for an error of ``park``; for one of ``ignore`` it is done. What it publishes and the
    states it changes commit together with its acknowledgement and its result (none is kept with
    ``result=False``). Its arguments and its result are JSON.

    ``soft_time_limit``: seconds after which SoftTimeLimit is raised in it; ``time_limit``: seconds
    after which its process is ended (of ``kirby worker``: a child that is started again).
    ``rate`` a second and ``max_in_flight`` hold for all workers together, ``key_rate`` and
    ``key_in_flight`` for each key. ``on_replay`` is as of ``kirby.stream``. ``name``: else the
    module and the function.
    """
    if not 1 <= max_attempts <= 1000:
        raise Invalid(f"max_attempts is {max_attempts}: from 1 to 1000")
    for what, seconds in (("soft_time_limit", soft_time_limit), ("time_limit", time_limit)):
        if seconds is not None and not 0 < seconds <= MAX_SECONDS:
            raise Invalid(f"{what} is {seconds!r}: from above 0 seconds to a year")
    _band(priority)
    policy = Policy(
        ordered=False,
        on_failure="park",
        max_attempts=max_attempts,
        park=park,
        ignore=ignore,
        max_in_flight=max_in_flight,
        rate=rate,
        key_in_flight=key_in_flight,
        key_rate=key_rate,
        on_replay=checked_on_replay(on_replay),
    )
    checked_limits(policy)

    def register(function: Callable[..., Any]) -> Task[..., Any]:
        found = Task(
            function,
            name or name_of(function),
            policy,
            soft_time_limit=soft_time_limit,
            time_limit=time_limit,
            result=result,
            priority=priority,
        )
        other = REGISTERED.get(found.name)
        if other is not None and _origin(other.function) != _origin(function):
            raise Invalid(
                f"two tasks are named {found.name}: {_origin(other.function)} and"
                f" {_origin(function)}; name one, @kirby.task(name=…)"
            )
        REGISTERED[found.name] = found
        return found

    return register if function is None else register(function)


def _origin(function: Callable[..., Any]) -> str:
    """Where a function stands. The same file may be imported under two names."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{function.__qualname__}" if code else repr(function)


def name_of(function: Callable[..., Any]) -> str:
    """The module and the function; of a script, the job and the function."""
    module = function.__module__
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        own = session.script_name() if spec is None else spec.name
        module = os.environ.get("KIRBY_JOB") or own
    return f"{module}.{function.__name__}"

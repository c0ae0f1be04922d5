"""For asynchronous applications: what Kirby does, in a few threads of its own, awaited.

Everything is written once, in synchronous code; these threads keep it off the event loop. Each has
a session, and so a connection, of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4

_lock = threading.Lock()
_threads: ThreadPoolExecutor | None = None


async def in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``fn`` in one of Kirby's threads and return what it returns. For what is short.

    If the task is cancelled while all threads are busy, nothing happens at all. Once begun, the
    call is done whole, and only then is the task cancelled: nothing goes on behind its back.
    The call is in no unit of work, whatever the task is in.
    """
    begun = _started().submit(lambda: contextvars.Context().run(fn, *args, **kwargs))
    waiting = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not begun.cancel():
            await _end(waiting)
        raise


async def _end(waiting: asyncio.Future[T]) -> None:
    """Wait until it is over, however often we are told not to."""
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([waiting])
    waiting.exception()  # seen: the cancellation matters more


def _started() -> ThreadPoolExecutor:
    global _threads
    with _lock:
        if _threads is None:
            _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kirby")
        return _threads


def close() -> None:
    """End the threads and so their sessions, when what was begun is done. They start again."""
    global _threads
    with _lock:
        ending, _threads = _threads, None
    if ending is not None:
        ending.shutdown()


def _forget() -> None:
    """After a fork: the threads are the parent's."""
    global _threads, _lock
    _threads, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)

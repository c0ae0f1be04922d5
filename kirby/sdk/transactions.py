"""Publishes and changes of states that are written together, outside a handler."""

from __future__ import annotations

from contextlib import AbstractContextManager, ContextDecorator
from types import TracebackType
from typing import Any

from kirby.core.errors import Conflict
from kirby.sdk import asynchronous, session, work


class transaction(ContextDecorator):
    """Group publishes and changes of states: at the end of the block they are written at once.

    Inside a handler or another transaction it joins that unit of work. On an error in the block
    nothing of it is written. Raises Conflict if a key that was read in the block was changed by
    somebody else: run the block again. ``async with`` does not hold the event loop up meanwhile;
    tasks started in the block may join it until it ends.
    """

    def __enter__(self) -> None:
        outer = work.current()
        self._mine = work.Work() if outer is None else None
        self._block: AbstractContextManager[Any] = (
            outer.part() if outer is not None else work.entered(self._mine or work.Work())
        )
        self._block.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.__exit__(kind, error, trace)
        if error is None and self._mine is not None:
            _commit(self._mine)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.__exit__(kind, error, trace)
        if error is None and self._mine is not None:
            await asynchronous.in_thread(_commit, self._mine)

    def _recreate_cm(self) -> transaction:
        return transaction()  # as a decorator: one for each call


def _commit(done: work.Work) -> None:
    try:
        session.get().commit(done)
    except Conflict as error:
        raise Conflict(f"{error}; nothing was written, run the block again") from error

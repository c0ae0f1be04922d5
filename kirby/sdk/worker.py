"""A worker: serves the streams and tasks of this process until it is asked to stop."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kirby.core.errors import Invalid
from kirby.sdk import crew, loop, session, shadows, streams, tasks
from kirby.sdk.consumer import NotShadowed, pause
from kirby.sdk.limits import Board, Clock, Guard, seated
from kirby.sdk.stop import Stop
from kirby.sdk.streams import Stream
from kirby.sdk.tasks import Task

Served = Stream | Task[..., Any]
MAX_THREADS = 1000
loading: list[str] = []  # the module that a pool is importing: it must not serve by itself


def run(threads: int = 1) -> None:
    """Serve every stream and task of this process until SIGTERM, then finish what is at hand.

    A message whose handler raises is delivered again after a pause, by itself, and parked after
    its last attempt; meanwhile the messages of its key wait, the others go on. With several
    ``threads`` each claims by itself; the order of keys holds. A second signal breaks off what is
    at hand. Raises Invalid if there is nothing to serve.
    """
    if loading:
        raise Invalid(
            f"{loading[0]} calls kirby.run() when it is imported: put the call under"
            " if __name__ == '__main__', the worker serves by itself"
        )
    if not 1 <= threads <= MAX_THREADS:
        raise Invalid(f"threads is {threads!r}: from 1 to {MAX_THREADS}")
    found = registered()
    if not found:
        raise Invalid(
            "kirby.run() has nothing to serve: decorate a function with @kirby.stream or"
            " @kirby.task"
        )
    stop = Stop()
    with stop.on_signals():
        serve(found, threads, stop)
    _conclude(session.get())


def serve_once() -> bool:
    """In a folder: serve what there is to do until nothing is left; whether there was anything."""
    found = registered()
    if not found:
        return False
    mine, stop = session.get(), Stop()
    servers = [loop.Server(mine, each, name, stop) for each, name in named(found, mine.job)]
    busy = False
    while not stop.asked:
        busy = any([server.step() for server in servers]) or busy
        pause(mine, [server.consumer for server in servers], loop.POLL, stop)
    return busy


def _conclude(mine: session.Session) -> None:
    """A folder comes to its end: what failed is said, and is the end of the script."""
    if mine.folder is None:
        return
    mine.folder.save()
    if failures := mine.folder.failures():
        for line in failures:
            print(f"kirby: {line}", file=sys.stderr, flush=True)
        sys.exit(1)


def registered() -> list[Served]:
    """What the modules that are imported have declared."""
    return [*streams.REGISTERED, *tasks.REGISTERED.values()]


def serve(
    found: Sequence[Served],
    threads: int,
    stop: Stop,
    board: Board | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until it is time to stop. With a ``board`` of its parent, that keeps hard limits."""
    names = named(found, session.get().job)
    own = Board.alone(threads) if board is None else board
    with _clock(found, own, threads, ends_process=board is None) as clock:

        @contextlib.contextmanager
        def enter(mine: session.Session, seat: int) -> Iterator[None]:
            guard = Guard(own, seat, mine.holder)
            if clock is not None:
                clock.add(guard)
            with seated(guard):
                yield

        def servers(mine: session.Session) -> list[loop.Server]:
            return [made for each, name in names if (made := _server(mine, each, name, stop))]

        if threads > 1 and shadows.current() is None:
            crew.Crew(servers, threads, stop, enter).run(ready)
            return
        mine = session.get()
        alone = servers(mine)
        ready()
        with enter(mine, 0):
            loop.serve(mine, alone, stop)


@contextlib.contextmanager
def _clock(
    found: Sequence[Served], board: Board, threads: int, *, ends_process: bool
) -> Iterator[Clock | None]:
    """A thread that looks after time limits, if there are any that need it."""
    limited = [each for each in found if isinstance(each, Task)]
    hard = ends_process and any(each.time_limit is not None for each in limited)
    by_signal = threads == 1 and threading.current_thread() is threading.main_thread()
    soft = not by_signal and any(each.soft_time_limit is not None for each in limited)
    if not hard and not soft:
        yield None
        return
    with Clock(board, ends_process=ends_process) as clock:
        yield clock


def _server(mine: session.Session, each: Served, name: str, stop: Stop) -> loop.Server | None:
    """None: this process is a shadow, which does not read that topic."""
    try:
        return loop.Server(mine, each, name, stop)
    except NotShadowed:
        return None


def named(found: Sequence[Served], job: str) -> list[tuple[Served, str]]:
    """Each with the name of its subscription. Raises Invalid if two streams would share one."""
    taken: dict[tuple[str, str], Served] = {}
    for each in found:
        name = tasks.SUBSCRIPTION if isinstance(each, Task) else each.name or job
        if (other := taken.get((each.topic, name))) is not None:
            raise Invalid(
                f"{other.function.__name__} and {each.function.__name__} both read topic"
                f' {each.topic} as {name}: name one, @kirby.stream("{each.topic}", name="…")'
            )
        taken[each.topic, name] = each
    return [(each, name) for (_, name), each in taken.items()]

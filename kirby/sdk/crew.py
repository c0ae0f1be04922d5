"""The threads of a worker: each claims on its own connection, and one listens for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from kirby.core.errors import Unavailable
from kirby.sdk import loop, session
from kirby.sdk.consumer import Consumer, pause, renewal_pause
from kirby.sdk.rota import Rota
from kirby.sdk.stop import Stop

Open = Callable[[session.Session], Sequence[loop.Server]]
Enter = Callable[[session.Session, int], AbstractContextManager[None]]
EAR = 0.2  # seconds between looks at whether it is time to stop


class Crew:
    """So many threads that serve the same streams and tasks.

    The calling thread listens to all topics and renews all leases, on a connection of its own:
    a handler that keeps its thread busy, or a slow statement, holds up no other.
    """

    def __init__(self, open: Open, threads: int, stop: Stop, enter: Enter) -> None:
        self._open = open
        self._enter = enter
        self._stop = stop
        self._rota: Rota | None = None
        self._consumers: list[Consumer] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._ready = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, args=(seat,), name=f"kirby-{seat}", daemon=True)
            for seat in range(threads)
        ]

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until it is time to stop. Raises what one of the threads raised."""
        for thread in self._threads:
            thread.start()
        try:
            self._await_all()
            if self._error is None:
                ready()
            self._tend()
        except BaseException:  # a second signal: what is at hand is broken off
            for consumer in self._consumers:
                consumer.release(by=session.get())
            raise
        if self._error is not None:
            raise self._error

    def _await_all(self) -> None:
        for _ in self._threads:
            while not self._ready.acquire(timeout=EAR):
                pass

    # In a thread

    def _run(self, seat: int) -> None:
        try:
            self._serve(seat)
        except BaseException as error:
            self._error = self._error or error
            self._stop.asked = True
        finally:
            self._wake(None)

    def _serve(self, seat: int) -> None:
        mine = session.get()
        try:
            servers = self._open(mine)
            consumers = [server.consumer for server in servers]
            with self._lock:
                self._consumers += consumers
                self._rota = rota = self._rota or Rota(len(servers), loop.POLL)
        finally:
            self._ready.release()
        with self._enter(mine, seat), loop.given_back(mine, consumers, self._stop):
            while not self._stop.asked:
                if not loop.turn(servers, rota, self._stop):
                    seconds = pause(mine, consumers, loop.POLL, self._stop)
                    if rota.wait(mine.until_look(seconds)):
                        rota.wake(None)

    # In the calling thread

    def _tend(self) -> None:
        """Wake threads when there is something for them, and renew what they hold."""
        mine = session.get()
        channels: dict[str, list[int]] = {}
        count = len(self._consumers) // len(self._threads) if self._error is None else 0
        for index, consumer in enumerate(self._consumers[:count]):
            mine.persist(partial(mine.listen, consumer.topic_id), lambda: self._stop.asked)
            channels.setdefault(consumer.channel, []).append(index)
        self._wake(None)  # what came before we listened
        renewed = time.monotonic()
        while any(thread.is_alive() for thread in self._threads):
            for channel in self._hear(mine):
                self._wake(channels.get(channel, ()))
            if self._stop.asked:
                self._wake(None)
            if time.monotonic() - renewed >= renewal_pause():
                renewed = time.monotonic()
                self._renew(mine)

    def _hear(self, mine: session.Session) -> set[str]:
        try:
            return mine.wait(EAR)
        except Unavailable:
            time.sleep(EAR)
            return set()

    def _renew(self, mine: session.Session) -> None:
        for consumer in self._consumers:
            consumer.renew(mine)

    def _wake(self, indexes: Sequence[int] | None) -> None:
        if self._rota is not None:
            self._rota.wake(indexes)

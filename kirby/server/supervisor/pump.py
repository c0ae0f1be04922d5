"""Read what all children write, in one thread, so that none of them ever waits for the database."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import selectors
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.lines import Splitter, said
from kirby.server.supervisor.redaction import Redactor, Secrets
from kirby.server.supervisor.wake import Wake

log = logging.getLogger("kirby.supervisor")

READ = 1 << 18  # bytes at once
PATIENCE = 1.0  # seconds that the beginning of a line waits for its end
LEFT_OPEN = 2.0  # seconds after a run's end for which a grandchild may keep its pipes open
PIPE = 1 << 18  # bytes that a child may write while we are busy with others
LEFT = "something that the run started goes on and holds its output: it is not read any more"


@dataclass(eq=False)
class Source:
    """One pipe of one run."""

    fd: int
    redactor: Redactor
    splitter: Splitter
    flush_at: float = 0.0  # on the monotonic clock; 0: nothing is held back

    @property
    def holds(self) -> bool:
        """Whether something waits for what comes next."""
        return self.redactor.holds or self.splitter.partial


@dataclass(eq=False)
class Output:
    """All that one run writes; it is over when its process ended and its pipes are closed."""

    run_id: int
    sources: list[Source] = field(default_factory=list)
    close_at: float = 0.0  # on the monotonic clock; 0: the process has not ended
    heard_at: float = 0.0  # on the monotonic clock; 0: it has written nothing yet


class Pump:
    """Call ``attach`` for each run, ``finish`` when its process has ended; from any thread.

    Every line goes to the backlog, and after the last one of a run its end. `clock` gives the
    time of the lines, in seconds since 1970.
    """

    def __init__(self, backlog: Backlog, clock: Callable[[], float] = time.time) -> None:
        self._backlog = backlog
        self._clock = clock
        self._outputs: dict[int, Output] = {}
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wake = Wake()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="kirby pump", daemon=True)

    def start(self) -> None:
        self._selector.register(self._wake.fileno(), selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Close every pipe and end the thread. Children that still write get SIGPIPE."""
        self._stopped = True
        self._wake.set()
        self._thread.join()
        for output in self._outputs.values():
            for source in output.sources:
                os.close(source.fd)
        self._outputs.clear()
        self._selector.close()
        self._wake.close()

    def attach(self, run_id: int, stdout: int, stderr: int, hidden: str | Sequence[str]) -> None:
        """Read these descriptors, and close them; the `hidden` values never get into a line."""
        secrets = Secrets([hidden] if isinstance(hidden, str) else hidden)
        sources = [
            Source(fd, Redactor(secrets), Splitter(run_id, stream))
            for fd, stream in ((stdout, "stdout"), (stderr, "stderr"))
        ]
        for source in sources:
            os.set_blocking(source.fd, False)
            with contextlib.suppress(OSError):  # the user's share of pipes is used up
                fcntl.fcntl(source.fd, fcntl.F_SETPIPE_SZ, PIPE)
        self._ask(lambda: self._attach(Output(run_id, sources)))

    def heard_at(self, run_id: int) -> float:
        """When the run last wrote anything, on the monotonic clock; 0: nothing yet."""
        output = self._outputs.get(run_id)
        return output.heard_at if output else 0.0

    def finish(self, run_id: int) -> None:
        """The process of the run has ended: read what it left, then end the run's output."""
        self._ask(lambda: self._finish(run_id))

    def forget(self) -> None:
        """Close all pipes and throw away what is held back: the runs belong to somebody else.

        When it returns, no line of theirs will be put into the backlog any more.
        """
        done = threading.Event()
        self._ask(self._forget)
        self._ask(done.set)
        done.wait()

    def tick(self, timeout: float) -> None:
        """One pass: wait at most so long for output, read it, flush and close what is due."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wake.clear()
            else:
                self._read(*key.data)
        while not self._requests.empty():
            self._requests.get()()
        self._flush()
        self._close_left_open()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.tick(self._timeout())
            except Exception:  # the pump serves all runs: it goes on whatever one of them does
                log.exception("the pump of output stumbled")

    def _ask(self, request: Callable[[], None]) -> None:
        self._requests.put(request)
        self._wake.set()

    def _timeout(self) -> float:
        dues = [o.close_at for o in self._outputs.values() if o.close_at]
        dues += [s.flush_at for o in self._outputs.values() for s in o.sources if s.flush_at]
        return max(0.0, min(dues) - time.monotonic()) if dues else 60.0

    def _attach(self, output: Output) -> None:
        self._outputs[output.run_id] = output
        for source in output.sources:
            self._selector.register(source.fd, selectors.EVENT_READ, (output, source))

    def _read(self, output: Output, source: Source, most: int = 0) -> None:
        try:
            data = os.read(source.fd, most or READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(output, source)
            return
        output.heard_at = time.monotonic()
        self._take(source, source.redactor.feed(data))
        if not source.holds:
            source.flush_at = 0.0
        elif not source.flush_at or b"\n" in data:
            source.flush_at = time.monotonic() + PATIENCE

    def _take(self, source: Source, data: bytes) -> None:
        now, run_id = self._clock(), source.splitter.run_id
        if self._backlog.is_dropping(run_id):
            self._backlog.drop(run_id, source.splitter.skip(data), now)
        elif lines := source.splitter.feed(data, now):
            self._backlog.put(lines)

    def _flush(self) -> None:
        now = time.monotonic()
        for output in self._outputs.values():
            for source in output.sources:
                if source.flush_at and source.flush_at <= now:
                    source.flush_at = 0.0
                    self._take(source, source.redactor.flush())
                    self._backlog.put(source.splitter.flush(self._clock()))

    def _finish(self, run_id: int) -> None:
        output = self._outputs.get(run_id)
        if output is None:
            self._backlog.end(run_id)
            return
        output.close_at = time.monotonic() + LEFT_OPEN
        self._end_if_over(output)

    def _close_left_open(self) -> None:
        now = time.monotonic()
        for output in [o for o in self._outputs.values() if o.close_at and o.close_at <= now]:
            for source in list(output.sources):
                self._read_rest(output, source)
            if output.sources:
                notice = said(output.run_id, "warning", LEFT, self._clock())
                self._backlog.put([notice])
            for source in list(output.sources):
                self._close(output, source)

    def _read_rest(self, output: Output, source: Source) -> None:
        """What is in the pipe by now: nothing of what the run itself wrote is left behind."""
        waiting = fcntl.ioctl(source.fd, termios.FIONREAD, struct.pack("i", 0))
        if count := struct.unpack("i", waiting)[0]:
            self._read(output, source, count)

    def _close(self, output: Output, source: Source) -> None:
        self._take(source, source.redactor.end())
        self._backlog.put(source.splitter.end(self._clock()))
        self._selector.unregister(source.fd)
        os.close(source.fd)
        output.sources.remove(source)
        self._end_if_over(output)

    def _end_if_over(self, output: Output) -> None:
        if output.close_at and not output.sources:
            del self._outputs[output.run_id]
            self._backlog.end(output.run_id)

    def _forget(self) -> None:
        for output in self._outputs.values():
            for source in output.sources:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(source.fd)
                os.close(source.fd)
        self._outputs.clear()

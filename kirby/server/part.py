"""One process of the house below `kirby dev`: started, watched, started again, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAUSES = (0.1, 1.0, 5.0)  # seconds before a part that ended is started again
STEADY = 60.0  # seconds after which an end is a first end again
LOG_LIMIT = 10 * 2**20


@dataclass
class Part:
    """`kirby NAME …` as a child that ends with us; what it prints goes to a log file.

    ``inherited`` are descriptors that it keeps open: locks that are to last as long as it does.
    """

    name: str
    arguments: tuple[str, ...]
    environ: dict[str, str]
    log: Path
    inherited: tuple[int, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)
    _said_before: int = field(default=0, init=False)  # bytes in the log when it started
    _ends: int = field(default=0, init=False)  # in a row, without a steady time between
    _again: float | None = field(default=None, init=False)  # when it is due to start again

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; the caller is the main thread, or the part would end with the other one."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [sys.executable, "-m", "kirby", self.name, *self.arguments]
        with self.log.open("ab") as log:
            self._said_before = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, "--parent", str(os.getpid())],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.inherited,
                start_new_session=True,  # Ctrl-C is for the parent, which stops all in order
            )
        self._started, self._again = time.monotonic(), None

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """Start it again if it ended: at once the first time, after a pause when it ends again."""
        now = time.monotonic()
        if self.alive:
            return
        if self._again is None:
            self._ends = self._ends + 1 if now - self._started < STEADY else 0
            self._again = now + PAUSES[min(self._ends, len(PAUSES) - 1)]
            say(f"kirby {self.name} ended ({self.last_words()}); starting it again")
        if now >= self._again:
            self.start()

    def ask_to_stop(self) -> None:
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until it has ended; kill it at the deadline (of the monotonic clock)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Why it ended: the signal that killed it, or the last line that it wrote."""
        status = self._process.poll() if self._process else None
        if status is not None and status < 0:
            return f"killed by signal {-status}"
        with contextlib.suppress(OSError), self.log.open(errors="replace") as log:
            log.seek(self._said_before)
            if lines := log.read().strip().splitlines():
                return lines[-1].removeprefix("kirby: ")
        return f"exit code {status}, and it said nothing"

"""The process that ends what runs left running, also when the supervisor itself is gone."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

log = logging.getLogger("kirby.supervisor")

REAPER = Path(__file__).with_name("reaper.py")
EVERY = 1.0  # seconds between two signs of life, but at least four in the time of the patience
NEARLY = 0.9  # of the patience: the reaper's clock and ours need not agree to the instant
MARK = "KIRBY_SUPERVISOR"


class Strays:
    """``start`` it, call ``alive`` in every pass, ``ended`` for each run that is over, ``stop``.

    `folder` is where the folders of runs are. Without a sign of life for `patience` seconds all
    that was started is killed: a supervisor that was stopped for so long has lost its lease.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self.mark = secrets.token_hex(8)
        self._folder = folder
        self._patience = patience
        self._every = min(EVERY, patience / 4)
        self._process: subprocess.Popen[bytes] | None = None
        self._alive_at = 0.0
        self._sign_at = time.monotonic()

    def start(self) -> None:
        self._sign_at = time.monotonic()
        arguments = [self.mark, str(self._folder), str(self._patience)]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", str(REAPER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)

    def alive(self) -> None:
        """A sign of life, now and then; the reaper is started again if somebody killed it."""
        if self._process is None or time.monotonic() < self._alive_at:
            return
        self._sign_at = time.monotonic()
        self._alive_at = self._sign_at + self._every
        if self._process.poll() is not None:
            log.warning("the process that ends what runs leave behind was killed: a new one starts")
            self._close()
            self.start()
        self._write(b"alive\n")

    def was_silent(self) -> bool:
        """Whether there was no sign of life for so long that everything may have been killed."""
        return time.monotonic() - self._sign_at > NEARLY * self._patience

    def ended(self, run_id: int) -> None:
        """End what this run left running, whatever its session and parent."""
        self._write(b"end %d\n" % run_id)

    def stop(self, timeout: float = 5.0) -> None:
        """End what all runs left running, and wait for that."""
        if self._process is None:
            return
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._process = None

    def _write(self, line: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # full or closed: alive() starts it again
            os.write(self._process.stdin.fileno(), line)

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

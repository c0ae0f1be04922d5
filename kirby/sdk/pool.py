"""A pool of worker processes: started, watched, started again, and stopped together.

``python -m kirby.sdk.pool MODULE --processes N --threads M``: what ``kirby worker`` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from kirby.core import dsn
from kirby.core.errors import Invalid, KirbyError
from kirby.sdk.limits import Board, bury, say
from kirby.sdk.stop import Stop

TICK = 0.05  # seconds between looks at the children
FIRST_PAUSE, MAX_PAUSE = 0.1, 30.0  # seconds before a child that died is started again
HEALTHY = 10.0  # seconds: after that a child's death is no sign that the next one will die
AFTERWARDS = (0.3, 3.0)  # seconds after a death: a statement may have gone on until then
MAX_LINE = 65536


class Child:
    """A process of the pool, as its parent sees it."""

    def __init__(self, target: str, threads: int) -> None:
        self.started = time.monotonic()
        self.late = False  # ended by us, since something in it ran too long
        self.words: dict[str, Any] = {}  # what it said: what it serves, or why it cannot
        self._said = b""
        with tempfile.TemporaryFile() as file:
            self.board = Board.shared(file.fileno(), threads)
            self._hears, says = os.pipe()
            lives, self._life = os.pipe()
            os.set_blocking(self._hears, False)
            try:
                self._process = self._start(target, threads, file.fileno(), says, lives)
            finally:
                os.close(says)
                os.close(lives)

    @staticmethod
    def _start(target: str, threads: int, *files: int) -> subprocess.Popen[bytes]:
        numbers = [str(number) for number in (threads, *files)]
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "kirby.sdk.child", target, *numbers],
            stdin=subprocess.DEVNULL,
            pass_fds=files,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def listen(self) -> None:
        """Take note of what it said."""
        try:
            self._said += os.read(self._hears, MAX_LINE)
        except BlockingIOError:
            return
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            self.words |= json.loads(line)

    @property
    def serves(self) -> bool:
        """Whether it came as far as to claim, though it may not have come to say so."""
        return "error" not in self.words and ("tasks" in self.words or bool(self.board.holders()))

    def exit(self) -> int | None:
        """How it ended (below zero: by that signal); None while it lives."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        for file in (self._hears, self._life):
            os.close(file)


class Pool:
    """So many children, each with so many threads; a child that dies is replaced."""

    def __init__(self, target: str, processes: int, threads: int) -> None:
        self._target = target
        self._processes = processes
        self._threads = threads
        self._stop = Stop()
        self._stopping = False
        self._is_ready = False
        self._said = False
        self._children: list[Child] = []
        self._due: list[float] = [0.0]  # when children are to be started; the first one alone
        self._graves: list[tuple[float, Board]] = []  # where to look again, and when
        self._deaths = 0  # one after the other, each of a child that was young

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then let all finish what is at hand; the exit code.

        A second signal ends all of them at once; what they had is given back. Raises Invalid if
        the module cannot be served.
        """
        with self._stop.on_signals():
            try:
                while self._children or not self._stop.asked:
                    self._look()
                    time.sleep(TICK)
                self._visit(float("inf"))
            except (KeyboardInterrupt, SystemExit) as error:
                code = error.code if isinstance(error, SystemExit) else 128 + signal.SIGINT
                return int(code or 0)
            finally:
                self._end_all()
        return 0

    def _end_all(self) -> None:
        for child in self._children:
            child.kill()
        if self._children:
            time.sleep(AFTERWARDS[0])
        for child in self._children:
            bury(child.board)

    def _look(self) -> None:
        if self._stop.asked and not self._stopping:
            self._stopping = True
            for child in self._children:
                child.ask_to_stop()
        for child in list(self._children):
            code = child.exit()
            child.listen()
            if not self._is_ready and child.serves:
                self._is_ready = True  # the first one serves: so can the others
                self._due += [0.0] * (self._processes - 1)
            if code is not None:
                self._ended(child, code)
            elif late := child.board.overdue(time.monotonic()):
                say(late)
                child.late = True
                child.kill()
        self._visit(time.monotonic())
        self._announce()
        if not self._stop.asked:
            self._start()

    def _visit(self, now: float) -> None:
        """Give back what the database handed out to the dead: it did not know yet."""
        for grave in [grave for grave in self._graves if grave[0] <= now]:
            self._graves.remove(grave)
            bury(grave[1])

    def _start(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._children.append(Child(self._target, self._threads))

    def _announce(self) -> None:
        """Say once that all are at work."""
        ready = [child for child in self._children if "tasks" in child.words]
        if self._said or len(ready) < self._processes:
            return
        self._said = True
        counts = (_count(ready[0].words[word], word[:-1]) for word in ("streams", "tasks"))
        print(
            f"the worker is at work: {_count(self._processes, 'process', 'processes')} of"
            f" {_count(self._threads, 'thread')}, {' and '.join(filter(None, counts))}",
            flush=True,
        )

    def _ended(self, child: Child, code: int) -> None:
        """Give back what it had, and plan for another."""
        self._children.remove(child)
        child.close()
        error = child.words.get("error")
        if code != 0 or child.late:
            late = child.board.overdue(time.monotonic()) if child.late else ()
            bury(child.board, late, suspect=not child.late)
            self._graves += [(time.monotonic() + later, child.board) for later in AFTERWARDS]
        if self._stop.asked:
            return
        if not self._is_ready and code != 0:
            raise Invalid(error or f"the process that imports {self._target} {_end(code)}")
        young = time.monotonic() - child.started < HEALTHY
        self._deaths = self._deaths + 1 if young and code != 0 and not child.late else 0
        pause = self._pause()
        self._due.append(time.monotonic() + pause)
        if code != 0:
            what = f": {error}" if error else f" {_end(code)}"
            print(
                f"kirby: worker process {child.pid}{what}; another one starts in {pause:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def _pause(self) -> float:
        if self._deaths == 0:
            return 0.0
        longest = min(FIRST_PAUSE * 2.0 ** min(self._deaths - 1, 20), MAX_PAUSE)
        return longest * random.uniform(0.5, 1)  # noqa: S311


def _end(code: int) -> str:
    if code < 0:
        return f"was ended by signal {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}" if number else ""


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def main() -> int:
    """The command; errors are one line on standard error, and exit code 1."""
    parser = argparse.ArgumentParser("kirby worker", description=__doc__.splitlines()[0])
    parser.add_argument("target", metavar="MODULE[:NAME,…]")
    parser.add_argument("--processes", type=_at_least_one, default=1, metavar="N")
    parser.add_argument("--threads", type=_at_least_one, default=1, metavar="M")
    given = parser.parse_args()
    try:
        dsn.find(os.environ)
        return Pool(given.target, given.processes, given.threads).run()
    except KirbyError as error:
        print(f"kirby: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

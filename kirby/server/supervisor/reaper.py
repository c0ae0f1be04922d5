"""Ends what runs left running: beside its supervisor, and after it, however that ended.

The supervisor runs this file as a script, `reaper.py MARK FOLDER PATIENCE`, and writes lines to it:
`end RUN` when a run is over, `alive` in between. When the lines end, the supervisor has; when none
came for PATIENCE seconds, it was stopped or hangs, and its runs are somebody else's. In both cases
everything that it had started is killed.

A process is a run's if it was started with its variables, or works in its folder, or descends from
one that is: also one that made itself a session of its own, and whose parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

ROUNDS = 50
QUIET = 3  # looks that find nothing: a process may fork, and end, while it is looked for
GATHER = 0.2  # seconds: runs that end together are looked for together


class Reaper:
    """`mark` is in the variables of all runs of the supervisor, their folders are in `folder`."""

    def __init__(self, mark: str, folder: str) -> None:
        self._mark = f"KIRBY_SUPERVISOR={mark}".encode()
        self._folder = os.path.realpath(folder)

    def end(self, runs: set[str] | None, unless: Callable[[], object] = lambda: False) -> None:
        """Kill all that belongs to these runs, None: to any; look again, `unless` there is news."""
        quiet = 0
        for _ in range(ROUNDS):
            if unless():
                return
            found = self._find(runs)
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            quiet = 0 if found else quiet + 1
            if quiet == QUIET:
                return
            time.sleep(0.02)

    def _find(self, runs: set[str] | None) -> set[int]:
        parents = {}
        found = set()
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    state, parent = _stat(name)
                    if state == "Z":
                        continue
                    parents[int(name)] = parent
                    if self._is_of(name, runs):
                        found.add(int(name))
        return found | {pid for pid in parents if _descends(pid, found, parents)}

    def _is_of(self, pid: str, runs: set[str] | None) -> bool:
        folder = os.readlink(f"/proc/{pid}/cwd")
        if folder.startswith(self._folder + os.sep):
            run = folder[len(self._folder) + 1 :].partition(os.sep)[0]
            run = run.partition(" ")[0]  # "7 (deleted)"
            if runs is None or run in runs:
                return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
        if self._mark not in environ:
            return False
        return runs is None or any(f"KIRBY_RUN={run}".encode() in environ for run in runs)


def _stat(pid: str) -> tuple[str, int]:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _descends(pid: int, found: set[int], parents: dict[int, int]) -> bool:
    seen = set()
    while pid in parents and pid not in seen:
        if pid in found:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False


def _hears() -> object:
    return select.select([0], [], [], 0)[0]


def main(mark: str, folder: str, patience: str) -> None:
    reaper = Reaper(mark, folder)
    over: set[str] = set()
    heard_at = end_at = time.monotonic()
    rest = b""
    while True:
        wait = max(0.0, end_at - time.monotonic()) if over else float(patience) / 4
        readable, _, _ = select.select([0], [], [], wait)
        now = time.monotonic()
        if readable:
            data = os.read(0, 65536)
            if not data:
                break
            heard_at = now
            end_at = end_at if over else now + GATHER
            *lines, rest = (rest + data).split(b"\n")
            over |= {line[4:].decode() for line in lines if line.startswith(b"end ")}
        if over and now >= end_at:
            reaper.end(over)
            over.clear()
        elif now - heard_at > float(patience):
            reaper.end(None, unless=_hears)  # who is back starts runs at once, which are to live
    reaper.end(None)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after its supervisor, not before
    main(*sys.argv[1:])

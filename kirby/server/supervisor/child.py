"""Becomes a run's process: it dies with its supervisor and leaves no core dump.

The supervisor runs this file: `child.py PARENT PROGRAM [ARGUMENT]...`; a program without
a slash is looked up in the run's own PATH. It is a program of its own, not a `preexec_fn`, because
that is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import NoReturn

SET_PARENT_DEATH_SIGNAL = 1
CANNOT_START = 126
VALUES_FD = 3


def tie_to(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, however that dies."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before we asked
        os._exit(CANNOT_START)


def settle_values() -> None:
    """Large values come by descriptor 3: some shells know no number above 9."""
    if fd := os.environ.get("KIRBY_VALUES_FD"):
        if int(fd) != VALUES_FD:
            os.dup2(int(fd), VALUES_FD)
            os.close(int(fd))
        os.environ["KIRBY_VALUES_FD"] = str(VALUES_FD)


def main(parent: str, program: str, *arguments: str) -> NoReturn:
    try:
        tie_to(int(parent))
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        settle_values()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec keeps that
            signal.signal(number, signal.SIG_DFL)
        os.execvp(program, [program, *arguments])  # noqa: S606 - the point of this file
    except OSError as error:
        print(f"cannot start {program}: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Becomes a PostgreSQL program that ends with its parent and is never uid 0.

The launcher runs this file as a script: `pg_child.py PARENT MODE UID GID PROGRAM [ARGUMENT]...`.
It is a program of its own, not a `preexec_fn`, because that is unsafe in a process with threads.

PostgreSQL refuses to run as root. MODE says how that is met:
`as_is`      we are an ordinary user already.
`namespace`  a user namespace where root is called UID: files stay root's, nothing to chown.
`account`    become UID, and keep the one capability to reach files below folders closed to it;
             for containers that forbid user namespaces.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

NEW_USER_NAMESPACE = 0x10000000
SET_PARENT_DEATH_SIGNAL, SET_SECUREBITS, AMBIENT, AMBIENT_RAISE = 1, 28, 47, 2
NO_SETUID_FIXUP = 4  # or access(2) would ignore the capability; PostgreSQL asks with it
CAPABILITY_VERSION_3 = 0x20080522
DAC_OVERRIDE = 1


def call(name: str, *arguments: object) -> None:
    """One C library call; OSError when it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    call("prctl", ctypes.c_int(option), *map(ctypes.c_ulong, padded))


def enter_namespace(uid: int, gid: int) -> None:
    """Make a user namespace in which this process, root outside, is `uid`."""
    maps = (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {os.geteuid()} 1"),
        ("gid_map", f"{gid} {os.getegid()} 1"),
    )
    call("unshare", ctypes.c_int(NEW_USER_NAMESPACE))
    for name, text in maps:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def become(uid: int, gid: int) -> None:
    """Give up root for `uid`, except for reaching files."""
    prctl(SET_SECUREBITS, NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable
    call("capset", header, sets)
    prctl(AMBIENT, AMBIENT_RAISE, DAC_OVERRIDE)


def tie_to(parent: int, wish: signal.Signals = signal.SIGINT) -> None:
    """Let the kernel send a signal (to PostgreSQL a fast shutdown) when the parent dies anyhow."""
    if sys.platform != "linux":
        return
    prctl(SET_PARENT_DEATH_SIGNAL, wish)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the parent is gone")


def main(parent: str, mode: str, uid: str, gid: str, program: str, *arguments: str) -> NoReturn:
    try:
        if mode == "namespace":
            enter_namespace(int(uid), int(gid))
        elif mode == "account":
            become(int(uid), int(gid))
        tie_to(int(parent))  # last: a change of identity forgets it
        os.execv(program, [program, *arguments])  # noqa: S606 - the point of this file
    except OSError as error:
        sys.exit(f"FATAL:  {program}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])

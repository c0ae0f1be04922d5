"""Processes that a benchmark starts: each ends with us, however we end."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent
PATIENCE = 300  # seconds for a child's answer
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_running = []


class Failed(Exception):
    """A child ended without an answer; the text is what it said."""


def environ(**given):
    """Our variables without those that would steer Kirby or PostgreSQL, and those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KIRBY_", "PG"))}
    path = os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"} | given


def spawn(command, log, env=None, **options):
    """Start a program; its output goes to a file. It is killed when we die."""
    with open(log, "ab") as output:
        options = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL} | options
        process = subprocess.Popen(
            [str(part) for part in command],
            env=env or environ(),
            start_new_session=True,  # Ctrl-C is for us, we then stop them in order
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            **options,
        )
    process.log = Path(log)
    _running.append(process)
    return process


def start(log, module, name, env=None, **arguments):
    """Start ``benchmarks.MODULE.NAME(**arguments)`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.child", module, name, json.dumps(arguments)]
    return spawn(command, log, env, stdout=subprocess.PIPE)


def answer(process):
    """Wait for the process and return what its function returned. Raises Failed."""
    said, _ = process.communicate(timeout=PATIENCE)
    _running.remove(process)
    lines = said.decode().splitlines()
    if process.returncode or not lines:
        raise Failed(last_words(process))
    return json.loads(lines[-1])


def last_words(process):
    """The last line of what it said; all of it is in its log while we run."""
    said = process.log.read_text(errors="replace").strip().splitlines()
    return f"exit {process.returncode}: {said[-1] if said else 'nothing was said'}"


def call(log, module, name, env=None, **arguments):
    return answer(start(log, module, name, env, **arguments))


def stop(process, wish=signal.SIGTERM, patience=20):
    """Ask a process to end, then its whole session."""
    if process.poll() is None:
        process.send_signal(wish)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process in _running:
        _running.remove(process)


def stop_all():
    for process in list(_running):
        stop(process, signal.SIGKILL, 0)

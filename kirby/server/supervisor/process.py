"""One process of a run: start it, stop it, and see how it ended, together with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kirby.core.errors import KirbyError
from kirby.server.supervisor.meter import Meter

CHILD = Path(__file__).with_name("child.py")

# What a run gets of the supervisor's own variables: nothing that could be a secret of the server.
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


@dataclass(frozen=True)
class Exit:
    """How a process ended: with an exit code, or by a signal."""

    code: int | None
    signal: int | None = None

    @property
    def reason(self) -> str:
        """In words: "exit code 3", "killed by SIGKILL"."""
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class Process:
    """A started process, the leader of its own session and process group.

    It is to be started from a thread that lives as long as the supervisor does: when the thread
    ends, the kernel kills the process (the parent-death signal belongs to the thread). `output`
    are the descriptors of its stdout and stderr, which the caller reads and closes.
    """

    def __init__(
        self,
        arguments: list[str],
        variables: Mapping[str, str],
        folder: Path,
        inherited: Sequence[int] = (),
    ) -> None:
        """Start it in `folder`, with exactly these variables, and these descriptors kept open.

        Raises KirbyError if it cannot be started.
        """
        launcher = [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), *arguments]
        (out, stdout), (err, stderr) = os.pipe(), os.pipe()
        self.output = (out, err)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - what was deployed is what is run
                launcher,
                cwd=folder,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=inherited,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(out)
            os.close(err)
            raise KirbyError(f"the process cannot be started: {_reason(error)}") from error
        finally:
            os.close(stdout)
            os.close(stderr)
        self.pid = self._popen.pid
        self._pidfd = _pidfd(self.pid)
        self._exit: Exit | None = None
        self.meter = Meter(self.pid)

    def fileno(self) -> int:
        """A descriptor that can be read once the process has ended; -1 where there is no such."""
        return self._pidfd

    def ended(self) -> Exit | None:
        """How it ended, or None while it runs. What it started in its group is killed with it."""
        if self._exit is None and self._has_ended():
            # Before it is reaped: until then nobody else can have its number.
            self.signal(signal.SIGKILL)
            self._exit = self._reap()
            if self._pidfd >= 0:
                os.close(self._pidfd)
            self._pidfd = -1
        return self._exit

    def _reap(self) -> Exit:
        """What the kernel says of it is more than Popen tells: what it used."""
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:  # somebody else has waited for it
            return Exit(None, signal.SIGKILL)
        code = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.meter.add(usage)
        return Exit(code) if code >= 0 else Exit(None, -code)

    def signal(self, number: int) -> None:
        """Send a signal to the process and to all that it started in its group."""
        if self._exit is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _has_ended(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:
            return True


def variables(
    given: Mapping[str, str], own: Mapping[str, str], *, virtualenv: Path, server: Mapping[str, str]
) -> dict[str, str]:
    """All variables of a run: a few of the server's, then the `given` ones, then Kirby's `own`."""
    passed = {name: server[name] for name in PASSED_ON if server.get(name)}
    passed["PATH"] = f"{virtualenv / 'bin'}:{passed.get('PATH', os.defpath)}"
    passed.setdefault("LANG", "C.UTF-8")
    given = {name: value for name, value in given.items() if not name.startswith("KIRBY_")}
    python = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    return {**passed, "VIRTUAL_ENV": str(virtualenv), **python, **given, **own}


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)

"""The supervisor's data folder: its lock, scripts by content, one working folder for each run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kirby.core.errors import Busy, KirbyError


class Folder:
    """`supervisor.lock`, `scripts/<sha256>/<filename>` and `runs/<run id>` below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: IO[str] | None = None

    @property
    def runs(self) -> Path:
        """Where the working folders of runs are."""
        return self.root / "runs"

    @property
    def spill(self) -> Path:
        """Where lines wait while the database is slow."""
        return self.root / "spill"

    def lock(self) -> None:
        """Be the one supervisor here until ``unlock``, or until the process ends, however.

        Raises Busy if there is another one, KirbyError if the folder cannot be written.
        """
        path = self.root / "supervisor.lock"
        with self._said_clearly():
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f" (process {pid})" if (pid := file.read(20).strip()) else ""
            file.close()
            raise Busy(f"another supervisor{holder} runs on {self.root}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def sweep(self) -> None:
        """Remove what a supervisor that was killed left here, its runs' last processes first."""
        for pid in _working_below(self.runs):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.runs, ignore_errors=True)

    def script(self, sha256: str, filename: str, source: str) -> Path:
        """The path of that script; written at once or not at all, and again only if it differs."""
        path = self.root / "scripts" / sha256 / (Path(filename).name or "script.py")
        content = source.encode("utf-8", "surrogatepass")
        with self._said_clearly():
            if path.is_file() and path.read_bytes() == content:
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o700)  # it may be what is executed
            os.replace(file.name, path)
        return path

    def open_run(self, run_id: int) -> Path:
        """A new, empty folder for a run to work in, closed to other users."""
        path = self._run(run_id)
        with self._said_clearly():
            shutil.rmtree(path, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        return path

    def close_run(self, run_id: int) -> None:
        """Remove the folder of a run and all that is in it."""
        shutil.rmtree(self._run(run_id), ignore_errors=True)

    def _run(self, run_id: int) -> Path:
        return self.runs / str(run_id)

    @contextlib.contextmanager
    def _said_clearly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise KirbyError(f"cannot write to {self.root}: {error.strerror or error}") from error


def _working_below(folder: Path) -> list[int]:
    """Processes whose working folder is below `folder`: only runs of ours are started there."""
    found = []
    prefix = f"{folder.resolve()}{os.sep}"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{os.readlink(process / 'cwd')}{os.sep}".startswith(prefix):
                found.append(int(process.name))
    return found

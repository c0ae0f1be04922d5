"""The folder backend: KIRBY_DSN=folder:cases/monday runs a script from and to files."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from kirby.core import dsn
from kirby.core.errors import KirbyError
from kirby.core.folder import files
from kirby.core.folder.answers import Folder as Folder
from kirby.core.folder.files import BadFolder
from kirby.core.folder.run import Run

SCHEME = "folder:"
GOES_ON = "?continue"

_runs: dict[Path, Run] = {}
_lock = threading.Lock()


def is_folder(address: str) -> bool:
    """Whether a DSN names a folder."""
    return address.startswith(SCHEME)


def connect(address: str) -> Folder:
    """A connection to the folder of a DSN; all threads of the process share its run.

    ``folder:PATH?continue`` goes on from what is in ``out``. Raises BadFolder, in one line.
    """
    _tell_in_one_line()
    path, goes_on = _path(address)
    with _lock:
        run = _runs.get(path)
        if run is not None and run.process != os.getpid():
            raise BadFolder(f"{path} is in use by the process that this one was forked from")
        if run is None:
            run = _runs[path] = Run(path, goes_on=goes_on)
    return Folder(run)


def _path(address: str) -> tuple[Path, bool]:
    name = address.removeprefix(SCHEME)
    goes_on = name.endswith(GOES_ON)
    return Path(name.removesuffix(GOES_ON) or ".").resolve(), goes_on


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What config.env of the folder says that ``KIRBY_DSN`` names; nothing if it names none."""
    address = environ.get(dsn.VARIABLE, "")
    if not is_folder(address):
        return {}
    _tell_in_one_line()
    return files.variables(_path(address)[0])


def end_all() -> None:
    """Save all runs. What comes after begins another run."""
    with _lock:
        ended = [_runs.pop(path) for path in list(_runs)]
    for run in ended:
        try:
            run.end()
        except KirbyError as error:
            print(f"kirby: {error}", file=sys.stderr, flush=True)


class _Told:
    """Shows a folder's fault as one line: nobody needs to see where in Kirby it was found."""

    before: Callable[..., Any] = staticmethod(sys.__excepthook__)

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BadFolder):
            print(f"kirby: {error}", file=sys.stderr, flush=True)
        else:
            self.before(kind, error, trace)


_told = _Told()


def _tell_in_one_line() -> None:
    if sys.excepthook is not _told:
        _told.before = sys.excepthook
        sys.excepthook = _told

"""One process of a pool: imports the module, and serves what it declares.

Started as ``python -m kirby.sdk.child TARGET THREADS BOARD SAY LIFE``; the last three are files
that it inherits: where it writes down what it has in its hands, where it says that it is ready or
why it cannot be, and one that ends with its parent.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kirby.core.errors import Invalid, KirbyError
from kirby.sdk import worker
from kirby.sdk.limits import Board
from kirby.sdk.stop import Stop
from kirby.sdk.tasks import Task


def main(target: str, threads: int, board: int, say: int, life: int) -> int:
    """Serve until the parent says otherwise, or ends; the exit code."""
    threading.Thread(target=_end_with, args=(life,), name="kirby-parent", daemon=True).start()
    stop = Stop(patient=True)

    def ready() -> None:
        tasks = sum(isinstance(each, Task) for each in found)
        _say(say, streams=len(found) - tasks, tasks=tasks)

    try:
        with stop.on_signals():
            found = load(target)
            worker.serve(found, threads, stop, Board.shared(board, threads), ready)
    except KirbyError as error:
        _say(say, error=str(error))
        return 1
    return 0


def _say(file: int, **words: Any) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(file, json.dumps(words).encode() + b"\n")


def _end_with(life: int) -> None:
    """Stop when the parent is gone: its end of the file is closed then, whatever ended it."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)


# From a module to what it declares


def load(target: str) -> Sequence[worker.Served]:
    """Import ``MODULE[:name,…]`` (or a path) and return its streams and tasks, or those named.

    Raises Invalid, in one line, if it cannot be imported or there is nothing to serve.
    """
    name, _, chosen = target.partition(":")
    worker.loading.append(name)
    try:
        module = _imported(name)
    except (Exception, SystemExit) as error:
        raise Invalid(f"{name} cannot be imported: {_in_one_line(error)}") from error
    finally:
        worker.loading.clear()
    found = worker.registered()
    if chosen:
        found = [each for part in chosen.split(",") for each in _named(module, part, found)]
    if not found:
        raise Invalid(
            f"{name} has nothing to serve: decorate a function with @kirby.stream or @kirby.task"
        )
    return found


def _imported(name: str) -> ModuleType:
    if not name.endswith(".py"):
        os.environ["KIRBY_JOB"] = os.environ.get("KIRBY_JOB") or name
        return importlib.import_module(name)
    path = Path(name).resolve()
    os.environ["KIRBY_JOB"] = os.environ.get("KIRBY_JOB") or path.stem
    sys.path.insert(0, str(path.parent))
    # Its tasks are named as those of the script itself.
    spec = importlib.util.spec_from_file_location(os.environ["KIRBY_JOB"], path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no file {path}")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_one_line(error: BaseException) -> str:
    """What happened, and where in the module: not in the machinery of imports, nor in ours."""
    if isinstance(error, KirbyError):
        return str(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    places = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in (__file__, IMPORTLIB)
    ]
    return f"{said} ({places[-1].filename}, line {places[-1].lineno})" if places else said


IMPORTLIB = importlib.__file__


def _named(
    module: ModuleType, name: str, found: Sequence[worker.Served]
) -> Sequence[worker.Served]:
    """The task of that name in the module, or the streams whose handler it is."""
    value: Any = module
    for part in name.strip().split("."):
        value = getattr(value, part, None)
    chosen = [each for each in found if each is value or each.function is value]
    if not chosen:
        raise Invalid(f"{name.strip()!r} in {module.__name__} is neither a stream nor a task")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:6])))

"""One run on a folder: what it was given, what it has written, and where that goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kirby.core import states, topics
from kirby.core.folder import files
from kirby.core.folder.claims import Subscription
from kirby.core.folder.files import HIDDEN, OUT, STATE, BadFolder
from kirby.core.folder.log import Part, Topic
from kirby.core.folder.states import State, mutations

HISTORY = "history"
EFFECTS = "effects.jsonl"


class Run:
    """What all threads of a process do on one folder.

    It is written to ``.out``, which becomes ``out`` at the end: there is never half a run in it.
    With ``goes_on`` what is in ``out`` stays, and is part of the log.
    """

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.process = os.getpid()
        self.start = datetime.now(UTC)
        self.position = 0
        self.topics: dict[str, Topic] = {}
        self.states: dict[str, State] = {}
        self.subscriptions: list[Subscription] = []
        self.effects: dict[tuple[str, str], int] = {}  # the ids of names and keys
        self.handles: set[Any] = set()
        self._ahead = timedelta(0)
        self._files: dict[str, int] = {}
        self._saved = False
        self._folder = _locked(path)
        try:
            self._begin(goes_on)
        except BaseException:
            os.close(self._folder)
            raise

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def wait_until(self, moment: datetime) -> None:
        """Let the time pass until then, at once."""
        self._ahead += max(timedelta(0), moment - self.now())

    # What there is

    def topic(self, name: str) -> Topic:
        """Made at its first use."""
        found = self.topics.get(name)
        if found is None:
            topics.checked_name(name)
            found = self.topics[name] = Topic(name, len(self.topics) + 1, self.start)
        return found

    def state(self, name: str) -> State:
        found = self.states.get(name)
        if found is None:
            states.checked_name(name)
            given = self._given_states.get(name)
            found = self.states[name] = State(name, given, self.start)
            for mutation in mutations(self.history(name)):
                found.apply(mutation)
        return found

    def history(self, state: str) -> Path:
        """Where the versions of a state are."""
        return self.out / HISTORY / f"{state}{files.LINES}"

    @property
    def out(self) -> Path:
        return self.path / (OUT if self._saved else HIDDEN)

    # Its beginning

    def _begin(self, goes_on: bool) -> None:
        files.refuse_part(self.path)
        given = files.inputs(self.path)
        self._given_states = files.state_files(self.path / STATE)
        self._clear(goes_on)
        for name, path in given.items():
            self.topic(name).given = _part(path, self.start)
        self._number()
        for path in sorted(self.out.glob(f"*{files.LINES}")):
            if path.name != EFFECTS:
                made = self.topic(path.stem).made = Part(path, self.start)
                made.scan()
                self.position = max(self.position, made.last)
        for path in (self.out / HISTORY).glob(f"*{files.LINES}"):
            last = max((each.position for each in mutations(path)), default=0)
            self.position = max(self.position, last)

    def _number(self) -> None:
        """Messages that have no position come after those that have one."""
        parts = [topic.given for topic in self.topics.values() if topic.given is not None]
        self.position = max((part.last for part in parts), default=0)
        for part in parts:
            if not part.positioned:
                self.position = part.give_positions(self.position)

    def _clear(self, goes_on: bool) -> None:
        out, hidden = self.path / OUT, self.path / HIDDEN
        _refuse_others(out)
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            if goes_on and out.is_dir():
                out.rename(hidden)
            elif out.is_dir():
                shutil.rmtree(out)
            (hidden / STATE).mkdir(parents=True, exist_ok=True)
            (hidden / HISTORY).mkdir(exist_ok=True)
        except OSError as error:
            raise BadFolder(f"{self.path} cannot be written to: {error.strerror}") from None

    # What it writes

    def append(self, lines: dict[str, bytes]) -> None:
        """Append to files below ``out``, to all of them or to none. Raises BadFolder."""
        self._go_on()
        before: dict[int, int] = {}
        try:
            for name, content in lines.items():
                file = self._file(name)
                before[file] = os.fstat(file).st_size
                _write(file, content)
        except OSError as error:
            for file, size in before.items():
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)
            raise BadFolder(f"{self.path} cannot be written to: {error.strerror}") from None

    def _file(self, name: str) -> int:
        if name not in self._files:
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
            self._files[name] = os.open(self.out / name, flags, 0o644)
        return self._files[name]

    def _go_on(self) -> None:
        """Something more is written after all: until it is done, there is no ``out``."""
        if self._saved:
            self.out.rename(self.path / HIDDEN)
            self._moved(saved=False)

    def _moved(self, *, saved: bool) -> None:
        self._saved = saved
        for topic in self.topics.values():
            if topic.made is not None:
                topic.made.path = self.out / topic.made.path.name

    def save(self) -> None:
        """Write what the states are now, and let ``out`` be seen."""
        if self._saved:
            return
        try:
            for state in self.states.values():
                if state.changed:
                    self._save_state(state)
            for folder in (self.out / STATE, self.out / HISTORY):
                if not any(folder.iterdir()):
                    folder.rmdir()
            self.out.rename(self.path / OUT)
        except OSError as error:
            raise BadFolder(f"{self.path} cannot be written to: {error.strerror}") from None
        self._moved(saved=True)

    def _save_state(self, state: State) -> None:
        lines = state.given is not None and state.given.suffix == files.LINES
        folder = self.out / STATE
        folder.mkdir(exist_ok=True)
        path = folder / f"{state.name}{files.LINES if lines else files.JSON}"
        with path.open("w", encoding="utf-8") as file:
            if lines:
                for key, value in state.values():
                    file.write(files.dumps({"key": key, "value": value}) + "\n")
                return
            between = "{"
            for key, value in state.values():
                file.write(f"{between}\n  {files.dumps(key)}: {files.dumps(value)}")
                between = ","
            file.write("{}\n" if between == "{" else "\n}\n")

    def end(self) -> None:
        """Save it, and leave the folder to others."""
        if self.process != os.getpid():
            return
        try:
            self.save()
        finally:
            for subscription in self.subscriptions:
                subscription.close()
            for file in self._files.values():
                os.close(file)
            self._files.clear()
            os.close(self._folder)


def _locked(path: Path) -> int:
    """An open descriptor that no other process has locked. Raises BadFolder."""
    if not path.is_dir():
        raise BadFolder(f"there is no folder {path}: KIRBY_DSN=folder:… names one, with its in/")
    found = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        raise BadFolder(
            f"{path} is in use by another process: a folder is for one at a time"
        ) from None
    return found


def _part(path: Path, start: datetime) -> Part:
    if path.is_file():
        part = Part(path, start)
    else:
        part = Part(path, start, b"".join(_checked(each, start) for each in files.in_order(path)))
    part.scan()
    return part


def _checked(path: Path, start: datetime) -> bytes:
    """A message that is a file, in one line. Raises BadFolder."""
    document = files.loads(files.read(path), str(path))
    own = files.is_envelope(document) and document.get("position") is not None
    files.message(document, str(path), position=None if own else 1, start=start)
    return files.dumps(document).encode("utf-8", "surrogatepass") + b"\n"


def _refuse_others(out: Path) -> None:
    """Nothing is removed that no run has written. Raises BadFolder."""
    if out.is_dir():
        for path in out.rglob("*"):
            ours = (
                path.name in (STATE, HISTORY)
                if path.is_dir()
                else path.suffix in (".json", ".jsonl")
            )
            if not ours:
                raise BadFolder(
                    f"{path} is no output of a run: {out} is written anew, move it away"
                )


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]

"""Cases: folders with inputs and what is expected to come of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kirby.core.errors import Invalid
from kirby.core.folder import files
from kirby.core.folder.run import EFFECTS, HISTORY
from kirby.server.expectations import Rules, differences, kept

CASE = "case.toml"
EXPECTED = "expected"
TIMEOUT = 300.0
SHOWN = 2000  # characters of what a script said


@dataclass(frozen=True, slots=True)
class Case:
    """A folder, the scripts that are run on it one after the other, and how its outputs are read.

    ``exit``: the code with which the last script has to end.
    """

    folder: Path
    scripts: tuple[Path, ...]
    rules: Rules
    exit: int = 0
    timeout: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: right without ``faults``. ``beside``: of what nothing is expected."""

    case: Case
    faults: list[str]
    beside: list[str]
    compared: bool = True  # else a script failed before


def find(folder: Path, script: Path | None = None) -> list[Case]:
    """The cases in a folder: itself, or those below it. Raises Invalid."""
    if not folder.is_dir():
        raise Invalid(f"there is no folder {folder}")
    below = (each for each in sorted(folder.rglob("*")) if not _is_hidden(each, folder))
    found = [folder] if _is_case(folder) else [each for each in below if _is_case(each)]
    if not found:
        raise Invalid(f"{folder} has no case: a case is a folder with in/ and expected/")
    return [_read(each, folder, script) for each in found]


def _is_case(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in (files.IN, EXPECTED))


def _is_hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _read(folder: Path, top: Path, script: Path | None) -> Case:
    """With the case.toml of the folder, or the nearest one above it in ``top``."""
    places = [folder, *(above for above in folder.parents if above == top or top in above.parents)]
    path = next((each / CASE for each in places if (each / CASE).is_file()), folder / CASE)
    told = _told(path)
    named = told.pop("scripts", None) or [told.pop("script", None)]
    scripts = tuple(path.parent / each for each in named if each)
    rules = Rules(tuple(told.pop("ignore", ())), frozenset(told.pop("unordered", ())))
    case = Case(
        folder,
        (script,) if script is not None else scripts,
        rules,
        told.pop("exit", 0),
        float(told.pop("timeout", TIMEOUT)),
    )
    told.pop("script", None)
    if told:
        raise Invalid(
            f"{path}: {', '.join(told)} is not known: script, scripts, ignore, unordered, exit and"
            " timeout are"
        )
    if not case.scripts:
        raise Invalid(f'{folder} names no script: script = "…" in case.toml, or -- script.py')
    return case


def _told(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(files.read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}") from None


def run(case: Case) -> Outcome:
    """Run the scripts of a case, and compare. Raises Invalid for files that cannot be read."""
    for number, script in enumerate(case.scripts):
        last = script is case.scripts[-1]
        faults = _execute(case, script, first=number == 0, code=case.exit if last else 0)
        if faults:
            return Outcome(case, faults, [], compared=False)
    faults = [fault for each in _expected(case) for fault in _compare(case, each)]
    there = {each.name for each in _expected(case)}
    beside = [each.name for each in outputs(case) if each.name not in there]
    if not there:
        faults = [f"nothing is expected: --update writes {case.folder / EXPECTED}"]
    return Outcome(case, faults, beside)


def _execute(case: Case, script: Path, *, first: bool, code: int) -> list[str]:
    if not script.is_file():
        raise Invalid(f"{case.folder}: there is no script {script}")
    address = f"folder:{case.folder.resolve()}{'' if first else '?continue'}"
    environ = {**os.environ, **files.variables(case.folder), "KIRBY_DSN": address}
    try:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, str(script)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=case.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"{script.name} did not end within {case.timeout:g} s"]
    if ended.returncode == code:
        return []
    said = ended.stdout.decode("utf-8", "replace").rstrip()[-SHOWN:]
    shown = "".join(f"\n  | {line}" for line in said.splitlines())
    return [f"{script.name} ended with exit code {ended.returncode}, not {code}{shown}"]


# What came out, and what is expected


@dataclass(frozen=True, slots=True)
class Place:
    """A topic, or a state (``state/NAME``), in ``out`` or ``expected``."""

    name: str
    path: Path

    @property
    def is_state(self) -> bool:
        return self.name.startswith(f"{files.STATE}/")

    def content(self) -> dict[str, Any] | list[Any]:
        """The keys and values of a state, or the messages of a topic. Raises Invalid."""
        if self.is_state:
            return dict(files.entries(self.path))
        if self.path.is_dir():
            found = files.in_order(self.path)
            return [files.loads(files.read(each), str(each)) for each in found]
        return list(_lines(self.path))


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield files.loads(line, f"{path}, line {number}")


def places(folder: Path) -> list[Place]:
    """What a folder of outputs has."""
    topics = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [
        Place(path.name if path.is_dir() else path.stem, path)
        for path in topics
        if (path.is_dir() and path.name not in (files.STATE, HISTORY))
        or (path.suffix == files.LINES and path.name != EFFECTS)
    ]
    states = files.state_files(folder / files.STATE)
    return found + [Place(f"{files.STATE}/{name}", path) for name, path in states.items()]


def outputs(case: Case) -> list[Place]:
    return places(case.folder / files.OUT)


def _expected(case: Case) -> list[Place]:
    return places(case.folder / EXPECTED)


def _compare(case: Case, expected: Place) -> Iterator[str]:
    made = _made(case, expected)
    yield from differences(expected.name, expected.content(), made, case.rules)


def _made(case: Case, expected: Place) -> Any:
    """What came out; a state that did not change is what it was."""
    every = outputs(case)
    if expected.is_state:
        given = files.state_files(case.folder / files.STATE)
        every += [Place(f"{files.STATE}/{name}", path) for name, path in given.items()]
    found = next((each for each in every if each.name == expected.name), None)
    if found is None:
        return {} if expected.is_state else []
    return found.content()


# --update


def update(case: Case) -> list[str]:
    """Write what came out to ``expected``; matchers that fit stay. The names that changed."""
    changed = []
    before = {each.name: each for each in _expected(case)}
    for each in outputs(case):
        old = before.pop(each.name, None)
        expected = None if old is None else old.content()
        content = each.content()
        if expected is None or [*differences(each.name, expected, content, case.rules)]:
            _write(case, each, kept(expected, content, is_state=each.is_state), old)
            changed.append(each.name)
    for each in before.values():
        if not (each.is_state and not [*_compare(case, each)]):
            _remove(each.path)
            changed.append(each.name)
    return changed


def _write(case: Case, made: Place, content: Any, old: Place | None) -> None:
    suffix = made.path.suffix
    path = case.folder / EXPECTED / f"{made.name}{suffix}"
    if old is not None and old.path != path:
        _remove(old.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict) and suffix == files.JSON:
        pairs = [f"  {files.dumps(key)}: {files.dumps(value)}" for key, value in content.items()]
        path.write_text("{\n" + ",\n".join(pairs) + "\n}\n", encoding="utf-8")
        return
    if isinstance(content, dict):
        content = [{"key": key, "value": value} for key, value in content.items()]
    text = "".join(files.dumps(each) + "\n" for each in content)
    path.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        for each in files.in_order(path):
            each.unlink()
        path.rmdir()
    else:
        path.unlink()


def all_of(folders: Sequence[Path], script: Path | None) -> list[Case]:
    """The cases of several folders. Raises Invalid."""
    return [case for folder in folders for case in find(folder, script)]

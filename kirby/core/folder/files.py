"""The files of a folder: what stands in them, and one line about what does not belong there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kirby.core import states, topics
from kirby.core.errors import Invalid

IN, OUT, STATE, HIDDEN = "in", "out", "state", ".out"
CONFIG = "config.env"
MANIFEST = "manifest.json"
JSON, LINES = ".json", ".jsonl"
MEMBERS = frozenset(
    {"position", "key", "value", "headers", "parents", "run_id", "recorded_at"}
    | {"id", "deliver_at", "expires_at"}
)
KINDS: dict[str, tuple[type, str]] = {
    "position": (int, "a whole number"),
    "key": (str, "a string"),
    "headers": (dict, "an object"),
    "parents": (list, "a list of positions"),
    "run_id": (int, "a whole number"),
    "id": (str, "a string"),
    "recorded_at": (str, "a time"),
    "deliver_at": (str, "a time"),
    "expires_at": (str, "a time"),
}


def _refuse(word: str) -> None:
    raise ValueError(f"it has no {word}")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
TIMES = ("recorded_at", "deliver_at", "expires_at")


class BadFolder(Invalid):
    """Something in the folder, or the folder itself, is not as it has to be. A script that does not
    catch it ends with its one line."""


@dataclass(slots=True)
class Stored:
    """A message as it stands in a file."""

    position: int
    key: str | None
    value: Any
    headers: dict[str, Any] | None
    parents: list[int] | None
    recorded_at: datetime
    run_id: int | None = None
    id: str | None = None
    deliver_at: datetime | None = None
    expires_at: datetime | None = None

    def line(self) -> bytes:
        """It as a line, without what it does not have."""
        document: dict[str, Any] = {"position": self.position, "key": self.key, "value": self.value}
        if self.headers:
            document["headers"] = self.headers
        if self.parents:
            document["parents"] = self.parents
        if self.id is not None:
            document["id"] = self.id
        for name in TIMES:
            if (moment := getattr(self, name)) is not None:
                document[name] = moment.isoformat()
        return dumps(document).encode() + b"\n"


def dumps(value: Any) -> str:
    """One line of JSON as people read it."""
    return _encode(value)


def loads(text: str | bytes, where: str) -> Any:
    """Raises BadFolder, with the place, for what is not JSON or cannot be kept."""
    try:
        return _decode(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError:
        raise BadFolder(f"{where} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise BadFolder(f"{where} is not JSON: {getattr(error, 'msg', error)}") from None


def message(document: Any, where: str, *, position: int | None, start: datetime) -> Stored:
    """A message of an envelope (an object with "value" and no other members than ``MEMBERS``), or
    of a payload. It keeps its own position, if ``position`` is None. Raises BadFolder."""
    if not is_envelope(document):
        document = {"value": document}
    for name, given in document.items():
        if given is not None and name != "value" and type(given) is not KINDS[name][0]:
            raise BadFolder(f"{where}: {name} is {given!r:.60}, not {KINDS[name][1]}")
    own = document.get("position")
    if (own is None) != (position is not None):
        raise BadFolder(f"{where}: all messages of a topic have a position, or none has one")
    moments = {name: _moment(document[name], name, where) for name in TIMES if document.get(name)}
    return Stored(
        own if position is None else position,
        document.get("key"),
        document["value"],
        document.get("headers"),
        document.get("parents"),
        moments.get("recorded_at", start),
        document.get("run_id"),
        document.get("id"),
        moments.get("deliver_at"),
        moments.get("expires_at"),
    )


def is_envelope(document: Any) -> bool:
    return isinstance(document, dict) and "value" in document and document.keys() <= MEMBERS


def _moment(text: str, name: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise BadFolder(f"{where}: {name} is {text!r:.60}, not a time (ISO 8601)") from None


# What a folder has


def refuse_part(folder: Path) -> None:
    """Raises BadFolder for a slice that `kirby pull` has not finished."""
    path = folder / MANIFEST
    told = loads(read(path), str(path)) if path.is_file() else None
    if isinstance(told, dict) and told.get("complete") is False:
        raise BadFolder(f"{folder} is a part of a slice: repeat the kirby pull that broke off")


def inputs(folder: Path) -> dict[str, Path]:
    """For each topic a file of lines, or a folder of files. Raises BadFolder."""
    found: dict[str, Path] = {}
    for path in _listing(folder / IN):
        if path.is_dir():
            name = path.name
        elif path.suffix == LINES:
            name = path.stem
        else:
            raise BadFolder(f"{path} is no input: a topic is a folder of .json files, or a .jsonl")
        if name in found:
            raise BadFolder(f"topic {name} is there twice: {found[name]} and {path}")
        found[_checked(topics.checked_name, name, path)] = path
    return found


def in_order(folder: Path) -> list[Path]:
    """The messages of a topic that are files of their own. Raises BadFolder."""
    found = _listing(folder)
    for path in found:
        if path.suffix != JSON or not path.is_file():
            raise BadFolder(f"{path} is no message: each is a .json file, like 0001.json")
    return sorted(found, key=lambda path: (not path.stem.isdigit(), _number(path), path.stem))


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else 0


def state_files(folder: Path) -> dict[str, Path]:
    """For each state its file. Raises BadFolder."""
    found: dict[str, Path] = {}
    for path in _listing(folder):
        if path.suffix not in (JSON, LINES) or not path.is_file():
            raise BadFolder(f"{path} is no state: it is a .json file, an object, or a .jsonl")
        if path.stem in found:
            raise BadFolder(f"state {path.stem} is there twice: {found[path.stem]} and {path}")
        found[_checked(states.checked_name, path.stem, path)] = path
    return found


def entries(path: Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of a state's file: an object, or lines {"key", "value"}.

    Raises BadFolder.
    """
    if path.suffix == JSON:
        whole = loads(read(path), str(path))
        if not isinstance(whole, dict):
            raise BadFolder(f"{path} is not an object of keys and their values")
        yield from whole.items()
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            entry = loads(line, where)
            if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
                raise BadFolder(f'{where} is no entry of a state: {{"key": "…", "value": …}}')
            yield entry["key"], entry.get("value")


def variables(folder: Path) -> dict[str, str]:
    """What config.env says: a line NAME=value each; quotes around a value are none of it."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(read(path).decode("utf-8", "replace").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise BadFolder(f"{path}, line {number} is no variable: NAME=value")
        found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFolder(f"{path} cannot be read: {error.strerror}") from None


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadFolder(f"{folder} cannot be read: {error.strerror}") from None


def _checked(check: Any, name: str, path: Path) -> str:
    try:
        return str(check(name))
    except Invalid as error:
        raise BadFolder(f"{path}: {error}") from None

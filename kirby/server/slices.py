"""A slice of a log as a folder: in/<topic>.jsonl, state/<name>.jsonl and manifest.json.

It can be read by scripts as it is (KIRBY_DSN=folder:PATH), and imported. While it is written its
manifest says that it is not complete; then it goes on after the last whole line of each file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kirby.core import states, topics
from kirby.core.errors import Invalid, KirbyError
from kirby.server import documents

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK = 1 << 20


class NotWritten(KirbyError):
    """The disk is full, or the folder cannot be written to."""


@dataclass
class File:
    """One file of a slice, and what its manifest says of it; ``size``: bytes of whole lines."""

    path: Path
    lines: int = 0
    size: int = 0
    first: int | None = None
    last: int | None = None
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, lines: bytes) -> None:
        """Count whole lines that were written or read."""
        if self.first is None:
            self.first = position(lines[: lines.index(b"\n")])
        self.lines += lines.count(b"\n")
        self.size += len(lines)
        self.last = position(lines[lines.rfind(b"\n", 0, -1) + 1 :])
        self.digest.update(lines)

    def described(self, folder: Path) -> dict[str, Any]:
        """What the manifest says of it."""
        known = {
            "file": self.path.relative_to(folder).as_posix(),
            "lines": self.lines,
            "bytes": self.size,
            "sha256": self.digest.hexdigest(),
            "first": self.first,
            "last": self.last,
        }
        return {name: value for name, value in known.items() if value is not None}


def position(line: bytes) -> int | None:
    """The position that a line of messages has."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    given = found.get("position") if isinstance(found, dict) else None
    return given if isinstance(given, int) else None


class Slice:
    """A folder that is being filled."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.files: dict[str, dict[str, File]] = {"topics": {}, "states": {}}

    def topic(self, name: str) -> File:
        """The file of a topic with what is there already, cut after its last whole line."""
        found = whole_lines(self.folder / "in" / f"{topics.checked_name(name)}.jsonl")
        self.files["topics"][name] = found
        return found

    def state(self, name: str) -> File:
        """The file of a state, empty: a state is written from its beginning."""
        path = self.folder / "state" / f"{states.checked_name(name)}.jsonl"
        with writing(path):
            path.unlink(missing_ok=True)
        self.files["states"][name] = found = File(path)
        return found

    def finish(self) -> None:
        """Say that it is whole: the manifest has a checksum for each file."""
        self.manifest["complete"] = True
        self.save()

    def save(self) -> None:
        """Write the manifest, whole or not at all."""
        for kind, files in self.files.items():
            self.manifest[kind] = {name: f.described(self.folder) for name, f in files.items()}
        path = self.folder / MANIFEST
        fresh = path.with_name(f"{MANIFEST}.part")
        with writing(path):
            with fresh.open("w", encoding="utf-8") as file:
                file.write(documents.text(self.manifest, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)


def begin(folder: Path, manifest: dict[str, Any]) -> Slice:
    """A new slice in a folder that is empty, or not there. Raises Invalid, NotWritten."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("in", "state"):
            if any((folder / name).glob("*")):
                raise Invalid(f"{folder / name} has files of something else: name an empty folder")
            (folder / name).mkdir(exist_ok=True)
    found = Slice(folder, {"format": FORMAT, "complete": False, **manifest})
    found.save()
    return found


def unfinished(folder: Path, asked: dict[str, Any]) -> Slice | None:
    """The slice that was begun there for the same request; None if there is no slice at all.

    Raises Invalid if there is another one, or it is whole.
    """
    manifest = load(folder)
    if manifest is None:
        return None
    if manifest.get("complete"):
        raise Invalid(f"{folder} holds a whole slice already: name another folder, or remove it")
    if manifest.get("asked") != asked:
        raise Invalid(
            f"{folder} holds a part of another slice: repeat that command, or name another folder"
        )
    return Slice(folder, manifest)


def load(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None if it has none. Raises Invalid if it cannot be read."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Invalid(f"{path} is not JSON: remove the folder, or name another") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Invalid(f"{path} is of a kind that this Kirby does not know")
    return found


def whole_lines(path: Path) -> File:
    """A file cut after its last whole line, as a kill or a full disk may have left it."""
    found = File(path)
    with writing(path):
        if not path.exists():
            path.touch()
            return found
        for block in blocks(path):
            if whole := block[: block.rfind(b"\n") + 1]:
                found.add(whole)
        os.truncate(path, found.size)
    return found


def blocks(path: Path) -> Iterator[bytes]:
    """The lines of a file, about a megabyte at a time; the last one may lack its end."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block + (file.readline() if not block.endswith(b"\n") else b"")


def fill(file: File, content: Iterator[bytes]) -> Iterator[None]:
    """Append whole lines, and say so after each block that was written. Raises NotWritten."""
    with writing(file.path), file.path.open("ab", buffering=0) as target:
        for lines in content:
            _write(target, lines)
            file.add(lines)
            yield
        os.fsync(target.fileno())


def _write(target: BinaryIO, lines: bytes) -> None:
    left = memoryview(lines)
    while left:
        left = left[target.write(left) :]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what a disk refuses as NotWritten, one line."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise NotWritten(f"{where} cannot be written: {error.strerror or error}") from None


def check(folder: Path, manifest: dict[str, Any], *, changed: bool) -> None:
    """Raise Invalid for a slice that is not whole, or whose files are not as they were written.

    ``changed``: they may be other than they were.
    """
    if not manifest.get("complete"):
        raise Invalid(f"{folder} is not whole: repeat the command that pulls it first")
    if changed:
        return
    for kind in ("topics", "states"):
        for name, known in manifest.get(kind, {}).items():
            path = folder / str(known.get("file"))
            if not path.is_file() or sha256(path) != known.get("sha256"):
                raise Invalid(
                    f"{path} is not as it was exported (--changed imports it all the same)"
                    if path.is_file()
                    else f"{path} of {name} is missing"
                )


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

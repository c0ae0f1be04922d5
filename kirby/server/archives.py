"""Wheels and sdists: read without running or unpacking anything, and refused unless all is right.

What is looked at: the file name, every name in the archive, links, sizes (bombs), check sums,
RECORD, the metadata, and that name and version are the same everywhere.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import importlib.util
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from packaging.metadata import ExceptionGroup, InvalidMetadata, Metadata
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion

from kirby.core.errors import Invalid
from kirby.server import files, members, tars, zips

JOBS = "kirby.jobs"  # the group of entry points that names the jobs of a package
FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}")
UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
# A field that is newer than the metadata says it is: many real wheels have License-File so.
TOO_NEW = "introduced in metadata version"
EXTENSIONS = "a package is a wheel (.whl) or an sdist (.tar.gz or .zip)"

EntryPoints = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Archive:
    """A wheel or sdist that was looked at whole: what it says of itself is so."""

    filename: str
    kind: str  # wheel or sdist
    name: str  # as index and lock spell it: lower case, with -
    version: str
    requires_python: str | None
    requires_dist: tuple[str, ...]
    summary: str
    sha256: str
    size: int
    #: METADATA or PKG-INFO as it is.
    metadata: bytes = field(repr=False)
    metadata_sha256: str
    entry_points: EntryPoints
    #: Every file; those of an sdist without the folder that all of them are in.
    names: frozenset[str] = field(repr=False)
    _source: Path | IO[bytes] = field(repr=False)
    _folder: str = field(repr=False)

    @property
    def jobs(self) -> dict[str, str]:
        """The jobs that it offers: ``module:function`` or ``module`` by name."""
        return self.entry_points.get(JOBS, {})

    def read(self, member: str) -> bytes | None:
        """The content of a file in it, None if there is none; raises Invalid if it is large."""
        if member not in self.names:
            return None
        with opened(self._source) as content:
            return _read(content, self.filename, self._folder + member)

    def module(self, name: str) -> str | None:
        """The source of ``package.module``, None if it is not there as Python; never imported."""
        path = name.replace(".", "/")
        for root in ("", "src/") if self.kind == "sdist" else ("",):
            for member in (f"{root}{path}.py", f"{root}{path}/__init__.py"):
                if (content := self.read(member)) is not None:
                    return _decoded(member, content)
        return None


@dataclass(frozen=True, slots=True)
class _Named:
    """What a file name promises."""

    filename: str
    kind: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class _Inside:
    """What an archive says of itself."""

    names: frozenset[str]
    folder: str
    metadata: bytes
    entry_points: EntryPoints


def inspect(
    source: Path | IO[bytes], filename: str, declared: Mapping[str, str] | None = None
) -> Archive:
    """Look at an archive whole. Raises Invalid, in one line, for anything that is not right.

    ``declared``: digests in hex by sha256, blake2_256 or md5 that the file must have.
    """
    named = parse(filename)
    try:
        return _inspect(source, named, declared or {})
    except Invalid as error:
        raise Invalid(f"{error} ({filename})") from None


def _inspect(source: Path | IO[bytes], named: _Named, declared: Mapping[str, str]) -> Archive:
    with opened(source) as content:
        check_digests(content, declared)
        file = files.digest(content)
        inside = _wheel(content, named) if named.kind == "wheel" else _sdist(content, named)
    metadata = _metadata(inside.metadata, named)
    return Archive(
        filename=named.filename,
        kind=named.kind,
        name=named.name,
        version=named.version,
        requires_python=str(metadata.requires_python) if metadata.requires_python else None,
        requires_dist=tuple(map(str, metadata.requires_dist or ())),
        summary=metadata.summary or "",
        sha256=file.sha256,
        size=file.size,
        metadata=inside.metadata,
        metadata_sha256=hashlib.sha256(inside.metadata).hexdigest(),
        entry_points=inside.entry_points,
        names=inside.names,
        _source=source,
        _folder=inside.folder,
    )


@contextmanager
def opened(source: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """The content of a file; one that is open stays so."""
    if not isinstance(source, Path):
        yield source
        return
    try:
        content = source.open("rb")
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror or error}") from None
    with content:
        yield content


def parse(filename: str) -> _Named:
    """Kind, name and version of a file name; raises Invalid."""
    if not FILENAME.fullmatch(filename):
        raise Invalid(f"{members.shown(filename)!r} is no name of a package's file; {EXTENSIONS}")
    try:
        if filename.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(filename)
            return _Named(filename, "wheel", name, str(version))
        name, version = parse_sdist_filename(filename)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion) as error:
        raise Invalid(f"{members.why(error)}; {EXTENSIONS}") from None
    return _Named(filename, "sdist", name, str(version))


def identity(filename: str) -> tuple[object, ...]:
    """What may be there once: a version has one sdist, and one wheel of a build for its tags."""
    if filename.endswith(".whl"):
        return parse_wheel_filename(filename)
    return parse_sdist_filename(filename)


def check_digests(content: IO[bytes], declared: Mapping[str, str]) -> None:
    """Raise Invalid unless an open file has these digests: what came is what was sent."""
    known: dict[str, Any] = {
        "sha256": hashlib.sha256(),
        "blake2_256": hashlib.blake2b(digest_size=32),
        "md5": hashlib.md5(usedforsecurity=False),
    }
    wanted = {kind: known[kind] for kind in declared}
    content.seek(0)
    while wanted and (piece := content.read(files.PIECE)):
        for hashed in wanted.values():
            hashed.update(piece)
    for kind, hashed in wanted.items():
        if hashed.hexdigest() != declared[kind].lower():
            raise Invalid(f"the {kind} digest is not that of the file: it was changed on its way")


def _wheel(content: IO[bytes], named: _Named) -> _Inside:
    found = {member.name: member for member in zips.walk(content)}
    info = _dist_info(found, named)
    for required in ("METADATA", "WHEEL", "RECORD"):
        if f"{info}/{required}" not in found:
            raise Invalid(f"the wheel has no {info}/{required}")
    _check_record(_text(zips.read(content, f"{info}/RECORD"), "RECORD"), found, info)
    points = zips.read(content, f"{info}/entry_points.txt")
    metadata = zips.read(content, f"{info}/METADATA") or b""
    return _Inside(frozenset(found), "", metadata, _entry_points(points))


def _dist_info(names: Collection[str], named: _Named) -> str:
    """The one folder with what the wheel says of itself."""
    tops = {name.split("/")[0] for name in names if "/" in name}
    infos = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(infos) != 1:
        raise Invalid(f"a wheel has one .dist-info folder, this one has {len(infos)}")
    _check_folder(infos[0], ".dist-info", named)
    return infos[0]


def _check_folder(folder: str, suffix: str, named: _Named) -> None:
    """Raise Invalid for a folder NAME-VERSION that is not of the name and version promised."""
    try:
        name, version = parse_sdist_filename(folder.removesuffix(suffix) + ".tar.gz")
    except InvalidSdistFilename:
        name, version = None, None
    if (name, str(version)) != (named.name, named.version):
        raise Invalid(f"the folder {members.shown(folder)} does not belong to {named.filename}")


def _check_record(record: str, found: Mapping[str, zips.Member], info: str) -> None:
    """Installers take a wheel's files by RECORD: it must name all of them, and with their hash."""
    listed = set()
    try:
        for path, digest, _ in csv.reader(record.splitlines()):
            listed.add(path)
            if path not in found:
                raise Invalid(f"RECORD names {members.shown(path)}, which is not in the wheel")
            if not _is_hash(digest, found[path].sha256):
                raise Invalid(f"{members.shown(path)} is not what RECORD says: wrong hash")
    except (ValueError, csv.Error) as error:
        raise Invalid(f"RECORD cannot be read: {members.why(error)}") from None
    unrecorded = set(found) - listed - {f"{info}/{name}" for name in UNRECORDED}
    if unrecorded:
        raise Invalid(f"{members.shown(min(unrecorded))} is in the wheel, but not in its RECORD")


def _is_hash(given: str, sha256: bytes) -> bool:
    """Whether RECORD's hash fits; RECORD itself has none, and other algorithms are not checked."""
    if not given.startswith("sha256="):
        return True
    return given == "sha256=" + base64.urlsafe_b64encode(sha256).decode().rstrip("=")


def _sdist(content: IO[bytes], named: _Named) -> _Inside:
    names, texts = _sdist_texts(content, named)
    tops = {name.split("/")[0] for name in names}
    if len(tops) != 1:
        raise Invalid(f"an sdist has one folder, this one has {len(tops)}")
    top = tops.pop()
    _check_folder(top, "", named)
    inner = frozenset(name.removeprefix(f"{top}/") for name in names if "/" in name)
    metadata = texts.get(f"{top}/PKG-INFO")
    if metadata is None:
        raise Invalid(f"the sdist has no {top}/PKG-INFO")
    return _Inside(inner, f"{top}/", metadata, _declared_points(texts, top))


def _sdist_texts(content: IO[bytes], named: _Named) -> tuple[set[str], dict[str, bytes]]:
    """Every file of an sdist, and the content of those that say what it is."""
    names, texts = set(), {}
    if named.filename.endswith(".zip"):
        names = {member.name for member in zips.walk(content)}
        for name in filter(_says_something, names):
            texts[name] = zips.read(content, name) or b""
        return names, texts
    for name, opening in tars.walk(content):
        if opening is not None:
            names.add(name)
            if _says_something(name):
                texts[name] = tars.text(name, opening)
    return names, texts


def _says_something(name: str) -> bool:
    inner = name.partition("/")[2]
    return inner in ("PKG-INFO", "pyproject.toml") or bool(
        re.fullmatch(r"(src/)?[^/]+\.egg-info/entry_points\.txt", inner)
    )


def _declared_points(texts: Mapping[str, bytes], top: str) -> EntryPoints:
    """The entry points of an sdist: what setuptools wrote down, else those of pyproject.toml."""
    for name, content in texts.items():
        if name.endswith("entry_points.txt"):
            return _entry_points(content)
    try:
        tables = tomllib.loads(_text(texts.get(f"{top}/pyproject.toml"), "pyproject.toml"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"pyproject.toml is not TOML: {members.why(error)}") from None
    project = _table(tables, "project")
    groups = {"console_scripts": project.get("scripts"), **_table(project, "entry-points")}
    return {group: _points(group, table) for group, table in groups.items() if table}


def _table(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = parent.get(name, {})
    if not isinstance(found, dict):
        raise Invalid(f"{name} in pyproject.toml must be a table")
    return found


def _points(group: str, table: Any) -> dict[str, str]:
    texts = isinstance(table, dict) and all(isinstance(text, str) for text in table.values())
    if not texts or "\0" in "".join((group, *table, *table.values())):
        raise Invalid(f"the entry points {members.shown(group)} in pyproject.toml are not texts")
    return dict(table)


def _entry_points(content: bytes | None) -> EntryPoints:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        parser.read_string(_text(content or b"", "entry_points.txt"))
    except configparser.Error as error:
        raise Invalid(f"entry_points.txt cannot be read: {members.why(error)}") from None
    return {group: dict(parser[group]) for group in parser.sections()}


def _metadata(content: bytes, named: _Named) -> Metadata:
    """The metadata, valid, of the name and version that the file name says. Raises Invalid."""
    text = _text(content, "the metadata")
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        if wrong := [error for error in group.exceptions if TOO_NEW not in str(error)]:
            raise Invalid(f"the metadata is not valid: {members.why(_said(wrong[0]))}") from None
        metadata = Metadata.from_email(text, validate=False)
    if canonicalize_name(metadata.name) != named.name:
        raise Invalid(f"the metadata is of {members.shown(metadata.name)}, not of {named.name}")
    if str(metadata.version) != named.version:
        raise Invalid(f"the metadata is of version {metadata.version}, not of {named.version}")
    return metadata


def _said(error: Exception) -> Exception:
    """What is wrong, the field's name before its text."""
    if isinstance(error, InvalidMetadata):
        return ValueError(f"{error.field}: {error}")
    return error


def _text(content: bytes | None, name: str) -> str:
    try:
        text = (content or b"").decode()
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8 text") from None
    if "\0" in text:
        raise Invalid(f"{name} holds a NUL character")
    return text


def _decoded(name: str, content: bytes) -> str:
    try:
        return importlib.util.decode_source(content)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Invalid(f"{name} cannot be read: {members.why(error)}") from None


def _read(content: IO[bytes], filename: str, member: str) -> bytes | None:
    if filename.endswith(".tar.gz"):
        return tars.read(content, member)
    return zips.read(content, member)

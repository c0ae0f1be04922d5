"""Tar files from strangers (.tar.gz): read once from front to end, never unpacked."""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import IO, Any, cast

from kirby.core.errors import Invalid
from kirby.server import members

MAX_HEADER = 1 << 20  # bytes of a long name or of extended attributes: they are held in memory
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
DAMAGED = (
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
)


class _Header(tarfile.TarInfo):
    """A header, refused before tarfile reads what it announces."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError:
            if buf.strip(b"\0"):  # tarfile would take it for the end
                raise Invalid("the tar file is damaged: a header is not one") from None
            raise
        if header.type in EXTENDED:
            if header.size > MAX_HEADER:
                raise Invalid("a header of the tar file is too large")
        elif header.type not in (*FILES, *LINKS, tarfile.DIRTYPE):
            raise Invalid(f"{members.shown(header.name)} is a device or a sparse file, not a file")
        return header


class _Counted:
    """What comes out of gzip, counted: it ends at a bomb, or beyond what is worth reading."""

    def __init__(self, unpacked: IO[bytes], packed: int) -> None:
        self._unpacked, self._packed, self._count = unpacked, packed, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._unpacked.read(size)
        self._count += len(piece)
        members.check_size(self._count, self._packed)
        return piece


Open = Callable[[], IO[bytes]]


def walk(content: IO[bytes]) -> Generator[tuple[str, Open | None]]:
    """Every member: its name, and how to open it now if it is a file. Raises Invalid."""
    packed = content.seek(0, 2)
    content.seek(0)
    try:
        with gzip.GzipFile(fileobj=content, mode="rb") as unpacked:
            source: Any = _Counted(cast(IO[bytes], unpacked), packed)
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as archive:
                yield from _members(archive)
                _to_the_end(archive)
    except DAMAGED as error:
        raise Invalid(f"the tar file is damaged: {members.why(error)}") from None


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, Open | None]]:
    names, links = members.Names(), _Links()
    while (header := archive.next()) is not None:
        name = names.add(header.name)
        links.check(header, name, names)
        yield name, _opening(archive, header) if header.type in FILES else None
        cast(Any, archive).members = []  # tarfile would remember every one


def _to_the_end(archive: tarfile.TarFile) -> None:
    """Read what is left, so that gzip checks all of it: nothing but zeros."""
    rest = cast(IO[bytes], archive.fileobj)
    while piece := rest.read(1 << 18):
        if piece.strip(b"\0"):
            raise Invalid("there is something behind the tar file's end")


def _opening(archive: tarfile.TarFile, header: tarfile.TarInfo) -> Open:
    return lambda: cast(IO[bytes], archive.extractfile(header))


class _Links:
    """Links may lead to other members, so long as none can be used to get out of the archive.

    The folder of a link is a real one, and its target goes up first and then only down. So every
    link ends inside the archive; and nothing is unpacked through one.
    """

    def __init__(self) -> None:
        self._links: set[str] = set()
        self._folders: set[str] = set()

    def check(self, header: tarfile.TarInfo, name: str, names: members.Names) -> None:
        above = _above(name)
        if not self._links.isdisjoint(above):
            raise Invalid(f"{members.shown(name)} would be unpacked through a link")
        self._folders.update(above)
        if header.issym():
            if name in self._folders:
                raise Invalid(f"{members.shown(name)} is a folder and a link")
            self._links.add(name)
            self._check_target(name, header.linkname)
        elif header.islnk() and (header.linkname not in names or header.linkname in self._links):
            raise Invalid(f"the link {members.shown(name)} leads to nothing in the archive")

    def _check_target(self, name: str, target: str) -> None:
        parts = target.split("/")
        down = parts[next((n for n, part in enumerate(parts) if part != ".."), len(parts)) :]
        folder = posixpath.dirname(name)
        ends = posixpath.normpath(posixpath.join(folder, target))
        root = name.split("/")[0]
        inside = ends == root or ends.startswith(root + "/")
        if target.startswith("/") or "\\" in target or ".." in down or not inside:
            raise Invalid(f"the link {members.shown(name)} leads out of the archive")


def _above(name: str) -> list[str]:
    """The folders that a member is in."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def read(content: IO[bytes], wanted: str) -> bytes | None:
    """A small member, None if there is none of that name; raises Invalid."""
    with closing(walk(content)) as found:
        for name, opening in found:
            if name == wanted and opening is not None:
                return text(name, opening)
    return None


def text(name: str, opening: Open) -> bytes:
    """The content of a small member that was just reached; raises Invalid."""
    with opening() as member:
        content = member.read(members.MAX_TEXT + 1)
    members.check_text(name, len(content))
    return content

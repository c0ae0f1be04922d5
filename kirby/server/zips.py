"""Zip files from strangers: read to the end, in flat memory, before anything believes them."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from kirby.core.errors import Invalid
from kirby.server import members

STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others inflate without a limit
ENCRYPTED = 0x1
FIRST = b"PK\x03\x04"
END, END_SIZE = b"PK\x05\x06", 22  # of a directory without a comment
PIECE = 1 << 18
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive, as it really is: its content was read and counted."""

    name: str
    size: int
    sha256: bytes


def walk(content: IO[bytes]) -> Iterator[Member]:
    """Every file of the archive, each read whole, so that damage cannot hide; raises Invalid."""
    content.seek(0)
    if content.read(4) != FIRST:
        raise Invalid("it is not a zip file")
    size = content.seek(0, 2)
    if not _ends_there(content, size):
        raise Invalid("the zip file is damaged: it is cut off, or something is behind its end")
    try:
        with zipfile.ZipFile(content) as archive:
            _check(archive.infolist(), size)
            for info in archive.infolist():
                if not info.is_dir():
                    yield Member(info.filename, info.file_size, _digest(archive, info))
    except DAMAGED as error:
        raise Invalid(f"the zip file is damaged: {members.why(error)}") from None


def _ends_there(content: IO[bytes], size: int) -> bool:
    """Whether the directory ends with the file: elsewhere, readers see different archives."""
    content.seek(max(size - END_SIZE, 0))
    return content.read(len(END)) == END


def _check(infos: list[zipfile.ZipInfo], size: int) -> None:
    """What the directory of the archive says, before anything is inflated."""
    names = members.Names()
    for info in infos:
        names.add(info.orig_filename)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Invalid(f"{members.shown(info.filename)} is a link or a device, not a file")
        if info.flag_bits & ENCRYPTED:
            raise Invalid(f"{members.shown(info.filename)} is encrypted")
        if info.compress_type not in STORED:
            raise Invalid(
                f"{members.shown(info.filename)} is compressed in a way that is not deflate"
            )
    members.check_size(sum(info.file_size for info in infos), size)


def _digest(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member to its end: zipfile stops at the size that was promised, and checks the CRC."""
    hashed, left = hashlib.sha256(), info.file_size
    with archive.open(info) as member:
        while piece := member.read(PIECE):
            hashed.update(piece)
            left -= len(piece)
    if left:
        raise Invalid(f"{members.shown(info.filename)} is shorter than the zip file says")
    return hashed.digest()


def read(content: IO[bytes], name: str) -> bytes | None:
    """A small member, None if there is none of that name; raises Invalid."""
    content.seek(0)
    try:
        with zipfile.ZipFile(content) as archive:
            info = archive.getinfo(name)
            members.check_text(name, info.file_size)
            return archive.read(info)
    except KeyError:
        return None
    except DAMAGED as error:
        raise Invalid(f"the zip file is damaged: {members.why(error)}") from None

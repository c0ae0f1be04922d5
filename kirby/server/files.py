"""Files by the sha256 of their content, in pieces in the database; memory stays flat."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, LiteralString

from sqlalchemy import Connection

from kirby.core import db
from kirby.core.errors import KirbyError, NotFound
from kirby.server import query

PIECE = 1 << 20  # bytes of one row

KNOWN = "select size from kirby.file where sha256 = %(sha256)s"
ADD_FILE = """
    insert into kirby.file (sha256, size) values (%(sha256)s, %(size)s)
        on conflict do nothing returning true
"""
ADD_PIECE = """
    insert into kirby.file_chunk (sha256, number, content)
    values (%(sha256)s, %(number)s, %(content)s)
"""
PIECES: LiteralString = "select count(*) from kirby.file_chunk where sha256 = %s"
READ: LiteralString = "select content from kirby.file_chunk where sha256 = %s and number = %s"


@dataclass(frozen=True, slots=True)
class File:
    """A stored file: the sha256 of its bytes in hex, and how many they are."""

    sha256: str
    size: int


def digest(content: IO[bytes]) -> File:
    """What an open file would be stored as; it is read from its beginning, and left there."""
    content.seek(0)
    hashed, size = hashlib.sha256(), 0
    while piece := content.read(PIECE):
        hashed.update(piece)
        size += len(piece)
    content.seek(0)
    return File(hashed.hexdigest(), size)


def put(conn: Connection, content: IO[bytes]) -> File:
    """Store an open file, from its beginning; one that is there already is not written again."""
    file = digest(content)
    if query.value(conn, ADD_FILE, sha256=file.sha256, size=file.size):
        for number, piece in enumerate(iter(lambda: content.read(PIECE), b"")):
            query.execute(conn, ADD_PIECE, sha256=file.sha256, number=number, content=piece)
    return file


def size(conn: Connection, sha256: str) -> int:
    """How many bytes a stored file has; raises NotFound."""
    found = query.value(conn, KNOWN, sha256=sha256)
    if found is None:
        raise NotFound(f"no file with sha256 {sha256} is stored")
    return int(found)


def read(conn: db.Connection, sha256: str) -> Iterator[bytes]:
    """The pieces of a stored file, one after the other; nothing if there is no such file."""
    for number in range(db.scalar(conn, PIECES, [sha256])):
        yield bytes(db.scalar(conn, READ, [sha256, number]))


def save(conn: db.Connection, sha256: str, path: Path) -> Path:
    """Write a stored file to `path`, whole or not at all; one that is there is left as it is.

    Raises KirbyError when what is stored is not what its name says, or cannot be written.
    """
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                _write(file, sha256, read(conn, sha256))
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise KirbyError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _write(file: IO[bytes], sha256: str, pieces: Iterable[bytes]) -> None:
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
        file.write(piece)
    file.flush()
    if hashed.hexdigest() != sha256:
        raise KirbyError(f"the stored file {sha256} is damaged, or not there")

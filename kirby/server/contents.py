"""What a release is made of, as people compare it: requirements, and the text of its source."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from sqlalchemy import Connection

from kirby.core.errors import NotFound
from kirby.server import database, files, query, targets
from kirby.server.locks import Lock
from kirby.server.needs import Needs
from kirby.server.targets import JobSpec, Target

PINNED = re.compile(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)")
LARGEST_WHEEL = 64 << 20  # bytes: of a larger one the source is not looked at
LARGEST_TEXT = 256 << 10  # bytes of one file
MOST_TEXT = 4 << 20  # bytes of all of them
IN_MEMORY = 8 << 20

GET = """
    select l.id, l.name, l.kind, l.version, l.filename, l.source, l.origin, l.jobs,
           l.requirements, l.python, l.sdk_sha256, l.created_by
      from kirby.release l
     where l.id = %(id)s
"""
WHEEL = """
    select f.sha256 from kirby.release_file r join kirby.file f on f.sha256 = r.sha256
     where r.release_id = %(id)s and r.filename = %(filename)s and f.size <= %(largest)s
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """A release, stored (`id`) or about to be.

    `requirements`: the version of each package by its name; `texts`: the source by its path.
    """

    name: str
    kind: str
    filename: str
    version: str | None
    origin: str
    python: str
    requirements: Mapping[str, str]
    jobs: tuple[JobSpec, ...]
    texts: Mapping[str, str] = field(repr=False)
    id: int | None = None

    @property
    def title(self) -> str:
        """What it is called in a line: a file, or a package with its version."""
        return f"{self.name} {self.version}" if self.kind == "package" else self.filename


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    name: str
    kind: str
    version: str | None
    filename: str
    source: str | None
    origin: str
    jobs: list[dict[str, Any]]
    requirements: str
    python: str
    sdk_sha256: str | None
    created_by: str


def of_target(target: Target, lock: Lock) -> Contents:
    """What the release of a target will hold, with that resolution."""
    texts = {target.filename: target.source} if target.source is not None else {}
    if target.wheel is not None and target.wheel.stat().st_size <= LARGEST_WHEEL:
        with target.wheel.open("rb") as wheel:
            texts = dict(_texts(wheel))
    return Contents(
        name=target.name,
        kind=target.kind,
        filename=target.filename,
        version=target.version,
        origin=target.origin,
        python=lock.python,
        requirements=pinned(lock.requirements, lock.sdk_sha256, target),
        jobs=target.jobs,
        texts=texts,
    )


def get(conn: Connection, release_id: int) -> Contents:
    """What a stored release holds; raises NotFound."""
    row = query.row(conn, _Row, GET, id=release_id)
    if row is None:
        raise NotFound(f"there is no release {release_id}")
    return Contents(
        name=row.name,
        kind=row.kind,
        filename=row.filename,
        version=row.version,
        origin=row.origin,
        python=row.python,
        requirements=pinned(row.requirements, row.sdk_sha256, row),
        jobs=_jobs(row.jobs, row.source, row.filename),
        texts=_stored_texts(conn, row),
        id=row.id,
    )


def jobs(conn: Connection, release_id: int) -> tuple[JobSpec, ...]:
    """The jobs that a stored release offers."""
    row = query.row(conn, _Row, GET, id=release_id)
    return _jobs(row.jobs, row.source, row.filename) if row else ()


def job_of(conn: Connection, release_id: int, name: str, entry: str) -> JobSpec | None:
    """The job of a release that is deployed under that name, perhaps not its own."""
    offered = jobs(conn, release_id)
    named = [job for job in offered if job.name == name]
    found = named or [job for job in offered if job.entry == entry]
    return found[0] if found else None


def _jobs(written: list[dict[str, Any]], source: str | None, filename: str) -> tuple[JobSpec, ...]:
    """As they were stored; the first releases did not store them, but were scripts."""
    if written or source is None:
        return tuple(map(_job, written))
    return targets.jobs_of_script(source, filename)


def pinned(requirements: str, sdk_sha256: str | None, of: Target | _Row) -> dict[str, str]:
    """The version of each package of a lock by its name; the package itself is not among them."""
    found = dict(PINNED.findall(requirements))
    if of.kind == "package":
        found.pop(of.name, None)
    if sdk_sha256 is not None:
        found["kirby"] = f"this server's own ({sdk_sha256[:8]})"
    return dict(sorted(found.items()))


def _job(written: Mapping[str, Any]) -> JobSpec:
    found = {key: tuple(names) for key, names in written.get("needs", {}).items()}
    return JobSpec(
        written["name"], written.get("entry", ""), written.get("settings", {}), Needs(**found)
    )


def _stored_texts(conn: Connection, row: _Row) -> dict[str, str]:
    if row.source is not None:
        return {row.filename: row.source}
    sha256 = query.value(conn, WHEEL, id=row.id, filename=row.filename, largest=LARGEST_WHEEL)
    if sha256 is None:
        return {}
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as wheel:
        for piece in files.read(database.driver(conn), sha256):
            wheel.write(piece)
        return dict(_texts(wheel))


def _texts(wheel: IO[bytes]) -> Iterator[tuple[str, str]]:
    """The texts in a wheel that was checked before; its metadata but for the entry points not."""
    left = MOST_TEXT
    with zipfile.ZipFile(wheel) as opened:
        for member in sorted(opened.infolist(), key=lambda each: each.filename):
            name = member.filename
            told = ".dist-info/" in name and not name.endswith("/entry_points.txt")
            if member.is_dir() or told or member.file_size > min(LARGEST_TEXT, left):
                continue
            left -= member.file_size
            if (text := _decoded(opened.read(member))) is not None:
                yield re.sub(r"^[^/]+\.dist-info/", "", name), text


def _decoded(content: bytes) -> str | None:
    try:
        return None if b"\0" in content else content.decode("utf-8")
    except UnicodeDecodeError:
        return None

"""Packages that are published here: names, versions, files, and what was taken back (yanked).

A file never changes and never goes: the same bytes again are fine, others under its name are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, LiteralString

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound, Taken
from kirby.server import archives, documents, query
from kirby.server import files as stored
from kirby.server.archives import Archive, EntryPoints

RESERVED = {
    "kirby": "that is the SDK, which every server has its own of",
    "simple": "the index itself has pages of that name",
    "files": "the index itself has pages of that name",
}
#: What the upload calls the digests, and what they are called here.
DIGESTS = {"sha256_digest": "sha256", "blake2_256_digest": "blake2_256", "md5_digest": "md5"}
KINDS = {"bdist_wheel": "wheel", "sdist": "sdist"}

NAMES = "select name from kirby.package order by name"
FILES: LiteralString = """
    select p.name, f.version, f.filename, f.kind, f.sha256, c.size, f.requires_python,
           f.requires_dist, f.entry_points, f.metadata_sha256, f.summary,
           f.yanked_at, f.yanked_reason, f.uploaded_by, f.uploaded_at
      from kirby.package_file f
      join kirby.package p on p.id = f.package_id
      join kirby.file c on c.sha256 = f.sha256
"""
OF_PACKAGE = FILES + " where p.name = %(name)s order by f.filename"
BY_FILENAME = FILES + " where f.filename = %(filename)s"
ALL = FILES + " order by p.name, f.filename"
METADATA = "select metadata from kirby.package_file where filename = %(filename)s"
PIECE = """
    select content from kirby.file_chunk where sha256 = %(sha256)s and number = %(number)s
"""
OPEN = """
    insert into kirby.package (name, created_by) values (%(name)s, %(actor)s)
        on conflict (name) do nothing
"""
LOCK = "select id from kirby.package where name = %(name)s for update"
ADD = """
    insert into kirby.package_file
      (package_id, version, filename, kind, sha256, requires_python, requires_dist, entry_points,
       metadata, metadata_sha256, summary, uploaded_by)
    values
      (%(package_id)s, %(version)s, %(filename)s, %(kind)s, %(sha256)s, %(requires_python)s,
       %(requires_dist)s, %(entry_points)s::jsonb, %(metadata)s, %(metadata_sha256)s, %(summary)s,
       %(actor)s)
"""
YANK = """
    update kirby.package_file f set yanked_at = kirby.now(), yanked_reason = %(reason)s
      from kirby.package p
     where p.id = f.package_id and p.name = %(name)s and f.version = any(%(versions)s)
       and f.yanked_at is null
"""
UNYANK = """
    update kirby.package_file f set yanked_at = null, yanked_reason = null
      from kirby.package p
     where p.id = f.package_id and p.name = %(name)s and f.version = any(%(versions)s)
"""
AUDIT = """
    select kirby.audit(%(actor)s, %(verb)s, %(object)s, null, %(after)s::jsonb, %(reason)s)
"""


class TooLarge(Invalid):
    """A file larger than KIRBY_MAX_UPLOAD."""


@dataclass(frozen=True, slots=True)
class File:
    """A wheel or sdist as it was uploaded."""

    name: str  # of the package
    version: str
    filename: str
    kind: str
    sha256: str
    size: int
    requires_python: str | None
    requires_dist: list[str]
    entry_points: EntryPoints
    metadata_sha256: str | None
    summary: str
    yanked_at: datetime | None
    yanked_reason: str | None
    uploaded_by: str
    uploaded_at: datetime

    @property
    def jobs(self) -> dict[str, str]:
        """The jobs that it offers: ``module:function`` or ``module`` by name."""
        return self.entry_points.get(archives.JOBS, {})


@dataclass(frozen=True, slots=True)
class Release:
    """All files of one version."""

    version: str
    files: list[File]

    @property
    def jobs(self) -> dict[str, str]:
        return {name: target for file in self.files for name, target in file.jobs.items()}

    @property
    def yanked(self) -> File | None:
        """A file that says why the version was taken back; None if it was not."""
        taken = [file for file in self.files if file.yanked_at is not None]
        return taken[0] if len(taken) == len(self.files) else None

    @property
    def spellings(self) -> list[str]:
        """1.0 and 1.0.0 are one version."""
        return sorted({file.version for file in self.files})

    @property
    def uploaded_at(self) -> datetime:
        return max(file.uploaded_at for file in self.files)

    @property
    def first(self) -> File:
        """The wheel if there is one: it says for sure what it needs and offers."""
        return min(self.files, key=lambda file: (file.kind != "wheel", file.filename))


@dataclass(frozen=True, slots=True)
class Package:
    """A name with its versions, newest first."""

    name: str
    releases: list[Release]

    @property
    def latest(self) -> Release:
        """What an installer takes: not yanked, and no pre-release, if there is such a one."""
        good = [each for each in self.releases if each.yanked is None] or self.releases
        final = [each for each in good if not Version(each.version).is_prerelease]
        return (final or good)[0]

    @property
    def size(self) -> int:
        return sum(file.size for release in self.releases for file in release.files)

    @property
    def count(self) -> int:
        """How many files it has."""
        return sum(len(release.files) for release in self.releases)

    def release(self, version: str) -> Release:
        """The files of a version, however it is spelt; raises NotFound."""
        wanted = _parsed(version)
        for release in self.releases:
            if Version(release.version) == wanted:
                return release
        newest = ", ".join(release.version for release in self.releases[:5])
        raise NotFound(f"there is no {self.name} {version} here; there is {newest}")


def normal(name: str) -> str:
    """A package's name as it is kept: lower case, with ``-``."""
    return canonicalize_name(name)


def names(conn: Connection) -> list[str]:
    """The names that are hosted here, and so are never looked up upstream."""
    return query.column(conn, NAMES)


def listing(conn: Connection) -> list[Package]:
    """Every package, by name."""
    found: dict[str, list[File]] = {}
    for each in query.rows(conn, File, ALL):
        found.setdefault(each.name, []).append(each)
    return [_package(name, of_name) for name, of_name in found.items()]


def get(conn: Connection, name: str) -> Package:
    """The package of that name, however it is spelt; raises NotFound with the closest there is."""
    return _package(normal(name), files(conn, name))


def files(conn: Connection, name: str) -> list[File]:
    """The files of a package, however its name is spelt; raises NotFound."""
    found = query.rows(conn, File, OF_PACKAGE, name=normal(name))
    if not found:
        raise query.missing("package", name, names(conn))
    return found


def find(conn: Connection, name: str, version: str) -> Release:
    """The files of a version, wheel or sdist; raises NotFound."""
    return get(conn, name).release(version)


def file(conn: Connection, filename: str) -> File:
    """The file of that name; raises NotFound."""
    found = query.row(conn, File, BY_FILENAME, filename=filename)
    if found is None:
        raise NotFound(f"there is no file {filename} here")
    return found


def metadata(conn: Connection, filename: str) -> bytes:
    """METADATA or PKG-INFO of a file as it is; raises NotFound."""
    found = query.value(conn, METADATA, filename=filename)
    if found is None:
        raise NotFound(f"there is no file {filename} here")
    return bytes(found)


def piece(conn: Connection, sha256: str, number: int) -> bytes:
    """One piece (``PIECE`` bytes of kirby.server.files, the last one fewer) of a file's content."""
    return bytes(query.value(conn, PIECE, sha256=sha256, number=number))


def check(
    content: IO[bytes], filename: str, fields: Mapping[str, str] | None = None, *, limit: int
) -> Archive:
    """Look at a file that is to be published; it needs no connection, and takes a while.

    ``fields`` is what the uploader said of it, by the names of PyPI's upload form: it must be so.
    Raises Invalid, in one line, or TooLarge.
    """
    fields = fields or {}
    if content.seek(0, 2) > limit:
        raise TooLarge(f"{filename} is too large: at most {limit / 1e6:,.0f} MB")
    declared = {ours: fields[theirs] for theirs, ours in DIGESTS.items() if fields.get(theirs)}
    archive = archives.inspect(content, filename, declared)
    if why := RESERVED.get(archive.name):
        raise Invalid(f"no package here may be called {archive.name}: {why}")
    _check_said(archive, fields)
    return archive


def _check_said(archive: Archive, fields: Mapping[str, str]) -> None:
    if (name := fields.get("name")) and normal(name) != archive.name:
        raise Invalid(f"{archive.filename} is of {archive.name}, but was sent as {name}")
    if (version := fields.get("version")) and _parsed(version) != Version(archive.version):
        raise Invalid(f"{archive.filename} is version {archive.version}, but was sent as {version}")
    if (kind := fields.get("filetype")) and KINDS.get(kind) != archive.kind:
        raise Invalid(f"{archive.filename} is no {kind}: {archives.EXTENSIONS}")


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def store(conn: Connection, content: IO[bytes], archive: Archive, *, actor: str) -> bool:
    """Keep a file that was looked at; audited. False: these very bytes were there already.

    Raises Taken for other bytes under the same name, or of the same version and tags.
    """
    query.execute(conn, OPEN, name=archive.name, actor=actor)
    package_id = query.value(conn, LOCK, name=archive.name)
    for known in query.rows(conn, File, OF_PACKAGE, name=archive.name):
        if archives.identity(known.filename) == archives.identity(archive.filename):
            _check_same(known, archive)
            return False
    kept = stored.put(conn, content)
    _add(conn, package_id, archive, actor)
    after = {"filename": archive.filename, "sha256": kept.sha256, "size": kept.size}
    _audit(conn, actor, "package_uploaded", archive.name, archive.version, after)
    return True


def upload(
    conn: Connection,
    content: IO[bytes],
    filename: str,
    *,
    actor: str,
    limit: int,
) -> Archive:
    """Look at a file and keep it: ``check`` and ``store``, with their errors."""
    archive = check(content, filename, limit=limit)
    store(conn, content, archive, actor=actor)
    return archive


def _check_same(known: File, archive: Archive) -> None:
    if known.filename == archive.filename and known.sha256 == archive.sha256:
        return
    raise Taken(
        f"there is a file {known.filename} already, with other content:"
        " files never change, so give it a new version"
    )


def _add(conn: Connection, package_id: int, archive: Archive, actor: str) -> None:
    query.execute(
        conn,
        ADD,
        package_id=package_id,
        version=archive.version,
        filename=archive.filename,
        kind=archive.kind,
        sha256=archive.sha256,
        requires_python=archive.requires_python,
        requires_dist=list(archive.requires_dist),
        entry_points=documents.text(archive.entry_points),
        metadata=archive.metadata,
        metadata_sha256=archive.metadata_sha256,
        summary=archive.summary,
        actor=actor,
    )


def yank(conn: Connection, name: str, version: str, *, reason: str, actor: str) -> Release:
    """Take a version back: only who asks for exactly it still gets it; audited.

    Raises NotFound, Invalid without a reason.
    """
    if not reason.strip() or not reason.isprintable() or len(reason) > 500:
        raise Invalid("say why in one line: who pinned the version will read it")
    release = find(conn, name, version)
    if release.yanked is None:
        query.execute(conn, YANK, name=normal(name), versions=release.spellings, reason=reason)
        _audit(conn, actor, "package_yanked", normal(name), release.version, None, reason)
    return find(conn, name, version)


def unyank(conn: Connection, name: str, version: str, *, actor: str) -> Release:
    """Offer a version again that was taken back; audited. Raises NotFound."""
    release = find(conn, name, version)
    if any(file.yanked_at is not None for file in release.files):
        query.execute(conn, UNYANK, name=normal(name), versions=release.spellings)
        _audit(conn, actor, "package_unyanked", normal(name), release.version, None)
    return find(conn, name, version)


def _package(name: str, of_name: list[File]) -> Package:
    by_version: dict[Version, list[File]] = {}
    for each in of_name:
        by_version.setdefault(Version(each.version), []).append(each)
    newest_first = sorted(by_version, reverse=True)
    return Package(name, [Release(str(each), by_version[each]) for each in newest_first])


def _audit(
    conn: Connection,
    actor: str,
    verb: str,
    name: str,
    version: str,
    after: dict[str, object] | None,
    reason: str | None = None,
) -> None:
    query.value(
        conn,
        AUDIT,
        actor=actor,
        verb=verb,
        object=f"package/{name}/{version}",
        after=documents.text(after) if after else None,
        reason=reason,
    )

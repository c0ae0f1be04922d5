"""Releases: a target with its one resolution and every file of it, stored; never changed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core import db
from kirby.core.errors import KirbyError
from kirby.server import database, files, locks, pythons, query
from kirby.server.locks import Lock
from kirby.server.sdk_wheel import SdkWheel
from kirby.server.sources import HostedFile, Sources, With
from kirby.server.targets import Target
from kirby.server.virtualenvs import Fetch

VERSIONS_KEPT = 3  # of each deployment: their virtualenvs stay on disk, for a quick way back

NAMES = "select name from kirby.package"
FILES = """
    select f.filename, f.sha256, f.requires_python,
           case when f.kind = 'wheel' then f.metadata end as metadata,
           case when f.yanked_at is not null then coalesce(f.yanked_reason, '') end as yanked
      from kirby.package_file f join kirby.package p on p.id = f.package_id
     where p.name = %(name)s
     order by f.filename
"""
HAS = "select exists (select from kirby.file where sha256 = %(sha256)s)"
KNOWN = "select sha256 from kirby.file where sha256 = any(%(sha256s)s)"
ADD = """
    insert into kirby.release (name, kind, version, filename, source, sha256, origin, jobs,
                               requirements, lock_hash, python, sdk_sha256, created_by)
    values (%(name)s, %(kind)s, %(version)s, %(filename)s, %(source)s, %(sha256)s, %(origin)s,
            %(jobs)s, %(requirements)s, %(lock_hash)s, %(python)s, %(sdk_sha256)s, %(actor)s)
        on conflict do nothing
"""
FIND = """
    select id from kirby.release
     where name = %(name)s and sha256 = %(sha256)s and lock_hash = %(lock_hash)s
"""
ADD_FILE = """
    insert into kirby.release_file (release_id, filename, sha256)
    values (%(release_id)s, %(filename)s, %(sha256)s) on conflict do nothing
"""
#: What was deployed last, one row for each lock; what is deployed now first.
DEPLOYED: LiteralString = """
    select * from (
      select distinct on (l.lock_hash) l.id, l.requirements, l.python, l.sdk_sha256,
             coalesce((select jsonb_object_agg(f.filename, f.sha256) from kirby.release_file f
                        where f.release_id = l.id), '{}') as files,
             (v.version = d.version or v.version is not distinct from d.canary_version)
               and v.labels <@ %(labels)s as is_current
        from kirby.deployment d
        join kirby.deployment_version v on v.deployment_id = d.id
        join kirby.release l on l.id = v.release_id
       where v.version > d.version - %(versions)s or v.version = d.canary_version
       order by l.lock_hash, is_current desc, l.id desc) locks
     order by is_current desc, id desc
"""

Unit = Callable[[], AbstractContextManager[Connection]]


class Stored:
    """What is published here, and every stored file (``sources.Hosted``).

    `unit` opens a unit of work; each look is one of its own, so that nothing stays open while a
    resolution takes minutes.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def names(self) -> Collection[str]:
        with self._unit() as conn:
            return query.column(conn, NAMES)

    def files(self, name: str) -> Sequence[HostedFile]:
        with self._unit() as conn:
            return query.rows(conn, HostedFile, FILES, name=name)

    def stored(self, sha256s: Collection[str]) -> Collection[str]:
        with self._unit() as conn:
            return query.column(conn, KNOWN, sha256s=list(sha256s))

    def read(self, sha256: str) -> Iterator[bytes]:
        with self._unit() as conn:
            yield from files.read(database.driver(conn), sha256)


def resolve(target: Target, sources: Sources, python: str | None = None) -> Lock:
    """The one resolution of a target; see ``locks.resolve``. Slow: no transaction should be open.

    `python` ("3.12") is the version to resolve for, by default the first that the target takes of
    this server's own and those that uv finds on this host.
    """
    interpreter = pythons.find(target.requires_python, python)
    wanted: Iterable[str] = target.dependencies
    if target.kind == "package":
        extras = f"[{','.join(target.extras)}]" if target.extras else ""
        wanted = [f"{target.name}{extras}=={target.version}"]
    return locks.resolve(wanted, _with(target, sources), interpreter)


def fetch(target: Target, lock: Lock, folder: Path, sources: Sources) -> Lock:
    """Have every file of a resolution; see ``locks.fetch``. `folder` must live until ``make``."""
    return locks.fetch(lock, folder / "files", _with(target, sources), pythons.locked(lock.python))


def make(conn: Connection, target: Target, lock: Lock, sdk: SdkWheel, *, actor: str) -> int:
    """Store the release of a target whose files were fetched; its id.

    The same content with the same lock is one release, whoever makes it how often.
    """
    if lock.packages and not lock.files:
        raise KirbyError(f"the files of {target.name} were not fetched")
    lines = _row(target, lock, actor)
    for file in lock.files:
        _store(conn, lock.folder / file.filename if lock.folder else None, file.sha256)
    if lock.sdk_sha256 is not None:
        files.put(conn, io.BytesIO(sdk.content))
    query.execute(conn, ADD, **lines)
    key = {name: lines[name] for name in ("name", "sha256", "lock_hash")}
    release_id = int(query.value(conn, FIND, **key))
    for filename, sha256 in _contents(lock, sdk):
        query.execute(conn, ADD_FILE, release_id=release_id, filename=filename, sha256=sha256)
    return release_id


def _with(target: Target, sources: Sources) -> Sources:
    """Its own wheel is a file like one that is hosted: the only one of its name."""
    if target.wheel is None:
        return sources
    file = HostedFile(target.filename, target.sha256, target.requires_python, target.metadata)
    return replace(sources, hosted=With(sources.hosted, target.name, target.wheel, file))


def _row(target: Target, lock: Lock, actor: str) -> dict[str, Any]:
    jobs = [dataclasses.asdict(job) for job in target.jobs]
    return {
        "name": target.name,
        "kind": target.kind,
        "version": target.version,
        "filename": target.filename,
        "source": target.source,
        "sha256": _identity(target, jobs),
        "origin": target.origin,
        "jobs": Jsonb(jobs),
        "requirements": lock.requirements,
        "lock_hash": lock.hash,
        "python": lock.python,
        "sdk_sha256": lock.sdk_sha256,
        "actor": actor,
    }


def _identity(target: Target, jobs: list[dict[str, Any]]) -> str:
    """The sha256 of a script; of a package, of its wheel and what its project says of its jobs."""
    if target.kind == "script":
        return target.sha256
    text = f"{target.sha256}\n{json.dumps(jobs, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _contents(lock: Lock, sdk: SdkWheel) -> Iterator[tuple[str, str]]:
    for file in lock.files:
        yield file.filename, file.sha256
    if lock.sdk_sha256 is not None:
        yield sdk.filename, lock.sdk_sha256


def _store(conn: Connection, path: Path | None, sha256: str) -> None:
    if path is not None and path.exists():
        with path.open("rb") as content:
            files.put(conn, content)
    elif not query.value(conn, HAS, sha256=sha256):
        raise KirbyError(f"the file {sha256} of the lock is neither fetched nor stored")


# On a supervisor's host


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a virtualenv is made of: a lock, and its files by name.

    `is_current`: it is deployed now, so that its virtualenv should be there before the next run.
    """

    id: int
    requirements: str
    python: str
    sdk_sha256: str | None
    files: Mapping[str, str]
    is_current: bool

    @property
    def lock(self) -> Lock:
        return Lock(self.requirements, self.sdk_sha256, self.python)


def deployed(conn: db.Connection, labels: Sequence[str] = ()) -> list[Deployed]:
    """One release for each lock of the last versions of all deployments, what is current first.

    `labels` are those of a host: what asks for others is not current there.
    """
    with conn.cursor(row_factory=class_row(Deployed)) as cursor:
        values = {"labels": list(labels), "versions": VERSIONS_KEPT}
        return cursor.execute(DEPLOYED, values).fetchall()


def lay_out(
    conn: db.Connection, named: Mapping[str, str], sdk_sha256: str | None, to: Path
) -> list[Path]:
    """Have the files of a release and its SDK wheel below `to`; their paths. Raises KirbyError."""
    paths = [files.save(conn, sha256, to / sha256 / name) for name, sha256 in named.items()]
    if sdk_sha256 is not None and sdk_sha256 not in named.values():  # a release of before
        content = b"".join(files.read(conn, sdk_sha256))
        filename = SdkWheel.of(content).filename
        paths.append(files.save(conn, sdk_sha256, to / sdk_sha256 / filename))
    return paths


def fetcher(dsn: str, named: Mapping[str, str], sdk_sha256: str | None) -> Fetch:
    """What gets the files of a release for ``Virtualenvs.ensure``, on a connection of its own."""

    def fetch(to: Path) -> list[Path]:
        with db.kirby_errors(), db.connect(dsn, application="kirby supervisor: files") as conn:
            return lay_out(conn, named, sdk_sha256, to)

    return fetch

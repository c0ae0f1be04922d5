"""Pulls: a slice of a log, from wherever it is, into a folder or into an environment here.

Either goes on where it was: a folder after its last whole line, an environment after the last page
that was committed (table kirby.pull), both with the export that was begun, so that what it hashes
and fakes stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import Conflict, Denied, Invalid, NotFound
from kirby.server import imports, slices
from kirby.server.exports import Asked, Export
from kirby.server.imports import Done
from kirby.server.remotes import Remote, Restarted
from kirby.server.slices import Slice

STATE_TRIES = 3

FIND = """
    select p.id, p.export, p.progress from kirby.pull p
      join kirby.environment e on e.id = p.environment_id
     where e.name = current_setting('kirby.environment') and p.ended_at is null and p.asked = %s
     order by p.id desc limit 1
"""
ADD = """
    insert into kirby.pull (environment_id, actor, asked, export)
    select e.id, %s, %s, %s from kirby.environment e
     where e.name = current_setting('kirby.environment')
    returning id
"""
NOTE = "update kirby.pull set progress = progress || %s where id = %s"
END = "update kirby.pull set ended_at = kirby.now() where id = %s"


@dataclass(frozen=True, slots=True)
class Step:
    """How far it is: ``part`` of the positions of a topic between 0 and 1; of a state None."""

    what: str
    lines: int
    part: float | None


@dataclass
class Pulled:
    """What was pulled: lines by topic and by state; ``there`` of them before this command."""

    export: Export
    topics: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)
    there: int = 0


Told = Callable[[Step], None]


def to_folder(remote: Remote, asked: Asked, folder: Path, told: Told) -> Pulled:
    """Pull into a folder, or go on with what is there of the same request.

    Raises Invalid (another slice is there), NotWritten (disk full), Unavailable, Denied, NotFound,
    Conflict (the masks changed meanwhile); all but the first leave what can be gone on with.
    """
    request = _request(remote, asked)
    target = slices.unfinished(folder, request)
    if target is None:
        export = remote.begin(asked)
        target = slices.begin(folder, _manifest(request, export))
    else:
        export = Export(target.manifest["plan"])
    try:
        pulled = _fill(remote, export, asked, target, told)
    except Conflict as error:
        raise Conflict(f"{error} (remove {folder}, and pull again)") from None
    finally:
        target.save()
    target.manifest.pop("plan")
    target.finish()
    remote.end(export.id)
    return pulled


def _request(remote: Remote, asked: Asked) -> dict[str, Any]:
    """What makes two pulls the same one."""
    return {"from": remote.place, "environment": remote.environment, **asked.checked().plain()}


def _manifest(request: dict[str, Any], export: Export) -> dict[str, Any]:
    names = ("since", "until", "after", "keys", "limit")
    return {
        "asked": request,
        "origin": export.origin,
        "filters": {name: request[name] for name in names if name in request},
        "since": export.plan.get("since"),
        "until": export.plan.get("until"),
        "masks": export.masks(),
        "plan": export.plan,
    }


def _fill(remote: Remote, export: Export, asked: Asked, target: Slice, told: Told) -> Pulled:
    pulled = Pulled(export)
    for name, part in export.topics.items():
        file = target.topic(name)
        pulled.there += file.lines
        limit = None if asked.limit is None else asked.limit - file.lines
        meter = _Meter(name, part, told, file.lines)
        if limit is None or limit > 0:
            after = part["after"] if file.last is None else file.last
            found = remote.messages(export.id, name, after=after, limit=limit)
            for _ in slices.fill(file, found):
                meter(file.last, file.lines)
        pulled.topics[name] = file.lines
        target.save()
    for name in export.states:
        pulled.states[name] = _state(remote, export, target, name, told)
        target.save()
    return pulled


def _state(remote: Remote, export: Export, target: Slice, name: str, told: Told) -> int:
    for left in reversed(range(STATE_TRIES)):
        file = target.state(name)
        try:
            for _ in slices.fill(file, remote.entries(export.id, name)):
                told(Step(f"state {name}", file.lines, None))
            break
        except Restarted:
            if not left:
                raise
    return file.lines


class _Meter:
    """Tells how far a topic is by its positions."""

    def __init__(self, name: str, part: dict[str, Any], told: Told, lines: int) -> None:
        self.name, self.told = name, told
        self.after, self.length = part["after"], max(part["upto"] - part["after"], 1)
        if lines:
            told(Step(name, lines, 0.0))

    def __call__(self, position: int | None, lines: int) -> None:
        part = ((position or self.after) - self.after) / self.length
        self.told(Step(self.name, lines, min(max(part, 0.0), 1.0)))


def to_environment(
    remote: Remote, asked: Asked, conn: Connection, environment: str, *, actor: str, told: Told
) -> Pulled:
    """Pull into the environment of a connection in autocommit; goes on with the same request.

    A second pull of the same messages changes nothing. Raises as ``to_folder``, and Denied for what
    would come back to where it was exported.
    """
    request = _request(remote, asked)
    with kirby_errors():
        found = conn.execute(FIND, [Jsonb(request)]).fetchone()
    if found is None:
        export = remote.begin(asked)
        _refuse_return(remote, conn, export)
        with kirby_errors():
            params = [actor, Jsonb(request), Jsonb(export.plan)]
            [(pull,)] = conn.execute(ADD, params).fetchall()
        found = (pull, export.plan, {})
    try:
        pulled = _bring(remote, asked, conn, found, told)
    except (Conflict, Denied, NotFound):
        with kirby_errors():
            conn.execute(END, [found[0]])  # it cannot be gone on with; what came in is not lost
        raise
    with kirby_errors():
        conn.execute(END, [found[0]])
    remote.end(pulled.export.id)
    for name, read in {**pulled.topics, **pulled.states}.items():
        kind = "topic" if name in pulled.topics else "state"
        done = Done(read, pulled.new.get(name, 0))
        imports.audit(conn, actor, f"{kind}/{environment}/{name}", done, pulled.export.origin)
    return pulled


def _refuse_return(remote: Remote, conn: Connection, export: Export) -> None:
    try:
        imports.check_origin(conn, export.origin)
    except BaseException:
        remote.end(export.id)
        raise


def _bring(
    remote: Remote, asked: Asked, conn: Connection, found: tuple[Any, ...], told: Told
) -> Pulled:
    number, plan, progress = found
    pulled = Pulled(Export(plan))
    for name, part in pulled.export.topics.items():
        known = progress.get(name, {"position": part["after"], "messages": 0, "new": 0})
        pulled.there += known["messages"]
        limit = None if asked.limit is None else asked.limit - known["messages"]
        meter = _Meter(name, part, told, known["messages"])
        if limit is None or limit > 0:
            content = remote.messages(pulled.export.id, name, after=known["position"], limit=limit)
            for step in _publish(conn, number, name, content, known):
                known = step
                meter(known["position"], known["messages"])
        pulled.topics[name], pulled.new[name] = known["messages"], known["new"]
    for name in pulled.export.states:
        done = _set(remote, conn, pulled.export, name, told)
        pulled.states[name], pulled.new[name] = done.read, done.new
    return pulled


def _publish(
    conn: Connection, pull: int, topic: str, content: Iterator[bytes], known: dict[str, int]
) -> Iterator[dict[str, int]]:
    """Each page and how far it came are one transaction."""
    for lines in imports.batches(content):
        with kirby_errors(), conn.transaction():
            done = imports.messages(conn, topic, lines, source="pull", first=known["messages"] + 1)
            known = {
                "position": slices.position(lines[-1]) or known["position"],
                "messages": known["messages"] + done.read,
                "new": known["new"] + done.new,
            }
            conn.execute(NOTE, [Jsonb({topic: known}), pull])
        yield known


def _set(remote: Remote, conn: Connection, export: Export, name: str, told: Told) -> Done:
    for left in reversed(range(STATE_TRIES)):
        done = Done()
        try:
            for lines in imports.batches(remote.entries(export.id, name)):
                first = done.read + 1
                done += imports.entries(conn, name, lines, origin=export.origin, first=first)
                told(Step(f"state {name}", done.read, None))
            return done
        except Restarted:
            if not left:
                raise
    raise AssertionError("not reached")


def from_folder(
    conn: Connection, folder: Path, *, environment: str, actor: str, changed: bool, told: Told
) -> dict[str, Done]:
    """Import a slice; a second time changes nothing. Raises Invalid, Denied.

    ``changed``: even if its files are other than they were written.
    """
    manifest = slices.load(folder)
    if manifest is None:
        raise Invalid(f"{folder} has no {slices.MANIFEST}: import its files one by one")
    slices.check(folder, manifest, changed=changed)
    origin = manifest.get("origin") or {}
    imports.check_origin(conn, origin)
    found = {}
    for name, file in manifest.get("topics", {}).items():
        path = folder / str(file["file"])
        found[name] = from_file(conn, path, name, told=told)
        imports.audit(conn, actor, f"topic/{environment}/{name}", found[name], origin)
    for name, file in manifest.get("states", {}).items():
        done = Done()
        for lines in imports.batches(slices.blocks(folder / str(file["file"]))):
            done += imports.entries(conn, name, lines, origin=origin, first=done.read + 1)
            told(Step(f"state {name}", done.read, None))
        found[f"state {name}"] = done
        imports.audit(conn, actor, f"state/{environment}/{name}", done, origin)
    return found


def from_file(conn: Connection, path: Path, topic: str, *, told: Told) -> Done:
    """Import a file of envelopes into a topic. Raises Invalid, Denied."""
    try:
        source, size = f"file:{slices.sha256(path)}", max(path.stat().st_size, 1)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    try:
        return from_blocks(conn, slices.blocks(path), topic, source=source, size=size, told=told)
    except Invalid as error:
        raise Invalid(f"{path}: {error}") from None


def from_blocks(
    conn: Connection,
    content: Iterator[bytes],
    topic: str,
    *,
    source: str,
    told: Told,
    size: int | None = None,
) -> Done:
    """Import lines; ``source`` names those that have no origin, with their number."""
    done, seen = Done(), 0
    for lines in imports.batches(content):
        done += imports.messages(conn, topic, lines, source=source, first=done.read + 1)
        seen += sum(map(len, lines)) + len(lines)
        told(Step(topic, done.read, min(seen / size, 1.0) if size else None))
    return done

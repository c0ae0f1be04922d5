"""Diffs: what a deploy would change, and what is different between two versions of a job."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from kirby.server import contents, database, deployments, drafts, plans, scripts, spans, variables
from kirby.server.contents import Contents
from kirby.server.plans import Plan
from kirby.server.variables import Effective

PLACE = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@.*")
MOST_LINES = 2000  # of differences in source
LONGEST = 60  # characters of a value in a line
SECTIONS = ("release", "requirements", "variables", "schedule", "topics", "policies")
POLICIES = (
    *("entry", "command", "replicas", "max_attempts", "retry_pause", "timeout", "grace"),
    *("no_progress_timeout", "priority", "labels", "concurrency", "rerun", "tags"),
    *("start_by", "finish_by", "heartbeat", "expects", "alert_after", "recover_after"),
    "pause_after",
)
WHEN = ("exclude", "catch_up", "jitter")  # of schedules
DURATIONS = scripts.DURATIONS


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. None: it is not there. `note`: where a variable comes from."""

    name: str
    before: str | None
    after: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Diff:
    """Two versions of a job side by side, or the deployed one and what is about to be.

    `before` is None when nothing was deployed, `after` when it is no version yet. `source`: lines
    of a unified diff; `more` are left out. `effective`: every variable that a run would get.
    `warnings`: what may surprise of a schedule that is new.
    """

    job: str
    environment: str
    before: int | None
    after: int | None
    release: list[Change]
    requirements: list[Change]
    variables: list[Change]
    schedule: list[Change]
    topics: list[Change]
    policies: list[Change]
    source: list[str]
    more: int = 0
    effective: list[Effective] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not self.source and not any(getattr(self, section) for section in SECTIONS)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two: a release, what a version says, and what a run of it gets."""

    release: Contents | None
    settings: Mapping[str, Any]
    effective: Mapping[str, Effective]


NONE = _Side(None, {}, {})


def of_plan(conn: Connection, plan: Plan, release: Contents) -> Diff:
    """What deploying `release` by `plan` would change of what is deployed."""
    deployed = deployments.find(conn, plan.environment, plan.name)
    before = _stored(conn, *deployed) if deployed else NONE
    planned = variables.planned(conn, plan.environment, plan.name, plan.variables)
    after = _Side(release, deployments.content(plan, release.id or 0), planned)
    version = deployed[1] if deployed else None
    made = _diff(plan.name, plan.environment, version, None, before, after)
    return replace(made, warnings=drafts.warnings(conn, plan)) if made.schedule else made


def between(
    conn: Connection, name: str, environment: str, deployment_id: int, before: int, after: int
) -> Diff:
    """What is different between two versions of a deployment; raises NotFound."""
    sides = _stored(conn, deployment_id, before), _stored(conn, deployment_id, after)
    return _diff(name, environment, before, after, *sides)


def _stored(conn: Connection, deployment_id: int, version: int) -> _Side:
    settings = deployments.version_content(conn, deployment_id, version)
    release = contents.get(conn, settings["release_id"])
    given = variables.effective(database.driver(conn), deployment_id, version)
    return _Side(release, settings, given)


def _diff(
    name: str, environment: str, before: int | None, after: int | None, old: _Side, new: _Side
) -> Diff:
    lines = list(_source(old.release, new.release)) if old.release and new.release else []
    return Diff(
        job=name,
        environment=environment,
        before=before,
        after=after,
        release=_changes(_release(old.release), _release(new.release)),
        requirements=_changes(_requirements(old.release), _requirements(new.release)),
        variables=_variables(old.effective, new.effective),
        schedule=_changes(_schedule(old.settings), _schedule(new.settings)),
        topics=_changes(_topics(old.settings), _topics(new.settings)),
        policies=_changes(_policies(old.settings), _policies(new.settings)),
        source=lines[:MOST_LINES],
        more=max(0, len(lines) - MOST_LINES),
        effective=list(new.effective.values()),
    )


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    return [
        Change(name, old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _release(release: Contents | None) -> dict[str, str]:
    if release is None:
        return {}
    said = {"file": release.filename, "python": release.python, "origin": release.origin}
    if release.version:
        said = {"version": release.version, **said}
    return {name: value for name, value in said.items() if value}


def _requirements(release: Contents | None) -> Mapping[str, str]:
    return release.requirements if release else {}


def _variables(old: Mapping[str, Effective], new: Mapping[str, Effective]) -> list[Change]:
    found = []
    for name in sorted({*old, *new}):
        was, will = old.get(name), new.get(name)
        if was == will:
            continue
        origins = [each.origin for each in (was, will) if each]
        found.append(
            Change(
                name,
                was.value if was else None,
                will.value if will else None,
                " → ".join(dict.fromkeys(origins)),
            )
        )
    return found


def _schedule(settings: Mapping[str, Any]) -> dict[str, str]:
    when = settings.get("schedules", [])
    if not when:
        return {}
    return {"when": ", ".join(when), "time zone": settings["tz"], **beside(settings)}


def beside(settings: Mapping[str, Any]) -> dict[str, str]:
    """What is said of a schedule beside its lines and its zone, by name."""
    said = {name: settings[name] for name in WHEN}
    said["catch_up"] = plans.catching_up(said["catch_up"], settings["catch_up_most"])
    return {name.replace("_", " "): policy(name, value) for name, value in said.items()}


def _topics(settings: Mapping[str, Any]) -> dict[str, str]:
    needs = settings.get("needs", {})
    reads, writes = set(needs.get("reads", ())), set(needs.get("writes", ()))
    return {
        topic: " and ".join(
            [*(["read"] if topic in reads else []), *(["written"] if topic in writes else [])]
        )
        for topic in sorted(reads | writes)
    }


def _policies(settings: Mapping[str, Any]) -> dict[str, str]:
    """All of them; where nothing is deployed, as they are when nobody says anything."""
    said = settings or deployments.content(Plan("", ""), 0)
    return {name.replace("_", " "): policy(name, said[name]) for name in POLICIES}


def policy(name: str, value: Any) -> str:
    """What a policy says, as it may be written: 90s, 5m, gpu, allow, orders=15m."""
    if name == "start_by" and value is None:
        return "usual"
    if value in (None, [], "", {}):
        return "none"
    if name in DURATIONS:
        return spans.text(timedelta(seconds=value))
    if name == "expects":
        each = sorted(value.items())
        return ", ".join(f"{topic}={spans.text(timedelta(seconds=n))}" for topic, n in each)
    if isinstance(value, list):
        return (" " if name == "command" else ", ").join(value)
    return str(value)


def _source(old: Contents, new: Contents) -> Iterator[str]:
    """A unified diff, file by file; a script that was given another file name is the same file."""
    before, after = old.texts, new.texts
    if old.kind == new.kind == "script" and before and after:
        [was], [will] = before.values(), after.values()
        before, after = {new.filename: was}, {new.filename: will}
    for path in sorted({*before, *after}):
        yield from difflib.unified_diff(
            before.get(path, "").splitlines(),
            after.get(path, "").splitlines(),
            path if path in before else "(not there)",
            path if path in after else "(not there)",
            n=3,
            lineterm="",
        )


# In words


def sentences(diff: Diff) -> Iterator[str]:
    """The differences, a line for each section that has some: short."""
    for section in SECTIONS:
        if changes := getattr(diff, section):
            yield f"{section}: {'; '.join(map(sentence, changes))}"
    if diff.source:
        added, removed = counts(diff)
        more = " and more" if diff.more else ""
        lines = "line" if added == 1 else "lines"
        yield f"source: {added} {lines} added, {removed} removed{more}"


def sentence(change: Change) -> str:
    """`requests 2.31 → 2.32`, `+ rich 13.9`, `- toml 0.10`; a variable says where it comes from."""
    note = f" ({change.note})" if change.note else ""
    if change.before is None:
        return f"+ {change.name} {_short(change.after)}{note}"
    if change.after is None:
        return f"- {change.name} {_short(change.before)}{note}"
    return f"{change.name} {_short(change.before)} → {_short(change.after)}{note}"


def _short(value: str | None) -> str:
    text = "".join(each if each.isprintable() else "�" for each in value or "")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def counts(diff: Diff) -> tuple[int, int]:
    """How many lines of source were added, and removed."""
    kinds = [kind for kind, _ in marked(diff.source)]
    return kinds.count("added"), kinds.count("removed")


def marked(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The lines of a unified diff, each with what it is: file, place, added, removed or same."""
    old = new = 0  # lines that the place before announced and that are still to come
    for line in lines:
        if place := PLACE.fullmatch(line) if old <= 0 and new <= 0 else None:
            old, new = (int(count or 1) for count in place.groups())
            yield "place", line
        elif old <= 0 and new <= 0:
            yield "file", line
        else:
            old -= not line.startswith("+")
            new -= not line.startswith("-")
            yield KINDS.get(line[:1], "same"), line


KINDS = {"+": "added", "-": "removed"}

"""What `kirby deploy` can be given: a script, a folder, a wheel, an sdist, or NAME==VERSION.

Whatever it is, it becomes a Target: a file with the jobs that it offers, and what they need.
Nothing of it is imported or run, except by the build backend of a folder or an sdist, apart
(`projects`).
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kirby.core.errors import Invalid
from kirby.server import archives, downloads, locks, needs, projects, pythons, scripts, sdk_wheel
from kirby.server.archives import Archive
from kirby.server.locks import Lock
from kirby.server.needs import Needs
from kirby.server.projects import Project
from kirby.server.scripts import Script
from kirby.server.sources import Sources

ENTRY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?::([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*))?")
ARCHIVES = (".whl", ".tar.gz", ".zip")
KINDS = "a .py file, a program that begins with `#!`, a folder, a wheel, an sdist, or NAME==VERSION"
MOST_MODULES = 200  # that are looked through for what a job needs
OF_THE_TARGET = ("name", "entry")  # keys that say what a job is, not how it runs


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job that a target offers, and how it wants to be run.

    `entry`: "" runs the file itself, "package.module" as `python -m`, "package.module:function"
    calls it; `settings["command"]` goes before it. `settings` are the checked keys of [tool.kirby]
    (`scripts.plain`: durations in seconds, schedule a list).
    """

    name: str
    entry: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be released. `wheel` is a file of the folder that ``read`` was given."""

    name: str  # of a script's job, of a package's distribution
    kind: str  # script or package
    filename: str
    sha256: str  # of the source, or of the wheel
    origin: str  # where it came from, for people
    jobs: tuple[JobSpec, ...]
    source: str | None = None
    version: str | None = None
    dependencies: tuple[str, ...] = ()
    requires_python: str | None = None
    wheel: Path | None = None
    extras: tuple[str, ...] = ()  # of a requirement: NAME[EXTRA]==VERSION
    metadata: bytes | None = field(default=None, repr=False)  # of the wheel, as it is

    @property
    def needs(self) -> Needs:
        """What its jobs need, together."""
        found = Needs()
        for job in self.jobs:
            found = found | job.needs
        return found

    def job(self, name: str) -> JobSpec:
        """The job of that name; raises Invalid, saying which there are."""
        for job in self.jobs:
            if job.name == name:
                return job
        offered = ", ".join(job.name for job in self.jobs)
        raise Invalid(f"{self.filename} offers no job {name!r}; it has {offered}")


def read(text: str, folder: Path, sources: Sources, *, python: str | None = None) -> Target:
    """The target that a person names. Raises Invalid, in one line, for all that is wrong with it.

    `folder` is an empty one of the caller's, for what has to be built or fetched; it is needed
    until the release is made. `python` ("3.12") is the version to build and resolve for. Raises
    KirbyError when an index or a build fails for no fault of the target.
    """
    if not text.strip() or "\0" in text:
        raise Invalid(f"{text!r} names nothing; deploy {KINDS}")
    path = Path(text)
    if os.path.isdir(path):
        return _of_folder(path, folder, sources, python)
    if os.path.exists(path) or not _is_requirement(text):
        return parse(path, path.name, folder, sources, python=python)
    return _of_index(text, folder, sources, python)


def require(text: str, folder: Path, sources: Sources, *, python: str | None = None) -> Target:
    """The target of NAME==VERSION, whatever files there are; raises Invalid for anything else."""
    if not _is_requirement(text):
        raise Invalid(f"{text!r:.100} is no version of a package: NAME==VERSION")
    return _of_index(text, folder, sources, python)


def parse(
    path: Path, filename: str, folder: Path, sources: Sources, *, python: str | None = None
) -> Target:
    """The same for a file at `path` that was called `filename` where it comes from."""
    filename = filename.replace("\\", "/").rpartition("/")[2]
    if not os.path.exists(path):  # not Path.exists: what is no path at all does not exist either
        raise Invalid(f"{path}: there is no such file or folder; deploy {KINDS}")
    if filename.endswith(".whl"):
        return _of_wheel(path, filename, f"wheel {filename}", Project())
    if filename.endswith(ARCHIVES):
        return _of_sdist(path, filename, f"sdist {filename}", folder, sources, python)
    return _of_script(scripts.content(path), filename)


# Files


def _of_script(content: bytes, filename: str) -> Target:
    is_python = filename.endswith(".py")
    parsed = scripts.parse if is_python else scripts.parse_program
    script = parsed(content, filename)
    is_python = is_python or "python" in script.source.partition("\n")[0]
    return Target(
        name=script.name,
        kind="script",
        filename=filename,
        sha256=hashlib.sha256(script.source.encode()).hexdigest(),
        origin=f"file {filename}",
        jobs=(_job_of_script(script, is_python),),
        source=script.source,
        dependencies=script.dependencies,
        requires_python=script.requires_python,
    )


def jobs_of_script(source: str, filename: str) -> tuple[JobSpec, ...]:
    """What the source of a script says of its job; raises Invalid."""
    return _of_script(source.encode(), filename).jobs


def _job_of_script(script: Script, is_python: bool) -> JobSpec:
    found = needs.detect(script.source) if is_python else Needs()
    settings = _layered(script.kirby)
    return JobSpec(script.name, "", settings, found | needs.declared(settings))


# Packages


def _of_folder(path: Path, folder: Path, sources: Sources, python: str | None) -> Target:
    project = projects.read_folder(path)
    wheel = projects.build_folder(path, folder, sources, pythons.find(project.python, python))
    return _of_wheel(wheel, wheel.name, projects.origin(path), project)


def _of_sdist(
    path: Path, filename: str, origin: str, folder: Path, sources: Sources, python: str | None
) -> Target:
    archive = archives.inspect(path, filename)
    project = _project_of(archive)
    interpreter = pythons.find(archive.requires_python, python)
    named = folder / "sdist" / filename
    if path != named:
        named.parent.mkdir(parents=True, exist_ok=True)
        named.symlink_to(path.absolute())
    wheel = projects.build(named, folder / "wheel", sources, interpreter)
    return _of_wheel(wheel, wheel.name, origin, project)


def _of_index(text: str, folder: Path, sources: Sources, python: str | None) -> Target:
    """A package that is hosted here, or else upstream."""
    _check_name(canonicalize_name(Requirement(text).name))
    interpreter, into = pythons.find(None, python), folder / "index"
    lock = locks.resolve([text], sources, interpreter, alone=True)
    [file] = locks.fetch(lock, into, sources, interpreter, copies=True).files
    project = _published_project(lock, into, sources)
    place = "hosted here" if lock.packages[0].is_hosted else "upstream"
    found = _of_wheel(into / file.filename, file.filename, f"{text}, {place}", project)
    return replace(found, extras=tuple(sorted(Requirement(text).extras)))


def _published_project(lock: Lock, into: Path, sources: Sources) -> Project:
    """What the pyproject.toml of the sdist says that is published here beside a wheel."""
    sdists = [file for file in lock.packages[0].files if file.hosted and not file.is_wheel]
    for file in sdists[:1]:
        downloads.Downloads(sources, into, [file], copies=True).file(file)
        return _project_of(archives.inspect(into / file.filename, file.filename))
    return Project()


def _project_of(sdist: Archive) -> Project:
    toml = sdist.read("pyproject.toml")
    return projects.parse(toml, f"{sdist.filename}: pyproject.toml") if toml else Project()


def _is_requirement(text: str) -> bool:
    try:
        found = [(one.operator, one.version[-2:]) for one in Requirement(text).specifier]
    except InvalidRequirement:
        return False
    return len(found) == 1 and found[0][0] == "==" and found[0][1] != ".*"


def _of_wheel(path: Path, filename: str, origin: str, project: Project) -> Target:
    archive = archives.inspect(path, filename)
    _check_name(archive.name)
    return Target(
        name=archive.name,
        kind="package",
        filename=filename,
        sha256=archive.sha256,
        origin=origin,
        jobs=tuple(_jobs(archive, project)),
        version=archive.version,
        dependencies=archive.requires_dist,
        requires_python=archive.requires_python,
        wheel=path,
        metadata=archive.metadata,
    )


def _check_name(name: str) -> None:
    if name == sdk_wheel.NAME:
        raise Invalid("kirby is this server's own SDK: it offers no job, list it as a dependency")


# The jobs of a package


def _jobs(archive: Archive, project: Project) -> Iterator[JobSpec]:
    found = dict(_offered(archive, project))
    if not found:
        raise Invalid(
            f"{archive.filename} offers no job: name one as entry point of the group kirby.jobs"
            " (or under [tool.kirby.jobs.NAME] of its pyproject.toml), or give it a __main__.py"
        )
    for name, entry in sorted(found.items()):
        own = project.jobs.get(name, {})
        module = _check_entry(archive, name, entry) if entry else ""
        beside = scripts.settings_in(module, f"{archive.filename}: {entry}") if module else {}
        for_all = {key: value for key, value in project.settings.items() if key != "command"}
        settings = _layered(beside, for_all if entry else project.settings, own)
        seen = needs.detect(module) | _needs_of_imports(archive, entry, module)
        yield JobSpec(scripts.job_name(name), entry, settings, seen | needs.declared(settings))


def _needs_of_imports(archive: Archive, entry: str, source: str) -> Needs:
    """What the package's own modules need that a job's module imports, while they are imported."""
    found, seen = Needs(), set[str]()
    names = _imported(archive, entry.partition(":")[0], source) if source else set()
    while names and len(seen) < MOST_MODULES:
        name = names.pop()
        seen.add(name)
        if (module := archive.module(name)) is not None:
            found = found | needs.detect(module, imported=True)
            names |= _imported(archive, name, module) - seen
    return found


def _imported(archive: Archive, name: str, source: str) -> set[str]:
    """The modules of the archive that a module imports, and the packages above it and them."""
    is_package = f"{name.replace('.', '/')}/__init__.py" in archive.names
    package = name if is_package else name.rpartition(".")[0]
    top = name.partition(".")[0]
    named = {each for each in needs.imports(source, package) if each.partition(".")[0] == top}
    above = [each.split(".") for each in {*named, name}]
    return named | {".".join(parts[:end]) for parts in above for end in range(1, len(parts))}


def _offered(archive: Archive, project: Project) -> Iterable[tuple[str, str]]:
    """The name and entry of each job; an empty entry goes with a command."""
    points = {name: entry.partition("[")[0].strip() for name, entry in archive.jobs.items()}
    named = {name: own.get("entry", "") for name, own in project.jobs.items()}
    for name, entry in named.items():
        if not (entry or points.get(name) or "command" in project.jobs[name]):
            raise Invalid(f"job {name} of {archive.name} has neither an entry nor a command")
    offered = {**points, **{name: entry or points.get(name, "") for name, entry in named.items()}}
    if offered:
        return offered.items()
    if "command" in project.settings:
        return [(project.name or archive.name, "")]
    module = archive.name.replace("-", "_")
    return [(archive.name, module)] if f"{module}/__main__.py" in archive.names else []


def _check_entry(archive: Archive, job: str, entry: str) -> str:
    """The source of the module that an entry names, "" if it is not in this wheel as Python."""
    written = ENTRY.fullmatch(entry)
    if not written:
        raise Invalid(f"job {job}: the entry {entry!r} is not 'package.module:function'")
    module, function = written[1], written[2]
    runs = archive.module(f"{module}.__main__") if not function else None
    source = runs or archive.module(module)
    if source is None:
        if _is_missing(archive, module):
            raise Invalid(f"job {job}: there is no module {module} in {archive.filename}")
        return ""
    if function and not _defines(source, function.partition(".")[0]):
        raise Invalid(f"job {job}: module {module} has no {function.partition('.')[0]}")
    return source


def _is_missing(archive: Archive, module: str) -> bool:
    """Its package is in the archive, the module is not: neither as Python nor compiled."""
    path = module.replace(".", "/")
    of_it = [name for name in archive.names if re.match(rf"{re.escape(path)}(\.|/|$)", name)]
    top = path.partition("/")[0]
    return not of_it and any(name.startswith((f"{top}/", f"{top}.")) for name in archive.names)


def _defines(source: str, name: str) -> bool:
    """Whether a module may have something of that name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return True
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(each.asname or each.name).partition(".")[0] for each in node.names}
    return bool(bound & {name, "*", "__getattr__"})


def _layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings: the later win, variables are put together.

    A later layer that says when (or that it is a daemon) takes the other back.
    """
    made: dict[str, Any] = {}
    for layer in layers:
        if "schedule" in layer:
            made.pop("daemon", None)
        if layer.get("daemon"):
            made.pop("schedule", None)
        variables = {**made.get("variables", {}), **layer.get("variables", {})}
        made = {**made, **layer, **({"variables": variables} if variables else {})}
    return scripts.plain({key: value for key, value in made.items() if key not in OF_THE_TARGET})

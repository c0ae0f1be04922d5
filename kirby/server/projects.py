"""Projects: what their pyproject.toml says to Kirby, and their wheel, built apart.

A build backend is somebody's program. It gets a copy of the folder, so that nothing is written into
the user's; a clean environment, without this server's secrets; and an hour.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kirby.core.errors import Invalid, KirbyError
from kirby.server import scripts, uv
from kirby.server.pythons import Python
from kirby.server.scripts import Toml
from kirby.server.sources import Sources

BUILD_SECONDS = 3600.0
GIT_SECONDS = 60.0
LARGEST = 1 << 20  # bytes of a pyproject.toml
# What is not copied from a folder that git knows nothing of: results of builds and tools.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".hg", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", "*.pyc"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", "*.egg-info", "build", "dist", ".kirby"),
)


@dataclass(frozen=True, slots=True)
class Project:
    """What a pyproject.toml says to Kirby: nothing, if there is none."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # [tool.kirby], checked
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [tool.kirby.jobs.NAME]
    python: str | None = None  # requires-python

    @property
    def name(self) -> str | None:
        """What [tool.kirby] calls its only job."""
        return self.settings.get("name")


def parse(content: bytes, file: str) -> Project:
    """The project that a pyproject.toml describes; raises Invalid with `file` and line."""
    try:
        toml = Toml(file, content.decode("utf-8"))
        table = tomllib.loads(toml.toml)
    except UnicodeDecodeError:
        raise Invalid(f"{file}: not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"{file}: not valid TOML: {error}") from None
    settings = scripts.kirby_table(toml, table, beside=["jobs"])
    project = table.get("project", {})
    python = project.get("requires-python") if isinstance(project, dict) else None
    return Project(settings, _jobs(toml, table), python if isinstance(python, str) else None)


def _jobs(toml: Toml, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    jobs = table.get("tool", {}).get("kirby", {}).get("jobs", {})
    if not isinstance(jobs, dict) or not all(isinstance(own, dict) for own in jobs.values()):
        toml.refuse("[tool.kirby.jobs] must hold one table for each job", "jobs")
    found = {}
    for name, own in jobs.items():
        if not scripts.NAME.fullmatch(name):
            toml.refuse(f"job name {name!r} must be {scripts.NAME_RULE}", name)
        where = f"[tool.kirby.jobs.{name}]"
        found[name] = scripts.check_settings(toml, own, where, scripts.JOB_KEYS)
    return found


def read_folder(folder: Path) -> Project:
    """What the pyproject.toml of a folder says; raises Invalid if it has none."""
    path = folder / "pyproject.toml"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST)
    except FileNotFoundError:
        raise Invalid(f"{folder}: there is no pyproject.toml, so it is no project") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    return parse(content, "pyproject.toml")


def build_folder(folder: Path, into: Path, sources: Sources, python: Python) -> Path:
    """The wheel of a project folder, in `into`; the folder itself is left as it is."""
    copy = into / "project"
    try:
        home = _copy(folder.resolve(), copy)
    except (OSError, shutil.Error) as error:
        raise KirbyError(f"{folder} cannot be copied: {_why(error)}") from None
    return build(home, into / "wheel", sources, python)


def build(source: Path, into: Path, sources: Sources, python: Python) -> Path:
    """The wheel of an sdist, or of a folder that may be written into. Raises Invalid, KirbyError.

    What it needs to be built comes from `sources`: hosted names are not asked for upstream.
    """
    into.mkdir(parents=True, exist_ok=True)
    with sources.serving() as hosted:
        uv.run(
            *("build", "--wheel", "--no-create-gitignore", "--out-dir", str(into)),
            *("--python", str(python.path), str(source)),
            cwd=into,
            cache=sources.cache,
            index_url=sources.index_url,
            hosted_url=hosted.url if hosted else None,
            seconds=BUILD_SECONDS,
            what=f"{source.name if source.is_file() else 'the project'} cannot be built",
        )
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise Invalid(f"the build of {source.name} made {len(wheels)} wheels instead of one")
    return wheels[0]


# The copy


def _copy(folder: Path, copy: Path) -> Path:
    """A copy of the project, where its wheel can be built; of a checkout, of what git knows.

    With git's history beside it, as backends may ask that for the version, but none of its objects.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not top or listed is None:
        shutil.copytree(folder, copy, symlinks=True, ignore=LEFT_OUT)
        return copy
    _git(folder, "clone", "--quiet", "--shared", "--no-checkout", top, str(copy))
    home = copy / folder.relative_to(Path(top).resolve())
    for name in filter(None, listed.split("\0")):
        _copy_one(folder / name, home / name)
    _git(copy, "reset", "--quiet")
    return home


def _copy_one(source: Path, copy: Path) -> None:
    if not source.is_symlink() and not source.exists():
        return  # removed, and git was not told
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():  # a submodule
        shutil.copytree(source, copy, symlinks=True, ignore=LEFT_OUT, dirs_exist_ok=True)
    else:
        shutil.copy2(source, copy, follow_symlinks=False)


def origin(folder: Path) -> str:
    """Where a folder came from: its name; of a checkout the commit, and whether it was changed."""
    name = folder.resolve().name
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return f"folder {name}"
    changed = _git(folder, "status", "--porcelain", "--", ".")
    return f"folder {name}, git {commit}{' with changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None if it refuses or is not there; it writes nothing into the folder."""
    variables = {**uv.harmless(os.environ), "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],  # noqa: S607
            env=variables, capture_output=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n") if done.returncode == 0 else None


def _why(error: OSError | shutil.Error) -> str:
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][2])
    return str(getattr(error, "strerror", None) or error)

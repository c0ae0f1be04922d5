"""Python versions of this host: its own, and what uv finds; none is ever downloaded."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging import tags
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag

from kirby.core.errors import Invalid, KirbyError
from kirby.server import uv

VERSION = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?")
ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter of this host."""

    path: Path
    full: str  # 3.11.7

    @property
    def version(self) -> str:
        """3.11: what a lock is made for."""
        return ".".join(self.full.split(".")[:2])

    def tags(self) -> Sequence[Tag]:
        """The tags of the wheels that it can install on this platform, the best first."""
        pair = tuple(map(int, self.version.split(".")))
        if pair == sys.version_info[:2]:
            return list(tags.sys_tags())
        name = f"cp{''.join(map(str, pair))}"
        return [*tags.cpython_tags(pair), *tags.compatible_tags(pair, name)]


def own() -> Python:
    """The one that this server runs on."""
    return Python(Path(sys.executable), platform.python_version())


def find(requires: str | None = None, chosen: str | None = None) -> Python:
    """An interpreter that fits `requires` (">=3.12"): the `chosen` version, else this server's own,
    else one that uv finds on this host. Raises Invalid when there is none.
    """
    if chosen:
        found = _chosen(chosen)
        if not _fits(found, requires):
            raise Invalid(f"needs Python {requires}, but Python {chosen} is asked for")
        return found
    if _fits(own(), requires):
        return own()
    other = _asked(requires or "")
    if other is None or not _fits(other, requires):
        raise Invalid(
            f"needs Python {requires}: this server runs {own().full}, and finds no other that fits"
        )
    return other


def of(path: Path) -> Python:
    """The interpreter at `path`; raises KirbyError if it does not run."""
    if path == Path(sys.executable):
        return own()
    try:
        full = subprocess.run(  # noqa: S603 - the interpreter that the caller chose
            [str(path), "-I", "-c", ASK],
            capture_output=True, check=True, encoding="utf-8", timeout=SECONDS,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        raise KirbyError(f"{path} is not a Python that runs") from None
    return Python(path, full)


def locked(version: str) -> Python:
    """The interpreter for a lock of that version (3.11); raises KirbyError if there is none."""
    try:
        return _chosen(version)
    except Invalid:
        raise KirbyError(f"this host has no Python {version}, which the lock needs") from None


def _chosen(version: str) -> Python:
    if not VERSION.fullmatch(version):
        raise Invalid(f"{version!r} is no version of Python such as 3.12")
    if f"{own().full}.".startswith(f"{version}."):
        return own()
    found = _asked(version)
    if found is None:
        raise Invalid(f"this host has no Python {version}")
    return found


def _fits(python: Python, requires: str | None) -> bool:
    try:
        return SpecifierSet(requires or "").contains(python.full, prereleases=True)
    except InvalidSpecifier:
        raise Invalid(f"requires-python {requires!r} is not a version specifier") from None


def _asked(request: str) -> Python | None:
    """What uv finds."""
    folder = Path(tempfile.gettempdir())
    try:
        path = uv.run("python", "find", "--no-project", "--system", request, cwd=folder,
                      seconds=SECONDS).strip()  # fmt: skip
    except Invalid:
        return None
    return of(Path(path))

"""Resolve a script's dependencies once, into a hash-locked set that every host installs alike."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from kirby.core.errors import Invalid, KirbyError
from kirby.server import sdk_wheel, uv
from kirby.server.sdk_wheel import SdkWheel

RESOLVE_SECONDS = 600.0
HASHABLE = ("https://", "http://")  # other URLs (git, file) have no hash, or belong to this machine


@dataclass(frozen=True)
class Lock:
    """A resolved set: `requirements` is uv's text, one pinned name with its hashes after another.

    `sdk_sha256` is the SDK wheel that goes with it, which `requirements` never names; `python` is
    the version it was resolved for ("3.11"). `hash` names the whole set: equal sets, equal hash.
    """

    requirements: str
    sdk_sha256: str | None
    python: str

    @property
    def hash(self) -> str:
        """sha256, in hex, of everything that decides what is installed."""
        text = f"python {self.python}\nsdk {self.sdk_sha256 or '-'}\n{self.requirements}"
        return hashlib.sha256(text.encode()).hexdigest()


def resolve(
    dependencies: Iterable[str],
    *,
    sdk: SdkWheel,
    python: Path | None = None,
    index_url: str | None = None,
    cache: Path | None = None,
) -> Lock:
    """Lock `dependencies` (PEP 508) for `python`, by default this interpreter, on this platform.

    The name `kirby` is never looked up on an index: it is `sdk`, asked for directly or by another
    package, with or without extras. Nothing listed: no network. Packages that exist as source only
    are built here to learn what they need, without this server's secrets. `cache` is uv's cache
    folder. Raises Invalid (one line) for a dependency that is wrong or cannot be resolved, and
    KirbyError when the index cannot be reached or the disk cannot be written.
    """
    interpreter = python or Path(sys.executable)
    version = _python_version(interpreter)
    here = {"python_version": version, "python_full_version": f"{version}.99"}
    found = [_requirement(text, sdk) for text in dependencies]
    needs = [need for need in found if not need.marker or need.marker.evaluate(here)]
    if not needs:
        return Lock("", None, version)
    with tempfile.TemporaryDirectory(prefix="kirby-resolve-") as folder:
        text = _compile(Path(folder), needs, interpreter, sdk, index_url, cache)
    requirements, has_sdk = _without_sdk(text)
    return Lock(requirements, sdk.sha256 if has_sdk else None, version)


def _requirement(text: str, sdk: SdkWheel) -> Requirement:
    try:
        need = Requirement(text)
    except InvalidRequirement as error:
        raise Invalid(f"dependency {text!r} is not valid: {str(error).splitlines()[0]}") from None
    if canonicalize_name(need.name) == sdk_wheel.NAME:
        return _own(need, text, sdk)
    if need.url and not need.url.startswith(HASHABLE):
        raise Invalid(f"dependency {text!r} cannot be locked: only https URLs of archives can")
    # uv reads a file of lines in which it expands ${NAME}: neither may come from a script
    if not str(need).isprintable() or "${" in str(need):
        raise Invalid(f"dependency {text!r} holds a line break, or a variable")
    return need


def _own(need: Requirement, text: str, sdk: SdkWheel) -> Requirement:
    if need.url:
        raise Invalid(f"dependency {text!r}: kirby is this server's own SDK, it takes no URL")
    if not need.specifier.contains(sdk.version, prereleases=True):
        raise Invalid(f"dependency {text!r} does not fit: this server's own SDK is {sdk.version}")
    need.extras, need.specifier = set(), SpecifierSet()
    return need


def _compile(
    folder: Path,
    needs: list[Requirement],
    interpreter: Path,
    sdk: SdkWheel,
    index_url: str | None,
    cache: Path | None,
) -> str:
    wheel = folder / sdk.filename
    wheel.write_bytes(sdk.content)
    (folder / "script.in").write_text("".join(f"{need}\n" for need in needs), "utf-8")
    # An override with a URL settles the name everywhere, so no index is asked about it.
    (folder / "sdk.in").write_text(f"{sdk_wheel.NAME} @ {wheel.as_uri()}\n", "utf-8")
    return uv.run(
        *("pip", "compile", "--generate-hashes", "--no-header", "--no-annotate"),
        *("--python", str(interpreter), "--overrides", "sdk.in", "--build-constraints", "sdk.in"),
        "script.in",
        cwd=folder,
        cache=cache,
        index_url=index_url,
        seconds=RESOLVE_SECONDS,
    )


def _without_sdk(text: str) -> tuple[str, bool]:
    """uv's text without its comments and without our wheel (a path of this machine)."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    blocks = re.split(r"\n(?=\S)", "\n".join(lines))
    others = [block for block in blocks if not block.startswith(f"{sdk_wheel.NAME} @ ")]
    return "".join(f"{block}\n" for block in others if block), len(others) < len(blocks)


def _python_version(interpreter: Path) -> str:
    if interpreter == Path(sys.executable):
        return ".".join(platform.python_version_tuple()[:2])
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(  # noqa: S603 - the interpreter that the caller chose
            [str(interpreter), "-I", "-c", question],
            capture_output=True, check=True, encoding="utf-8", timeout=60,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        raise KirbyError(f"{interpreter} is not a Python that runs") from None

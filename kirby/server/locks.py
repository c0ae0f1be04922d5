"""Resolve what a release needs once, into a hash-locked set that every host installs alike."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kirby.core.errors import Invalid, KirbyError
from kirby.server import archives, downloads, projects, pythons, sdk_wheel, uv
from kirby.server.pythons import Python
from kirby.server.sdk_wheel import SdkWheel
from kirby.server.sources import Serving, Sources

RESOLVE_SECONDS = 600.0
AT_ONCE = 8  # downloads
HASHABLE = ("https://", "http://")  # other URLs (git, file) have no hash, or belong to this machine


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file of a locked package: where it is to be had, or that it is hosted here."""

    filename: str
    sha256: str
    url: str = field(default="", repr=False)  # it may hold a password
    hosted: bool = False

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned package, and all the files that the index has of that version."""

    name: str
    version: str
    files: tuple[LockedFile, ...]

    @property
    def is_hosted(self) -> bool:
        return all(file.hosted for file in self.files)

    @property
    def text(self) -> str:
        """Its lines among the requirements."""
        hashes = sorted({file.sha256 for file in self.files})
        return "".join([f"{self.name}=={self.version}",
                        *(f" \\\n    --hash=sha256:{each}" for each in hashes), "\n"])  # fmt: skip


@dataclass(frozen=True)
class Lock:
    """A resolved set: `requirements` is uv's text, one pinned name with its hashes after another.

    `sdk_sha256` is the SDK wheel that goes with it, which `requirements` never names; `python` is
    the version it was resolved for ("3.11"). `hash` names the whole set: equal sets, equal hash.
    `packages` is the same with the places of files; `files`, after ``fetch``, are those installed.
    """

    requirements: str
    sdk_sha256: str | None
    python: str
    packages: tuple[Package, ...] = field(default=(), compare=False, repr=False)
    files: tuple[LockedFile, ...] = field(default=(), compare=False, repr=False)
    folder: Path | None = field(default=None, compare=False, repr=False)

    @property
    def hash(self) -> str:
        """sha256, in hex, of everything that decides what is installed."""
        text = f"python {self.python}\nsdk {self.sdk_sha256 or '-'}\n{self.requirements}"
        return hashlib.sha256(text.encode()).hexdigest()


def resolve(
    dependencies: Iterable[str],
    sources: Sources,
    python: Python | None = None,
    *,
    alone: bool = False,
) -> Lock:
    """Lock `dependencies` (PEP 508) for `python`, by default this server's, on this platform.

    The name `kirby` is never looked up on an index: it is the SDK, asked for directly or by another
    package, with or without extras. A name that is hosted here is resolved from what is stored, and
    never looked up upstream. Nothing listed: no network. `alone`: without what they depend on.
    Packages that exist as source only are built here to learn what they need, without this server's
    secrets. Raises Invalid (one line) for a dependency that is wrong or cannot be resolved, and
    KirbyError when the index cannot be reached or the disk cannot be written.
    """
    python = python or pythons.own()
    here = {"python_version": python.version, "python_full_version": f"{python.version}.99"}
    found = [_requirement(text, sources.sdk) for text in dependencies]
    needs = [need for need in found if not need.marker or need.marker.evaluate(here)]
    if not needs:
        return Lock("", None, python.version)
    with tempfile.TemporaryDirectory(prefix="kirby-resolve-") as folder, sources.serving() as ours:
        _check_urls(needs, ours)
        toml = _compile(Path(folder), needs, python, sources, ours, alone)
        packages = list(_packages(toml, ours))
        _check_hosted(packages, ours)
    others = tuple(each for each in packages if each.name != sdk_wheel.NAME)
    has_sdk = len(others) < len(packages)
    return Lock(
        "".join(each.text for each in others),
        sources.sdk.sha256 if has_sdk else None,
        python.version,
        others,
    )


def fetch(
    lock: Lock,
    folder: Path,
    sources: Sources,
    python: Python | None = None,
    *,
    copies: bool = False,
) -> Lock:
    """Have one wheel of each package of a lock that was just resolved, in `folder` or stored.

    With `copies` those that are stored are in `folder` too. What exists as source only is built,
    apart; its wheel is then what is locked. Returns the lock with its `files`. Raises Invalid and
    KirbyError as ``resolve``, and Invalid for a file whose bytes are not the locked ones.
    """
    python = python or pythons.own()
    folder.mkdir(parents=True, exist_ok=True)
    tags = {tag: place for place, tag in enumerate(python.tags())}
    chosen = [_choice(package, tags) for package in lock.packages]
    get = downloads.Downloads(sources, folder, chosen, copies=copies)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(get.file, chosen))
    built = dict(_built(lock.packages, chosen, folder, sources, python))
    packages = [built.get(each.name, each) for each in lock.packages]
    return replace(
        lock,
        requirements="".join(each.text for each in packages),
        packages=tuple(packages),
        files=tuple(
            built[each.name].files[0] if each.name in built else file
            for each, file in zip(lock.packages, chosen, strict=True)
        ),
        folder=folder,
    )


# What is asked for


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


def _check_urls(needs: Iterable[Requirement], ours: Serving | None) -> None:
    for need in needs:
        if ours and need.url and canonicalize_name(need.name) in ours.hosted_names:
            raise Invalid(
                f"dependency {str(need)!r}: {need.name} is published here, so it takes no URL"
            )


# What uv says


def _compile(
    folder: Path,
    needs: list[Requirement],
    python: Python,
    sources: Sources,
    ours: Serving | None,
    alone: bool,
) -> str:
    wheel = folder / sources.sdk.filename
    wheel.write_bytes(sources.sdk.content)
    (folder / "script.in").write_text("".join(f"{need}\n" for need in needs), "utf-8")
    # An override with a URL settles the name everywhere, so no index is asked about it.
    (folder / "sdk.in").write_text(f"{sdk_wheel.NAME} @ {wheel.as_uri()}\n", "utf-8")
    try:
        return uv.run(
            *("pip", "compile", "--format", "pylock.toml", "--generate-hashes", "--no-header"),
            *("--python", str(python.path), *(["--no-deps"] if alone else [])),
            *("--overrides", "sdk.in", "--build-constraints", "sdk.in", "script.in"),
            cwd=folder,
            cache=sources.cache,
            index_url=sources.index_url,
            hosted_url=ours.url if ours else None,
            seconds=RESOLVE_SECONDS,
        )
    except KirbyError:
        if ours and ours.failed:
            raise KirbyError(f"what is published here cannot be read: {ours.failed}") from None
        raise


def _packages(toml: str, ours: Serving | None) -> Iterator[Package]:
    """Every package of uv's lock file (PEP 751)."""
    for found in tomllib.loads(toml).get("packages", []):
        name = str(found["name"])
        if name == sdk_wheel.NAME:
            yield Package(name, "", ())
            continue
        listed = [*found.get("wheels", []), *filter(None, [found.get("sdist")])]
        archive = found.get("archive")
        files = tuple(_file(each, ours) for each in (listed or [archive]) if each)
        if not files:
            raise Invalid(f"{name} cannot be locked: it has neither a wheel nor an sdist")
        yield Package(name, str(found.get("version") or _version_in(files)), files)


def _file(found: Mapping[str, Any], ours: Serving | None) -> LockedFile:
    url = str(found.get("url", ""))
    filename = str(found.get("name") or unquote(urlsplit(url).path)).rpartition("/")[2]
    if not archives.FILENAME.fullmatch(filename):
        raise Invalid(f"{filename!r:.100} is no name of a package's file")
    stored = ours.sha256(url) if ours else None
    digest = stored or str(found.get("hashes", {}).get("sha256", ""))
    if not digest:
        raise Invalid(f"{filename} cannot be locked: its index gives no sha256 of it")
    return LockedFile(filename, digest, "" if stored else url, hosted=stored is not None)


def _version_in(files: Sequence[LockedFile]) -> str:
    try:
        return str(parse_wheel_filename(files[0].filename)[1])
    except (InvalidWheelFilename, IndexError):
        return "0"


def _check_hosted(packages: Iterable[Package], ours: Serving | None) -> None:
    """The last word on hosted names, whatever indexes and settings uv was given."""
    for package in packages:
        for file in package.files if ours and package.name in ours.hosted_names else ():
            if not file.hosted:
                place = urlsplit(file.url).hostname or "this machine"
                raise Invalid(f"{package.name} is published here, but was resolved from {place}")


# Which files


def _choice(package: Package, tags: Mapping[Tag, int]) -> LockedFile:
    """The wheel of a package that fits best, else its sdist; raises Invalid."""
    ranked = [(rank, file) for file in package.files if (rank := _rank(file, tags)) is not None]
    if ranked:
        return min(ranked, key=lambda each: each[0])[1]
    for file in package.files:
        if not file.is_wheel:
            return file
    raise Invalid(f"{package.name} {package.version} has no wheel for this platform, and no sdist")


def _rank(file: LockedFile, tags: Mapping[Tag, int]) -> tuple[int, tuple[int, str]] | None:
    try:
        _, _, build, supported = parse_wheel_filename(file.filename)
    except InvalidWheelFilename:
        return None
    places = [tags[tag] for tag in supported if tag in tags]
    number, suffix = build or (0, "")
    return (min(places), (-number, suffix)) if places else None


def _built(
    packages: Iterable[Package],
    chosen: Iterable[LockedFile],
    folder: Path,
    sources: Sources,
    python: Python,
) -> Iterator[tuple[str, Package]]:
    """The packages that are source only, each with the wheel that was built of it."""
    for package, file in zip(packages, chosen, strict=True):
        if not file.is_wheel:
            wheel = projects.build(folder / file.filename, folder / "built", sources, python)
            with wheel.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            target = folder / wheel.name
            shutil.move(wheel, target)
            _, version, _, _ = parse_wheel_filename(wheel.name)
            built = LockedFile(wheel.name, digest)
            yield package.name, Package(package.name, str(version), (built,))

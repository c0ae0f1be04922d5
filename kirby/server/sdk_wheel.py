"""This server's own SDK as a wheel, re-packed from the imported package, for scripts to install."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kirby.core.errors import Invalid, KirbyError
from kirby.server.paths import PACKAGE

NAME = "kirby"  # a hosted name: never looked up on a public index
PARTS = ("core", "sdk")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can hold
FILENAME = re.compile(r"kirby-[A-Za-z0-9_.+!]+-py3-none-any\.whl")


@dataclass(frozen=True)
class SdkWheel:
    """A built wheel: its file name, the sha256 of its bytes in hex, and the bytes."""

    filename: str
    sha256: str
    content: bytes

    @property
    def version(self) -> str:
        """The version that the file name states."""
        return version(self.filename)

    @classmethod
    def of(cls, content: bytes) -> SdkWheel:
        """The wheel that these stored bytes are; raises Invalid when they are none of ours."""
        try:
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        except zipfile.BadZipFile:
            names = []
        folder = next((n.split("/")[0] for n in names if n.endswith(".dist-info/WHEEL")), "")
        filename = f"{folder.removesuffix('.dist-info')}-py3-none-any.whl"
        if not FILENAME.fullmatch(filename):
            raise Invalid("these bytes are not a wheel of the Kirby SDK")
        return cls(filename, hashlib.sha256(content).hexdigest(), content)


def version(filename: str) -> str:
    """The version that the file name of a wheel states."""
    return filename.split("-")[1]


def build() -> SdkWheel:
    """Pack the SDK; the same code and version give the same bytes on every machine.

    Holds `kirby/*.py`, `kirby/core`, `kirby/sdk` and `py.typed`, never the server, and no console
    script. Works from a checkout (editable install) and from an installed wheel. Raises KirbyError
    when the distribution `kirby` is not installed, or its files cannot be read.
    """
    try:
        distribution = metadata.distribution(NAME)
        files = dict(_package_files(PACKAGE.parent))
    except (metadata.PackageNotFoundError, OSError) as error:
        raise KirbyError(f"this server's own SDK cannot be packed: {error}") from error
    info = f"{NAME}-{distribution.version.replace('-', '_')}.dist-info"
    files[f"{info}/METADATA"] = _metadata(distribution)
    files[f"{info}/WHEEL"] = _lines(
        "Wheel-Version: 1.0", "Generator: kirby", "Root-Is-Purelib: true", "Tag: py3-none-any"
    )
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    return SdkWheel.of(_zip(files))


def _package_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    found = [*folder.glob("*.py"), *folder.glob("py.typed")]
    for part in PARTS:
        found += (folder / part).rglob("*.py")
    for path in found:
        yield f"{NAME}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _metadata(distribution: metadata.Distribution) -> bytes:
    needs = [need for need in distribution.requires or [] if not _of_an_extra(need)]
    python = distribution.metadata["Requires-Python"]
    return _lines(
        "Metadata-Version: 2.1",
        f"Name: {NAME}",
        f"Version: {distribution.version}",
        *([f"Requires-Python: {python}"] if python else []),
        *(f"Requires-Dist: {need}" for need in needs),
    )


def _of_an_extra(need: str) -> bool:
    return re.search(r"\bextra\s*==", need.partition(";")[2]) is not None


def _record(files: dict[str, bytes], itself: str) -> bytes:
    rows = []
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    return _lines(*rows, f"{itself},,")


def _zip(files: dict[str, bytes]) -> bytes:
    """Stored, not compressed: compressed bytes differ between versions of zlib."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return target.getvalue()


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()

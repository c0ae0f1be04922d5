"""One virtualenv for each lock: built once per host, found by the lock's hash, never changed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from kirby.core.errors import Invalid, KirbyError
from kirby.server import sdk_wheel, uv
from kirby.server.locks import Lock
from kirby.server.sdk_wheel import SdkWheel

BUILD_SECONDS = 1800.0
MARKER = "kirby-lock.json"


class Virtualenvs:
    """The folder `root` of virtualenvs; any number of processes may share it on one host.

    `root/<hash>` is a finished virtualenv, `root/tmp/<hash>.<pid>` one that is being built,
    `root/locks/<hash>` the file that its builder holds locked, `root/uv-cache` uv's cache: on the
    same filesystem, so that packages are hard links.
    """

    def __init__(self, root: Path, *, index_url: str | None = None) -> None:
        self.root = root.absolute()
        self.cache = self.root / "uv-cache"
        self._index_url = index_url

    def ensure(self, lock: Lock, sdk: bytes | None) -> Path:
        """The folder of the virtualenv for `lock`, built now if this host has none yet.

        Its interpreter is `bin/python`. `sdk` is the SDK wheel if the lock asks for one. While
        another process builds the same lock, this waits for it. Nothing half-built is left behind.
        Raises KirbyError: a disk that is full or cannot be written, no uv, no such Python, an
        index that does not answer, a package whose bytes are not the locked ones.
        """
        final = self.root / lock.hash
        if _is_ready(final, lock):
            return final
        wheel = _wheel(lock, sdk)
        with _one_line_if_disk_fails(self.root), self._builder(lock.hash):
            if not _is_ready(final, lock):
                self._clear(lock.hash)
                self._build(lock, wheel, final)
        return final

    def forget_half_built(self) -> int:
        """Remove what builders that died left in `tmp`; live builds stay. How many were removed.

        A build is alive as long as its lock file is held: process ids are used again, locks not.
        """
        removed = 0
        with _one_line_if_disk_fails(self.root):
            for name in {path.name.split(".")[0] for path in self.root.glob("tmp/*")}:
                with contextlib.suppress(BlockingIOError), self._builder(name, wait=False):
                    removed += self._clear(name)
        return removed

    @contextlib.contextmanager
    def _builder(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Be the one builder of that hash on this host, until the block or the process ends."""
        for folder in ("tmp", "locks"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        with (self.root / "locks" / name).open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def _clear(self, name: str) -> int:
        found = list((self.root / "tmp").glob(f"{name}.*"))
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        return len(found)

    def _build(self, lock: Lock, wheel: SdkWheel | None, final: Path) -> None:
        building = self.root / "tmp" / f"{lock.hash}.{os.getpid()}"
        try:
            self._fill(building, lock, wheel)
            _sync(building)
            if final.exists():  # its interpreter is gone, or it is not one of ours
                final.rename(building.with_name(f"{lock.hash}.broken"))
            building.rename(final)
        finally:
            self._clear(lock.hash)

    def _fill(self, building: Path, lock: Lock, wheel: SdkWheel | None) -> None:
        home = building.with_name(f"{building.name}.files")
        home.mkdir()
        # Relocatable: the scripts in bin/ find their interpreter beside themselves.
        self._uv(
            home, "venv", "--relocatable", "--no-project",
            "--python", self._interpreter(home, lock.python), str(building),
        )  # fmt: skip
        if lock.requirements:
            (home / "lock.txt").write_text(lock.requirements, "utf-8")
            self._install(home, building, "sync", "--require-hashes", "lock.txt")
        if wheel:
            (home / wheel.filename).write_bytes(wheel.content)
            pinned = f"{sdk_wheel.NAME}=={wheel.version} --hash=sha256:{wheel.sha256}\n"
            (home / "sdk.txt").write_text(pinned, "utf-8")
            self._install(
                home, building, "install", "--require-hashes", "--no-deps", "--offline",
                "--no-cache", "--no-index", "--find-links", ".", "--link-mode", "copy",
                "--requirements", "sdk.txt",
            )  # fmt: skip
        (building / MARKER).write_text(json.dumps(_facts(lock), indent=1), "utf-8")

    def _install(self, home: Path, building: Path, verb: str, *arguments: str) -> None:
        python = str(building / "bin" / "python")
        self._uv(home, "pip", verb, "--python", python, "--compile-bytecode", *arguments)

    def _interpreter(self, home: Path, version: str) -> str:
        """This server's Python if it is that version, else one that uv finds on this host."""
        if version == ".".join(platform.python_version_tuple()[:2]):
            return sys.executable
        try:
            return self._uv(home, "python", "find", "--no-project", version).strip()
        except Invalid:
            raise KirbyError(f"this host has no Python {version}, which the lock needs") from None

    def _uv(self, home: Path, *arguments: str) -> str:
        cache, index = self.cache, self._index_url
        return uv.run(*arguments, cwd=home, cache=cache, index_url=index, seconds=BUILD_SECONDS)


def _facts(lock: Lock) -> dict[str, str | None]:
    return {
        "hash": lock.hash,
        "python": lock.python,
        "sdk_sha256": lock.sdk_sha256,
        "requirements": lock.requirements,
    }


def _is_ready(folder: Path, lock: Lock) -> bool:
    """It was finished, for this lock, and the Python that it was made from is still there."""
    try:
        facts = json.loads((folder / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(facts == _facts(lock)) and os.access(folder / "bin" / "python", os.X_OK)


def _wheel(lock: Lock, sdk: bytes | None) -> SdkWheel | None:
    if lock.sdk_sha256 is None:
        return None
    if sdk is None:
        raise Invalid(f"the lock asks for SDK wheel {lock.sdk_sha256}, none is given")
    wheel = SdkWheel.of(sdk)
    if wheel.sha256 != lock.sdk_sha256:
        raise Invalid(f"the lock asks for SDK wheel {lock.sdk_sha256}, given is {wheel.sha256}")
    return wheel


def _sync(folder: Path) -> None:
    """Have the files on disk before the rename makes them the truth (one call for the disk)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
        if syncfs is None or syncfs(handle) != 0:
            os.sync()
    finally:
        os.close(handle)


@contextlib.contextmanager
def _one_line_if_disk_fails(root: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise KirbyError(f"virtualenvs cannot be kept in {root}: {reason}") from error

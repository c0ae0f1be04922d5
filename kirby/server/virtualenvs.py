"""One virtualenv for each lock: built once per host, found by the lock's hash, never changed.

Built from the stored files of the release, without any index; kept until the disk is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

from kirby.core.errors import Invalid, KirbyError
from kirby.server import pythons, sdk_wheel, uv
from kirby.server.locks import Lock

BUILD_SECONDS = 1800.0
CLEAN_SECONDS = 120.0
MARKER = "kirby-lock.json"
HASH = re.compile(r"[0-9a-f]{64}")

#: Puts the files of a release below a folder, as `<sha256>/<filename>`; returns their paths.
Fetch = Callable[[Path], Sequence[Path]]


class Virtualenvs:
    """The folder `root` of virtualenvs; any number of processes may share it on one host.

    `root/<hash>` is a finished virtualenv, `root/tmp/<hash>.<pid>` one that is being built,
    `root/locks/<hash>` the file that its builder holds locked and `<hash>.use` the one that its
    users share, `root/wheels` the files that they are made of, `root/uv-cache` uv's cache: on the
    same filesystem, so that packages are hard links.
    """

    def __init__(self, root: Path, *, index_url: str | None = None) -> None:
        self.root = root.absolute()
        self.cache = self.root / "uv-cache"
        self._index_url = index_url

    def is_ready(self, lock: Lock) -> bool:
        """Whether this host has it."""
        return _is_ready(self.root / lock.hash, lock)

    def ensure(self, lock: Lock, fetch: Fetch | None = None) -> Path:
        """The folder of the virtualenv for `lock`, built now if this host has none yet.

        Its interpreter is `bin/python`. `fetch` gets the files that it is made of, and then no
        index is asked; a release of before files were stored has its SDK wheel at most, and is
        installed from the index. While another process builds the same lock, this waits for it.
        Nothing half-built is left behind. Raises KirbyError: a disk that is full or cannot be
        written, no uv, no such Python, a package whose bytes are not the locked ones.
        """
        final = self.root / lock.hash
        if _is_ready(final, lock):
            return final
        with _one_line_if_disk_fails(self.root), self._builder(lock.hash):
            if not _is_ready(final, lock):
                self._clear(lock.hash)
                self._build(lock, fetch, final)
        return final

    def hold(self, lock: Lock) -> IO[str]:
        """Keep the virtualenv of a lock, there or not yet, from being removed until this is closed.

        Or until the process ends, however. Raises KirbyError.
        """
        with _one_line_if_disk_fails(self.root):
            held = self._opened(f"{lock.hash}.use")
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held.fileno())
            return held

    def prune(self, budget: int, keep: Collection[str] = ()) -> list[str]:
        """Bring the folder below `budget` bytes, if that can be; the hashes that were removed.

        What can be made again at once goes first (uv's cache, the wheels), then the virtualenvs
        that were not used for longest; never one that somebody holds, nor those of `keep`.
        """
        removed: list[str] = []
        with _one_line_if_disk_fails(self.root):
            if self.size() <= budget:
                return removed
            self._drop_copies()
            for name in self._by_last_use():
                if self.size() <= budget:
                    break
                if name not in keep and self._remove(name):
                    removed.append(name)
        return removed

    def size(self) -> int:
        """The bytes that all of it takes on disk; what is linked several times counts once."""
        seen, total = set(), 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found = os.lstat(os.path.join(folder, name))
                    if (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_blocks * 512
        return total

    def _by_last_use(self) -> list[str]:
        names = [path.name for path in self.root.iterdir() if HASH.fullmatch(path.name)]
        return sorted(names, key=self._last_use)

    def _last_use(self, name: str) -> float:
        for path in (self.root / "locks" / f"{name}.use", self.root / name / MARKER):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def _drop_copies(self) -> None:
        """The wheels, but for those of a build that is under way, and uv's cache."""
        with contextlib.suppress(BlockingIOError), self._locked("wheels", fcntl.LOCK_EX):
            shutil.rmtree(self.root / "wheels", ignore_errors=True)
            if self.cache.is_dir():
                with contextlib.suppress(KirbyError):
                    uv.run("cache", "clean", cwd=self.root, cache=self.cache, seconds=CLEAN_SECONDS)

    def _remove(self, name: str) -> bool:
        """Remove one that nobody uses or builds."""
        with (
            contextlib.suppress(BlockingIOError),
            self._locked(f"{name}.use", fcntl.LOCK_EX),
            self._builder(name, wait=False),
        ):
            gone = self.root / "tmp" / f"{name}.removed"
            (self.root / name).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return True
        return False

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        """Hold one of the lock files, or raise BlockingIOError."""
        with self._opened(name) as held:
            fcntl.flock(held, how | fcntl.LOCK_NB)
            yield

    def _opened(self, name: str) -> IO[str]:
        for folder in ("tmp", "locks"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        return (self.root / "locks" / name).open("a")

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
        with self._opened(name) as held:
            fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def _clear(self, name: str) -> int:
        found = list((self.root / "tmp").glob(f"{name}.*"))
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        return len(found)

    def _build(self, lock: Lock, fetch: Fetch | None, final: Path) -> None:
        building = self.root / "tmp" / f"{lock.hash}.{os.getpid()}"
        try:
            with self._opened("wheels") as held:
                fcntl.flock(held, fcntl.LOCK_SH)
                files = fetch(self.root / "wheels") if fetch else []
                with _damaged_files_go(files):
                    self._fill(building, lock, files)
            _sync(building)
            if final.exists():  # its interpreter is gone, or it is not one of ours
                final.rename(building.with_name(f"{lock.hash}.broken"))
            building.rename(final)
        finally:
            self._clear(lock.hash)

    def _fill(self, building: Path, lock: Lock, files: Sequence[Path]) -> None:
        home = building.with_name(f"{building.name}.files")
        home.mkdir()
        sdk = _sdk(lock, files)
        # Relocatable: the scripts in bin/ find their interpreter beside themselves.
        self._uv(
            home, "venv", "--relocatable", "--no-project",
            "--python", str(pythons.locked(lock.python).path), str(building),
        )  # fmt: skip
        if lock.requirements:
            (home / "lock.txt").write_text(lock.requirements, "utf-8")
            stored = [path for path in files if path != sdk]
            self._install(home, building, "sync", "--require-hashes", "lock.txt", *_only(stored))
        if sdk:
            pinned = f"{sdk_wheel.NAME}=={sdk_wheel.version(sdk.name)}"
            (home / "sdk.txt").write_text(f"{pinned} --hash=sha256:{lock.sdk_sha256}\n", "utf-8")
            self._install(
                home, building, "install", "--require-hashes", "--no-deps", "--no-cache",
                "--link-mode", "copy", "--requirements", "sdk.txt", *_only([sdk]),
            )  # fmt: skip
        (building / MARKER).write_text(json.dumps(_facts(lock), indent=1), "utf-8")

    def _install(self, home: Path, building: Path, verb: str, *arguments: str) -> None:
        python = str(building / "bin" / "python")
        self._uv(home, "pip", verb, "--python", python, "--compile-bytecode", *arguments)

    def _uv(self, home: Path, *arguments: str) -> str:
        cache, index = self.cache, self._index_url
        return uv.run(*arguments, cwd=home, cache=cache, index_url=index, seconds=BUILD_SECONDS)


def _only(files: Sequence[Path]) -> list[str]:
    """What lets uv take these files and nothing else; nothing for no files."""
    if not files:
        return []
    folders = sorted({str(path.parent) for path in files})
    places = [argument for folder in folders for argument in ("--find-links", folder)]
    return ["--offline", "--no-index", "--no-build", *places]


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


def _sdk(lock: Lock, files: Sequence[Path]) -> Path | None:
    """The SDK wheel among the files of a release that asks for one."""
    if lock.sdk_sha256 is None:
        return None
    path = next((path for path in files if sdk_wheel.FILENAME.fullmatch(path.name)), None)
    if path is None:
        raise Invalid(f"the lock asks for SDK wheel {lock.sdk_sha256}, none is given")
    given = _digest(path)
    if given != lock.sdk_sha256:
        raise Invalid(f"the lock asks for SDK wheel {lock.sdk_sha256}, given is {given}")
    return path


@contextlib.contextmanager
def _damaged_files_go(files: Sequence[Path]) -> Iterator[None]:
    """If they cannot be installed, remove those that a power cut spoilt: they are fetched again."""
    try:
        yield
    except Invalid:
        for path in files:
            if HASH.fullmatch(path.parent.name) and _digest(path) != path.parent.name:
                path.unlink(missing_ok=True)
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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

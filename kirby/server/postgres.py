"""The embedded PostgreSQL: finds its programs, keeps its data in one folder, runs it as a child."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from kirby.core.errors import Busy, Invalid, KirbyError, Unavailable
from kirby.server import pg_programs
from kirby.server.pg_programs import OLDEST_MAJOR, Identity
from kirby.server.pg_programs import find_bindir as find_bindir

SUPERUSER = "kirby"
DATABASE = "kirby"
PATIENCE = 15.0  # seconds for what a killed server left behind to go away
READY_WITHIN = 300.0  # seconds; a long crash recovery is the only thing that needs many

# Only the owner of the folder can reach the socket in it, so a local script may read the
# auditor's views without a password in its variables.
HBA = """\
# Written by Kirby at every start.
local  all  kirby_auditor                trust
local  all  all                          scram-sha-256
host   all  all            127.0.0.1/32  scram-sha-256
"""

# Statements, their parameters and the rows of failed ones may hold a secret: none reaches the log.
SETTINGS = {
    "max_connections": "200",
    "jit": "off",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "lc_messages": "C",  # the launcher reads the log
}
NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "kirby.throwaway": "on",  # so that `kirby db check` takes it for intended
}

# Fast, then without a checkpoint, then by force; each with its seconds.
SHUTDOWN = ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, None))
LEFT_OVER = ("is still in use", "already exists", "Address already in use", "could not bind")
COMPLAINT = re.compile(r"(?:FATAL|PANIC|ERROR|error): +(.*)")
LOG_LIMIT = 10 * 2**20


class Postgres:
    """A PostgreSQL server of our own, its data and everything it needs to know in one folder.

    `root` holds `data`, `password`, `port`, `postgres.log` and the unix socket; it is closed to
    other users. Data, password, port and so the DSN stay the same over restarts; a port that
    something else has taken meanwhile is replaced. `durable=False` trades safety in a power cut for
    speed and is for tests. `settings` are server settings that override Kirby's.

    The server is a direct child and shuts down when the thread that called `start` dies, however
    it dies: call it from the main thread.
    """

    def __init__(
        self,
        root: Path,
        *,
        durable: bool = True,
        port: int | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self.data = self.root / "data"
        self.log = self.root / "postgres.log"
        self._durable = durable
        self._wanted_port = port
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._identity = Identity()
        self._bindir = Path()

    # What is running

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def poll(self) -> int | None:
        """None while the server runs, else its exit status; start it before."""
        return self._child.poll() if self._child else 0

    def dsn(
        self, dbname: str = DATABASE, *, user: str = SUPERUSER, password: str | None = None
    ) -> str:
        """The address of a database over TCP; the superuser's password is filled in.

        It needs no running server, only a folder where one was started before (else Unavailable).
        """
        if password is None and user == SUPERUSER:
            password = self._remembered("password")
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{who}@127.0.0.1:{self._remembered('port')}/{quote(dbname, safe='')}"

    def socket_dsn(self, dbname: str = DATABASE, *, user: str = "kirby_auditor") -> str:
        """The address over the unix socket, where the auditor needs no password."""
        where = quote(self._remembered("socket"), safe="")
        port = self._remembered("port")
        name = f"{quote(user, safe='')}@/{quote(dbname, safe='')}"
        return f"postgresql://{name}?host={where}&port={port}"

    # Start and stop

    def start(self) -> None:
        """Start the server and return when it answers; makes the data at the first start.

        Raises Busy when another process uses the folder or the port, Invalid when the folder
        cannot be used or belongs to another major version, Unavailable when the server ends.
        """
        if self.alive:
            return
        try:
            with self._usable():
                self._take_folder()
                self._prepare()
                self._launch()
            self._create_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, cutting its sessions, and let go of the folder. Safe to call twice."""
        if self._child is not None:
            for wish, patience in SHUTDOWN:
                self._child.send_signal(wish)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(patience)
                    break
            self._child = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # The folder

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.root
            raise Invalid(
                f"the data folder {self.root} cannot be used ({where}: {error.strerror}): "
                "choose another --data"
            ) from error

    def _take_folder(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if stat.S_IMODE(self.root.stat().st_mode) & 0o077:
            self.root.chmod(0o700)
        if self._lock is not None:
            return
        path = self.root / "lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise Busy(
                f"process {holder} runs on {self.root} already: stop it, or choose another --data"
            ) from None
        self._lock = lock
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._give(path)

    def _prepare(self) -> None:
        self._bindir = find_bindir()
        major = pg_programs.major_of(self._bindir)
        if major < OLDEST_MAJOR:
            raise Invalid(
                f"the programs in {self._bindir} are of PostgreSQL {major}; "
                f"Kirby needs {OLDEST_MAJOR} or newer: set KIRBY_PG_BINDIR"
            )
        self._check_data(major)
        self._identity = pg_programs.identity_for(self.data, self._bindir)
        if not self.data.exists():
            self._initialise()
        self._own_data()
        (self.data / "pg_hba.conf").write_text(HBA)
        self._write("socket", self._socket_folder())
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _check_data(self, major: int) -> None:
        if not self.data.exists():
            return
        version = self.data / "PG_VERSION"
        if not version.exists():
            raise Invalid(f"{self.data} is not PostgreSQL data: move it away")
        if (of := version.read_text().strip()) != str(major):
            raise Invalid(
                f"the data in {self.root} is of PostgreSQL {of}, the programs in {self._bindir} "
                f"are {major}: set KIRBY_PG_BINDIR or choose another --data"
            )
        if not (self.root / "password").exists():
            raise Invalid(f"{self.root}/password is missing: without it the data cannot be opened")

    def _initialise(self) -> None:
        """Make the data aside and rename it: a broken-off start leaves nothing half done."""
        if not (self.root / "password").exists():
            self._write("password", secrets.token_urlsafe(24))
        fresh = self.root / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        result = pg_programs.run(self._initdb(fresh), self.root)
        if result.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise Unavailable(f"the data in {self.root} could not be made: {_last(result.stderr)}")
        fresh.rename(self.data)

    def _initdb(self, folder: Path) -> list[str]:
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        return self._identity.command(
            self._bindir / "initdb",
            f"--pgdata={folder}",
            f"--username={SUPERUSER}",
            f"--pwfile={self.root / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={locale}",
            "--data-checksums",
            *([] if self._durable else ["--no-sync"]),
        )

    def _own_data(self) -> None:
        """Root's data, kept under a user namespace before, for the account that must run now."""
        if self._identity.mode == "account" and self.data.stat().st_uid == 0:
            for path in (self.data, *self.data.rglob("*")):
                os.chown(path, self._identity.uid, self._identity.gid, follow_symlinks=False)

    def _socket_folder(self) -> str:
        """The root if its path suits a socket, else a private short folder, kept."""
        limit = 107 if sys.platform == "linux" else 103
        room = limit - len("/.s.PGSQL.65535")
        # A comma separates hosts for libpq, so it may not be part of one.
        if len(os.fsencode(self.root)) <= room and "," not in str(self.root):
            return str(self.root)
        with contextlib.suppress(OSError, Unavailable):
            kept = Path(self._remembered("socket")).lstat()
            private = stat.S_ISDIR(kept.st_mode) and stat.S_IMODE(kept.st_mode) == 0o700
            if private and kept.st_uid == os.geteuid():
                return self._remembered("socket")
        short = tempfile.gettempdir()
        fits = len(os.fsencode(short)) + len("/kirby-12345678") <= room
        return tempfile.mkdtemp(prefix="kirby-", dir=short if fits else "/tmp")  # noqa: S108

    def _remembered(self, name: str) -> str:
        try:
            return (self.root / name).read_text().strip()
        except FileNotFoundError:
            raise Unavailable(f"no PostgreSQL was started in {self.root} yet: kirby dev") from None

    def _write(self, name: str, text: str) -> None:
        """Write a small private file, whole or not at all."""
        path = self.root / f"{name}.new"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._give(path)
        path.rename(self.root / name)

    def _give(self, path: Path) -> None:
        """What root writes into an ordinary user's folder stays usable for that user."""
        if os.geteuid() == 0 and (owner := self.root.stat()).st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid)

    # The server

    def _launch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        self._await_predecessor(deadline)
        while True:
            port = self._choose_port()
            seen = self.log.stat().st_size if self.log.exists() else 0
            self._child = self._spawn(port)
            if self._becomes_ready():
                return
            with self.log.open(errors="replace") as log:
                log.seek(seen)
                said = log.read()
            if time.monotonic() > deadline or not any(words in said for words in LEFT_OVER):
                raise Unavailable(f"PostgreSQL ended: {_last(said)} (see {self.log})")
            time.sleep(0.1)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        quoted = self._remembered("socket").replace('"', '""')
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = self._identity.command(self._bindir / "postgres", "-D", str(self.data), *options)
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self._give(self.log)
            return subprocess.Popen(  # noqa: S603 - our own child program
                command,
                cwd=self.root,
                env=pg_programs.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops us in order
            )

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + READY_WITHIN
        while self.alive:
            if self._status() == (self.pid, "ready"):
                return True
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL is not ready after {READY_WITHIN:.0f} s: {self.log}")
            time.sleep(0.01)
        return False

    def _status(self) -> tuple[int | None, str]:
        """The process and the state that PostgreSQL's own lock file tells."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return abs(int(lines[0])), lines[7].strip() if len(lines) > 7 else ""
        except (FileNotFoundError, IndexError, ValueError):
            return None, ""

    def _await_predecessor(self, deadline: float) -> None:
        """Wait for a server that lost its parent, so that its port is free again."""
        while (pid := self._status()[0]) is not None and _is_postgres(pid):
            if time.monotonic() > deadline:
                raise Busy(f"a PostgreSQL (process {pid}) still runs on {self.data}: stop it")
            time.sleep(0.05)
        self._disown_stale_locks()

    def _disown_stale_locks(self) -> None:
        """Let a dead server's lock file not block us when its pid is another process by now.

        PostgreSQL takes a lock file that names its parent for stale, and still refuses to start
        while old sessions hold the shared memory that the file names; so the first line becomes us.
        """
        sockets = Path(self._remembered("socket")).glob(".s.PGSQL.*.lock")
        for path in (self.data / "postmaster.pid", *sockets):
            with contextlib.suppress(FileNotFoundError):
                _, _, rest = path.read_text().partition("\n")
                path.write_text(f"{os.getpid()}\n{rest}")

    def _choose_port(self) -> int:
        if self._wanted_port is not None:
            if not _is_free(self._wanted_port):
                raise Busy(f"port {self._wanted_port} is in use: choose another")
            port = self._wanted_port
        else:
            port = self._kept_port() or _some_port()
        self._write("port", str(port))
        return port

    def _kept_port(self) -> int | None:
        try:
            port = int(self._remembered("port"))
        except (Unavailable, ValueError):
            return None
        return port if _is_free(port) else None

    def _create_database(self) -> None:
        try:
            with psycopg.connect(self.dsn("postgres"), autocommit=True) as conn:
                known = conn.execute(
                    "select from pg_database where datname = %s", [DATABASE]
                ).fetchone()
                if known is None:
                    conn.execute("create database kirby")
        except psycopg.OperationalError as error:
            raise Unavailable(f"PostgreSQL in {self.root} does not answer: {error}") from error


def _last(said: str) -> str:
    """The last complaint in a program's output, without a time stamp."""
    complaints = COMPLAINT.findall(said)
    return complaints[-1] if complaints else (said.strip().splitlines() or ["no reason given"])[-1]


def _is_postgres(pid: int) -> bool:
    """Whether a process lives and is a PostgreSQL; without /proc any living process counts."""
    if sys.platform == "linux":
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            return False
        return name.endswith("(postgres") and rest.split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _some_port() -> int:
    """A free port below those that the system hands out to outgoing connections."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(12_000)
        if _is_free(port):
            return port
    raise KirbyError("no free port on 127.0.0.1 between 20000 and 32000")

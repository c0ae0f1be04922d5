"""Everything of Kirby under one parent: PostgreSQL, pages and a supervisor. `kirby dev` runs it."""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from kirby.core import db, dsn
from kirby.core.errors import Busy, Invalid, KirbyError, Unavailable
from kirby.server import accounts, addresses, database, roles, schema
from kirby.server.part import Part
from kirby.server.postgres import Postgres
from kirby.server.settings import Settings

READY_WITHIN = 60.0  # seconds
STOP_WITHIN = 25.0  # seconds; the supervisor gives its runs ten
LOOK = 0.2  # seconds between looks at the parts
PATIENCE = 30.0  # seconds for the parts of a `kirby dev` that was killed to end

SUPERVISOR_READY = """
    select exists (select from kirby.supervisor
                    where pid = %s and host = %s and folder = %s
                      and ended_at is null and lease_until > kirby.now())
"""


class House:
    """PostgreSQL (unless KIRBY_DSN names one), the pages and a supervisor, on one folder.

    ``start`` returns when all parts are up, ``stop`` when all have ended. A part that dies, the
    database included, is started again by ``tick``. If this process is killed, its parts end too.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._data = settings.data.absolute()
        self._postgres = None if settings.dsn else Postgres(self._data / "postgres")
        self._parts: list[Part] = []
        self._server_dsn = self._worker_dsn = ""
        self._lock: int | None = None

    @property
    def url(self) -> str:
        host = self._reachable
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}"

    @property
    def _reachable(self) -> str:
        """The host under which this machine reaches the pages: "all addresses" is none."""
        host = self._settings.host
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104

    def start(self) -> None:
        """Start everything. Raises a KirbyError, with nothing left running, if that fails."""
        try:
            self._make_folder()
            self._lock = lock(self._data / "lock")
            port = usable_port(self._settings.host, self._settings.port)
            self._settings = replace(self._settings, port=port)
            admin_dsn = self._start_database()
            schema.migrate(admin_dsn)
            self._open_roles(admin_dsn)
            self._introduce()
            self._start_parts()
        except BaseException:
            self.stop()
            raise

    def tick(self) -> None:
        """Look at every part once, and start again what has ended."""
        if self._postgres is not None and not self._postgres.alive:
            self._say("PostgreSQL ended; starting it again")
            try:
                self._postgres.start()
            except KirbyError as error:
                self._say(f"{error}; trying again")
                time.sleep(1)
        for part in self._parts:
            part.keep_alive(self._say)

    def stop(self) -> None:
        """Stop the parts, then the database. Safe to call twice."""
        deadline = time.monotonic() + STOP_WITHIN
        for part in self._parts:
            part.ask_to_stop()
        for part in self._parts:
            part.end(deadline)
        self._parts.clear()
        if self._postgres is not None:
            self._postgres.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_folder(self) -> None:
        try:
            self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
            roles.write_private(self._data / ".writable", "")
            (self._data / ".writable").unlink()
            ignored = self._data / ".gitignore"
            if not ignored.exists():
                ignored.write_text("*\n")
        except OSError as error:
            raise Invalid(
                f"the data folder {self._data} cannot be used: {error.strerror}:"
                " choose another --data"
            ) from None

    def _start_database(self) -> str:
        """The DSN of an administrator."""
        if self._postgres is None:
            return str(self._settings.dsn)
        self._postgres.start()
        return self._postgres.dsn()

    def _open_roles(self, admin_dsn: str) -> None:
        """A login for each role, and the DSNs where `kirby` and scripts below this folder look."""
        opened = roles.open_logins(admin_dsn, roles.passwords(self._data / "roles.json"))
        self._server_dsn, self._worker_dsn = opened["kirby_server"], opened["kirby_worker"]
        roles.write_private(self._data / dsn.FILE, self._server_dsn)
        if self._postgres is not None:
            roles.open_auditor(admin_dsn)
            roles.write_private(self._data / "auditor.dsn", self._postgres.socket_dsn())

    def _introduce(self) -> None:
        """Make the first account, and say its password this once."""
        engine = database.engine(self._server_dsn, application="kirby dev", size=1)
        try:
            with database.unit(engine) as conn:
                password = accounts.ensure_admin(conn)
        finally:
            engine.dispose()
        if password is not None:
            self._say(f"The first account is admin, its password: {password}")

    def _start_parts(self) -> None:
        """The pages and a supervisor, and wait for both."""
        host, port = self._settings.host, str(self._settings.port)
        for name, arguments in (("web", ("--host", host, "--port", port)), ("supervisor", ())):
            log = self._data / f"{name}.log"
            held = (self._lock,) if self._lock is not None else ()
            self._parts.append(Part(name, arguments, self._environ(), log, held))
            self._parts[-1].start()
        web, supervisor = self._parts
        self._await(web, self._web_answers)
        self._await(supervisor, lambda: self._supervisor_works(supervisor))

    def _environ(self) -> dict[str, str]:
        """What the parts get: our variables, but the settings as they are now."""
        settings = self._settings
        ours = {name for name in os.environ if name.startswith("KIRBY_")}
        ours -= {name for name in ours if name.startswith(addresses.PREFIX)}
        made = {name: value for name, value in os.environ.items() if name not in ours}
        made |= {
            "KIRBY_DSN": self._server_dsn,
            "KIRBY_WORKER_DSN": settings.worker_dsn or self._worker_dsn,
            "KIRBY_DATA": str(self._data),
            "KIRBY_ENVIRONMENT": settings.environment,
            "KIRBY_SLOTS": str(settings.slots),
            "KIRBY_SECURE_COOKIES": str(settings.secure_cookies).lower(),
            "KIRBY_MAX_UPLOAD": str(settings.max_upload),
            "KIRBY_SPILL": str(settings.spill),
            "KIRBY_URL": settings.url or self.url,
        }
        if settings.index_url:
            made["KIRBY_INDEX_URL"] = settings.index_url
        return made

    def _await(self, part: Part, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not ready():
            if not part.alive:
                raise KirbyError(f"kirby {part.name} ended: {part.last_words()}")
            if time.monotonic() > deadline:
                raise KirbyError(f"kirby {part.name} is not ready after {READY_WITHIN:.0f} s:"
                                 f" see {part.log}")  # fmt: skip
            time.sleep(0.05)

    def _web_answers(self) -> bool:
        connection = http.client.HTTPConnection(self._reachable, self._settings.port, timeout=2)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def _supervisor_works(self, part: Part) -> bool:
        with suppress(Unavailable), db.connect(self._server_dsn) as conn:
            me = [part.pid, socket.gethostname(), str(self._data)]
            return bool(db.scalar(conn, SUPERVISOR_READY, me))
        return False


def lock(path: Path) -> int:
    """Take the folder; the lock lasts until this process and all parts that it started have ended.

    Waits for the parts of a `kirby dev` that was killed. Raises Busy if one runs.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            if _lives(holder) or time.monotonic() > deadline:
                os.close(file)
                raise Busy(
                    f"process {holder or 'unknown'} runs on {path.parent} already:"
                    " stop it, or choose another --data"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
            return file


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, ProcessLookupError):
        return False
    return True


def usable_port(host: str, port: int) -> int:
    """That port, or a free one for 0.

    Raises Busy if something else listens there, Invalid if there is no such address.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise Invalid(
                f"{host} is not an address of this machine: give another --host"
            ) from None
        raise Busy(
            f"port {port} of {host} cannot be used ({error.strerror}): choose another with --port"
        ) from None


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Start the house, say when it is ready, keep it up until SIGINT or SIGTERM, and stop it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    house = House(settings, say)
    try:
        house.start()
        say(f"Kirby is ready: {house.url}")
        while True:
            house.tick()
            time.sleep(LOOK)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # one is enough; the stop is not interrupted
        say("stopping")
    finally:
        house.stop()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""The servers that a run compares, each started when first needed, in one temporary folder."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from benchmarks import children
from kirby.server import roles, schema
from kirby.server.postgres import Postgres

PG15 = Path("/usr/lib/postgresql/15/bin")
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
MAIN, BESIDE_PGQ = "PostgreSQL", "PostgreSQL beside PgQ"  # the embedded one; Debian's 15
PATIENCE = 60  # seconds for a server to answer
SETTINGS = """
    select name, current_setting(name) from pg_settings
     where name in ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes',
                    'wal_level', 'shared_buffers', 'max_wal_size', 'autovacuum', 'jit')
     order by name
"""
REDIS = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}


class Missing(Exception):
    """A peer is not to be had on this machine; the text says why."""


class House:
    """Everything that runs, and the folder it runs in. ``close`` ends and removes all of it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="kirby-bench-"))
        self.versions = {}
        self.settings = {}  # by server, those that figures depend on
        self.databases = {}  # of peers that keep theirs over several measurements: name, DSN
        self._postgres = {}
        self._ports = {}
        self._numbers = itertools.count()

    def close(self):
        children.stop_all()
        for server in self._postgres.values():
            server.stop()
            with suppress(OSError):  # it lies elsewhere if our path is too long for a socket
                shutil.rmtree((server.root / "socket").read_text())
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return self.folder / name

    def fresh(self, name):
        """A name that was not used before: a topic, a queue, a file of one measurement."""
        return f"{name}_{next(self._numbers)}"

    # PostgreSQL

    def postgres(self, which=MAIN):
        """A server with the durability that PostgreSQL begins with; one for each name."""
        if which not in self._postgres:
            with _bindir(PG15 if which == BESIDE_PGQ else None):
                server = Postgres(self.folder / f"postgres-{len(self._postgres)}")
                self._postgres[which] = server
                server.start()
            with psycopg.connect(server.dsn("postgres")) as conn:
                known = dict(conn.execute(SETTINGS).fetchall())
            self.versions[which] = known.pop("server_version").split()[0]
            self.settings[which] = known
        return self._postgres[which]

    def database(self, name, which=MAIN):
        """A new, empty database; the DSN of its owner, who is a superuser."""
        server = self.postgres(which)
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
            conn.execute(f'create database "{name}"')
        return server.dsn(name)

    def kirby(self, name, which=MAIN):
        """A database with Kirby's schema; the DSN of kirby_server, as ``kirby dev`` makes it."""
        return self.logins(name, which)["kirby_server"]

    def logins(self, name, which=MAIN):
        """A database with Kirby's schema; a DSN for each of its roles."""
        dsn = self.database(name, which)
        schema.migrate(dsn)
        return roles.open_logins(dsn, roles.passwords(self.path(f"{which}.json")))

    def admin(self, name, which=MAIN):
        """A connection of the owner to a database."""
        return psycopg.connect(self.postgres(which).dsn(name), autocommit=True)

    # Redis and RabbitMQ

    def redis(self):
        """The port of a Redis that appends everything to its file and syncs it every second."""
        if "Redis" not in self._ports:
            program = _program("redis-server")
            self.path("redis").mkdir()
            port = free_port()
            settings = ["--port", port, "--bind", "127.0.0.1", "--dir", self.path("redis")]
            settings += [part for name, value in REDIS.items() for part in (f"--{name}", value)]
            children.spawn([program, *settings], self.path("redis.log"))
            await_port(port)
            self._ports["Redis"] = port
            said = subprocess.run([program, "--version"], capture_output=True, text=True)
            self.settings["Redis"] = REDIS
            self.versions["Redis"] = said.stdout.partition("v=")[2].split()[0]
        return self._ports["Redis"]

    def rabbitmq(self):
        """The port of a RabbitMQ with nothing but its defaults."""
        if "RabbitMQ" not in self._ports:
            if not RABBITMQ.exists():
                raise Missing("rabbitmq-server is not installed")
            port = self._start_rabbitmq()
            self._ports["RabbitMQ"] = port
            said = self.path("rabbitmq.log").read_text(errors="replace")
            self.versions["RabbitMQ"] = said.partition("RabbitMQ ")[2].split()[0]
        return self._ports["RabbitMQ"]

    def _start_rabbitmq(self):
        folder, port, mapper = self.path("rabbitmq"), free_port(), free_port()
        folder.mkdir()
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").touch()
        env = children.environ(
            HOME=str(folder),
            ERL_EPMD_PORT=str(mapper),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME="bench@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(port),
            RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_MNESIA_BASE=str(folder / "data"),
            RABBITMQ_LOG_BASE=str(folder / "log"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"),
            RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq"),
            RABBITMQ_CONF_ENV_FILE=str(folder / "none"),
            RABBITMQ_PID_FILE=str(folder / "pid"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        )
        # Erlang's port mapper as a child of ours, or it would stay behind as a daemon.
        children.spawn([_program("epmd"), "-port", mapper], self.path("epmd.log"), env)
        await_port(mapper)
        children.spawn([RABBITMQ], self.path("rabbitmq.log"), env)
        await_port(port)
        return port


def _program(name):
    if (found := shutil.which(name)) is None:
        raise Missing(f"{name} is not installed")
    return found


@contextmanager
def _bindir(folder):
    """Let Kirby's launcher take PostgreSQL from this folder, or find one by itself."""
    if folder is not None and not folder.is_dir():
        raise Missing("PostgreSQL 15 is not installed")
    before = os.environ.pop("KIRBY_PG_BINDIR", None)
    if folder is not None:
        os.environ["KIRBY_PG_BINDIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("KIRBY_PG_BINDIR", None)
        if before is not None:
            os.environ["KIRBY_PG_BINDIR"] = before


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port):
    """Return when something listens there. Raises Missing when nothing does for a minute."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Missing(f"the server on port {port} did not start")

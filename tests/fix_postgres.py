"""What the fixtures of conftest.py are made of: a server for tests, databases, roles, waiting."""

import contextlib
import fcntl
import itertools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kirby.server.postgres import Postgres

ROLES = ("kirby_server", "kirby_worker", "kirby_auditor")
ROLE_PASSWORD = "only-for-tests"
ADVISORY_LOCK = 20130101  # one migration at a time: roles belong to the whole server

_numbers = itertools.count(1)


def as_role(dsn, role):
    """The same database, logging in as one of Kirby's roles."""
    return make_conninfo(dsn, user=role, password=ROLE_PASSWORD)


def until(predicate, timeout=20.0):
    """Call until the answer is true, and return it; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {timeout} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.01)
    return answer


def missing(what):
    """Skip because this machine lacks something; under KIRBY_TEST_STRICT (CI) fail instead."""
    if os.environ.get("KIRBY_TEST_STRICT") == "1":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def fast_folder():
    """Memory where there is enough of it: a database is cloned five times faster there."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30:
        return memory
    return Path(tempfile.gettempdir())


def sweep(folder):
    """Remove what servers of killed test runs left behind."""
    for old in folder.glob("kirby-test-*"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid != os.geteuid() or time.time() - old.stat().st_mtime < 60:
                continue
            with open(old / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)


@contextlib.contextmanager
def server():
    """The DSN of a superuser: KIRBY_TEST_DSN, else a server of our own for this process."""
    if dsn := os.environ.get("KIRBY_TEST_DSN"):
        yield dsn
        return
    folder = fast_folder()
    sweep(folder)
    root = Path(tempfile.mkdtemp(prefix="kirby-test-", dir=folder))
    postgres = Postgres(root, durable=False)
    try:
        postgres.start()
        yield postgres.dsn("postgres")
    finally:
        postgres.stop()
        shutil.rmtree(root)


def administer(dsn):
    """A connection of the harness itself. One that is cut while it is made is made again, aloud.

    Seen once in many runs, on a machine that may stand still for a while; no test is about these
    connections, and what crashes a server shows in all the others.
    """
    try:
        return psycopg.connect(dsn, autocommit=True)
    except psycopg.OperationalError as error:
        print(f"{time.ctime()}: a connection of the harness was cut: {error}", file=sys.__stderr__)
        return psycopg.connect(dsn, autocommit=True)


class Databases:
    """Makes and drops databases on one server; the migrated template is made once."""

    def __init__(self, dsn, migrate):
        self.dsn = dsn
        self.migrate = migrate
        self.prefix = f"kirby_test_{os.getpid()}_{time.time_ns() % 10**6}"
        self.template = f"{self.prefix}_template"

    def address(self, name):
        return make_conninfo(self.dsn, dbname=name)

    def execute(self, statement, *names):
        with administer(self.dsn) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def make_template(self):
        with administer(self.dsn) as conn:
            conn.execute("select pg_advisory_lock(%s)", [ADVISORY_LOCK])
            self.execute("create database {}", self.template)
            self.migrate(self.address(self.template))
            self._open_roles(conn)
        self.execute("alter database {} is_template true allow_connections false", self.template)
        self._close_sessions()  # nobody may be connected to what is cloned

    def _close_sessions(self):
        with administer(self.dsn) as conn:
            conn.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                [self.template],
            )

    def _open_roles(self, conn):
        for role in ROLES:
            statement = "alter role {} login password {}"
            conn.execute(sql.SQL(statement).format(sql.Identifier(role), ROLE_PASSWORD))

    def drop_template(self):
        self.execute("alter database {} is_template false", self.template)
        self.drop(self.address(self.template))

    def create(self, template=None):
        """A new database as a clone of the migrated template, or of another; its DSN."""
        name = f"{self.prefix}_{next(_numbers)}"
        self.execute(
            "create database {} template {} strategy file_copy", name, template or self.template
        )
        return self.address(name)

    def drop(self, dsn):
        self.execute("drop database if exists {} with (force)", conninfo_to_dict(dsn)["dbname"])

"""A real pgbouncer before the server of the tests."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest
from fix_postgres import ROLE_PASSWORD, ROLES, missing, until
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SETTINGS = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
{user}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bouncer:
    """A pgbouncer process; `through(dsn)` is the way to the same database, through it."""

    def __init__(self, folder, dsn, mode, size):
        parts = conninfo_to_dict(dsn)
        self._port = free_port()
        logins = {parts["user"]: parts["password"], **dict.fromkeys(ROLES, ROLE_PASSWORD)}
        users = folder / "users"
        users.write_text("".join(f'"{name}" "{word}"\n' for name, word in logins.items()))
        settings = folder / "pgbouncer.ini"
        as_nobody = f"user = {NOBODY}" if os.geteuid() == 0 else ""  # it refuses to run as root
        made = {"host": parts["host"], "port": parts["port"], "listen": self._port, "users": users}
        settings.write_text(SETTINGS.format(mode=mode, size=size, user=as_nobody, **made))
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen([PROGRAM, settings], stdout=log, stderr=log)
        until(self._answers)

    def _answers(self):
        assert self._process.poll() is None, "pgbouncer does not run"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), 1).close()
            return True

    def through(self, dsn):
        return make_conninfo(dsn, host="127.0.0.1", port=self._port)

    def stop(self):
        self._process.terminate()
        self._process.wait(10)


PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NOBODY = next((user.pw_name for user in pwd.getpwall() if user.pw_name == "nobody"), "")


@pytest.fixture(name="bouncer")
def bouncer_fixture(server, tmp_path):
    """`bouncer(mode="transaction", size=2)` starts one."""
    if PROGRAM is None:
        missing("pgbouncer")
    started = []

    def bouncer(mode="transaction", size=2):
        folder = Path(tmp_path / f"bouncer{len(started)}")
        folder.mkdir()
        started.append(Bouncer(folder, server, mode, size))
        return started[-1]

    yield bouncer
    for each in started:
        each.stop()


@pytest.fixture(name="pooled")
def pooled_fixture(bouncer, sdk, monkeypatch):
    """This process, and scripts, reach the database through two connections of a pgbouncer."""
    through = bouncer().through(sdk.environ["KIRBY_DSN"])
    sdk.environ["KIRBY_DSN"] = through
    monkeypatch.setenv("KIRBY_DSN", through)
    return sdk


def left_behind(dsn):
    """What is still on a connection of the pool, as its next client finds it."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
        return conn.execute("""
            select coalesce(current_setting('kirby.token', true), '')
                || coalesce(current_setting('kirby.environment', true), '')
                || coalesce(current_setting('kirby.holder', true), ''),
                   (select count(*) from pg_prepared_statements),
                   (select count(*) from pg_listening_channels()),
                   (select count(*) from pg_locks
                     where locktype = 'advisory' and pid = pg_backend_pid()),
                   current_setting('statement_timeout')
        """).fetchone()


CLEAN = ("", 0, 0, 0, "0")

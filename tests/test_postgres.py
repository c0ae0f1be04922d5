"""The embedded PostgreSQL: its folder, its port, and every way in which it can die."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import fix_postgres
import psycopg
import pytest

from kirby.core.errors import Busy, Invalid, Unavailable
from kirby.server import pg_programs, postgres
from kirby.server.postgres import Postgres

# PostgreSQL's own error, and psycopg's when it finds the connection cut.
GONE = (psycopg.OperationalError, psycopg.InterfaceError)


@pytest.fixture
def root():
    folder = Path(tempfile.mkdtemp(prefix="kirby-test-", dir=fix_postgres.fast_folder()))
    yield folder / "pg"
    shutil.rmtree(folder)


@pytest.fixture
def start(root):
    """Start a server in a folder; whatever was started is stopped."""
    with contextlib.ExitStack() as stack:

        def start(folder=root, **options):
            server = Postgres(folder, **{"durable": False, **options})
            stack.callback(server.stop)
            server.start()
            return server

        yield start


def ask(dsn, question):
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(question)
        return cursor.fetchone()[0] if cursor.description else None


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# Start, stop, start again


def test_a_first_start_makes_a_database_that_answers(start):
    server = start()

    assert server.alive
    assert server.poll() is None
    assert ask(server.dsn(), "select current_user || current_database()") == "kirbykirby"


def test_data_port_and_password_outlive_a_restart(start):
    server = start()
    ask(server.dsn(), "create table kept as select 42 as answer")
    dsn = server.dsn()

    server.stop()
    again = start()

    assert not server.alive
    assert again.dsn() == dsn
    assert ask(again.dsn(), "select answer from kept") == 42


def test_starting_twice_and_stopping_twice_does_no_harm(start):
    server = start()
    pid = server.pid

    server.start()
    assert server.pid == pid

    server.stop()
    server.stop()
    assert not server.alive


def test_a_durable_server_keeps_every_safety_on(start):
    server = start(durable=True)

    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(server.dsn(), f"show {name}") == "on"
    assert ask(server.dsn(), "show max_connections") == "200"
    assert ask(server.dsn(), "show jit") == "off"
    assert ask(server.dsn(), "show idle_in_transaction_session_timeout") == "0"


def test_settings_can_be_given(start):
    server = start(settings={"work_mem": "7MB", "max_connections": 33})

    assert ask(server.dsn(), "show work_mem") == "7MB"
    assert ask(server.dsn(), "show max_connections") == "33"


def test_a_folder_knows_its_address_without_a_running_server(start, root):
    server = start()

    assert Postgres(root).dsn() == server.dsn()
    with pytest.raises(Unavailable, match="no PostgreSQL was started"):
        Postgres(root.parent / "nowhere").dsn()


# Who may come in


def test_the_folder_and_the_password_are_closed_to_others(start, root):
    root.mkdir(mode=0o755)

    start()

    assert mode(root) == 0o700
    assert mode(root / "password") == 0o600
    assert mode(root / "postgres.log") == 0o600
    assert mode(root / "data") == 0o700


def test_a_wrong_password_is_refused(start):
    server = start()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn(password="wrong"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.socket_dsn(user="kirby"))


def test_only_the_auditor_needs_no_password_and_only_on_the_socket(start):
    server = start()
    ask(server.dsn(), "create role kirby_auditor login")

    assert ask(server.socket_dsn(), "select current_user") == "kirby_auditor"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(user="kirby_auditor"))


def test_the_log_holds_no_statement_parameter_or_row(start, root):
    server = start()

    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("create table t (a text check (a = 'never'))")
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("insert into t values (%s)", ["p4r4meter"])
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("insert into t values ('l1teral')")
        with pytest.raises(psycopg.errors.UndefinedObject):
            conn.execute("alter role nobody_here password 's3cret'")
    server.stop()

    log = (root / "postgres.log").read_text()
    assert "violates check constraint" in log
    assert not any(word in log for word in ("p4r4meter", "l1teral", "s3cret"))


# Ports and sockets


def test_a_taken_port_is_replaced_and_the_new_one_kept(start):
    server = start()
    server.stop()
    old = server.dsn()

    with socket.create_server(("127.0.0.1", int(old.rpartition(":")[2].split("/")[0]))):
        new = start()
        moved = new.dsn()
        new.stop()

    assert moved != old
    assert start().dsn() == moved


def test_a_wanted_port_that_is_taken_is_one_clear_line(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Busy, match=f"port {port} is in use"):
            start(port=port)


@pytest.mark.parametrize("name", ["long" * 40, 'a space, a comma and “quotes”"'])
def test_any_folder_name_has_a_working_socket(start, root, name):
    server = start(root / name)
    ask(server.dsn(), "create role kirby_auditor login")
    address = server.socket_dsn()
    assert ask(address, "select 1") == 1

    server.stop()
    again = start(root / name)

    assert again.socket_dsn() == address
    folder = Path((root / name / "socket").read_text())
    assert mode(folder) == 0o700
    if folder != root / name:
        again.stop()
        shutil.rmtree(folder)


def test_a_socket_folder_that_others_could_enter_is_not_used_again(start, root):
    long = root / ("long" * 40)
    server = start(long)
    server.stop()
    first = Path((long / "socket").read_text())
    first.chmod(0o777)

    start(long).stop()

    second = Path((long / "socket").read_text())
    assert second != first
    for folder in (first, second):
        shutil.rmtree(folder)


# Killed


def test_a_killed_server_starts_again_at_once_with_its_rows(start, until):
    server = start(durable=True)
    ask(server.dsn(), "create table kept as select generate_series(1, 1000)")
    dsn = server.dsn()

    with psycopg.connect(dsn) as busy:
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.alive, timeout=5)
        server.start()
        with pytest.raises(GONE):
            busy.execute("select 1")

    assert server.dsn() == dsn
    assert ask(dsn, "select count(*) from kept") == 1000


def test_sessions_that_outlive_the_server_are_waited_for(start, until):
    server = start(durable=True)
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        session = conn.info.backend_pid
        os.kill(session, signal.SIGSTOP)  # it cannot notice that the server died
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.alive)
        waker = subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {session}"])
        server.start()
        waker.wait()

    assert ask(server.dsn(), "select 1") == 1


PARENT = """
import sys
from pathlib import Path
from kirby.server.postgres import Postgres
server = Postgres(Path(sys.argv[1]), durable=False)
server.start()
print(server.pid, server.dsn(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def running_parent(root):
    """Another process that started a server: the process, the server's pid, its DSN."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, dsn = process.stdout.readline().split()
    with process:
        yield process, int(pid), dsn
        process.kill()


@pytest.fixture
def parent(root):
    with running_parent(root) as running:
        yield running


def is_gone(pid):
    return not postgres._is_postgres(pid)


def test_the_server_shuts_down_when_its_parent_is_killed(parent, root, until):
    process, pid, _ = parent

    process.kill()

    until(lambda: is_gone(pid), timeout=10)
    until(lambda: "database system is shut down" in (root / "postgres.log").read_text())


def test_a_start_right_after_the_parent_was_killed_has_the_same_address(parent, start):
    process, pid, dsn = parent

    os.kill(pid, signal.SIGSTOP)  # it is slow to shut down
    process.kill()
    process.wait()
    with subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {pid}"]):
        server = start()

    assert server.dsn() == dsn
    assert ask(dsn, "select 1") == 1


def test_a_second_start_on_the_same_folder_is_refused(parent, start, root):
    process, _, dsn = parent

    with pytest.raises(Busy, match=f"process {process.pid} runs on {root} already") as refused:
        start()

    assert "\n" not in str(refused.value)
    assert ask(dsn, "select 1") == 1


def test_a_stale_lock_whose_process_number_lives_on_does_not_block(start, root, until):
    server = start(durable=True)
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.alive)
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as other:
        for lock in (root / "data" / "postmaster.pid", *root.glob(".s.PGSQL.*.lock")):
            _, _, rest = lock.read_text().partition("\n")
            lock.write_text(f"{other.pid}\n{rest}")

        again = start()
        other.kill()

    assert ask(again.dsn(), "select 1") == 1


def test_a_first_start_that_was_cut_off_leaves_nothing_half_made(start, root):
    (root / "data.new" / "base").mkdir(parents=True)
    (root / "password.new").write_text("half")

    server = start()

    assert ask(server.dsn(), "select 1") == 1
    assert not (root / "data.new").exists()


# The wrong folder, the wrong version


def test_data_of_another_major_version_is_refused(start, root):
    (root / "data").mkdir(parents=True)
    (root / "data" / "PG_VERSION").write_text("14\n")

    with pytest.raises(Invalid, match=r"the data in .* is of PostgreSQL 14, the programs in") as no:
        start()

    assert "set KIRBY_PG_BINDIR or choose another --data" in str(no.value)
    assert "\n" not in str(no.value)


def test_something_else_in_place_of_the_data_is_refused(start, root):
    (root / "data").mkdir(parents=True)
    (root / "data" / "thesis.txt").write_text("precious")

    with pytest.raises(Invalid, match="is not PostgreSQL data: move it away"):
        start()

    assert (root / "data" / "thesis.txt").read_text() == "precious"


def test_data_without_its_password_is_refused(start, root):
    start().stop()
    (root / "password").unlink()

    with pytest.raises(Invalid, match="password is missing"):
        start()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/kirby"])
def test_a_place_where_no_folder_can_be_is_one_clear_line(start, tmp_path, place):
    (tmp_path / "file").write_text("")

    with pytest.raises(Invalid, match=r"cannot be used .*: choose another --data$") as refused:
        start(tmp_path / place)

    assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_clear_line(start, root):
    root.mkdir(mode=0o500)

    with pytest.raises(Invalid, match="Permission denied"):
        start()


# Root


@pytest.mark.skipif(os.geteuid() != 0, reason="for root only")
class TestRoot:
    def test_root_without_namespaces_uses_another_account(self, start, monkeypatch, root):
        reaches = pg_programs.Identity.reaches
        monkeypatch.setattr(
            pg_programs.Identity,
            "reaches",
            lambda self, *where: self.mode == "account" and reaches(self, *where),
        )

        server = start()

        assert ask(server.dsn(), "select 1") == 1
        assert (root / "data").stat().st_uid != 0

    def test_root_runs_an_ordinary_users_data_as_that_user(self, start, root):
        start().stop()
        for path in (root, *root.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)

        server = start()

        assert ask(server.dsn(), "select 1") == 1
        assert Path(f"/proc/{server.pid}").stat().st_uid in (0, 12345)
        assert {path.stat().st_uid for path in root.rglob("*") if path.exists()} == {12345}

    def test_a_server_under_another_account_ends_with_its_parent_too(self, start, root, until):
        start().stop()
        for path in (root, *root.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)

        with running_parent(root) as (process, pid, _):
            process.kill()

            until(lambda: is_gone(pid), timeout=10)

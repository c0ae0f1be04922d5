"""What tests of the command line are made of: `kirby` in this process, or as processes."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from kirby.server import cli

KIRBY = [sys.executable, "-m", "kirby"]


def run_here(monkeypatch, capsys, *arguments, stdin=b""):
    """Run a command of the command line in this process: its exit code, stdout and stderr."""
    fed = io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["kirby", *map(str, arguments)])
        patch.setattr(sys, "stdin", fed)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
    out, err = capsys.readouterr()
    return types.SimpleNamespace(code=code, out=out, err=err)


@pytest.fixture(name="kirby")
def kirby_fixture(monkeypatch, capsys, tmp_path, dsn, as_role):
    """`kirby("job", "list")` on a database of its own, in an empty folder."""
    monkeypatch.setenv("KIRBY_DSN", as_role(dsn, "kirby_server"))
    monkeypatch.chdir(tmp_path)

    def kirby(*arguments, stdin=b""):
        return run_here(monkeypatch, capsys, *arguments, stdin=stdin)

    return kirby


KEPT = (
    "environment", "job", "deployment", "deployment_version", "release", "file", "run",
    "topic", "message", "state", "state_mutation", "variable", "account", "job_event",
    "audit_event",
)  # fmt: skip


def contents(dsn):
    """How many rows each table has that a command could leave half done."""
    with psycopg.connect(dsn) as conn:
        return {
            name: conn.execute(
                sql.SQL("select count(*) from {}").format(sql.Identifier("kirby", name))
            ).fetchone()[0]
            for name in KEPT
        }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environ(**given):
    """The variables of a process that is to find everything by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIRBY_")}
    kept |= {n: v for n, v in os.environ.items() if n == "KIRBY_PG_BINDIR"}
    return {**kept, **given}


class Dev:
    """A `kirby dev` process on a folder."""

    def __init__(self, folder, here, *arguments, port=None, **variables):
        self._here = here
        self.folder, self.data = folder, folder / ".kirby"
        self.port = port or free_port()
        self.output = folder / "output"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [*KIRBY, "dev", "--port", str(self.port), *arguments],
                cwd=folder, env=environ(**variables), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self):
        return self.output.read_text()

    @property
    def dsn(self):
        return (self.data / "dsn").read_text()

    def ready(self, timeout=60):
        """Wait for its line; fails with what it said instead."""
        deadline = time.monotonic() + timeout
        while f"Kirby is ready: http://127.0.0.1:{self.port}\n" not in self.said:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"kirby dev is not ready: {self.said}")
            time.sleep(0.02)
        return self

    def run(self, *arguments):
        """A command on its database; its output."""
        done = self._here(self.dsn, *arguments)
        assert done.code == 0, done.err
        return done.out

    def ask(self, query, *params):
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(query, params).fetchall()

    def stop(self, *, group=False, timeout=30):
        """Ctrl-C, to it alone or to the whole foreground group; its exit code."""
        kill = os.killpg if group else os.kill
        kill(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def part(self, name):
        """The process of `kirby NAME` below it, or of PostgreSQL."""
        if name == "postgres":
            return int((self.data / "postgres/data/postmaster.pid").read_text().split()[0])
        [pid] = [p for p, command in commands() if f"kirby {name} " in command
                 and f"--parent {self.process.pid}" in command]  # fmt: skip
        return pid

    def left(self):
        """What still runs on the folder, or was started by it: parts, PostgreSQL, scripts."""
        marks = (str(self.data), f"--parent {self.process.pid}")
        return [command for _, command in commands() if any(mark in command for mark in marks)]

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def commands():
    """Every living process of this machine and its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            state = re.sub(r".*\) ", "", path.with_name("stat").read_text())[0]
            if state != "Z":
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(path.parent.name), command))
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture(name="dev")
def dev_fixture(tmp_path, monkeypatch, capsys):
    """`dev()`: a `kirby dev` in a folder of its own; they are all stopped at the end."""
    started = []

    def here(dsn, *arguments):
        monkeypatch.setenv("KIRBY_DSN", dsn)
        return run_here(monkeypatch, capsys, *arguments)

    def dev(*arguments, **options):
        options.setdefault("folder", tmp_path)
        options["folder"].mkdir(exist_ok=True)
        made = Dev(options.pop("folder"), here, *arguments, **options)
        started.append(made)
        return made

    yield dev
    for each in started:
        each.end()

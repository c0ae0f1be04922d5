"""kirby run logs: all of a log, what is looked for, what follows; and a tail that can go on."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import fix_postgres
import psycopg
import pytest
from fix_kirby import KIRBY, environ
from fix_web import connected, deploy, record, say, start

from kirby.server import run_logs, schema
from kirby.server.postgres import Postgres


@pytest.fixture
def conn(dsn):
    with connected(dsn) as conn:
        yield conn


@pytest.fixture
def run(conn):
    run = start(conn, deploy(conn, "hello"))
    say(conn, run, "one", "two orders")
    say(conn, run, "ERROR three", stream="stderr", level="error")
    say(conn, run, "four")
    return run


@pytest.fixture
def logs(kirby, run):
    """`logs("-n", "1")`: what is printed, without the time."""

    def logs(*options):
        done = kirby("run", "logs", str(run), *options)
        assert (done.code, done.err) == (0, "")
        return [line[13:] for line in done.out.splitlines()]

    return logs


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ([], ["  one", "  two orders", "! ERROR three", "  four"]),
        (["-n", "2"], ["! ERROR three", "  four"]),
        (["-n", "99"], ["  one", "  two orders", "! ERROR three", "  four"]),
        (["--stream", "stderr"], ["! ERROR three"]),
        (["--level", "warning"], ["! ERROR three"]),
        (["--grep", "ORDERS"], ["  two orders"]),
        (["--grep", "o", "-n", "2"], ["! ERROR three", "  four"]),
        (["--grep", "nothing"], []),
    ],
)
def test_what_is_printed(logs, options, printed):
    assert logs(*options) == printed


@pytest.mark.parametrize("size", [1, 1000])
def test_it_goes_on_after_a_position(kirby, run, conn, monkeypatch, size):
    monkeypatch.setattr(run_logs, "MOST", size)
    lines = json.loads(kirby("run", "logs", str(run), "--json").out)
    assert [line["text"] for line in lines] == ["one", "two orders", "ERROR three", "four"]
    assert {line["run_id"] for line in lines} == {run}
    say(conn, run, "five")

    rest = kirby("run", "logs", str(run), "--after", str(lines[1]["position"]), "--jsonl").out
    seen = kirby("run", "logs", str(run), "--positions").out

    assert [json.loads(line)["text"] for line in rest.splitlines()] == [
        "ERROR three", "four", "five",
    ]  # fmt: skip
    assert [int(line[:12]) for line in seen.splitlines()][:4] == [
        line["position"] for line in lines
    ]


def test_an_empty_log_is_an_empty_document(kirby, conn):
    run = start(conn, deploy(conn, "silent"))

    assert json.loads(kirby("run", "logs", str(run), "--json").out) == []
    assert kirby("run", "logs", str(run)).out == ""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--after", "1", "-n", "1"], "--after and -n exclude each other"),
        (["--json", "--jsonl"], "--json and --jsonl exclude each other"),
        (["--level", "loud"], "'loud' is not one of"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(kirby, run, options, complaint):
    done = kirby("run", "logs", str(run), *options)

    assert (done.code, complaint in done.err) == (2, True)


@pytest.fixture
def follow():
    """`follow(dsn, run, …)`: the command as a process of its own."""
    started = []

    def follow(dsn, run, *options):
        child = subprocess.Popen(
            [*KIRBY, "run", "logs", str(run), "-f", *options], env=environ(KIRBY_DSN=dsn),
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(child)
        return child

    yield follow
    for child in started:
        child.kill()
        child.communicate()


def test_whoever_interrupts_it_is_told_how_to_go_on(follow, run, conn, dsn):
    child = follow(dsn, run)
    for _ in range(4):
        child.stdout.readline()

    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=20)

    last = conn.execute("select max(position) from kirby.log_line").fetchone()[0]
    assert child.returncode == 130
    assert told == f"stopped; to go on: kirby run logs {run} -f --after {last}\n"
    say(conn, run, "five")
    record(conn, run, "run_succeeded")
    again = follow(dsn, run, "--after", str(last), "--jsonl")
    out, _ = again.communicate(timeout=20)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["five"]


def test_following_goes_on_when_the_database_was_away(follow, until):
    root = Path(tempfile.mkdtemp(prefix="kirby-test-", dir=fix_postgres.fast_folder()))
    server = Postgres(root)
    server.start()
    try:
        schema.migrate(server.dsn())
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            run = start(conn, deploy(conn, "hello"))
            say(conn, run, "before")
        child = follow(server.dsn(), run)
        assert child.stdout.readline().endswith("before\n")

        os.kill(server.pid, signal.SIGKILL)
        assert child.stderr.readline().startswith("waiting for the database: ")
        until(lambda: not server.alive)
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            say(conn, run, "after")
            assert child.stdout.readline().endswith("after\n")
            record(conn, run, "run_succeeded")
        assert child.wait(20) == 0
    finally:
        server.stop()
        shutil.rmtree(root)

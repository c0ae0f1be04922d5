"""`kirby dev` as a user meets it: real processes, started, stopped, killed and started again."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest
from fix_kirby import KIRBY, environ, free_port
from fix_postgres import missing

from kirby.server import pg_programs
from kirby.server.dev import House
from kirby.server.postgres import Postgres
from kirby.server.settings import Settings

DAEMON = """
import sys, time
print("at work", flush=True)
while True:
    time.sleep(60)
"""
RUNS = """
    select r.id, r.pid, r.status, r.reason from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
     where j.name = %s and r.status = any (%s)
     order by r.id
"""
SESSIONS = "select count(*) from pg_stat_activity where usename like 'kirby\\_%'"
ALL = ["queued", "starting", "running", "succeeded", "failed", "lost", "cancelled"]


def deploy(house, name, source, *options):
    (house.folder / f"{name}.py").write_text(source)
    house.run("deploy", house.folder / f"{name}.py", *options)


def running(house, name="watch"):
    """The runs of a job that run now."""
    return house.ask(RUNS, name, ["running"])


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def lives(pid):
    """Whether that process of a script still runs."""
    try:
        return "watch.py" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.fixture
def own_server(tmp_path):
    """A PostgreSQL of its own, whose roles are nobody else's; the DSN of its administrator."""
    postgres = Postgres(tmp_path / "server", durable=False)
    postgres.start()
    yield postgres.dsn()
    postgres.stop()


def test_the_first_start_and_the_second(dev, until):
    first = dev().ready()
    said = first.said.splitlines()
    assert len(said) == 2
    assert said[0].startswith("The first account is admin, its password: ")
    assert said[1] == f"Kirby is ready: http://127.0.0.1:{first.port}"
    assert answers(first.port)
    assert (first.data / "dsn").stat().st_mode & 0o077 == 0

    deploy(first, "watch", DAEMON, "--daemon")
    [(before, pid, *_)] = until(lambda: running(first))
    dsn = first.dsn
    (first.folder / "laptop.py").write_text(
        "import kirby\nkirby.topic('orders').publish({'n': 1})\nprint(kirby.topic('orders').read())"
    )
    (first.folder / "below").mkdir()
    laptop = subprocess.run(
        [KIRBY[0], "../laptop.py"], cwd=first.folder / "below", env=environ(), text=True,
        capture_output=True,
    )  # fmt: skip
    assert laptop.returncode == 0, laptop.stderr
    found = subprocess.run(
        [*KIRBY, "topic", "read", "orders"], cwd=first.folder / "below", env=environ(), text=True,
        capture_output=True,
    )  # fmt: skip
    assert found.stdout.count('"value": {"n": 1}') == 1

    started = time.monotonic()
    assert first.stop(group=True) == 0
    assert time.monotonic() - started < 20
    assert first.left() == []
    assert not lives(pid)
    assert first.said.splitlines()[2:] == ["stopping"]

    second = dev(port=first.port).ready()
    for variables in ({}, {"KIRBY_DSN": dsn}):
        third = subprocess.run(
            [*KIRBY, "dev", "--port", "0"], cwd=second.folder, env=environ(**variables), text=True,
            capture_output=True,
        )  # fmt: skip
        assert (third.returncode, third.stdout) == (1, "")
        assert f"process {second.process.pid} runs on {second.data} already" in third.stderr
        assert third.stderr.count("\n") == 1
    assert second.said == f"Kirby is ready: http://127.0.0.1:{second.port}\n"
    assert second.dsn == dsn
    [(after, *_)] = until(lambda: running(second))
    assert after > before
    assert second.run("topic", "read", "orders").count('"value": {"n": 1}') == 1
    assert second.stop() == 0
    assert second.left() == []


@pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGHUP])
def test_a_start_that_is_broken_off_leaves_nothing(wish, dev, until):
    house = dev()
    until(lambda: (house.data / "postgres/postgres.log").exists())

    house.process.send_signal(wish)

    assert house.process.wait(30) == 0
    # A child that was being started is ended by the kernel, with its parent.
    until(lambda: house.left() == [])
    assert "Traceback" not in house.said


def test_each_part_that_is_killed_comes_back_and_a_daemon_goes_on_once(dev, until):
    house = dev().ready()
    deploy(house, "watch", DAEMON, "--daemon")
    [(first, pid, *_)] = until(lambda: running(house))

    def killed(name):
        before = house.part(name)
        os.kill(before, signal.SIGKILL)
        until(lambda: f"{name.replace('postgres', 'PostgreSQL')} ended" in house.said)
        until(lambda: _part(house, name) not in (None, before))

    killed("web")
    until(lambda: answers(house.port))
    assert [row[:2] for row in running(house)] == [(first, pid)]

    killed("postgres")
    until(lambda: _asks(house), timeout=30)
    until(lambda: answers(house.port), timeout=30)
    house.run("config", "set", "A=1")
    assert [row[:2] for row in running(house)] == [(first, pid)]
    assert lives(pid)

    killed("supervisor")
    until(lambda: not lives(pid))
    [(second, again, *_)] = until(lambda: running(house) if len(_all(house)) > 1 else None)
    assert second > first
    assert lives(again)
    assert [row[2] for row in _all(house)] == ["lost", "running"]


def _part(house, name):
    try:
        return house.part(name)
    except (ValueError, OSError, IndexError):
        return None


def _all(house):
    return house.ask(RUNS, "watch", ALL)


def _asks(house):
    try:
        return house.ask("select 1")
    except psycopg.OperationalError:
        return None


def test_a_kirby_dev_that_is_killed_leaves_no_process_and_can_start_at_once(dev, until):
    house = dev().ready()
    deploy(house, "watch", DAEMON, "--daemon")
    [(first, pid, *_)] = until(lambda: running(house))

    house.kill()
    until(lambda: not lives(pid), timeout=10)

    again = dev(port=house.port).ready()
    assert [each for each in house.left() if f"--parent {house.process.pid}" in each] == []
    [(second, *_)] = until(lambda: running(again))
    assert second > first


def test_a_full_disk_fails_a_run_in_one_line_and_the_next_one_works(dev, until):
    house = dev().ready()
    place = house.data / "virtualenvs"
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        missing("the right to mount a filesystem")
    deploy(house, "small", "print('done')")

    def run():
        house.run("job", "trigger", "small")
        return until(lambda: house.ask(RUNS, "small", ["succeeded", "failed"])[-1:])

    try:
        [(first, _, status, reason)] = run()
        assert status == "failed"
        assert "virtualenv" in reason
        assert "No space left on device" in reason
        assert "\n" not in reason
        read_only = ["mount", "-o", "remount,ro", str(place)]
        until(lambda: subprocess.run(read_only, check=False).returncode == 0)  # somebody may write
        house.run("job", "trigger", "small")
        [(*_, reason)] = until(
            lambda: [row for row in house.ask(RUNS, "small", ["failed"]) if row[0] != first]
        )
        assert "Read-only file system" in reason
        assert "\n" not in reason
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    house.run("job", "trigger", "small")
    until(lambda: house.ask(RUNS, "small", ["succeeded"]))


def test_an_existing_server_is_used_and_the_parts_run_on_it_alone(dev, until, own_server, tmp_path):
    house = dev(KIRBY_DSN=own_server, folder=tmp_path / "one").ready()
    assert "user=kirby_server" in house.dsn
    assert not (house.data / "postgres").exists()
    deploy(house, "small", "print('done')")

    # Another house would take the roles away from this one.
    other = dev(KIRBY_DSN=own_server, folder=tmp_path / "two")
    assert other.process.wait(30) == 1
    assert "somebody works as kirby_server on this server with another password" in other.said
    assert house.stop() == 0
    with psycopg.connect(own_server) as conn:  # it is still there, and nobody works on it
        assert conn.execute(SESSIONS).fetchone() == (0,)

    port = free_port()
    variables = {
        "KIRBY_DSN": house.dsn,
        "KIRBY_WORKER_DSN": _role(house, "kirby_worker"),
        "KIRBY_DATA": str(tmp_path / "alone"),
    }
    parts = [
        subprocess.Popen(
            [*KIRBY, *arguments], env=environ(**variables), stdout=subprocess.PIPE, text=True
        )
        for arguments in (["web", "--port", str(port)], ["supervisor", "--slots", "2"])
    ]
    try:
        web, supervisor = parts
        assert web.stdout.readline() == f"the pages are at http://127.0.0.1:{port}\n"
        assert supervisor.stdout.readline() == "the supervisor is at work\n"
        assert answers(port)
        house.run("job", "trigger", "small")
        until(lambda: house.ask(RUNS, "small", ["succeeded"]))
    finally:
        for part in parts:
            part.send_signal(signal.SIGINT)
        codes = [part.wait(20) for part in parts]
        for part in parts:
            part.stdout.close()
    assert codes == [0, 0]


def _role(house, role):
    words = json.loads((house.data / "roles.json").read_text())
    return psycopg.conninfo.make_conninfo(house.dsn, user=role, password=words[role])


def test_data_of_another_postgres_is_refused_in_one_line(tmp_path):
    other = Path("/usr/lib/postgresql/15/bin")
    if not other.exists() or pg_programs.major_of(pg_programs.find_bindir()) == 15:
        pytest.skip("there is no second PostgreSQL here")
    postgres = Postgres(tmp_path / ".kirby/postgres", durable=False)
    postgres.start()
    postgres.stop()

    refused = subprocess.run(
        [*KIRBY, "dev", "--port", "0"], cwd=tmp_path, env=environ(KIRBY_PG_BINDIR=str(other)),
        capture_output=True, text=True,
    )  # fmt: skip

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is of PostgreSQL 18, the programs in" in refused.stderr
    assert refused.stderr.count("\n") == 1
    postgres.start()  # as it was
    postgres.stop()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8700"),
        ("0.0.0.0", "http://127.0.0.1:8700"),
        ("::", "http://[::1]:8700"),
        ("::1", "http://[::1]:8700"),
    ],
)
def test_the_address_that_is_printed_can_be_opened(host, url, tmp_path):
    assert House(Settings(dsn="x", host=host, data=tmp_path), say=print).url == url


def test_a_part_that_cannot_start_says_why_and_nothing_is_left(dev, tmp_path):
    (tmp_path / ".kirby/supervisor.lock").mkdir(parents=True)

    house = dev()

    assert house.process.wait(60) == 1
    assert "kirby: kirby supervisor ended: cannot write to" in house.said
    assert "Is a directory" in house.said
    assert house.left() == []


def test_the_parts_get_the_secrets_of_channels_and_the_address_of_the_pages(monkeypatch, tmp_path):
    monkeypatch.setenv("KIRBY_CHANNEL_SMTP", "sesame")
    given = House(Settings(data=tmp_path, port=8701), print)._environ()
    assert given["KIRBY_CHANNEL_SMTP"] == "sesame"
    assert given["KIRBY_URL"] == "http://127.0.0.1:8701"
    other = Settings(data=tmp_path, url="https://kirby.example.com")
    assert House(other, print)._environ()["KIRBY_URL"] == "https://kirby.example.com"

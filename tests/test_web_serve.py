"""Serving: one clear line for what prevents it, and a stop that waits for nobody."""

import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest
from fix_web import connected

from kirby.core.errors import Busy, Invalid, Unavailable, WrongSchema
from kirby.server.settings import Settings
from kirby.server.web.serve import address, listen, serve

PROGRAM = """
import os
from kirby.server.settings import Settings
from kirby.server.web.serve import serve
serve(Settings.from_env(os.environ), lambda url: print(url, flush=True))
"""


def test_a_busy_port_is_one_clear_line(server_dsn):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(Busy, match=f"^port {port} is in use: choose another with --port$"):
            serve(Settings(dsn=server_dsn, port=port))


def test_an_address_that_is_not_ours_is_one_clear_line():
    with pytest.raises(Invalid, match=r"cannot listen on 192.0.2.1 port 0"):
        listen("192.0.2.1", 0)
    with pytest.raises(Invalid, match=r"cannot listen on no.such.host.test port 0"):
        listen("no.such.host.test", 0)


def test_without_a_dsn_there_is_nothing_to_serve():
    with pytest.raises(Invalid, match="set KIRBY_DSN, or run 'kirby dev'"):
        serve(Settings())


def test_a_database_that_does_not_answer_is_said_before_anything_starts():
    with pytest.raises(Unavailable, match=r"no database at 127.0.0.1:1/x"):
        serve(Settings(dsn="host=127.0.0.1 port=1 dbname=x", port=0))


def test_an_old_schema_is_said_before_anything_starts(server_dsn, dsn):
    with connected(dsn) as conn:
        conn.execute("drop table kirby.alembic_version")

    with pytest.raises(WrongSchema, match="run 'kirby db migrate'"):
        serve(Settings(dsn=server_dsn, port=0))


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("kirby", "kirby")]
)
def test_the_address_is_one_that_a_browser_can_open(host, shown):
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(host, listener) == f"http://{shown}:{port}"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_well_and_it_prints_one_line(server_dsn, stop):
    environ = os.environ | {"KIRBY_DSN": server_dsn, "KIRBY_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        url = process.stdout.readline().strip()
        assert httpx2.get(f"{url}/readyz").text == "ok\n"

        process.send_signal(stop)

        assert process.wait(5) == 0
        assert process.stdout.read() == ""

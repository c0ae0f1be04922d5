"""A watcher outside hears of Kirby while it does its duties, and no longer."""

import http.server
import logging
import threading

import pytest
from fix_runs import runs_fixture, supervise_fixture  # noqa: F401

from kirby.core.errors import Invalid
from kirby.server.settings import Settings
from kirby.server.supervisor.pinger import Pinger


class Watcher:
    """A service like Healthchecks: it counts who asked for what, and answers with `status`."""

    def __init__(self):
        self.asked, self.status = [], 200
        watcher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                watcher.asked.append(self.path)
                self.send_response(watcher.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"OK")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ping/secret?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def watcher():
    watcher = Watcher()
    yield watcher
    watcher.close()


def test_it_asks_again_and_again_while_all_is_well(watcher, until):
    well = threading.Event()
    pinger = Pinger(watcher.url, well.is_set, every=0.02)
    pinger.start()
    try:
        assert watcher.asked == []
        well.set()
        until(lambda: len(watcher.asked) >= 3)
        assert set(watcher.asked) == {"/ping/secret?x=1"}
    finally:
        pinger.stop(5)


def test_a_watcher_that_refuses_is_named_once_without_the_secret(watcher, caplog):
    caplog.set_level(logging.INFO, "kirby.supervisor")
    pinger = Pinger(watcher.url, lambda: True)
    watcher.status = 503
    assert not pinger.ping()
    assert not pinger.ping()
    watcher.status = 200
    assert pinger.ping()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "127.0.0.1 does not take pings: HTTP Error 503" in caplog.text
    assert "secret" not in caplog.text


def test_a_watcher_that_is_not_there_disturbs_nobody(watcher):
    watcher.close()
    assert not Pinger(watcher.url, lambda: True).ping()
    assert not Pinger("http://127.0.0.1:1/", lambda: True).ping()


def test_a_supervisor_that_leads_pings(supervise, watcher, until):
    supervisor = supervise(ping_url=watcher.url)
    until(lambda: supervisor.tick() or watcher.asked)
    assert watcher.asked == ["/ping/secret?x=1"]


def test_a_leader_whose_duties_fail_is_not_well(runs, supervise, until):
    supervisor = supervise()
    leader = supervisor._leader
    until(lambda: supervisor.tick() or leader.is_well())

    runs.conn.execute("drop function kirby.announce_incidents()")
    leader._well_at = -1000.0
    assert leader.tick()
    assert not leader.is_well()


@pytest.mark.parametrize("url", ["ftp://host/x", "host/x", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(Invalid, match="KIRBY_PING_URL must be an address"):
        Settings.from_env({"KIRBY_PING_URL": url})


def test_no_address_no_pings():
    assert Settings.from_env({}).ping_url is None
    url = "https://hc-ping.com/1234?create=1"
    assert Settings.from_env({"KIRBY_PING_URL": url}).ping_url == url

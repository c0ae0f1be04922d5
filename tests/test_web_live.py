"""Live streams: lines arrive as they are written, and a reader that comes back misses none."""

import contextlib
import http.client
import re
import time
from urllib.parse import urlsplit

import pytest
from fix_web import connected, deploy, record, say, start

from kirby.server.web import live


class Stream:
    """A reader of server-sent events, as a browser reads them."""

    def __init__(self, url, path, secret, **headers):
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        self.connection.request(
            "GET", path, headers={"Cookie": f"kirby_session={secret}", **headers}
        )
        self.response = self.connection.getresponse()
        self.last = None

    def line(self):
        return self.response.readline().decode().rstrip("\n")

    def event(self):
        """The next event: its name and its data. None at the end of the stream."""
        name, data = None, []
        while True:
            raw = self.response.readline()
            if not raw:
                return None
            field, _, value = raw.decode().rstrip("\n").partition(": ")
            if field == "" and name:
                return name, "\n".join(data)
            if field == "id":
                self.last = value
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)

    def texts(self, count):
        """The texts of the next lines, as many as asked for."""
        found = []
        while len(found) < count:
            name, data = self.event()
            if name == "lines":
                found += re.findall(r'<span class="text">(.*?)</span></div>', data, re.DOTALL)
        return found

    def close(self):
        self.response.close()
        self.connection.close()


@pytest.fixture
def follow(served, people):
    """`follow(run, after=0, **headers)`: a stream of that run."""
    secret = people("viewer")
    with contextlib.ExitStack() as stack:

        def open_stream(run, after=0, **headers):
            stream = Stream(served.url, f"/runs/{run}/live?after={after}", secret, **headers)
            stack.callback(stream.close)
            return stream

        yield open_stream


@pytest.fixture
def run(dsn):
    with connected(dsn) as conn:
        return start(conn, deploy(conn, "hello"))


def test_lines_arrive_as_they_are_written(follow, run, dsn):
    with connected(dsn) as conn:
        say(conn, run, "before")
        stream = follow(run)
        assert stream.texts(1) == ["before"]

        say(conn, run, "one", "two\nthree")
        assert stream.texts(2) == ["one", "two\nthree"]


def test_a_notification_is_answered_faster_than_a_poll(follow, run, dsn, monkeypatch):
    monkeypatch.setattr(live, "POLL", 30)
    with connected(dsn) as conn:
        say(conn, run, "first")
        stream = follow(run)
        stream.texts(1)

        began = time.monotonic()
        say(conn, run, "second")
        assert stream.texts(1) == ["second"]

    assert time.monotonic() - began < 5


def test_lines_arrive_without_any_notification_too(follow, run, dsn):
    stream = follow(run)
    with connected(dsn) as conn:
        conn.execute(
            "insert into kirby.log_line select nextval('kirby.position'), %s, 'stdout', 'info',"
            " 'silent', now()",
            [run],
        )

    assert stream.texts(1) == ["silent"]


def test_a_reader_that_comes_back_goes_on_where_it_was(follow, run, dsn):
    with connected(dsn) as conn:
        say(conn, run, "one", "two")
        stream = follow(run)
        assert stream.texts(2) == ["one", "two"]
        stream.close()
        say(conn, run, "three")

        again = follow(run, **{"Last-Event-ID": stream.last})

        assert again.texts(1) == ["three"]


def test_the_page_says_where_its_stream_begins(follow, run, dsn, admin):
    with connected(dsn) as conn:
        say(conn, run, "on the page")
        after = re.search(r'data-after="(\d+)"', admin.get(f"/runs/{run}").text).group(1)
        say(conn, run, "on the stream")

    assert follow(run, after=after).texts(1) == ["on the stream"]


def test_many_lines_arrive_in_order_and_once(follow, run, dsn):
    texts = [f"line {n}" for n in range(2 * live.BATCH + 7)]
    with connected(dsn) as conn:
        say(conn, run, *texts)

    assert follow(run).texts(len(texts)) == texts


def test_what_a_script_prints_is_text_and_ends_no_event(follow, run, dsn):
    with connected(dsn) as conn:
        say(conn, run, "<script>alert(1)</script>", "a\n\nevent: end\ndata: x\r\nb")

    assert follow(run).texts(2) == [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "a\n\nevent: end\ndata: x\nb",
    ]


def test_a_stream_tells_the_status_and_ends_with_the_run(follow, run, dsn):
    stream = follow(run)
    with connected(dsn) as conn:
        say(conn, run, "last words")
        record(conn, run, "run_succeeded")

    events = []
    while (event := stream.event()) is not None:
        events.append(event)

    assert [name for name, _ in events if name != "lines"] == ["status", "end"]
    assert events[-1] == ("end", "succeeded")
    assert any("last words" in data for name, data in events if name == "lines")


def test_a_request_to_cancel_is_news(follow, run, dsn):
    stream = follow(run)
    with connected(dsn) as conn:
        conn.execute("select kirby.cancel_run(%s, 'enough', 'test')", [run])

    assert stream.event() == ("status", "running!")


def test_a_stream_of_a_run_that_ended_long_ago_ends_at_once(follow, run, dsn):
    with connected(dsn) as conn:
        say(conn, run, "all of it")
        record(conn, run, "run_succeeded")
        conn.execute("update kirby.run set ended_at = now() - interval '1 hour'")
    stream = follow(run)

    assert stream.texts(1) == ["all of it"]
    assert stream.event() == ("end", "succeeded")
    assert stream.event() is None


def test_a_silent_stream_shows_that_it_is_alive(follow, run, monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT", 0.2)
    stream = follow(run)

    while not (line := stream.line()).startswith(":"):
        assert line in ("", "retry: 1000")


def test_the_stream_goes_on_when_the_listener_was_cut_off(follow, run, dsn, until):
    stream = follow(run)
    with connected(dsn) as conn:
        listeners = (
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'kirby web live' and datname = current_database()"
        )
        until(lambda: conn.execute(listeners).fetchone()[0] == 1)
        say(conn, run, "still there")

    assert stream.texts(1) == ["still there"]


def test_a_run_that_does_not_exist_has_no_stream(follow):
    assert follow(999).response.status == 404


def test_a_bad_position_is_refused(follow, run):
    assert follow(run, after="x").response.status == 400


def test_open_streams_do_not_keep_the_server_from_stopping(follow, run, served):
    stream = follow(run)
    stream.line()

    assert served.stop() < 3
    while stream.event() is not None:
        pass

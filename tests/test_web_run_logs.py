"""The log of a run on its page, as a file and for programs: whole, or what is looked for."""

import contextlib
import http.client
import json
import re
import threading
from urllib.parse import urlsplit

import psycopg
import pytest
from fix_web import connected, deploy, record, say, start
from test_web_live import Stream

from kirby.core.errors import Invalid
from kirby.server import database, run_logs, tokens
from kirby.server.web import live


@pytest.fixture
def conn(dsn):
    with connected(dsn) as conn:
        yield conn


@pytest.fixture
def run(conn):
    """A run that goes on and has said a few things."""
    run = start(conn, deploy(conn, "hello"))
    say(conn, run, "begin", "Reading <orders>")
    say(conn, run, "WARNING slow", stream="stderr", level="warning")
    say(conn, run, "ERROR no such order", stream="stderr", level="error")
    say(conn, run, "3 lines dropped", stream="kirby", level="warning")
    say(conn, run, "end")
    return run


def shown(response):
    """The texts of the lines on a page."""
    assert response.status_code == 200, response.text
    return re.findall(r'<span class="text">(.*?)</span></div>', response.text, re.DOTALL)


# On the page


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("", 6),
        ("q=ORDER", ["Reading &lt;orders&gt;", "ERROR no such order"]),
        ("q=%3Corders%3E", ["Reading &lt;orders&gt;"]),
        ("q=%25", []),
        ("stream=stderr", ["WARNING slow", "ERROR no such order"]),
        ("level=error", ["ERROR no such order"]),
        ("level=warning&stream=kirby", ["3 lines dropped"]),
        ("level=warning&q=order", ["ERROR no such order"]),
        ("q=++", 6),
    ],
)
def test_a_page_shows_the_lines_that_are_looked_for(viewer, run, query, texts):
    found = shown(viewer.get(f"/runs/{run}?{query}"))

    assert (len(found) if isinstance(texts, int) else found) == texts


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("stream=stdin", "stdin is not a stream of a log: stdout, stderr, kirby"),
        ("level=loud", "loud is not a level of a line"),
    ],
)
@pytest.mark.parametrize("address", ["/runs/{}", "/runs/{}/log.txt", "/runs/{}/live"])
def test_what_cannot_be_looked_for_is_refused(viewer, run, address, query, complaint):
    response = viewer.get(f"{address.format(run)}?{query}")

    assert response.status_code == 400
    assert complaint in response.text.lower()


def test_what_is_looked_for_stays_in_every_link_of_the_log(viewer, run, conn):
    say(conn, run, *(f"needle & {n}" for n in range(700)))

    text = viewer.get(f"/runs/{run}?q=needle+%26&stream=stdout").text

    for address in ("log.txt?", "log.jsonl?", "live?"):
        assert f"/runs/{run}/{address}stream=stdout&amp;q=needle+%26" in text
    earlier = re.search(r'href="(/runs/\d+\?before=[^"]*)"', text).group(1).replace("&amp;", "&")
    assert shown(viewer.get(earlier))[-1] == "needle &amp; 199"
    assert 'value="needle &amp;"' in text


def test_a_page_of_long_lines_is_cut(viewer, run, conn, monkeypatch):
    monkeypatch.setattr(run_logs, "MOST_BYTES", 10_000)
    say(conn, run, *(f"{n} " + "x" * 1000 for n in range(100)))

    found = shown(viewer.get(f"/runs/{run}"))

    assert 5 < len(found) < 12
    assert found[-1].startswith("99 ")


def test_a_search_that_takes_too_long_says_so(engine, run, conn):
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as blocker:
        blocker.execute("lock table kirby.log_line in access exclusive mode")
        with database.unit(engine) as reader:
            reader.exec_driver_sql("set local statement_timeout = '50ms'")
            with pytest.raises(Invalid, match="too long to be searched as a whole"):
                run_logs.tail(reader, run, choice=run_logs.Choice.of(text="x"))


def test_what_is_read_at_once_is_bounded_in_bytes_but_never_nothing(engine, run, conn, monkeypatch):
    monkeypatch.setattr(run_logs, "MOST_BYTES", 1000)
    say(conn, run, *("x" * 100 for _ in range(50)), "y" * 5000)

    with database.unit(engine) as reader:
        first = run_logs.after(reader, run)
        last = run_logs.tail(reader, run)

    assert 10 < len(first) < 18
    assert [line.text[0] for line in last] == ["y"]


# As a file


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_download_has_all_lines_however_they_are_read(viewer, run, conn, monkeypatch, size):
    monkeypatch.setattr(run_logs, "MOST", size)
    monkeypatch.setattr(run_logs, "MOST_BYTES", 30)
    say(conn, run, *(f"more {n}" for n in range(30)))

    text = viewer.get(f"/runs/{run}/log.txt").text

    assert len(text.splitlines()) == 36
    assert text.splitlines()[3].endswith(" stderr ERROR no such order")
    assert text.endswith(" stdout more 29\n")


def test_a_download_of_json_lines(viewer, run):
    response = viewer.get(f"/runs/{run}/log.jsonl")

    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.headers["content-type"] == "application/jsonl"
    assert response.headers["content-disposition"] == f'attachment; filename="hello-{run}.jsonl"'
    assert [line["text"] for line in lines][:2] == ["begin", "Reading <orders>"]
    assert lines[3] == {
        "position": lines[3]["position"], "at": "2026-01-01T00:00:00+00:00", "stream": "stderr",
        "level": "error", "text": "ERROR no such order",
    }  # fmt: skip
    rest = viewer.get(f"/runs/{run}/log.jsonl?after={lines[3]['position']}&stream=stdout").text
    assert [json.loads(line)["text"] for line in rest.splitlines()] == ["end"]


def test_a_download_ends_though_the_run_goes_on(viewer, run, conn, monkeypatch):
    """It is the log as it was when it was asked for."""
    monkeypatch.setattr(run_logs, "MOST", 1)
    after = run_logs.after

    def and_one_more(*given, **more):
        say(conn, run, "and one more")
        return after(*given, **more)

    monkeypatch.setattr(run_logs, "after", and_one_more)

    assert viewer.get(f"/runs/{run}/log.txt").text.endswith(" stdout end\n")


def test_a_log_that_is_not_there(viewer):
    assert viewer.get("/runs/999/log.jsonl").status_code == 404


# For programs


@pytest.fixture
def program(engine, client):
    """`program(environment=None)`: an HTTP client with a token."""

    def make(environment=None):
        with database.unit(engine) as conn:
            secret = tokens.add(
                conn, f"ci-{environment}", role="viewer", environment=environment, actor="test"
            ).token
        made = client()
        made.headers["authorization"] = f"Bearer {secret}"
        return made

    return make


def test_a_program_reads_json_lines_or_text(program, run):
    ci = program()

    lines = [json.loads(each) for each in ci.get(f"/api/v1/runs/{run}/log").text.splitlines()]
    text = ci.get(f"/api/v1/runs/{run}/log?format=text&level=error").text

    assert [line["text"] for line in lines][-1] == "end"
    assert text.splitlines()[0].endswith("ERROR no such order")


def test_a_program_that_asks_for_what_is_not_gets_one_line(program, run):
    ci = program("prod")

    for address, status, complaint in (
        (f"/api/v1/runs/{run}/log", 403, "is for the environment prod, not for dev"),
        ("/api/v1/runs/999/log", 404, "there is no run 999"),
    ):
        response = ci.get(address)
        assert response.status_code == status
        assert complaint in response.json()["error"]
    response = program().get(f"/api/v1/runs/{run}/log?format=xml")
    assert (response.status_code, response.json()) == (
        400, {"error": "xml is not a form of a log: text, jsonl"},
    )  # fmt: skip


def test_a_program_follows_a_run_to_its_end(served, people, run, conn):
    address = f"/api/v1/runs/{run}/log?follow=1&format=text&after=0"
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", address, headers={"Cookie": f"kirby_session={people('viewer')}"})
        response = connection.getresponse()
        assert response.readline().endswith(b" stdout begin\n")
        say(conn, run, "later")
        while not (line := response.readline()).endswith(b" stdout later\n"):
            assert line
        say(conn, run, "last")
        record(conn, run, "run_succeeded")

        assert response.read().endswith(b" stdout last\n")


# Live


@pytest.fixture
def follow(served, people):
    secret = people("viewer")
    with contextlib.ExitStack() as stack:

        def open_stream(run, query, **headers):
            stream = Stream(served.url, f"/runs/{run}/live?{query}", secret, **headers)
            stack.callback(stream.close)
            return stream

        yield open_stream


def test_a_stream_has_the_lines_that_are_looked_for_and_goes_on_behind_all(follow, run, conn):
    stream = follow(run, "q=order")
    assert stream.texts(2) == ["Reading &lt;orders&gt;", "ERROR no such order"]

    say(conn, run, "nothing", "order 5", "nothing")
    assert stream.texts(1) == ["order 5"]
    say(conn, run, "order 6")
    assert stream.texts(1) == ["order 6"]
    stream.close()
    say(conn, run, "order 7")

    assert follow(run, "q=order", **{"Last-Event-ID": stream.last}).texts(1) == ["order 7"]


def test_a_stream_that_is_far_behind_leaves_out_what_nobody_could_read(
    follow, run, conn, monkeypatch
):
    monkeypatch.setattr(live, "BEHIND", 10)
    stream = follow(run, "after=0")
    stream.texts(6)
    say(conn, run, *(f"line {n}" for n in range(50)))

    name, data = stream.event()

    assert name == "lines"
    assert "Lines were left out here" in data
    assert re.findall(r"line (\d+)<", data) == [str(n) for n in range(40, 50)]


def test_a_hundred_readers_cost_no_thread_each(follow, run):
    before = threading.active_count()
    streams = [follow(run, "after=0") for _ in range(60)]

    assert all(stream.texts(1) for stream in streams)
    assert threading.active_count() < before + 45

"""kirby pull: from a database or a web, into a folder or an environment; broken off and gone on."""

import hashlib
import http.server
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from fix_kirby import KIRBY, environ
from fix_pull import far_fixture, far_web_fixture, lines, no_pause_fixture  # noqa: F401
from fix_web import connected, scalar

from kirby.core.errors import Unavailable
from kirby.server import exports


def manifest(folder="case"):
    return json.loads((Path(folder) / "manifest.json").read_text())


@pytest.fixture(params=["dsn", "url"])
def source(request, far):
    """`source()`: what --from and --token are, by either way."""

    def ask(**token):
        if request.param == "dsn":
            return ["--from", far.login]
        web = request.getfixturevalue("far_web")
        return ["--from", web.url, "--token", far.token(**token)]

    ask.kind = request.param
    return ask


# Into a folder


def test_messages_and_states_come_into_a_folder(kirby, far, source):
    far.set("totals", A=1)
    far.fill("orders", 5_000)
    far.publish("other", {"a": 1}, "X")
    far.set("totals", A=2)
    far.ask(
        "insert into kirby.mask (topic_id, rules) select id, %s from kirby.topic where name = %s",
        json.dumps({"in": {"value": {"in": {"who": {"rule": "hash"}}}}}),
        "orders",
    )
    first = far.value("select min(position) from kirby.message")

    done = kirby(
        "pull", *source(), "--topic", "orders", "--topic", "other", "--states", "--after",
        first - 1, "--to", "folder:case",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert done.err == ""
    assert done.out.startswith("pulled 5,000 messages of orders from dev\n")
    assert f"pulled 1 keys of state totals as of position {first - 1}\n" in done.out
    assert "(masked: orders; as they are: other)" in done.out
    messages = lines(Path("case/in/orders.jsonl"))
    there = far.ask(
        "select m.position, m.key, (m.payload ->> 'n')::int from kirby.message m"
        " join kirby.topic t on t.id = topic_id where t.name = 'orders' order by position"
    )
    assert [(m["position"], m["key"], m["value"]["n"]) for m in messages] == there
    assert set(messages[0]) == {"position", "key", "value", "headers", "recorded_at"}
    assert len({m["value"]["who"] for m in messages}) == 5_000
    assert "Anna" not in Path("case/in/orders.jsonl").read_text()
    assert lines(Path("case/state/totals.jsonl")) == [{"key": "A", "value": 1}]


def test_the_manifest_says_what_it_is(kirby, far, source):
    far.fill("orders", 70)

    kirby(
        "pull", *source(), "--topic", "orders", "--key", "K1", "--limit", 3, "--to", "folder:case"
    )

    found = manifest()
    messages = lines(Path("case/in/orders.jsonl"))
    content = Path("case/in/orders.jsonl").read_bytes()
    assert found["complete"] is True
    assert found["origin"] == {
        "installation": far.value("select id::text from kirby.installation"),
        "environment": "dev",
        "by": messages[0]["headers"]["origin"]["by"],
        "exported": messages[0]["headers"]["origin"]["exported"],
        "at": 0,
        "export": 1,
    }
    assert found["filters"] == {"keys": ["K1"], "limit": 3}
    assert found["masks"] == {}
    assert found["topics"] == {
        "orders": {
            "file": "in/orders.jsonl",
            "lines": 3,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "first": messages[0]["position"],
            "last": messages[2]["position"],
        }
    }
    assert "plan" not in found
    assert "token" not in json.dumps(found["asked"])
    assert far.audits("export_ended") == [{"sent": {"orders": 3}}]


def test_what_came_since_some_time_ago(kirby, far, source):
    far.fill("orders", 10)

    assert (
        kirby("pull", *source(), "--topic", "orders", "--since", "1h", "--to", "folder:new").code
        == 0
    )
    empty = ["--until", "1h", "--to", "folder:old"]
    assert kirby("pull", *source(name="b"), "--topic", "orders", *empty).code == 0

    assert len(lines(Path("new/in/orders.jsonl"))) == 10
    assert lines(Path("old/in/orders.jsonl")) == []


def test_a_whole_slice_is_not_written_over(kirby, far, source):
    far.fill("orders", 10)
    command = ["pull", *source(), "--topic", "orders", "--to", "folder:case"]
    kirby(*command)
    before = Path("case/in/orders.jsonl").read_bytes()

    again = kirby(*command)
    other = kirby(*command, "--limit", 5)

    assert again.err == (
        "kirby: case holds a whole slice already: name another folder, or remove it\n"
    )
    assert other.code == 1
    assert Path("case/in/orders.jsonl").read_bytes() == before


def test_files_of_somebody_else_are_left_alone(kirby, far, source):
    far.fill("orders", 10)
    Path("case/in").mkdir(parents=True)
    Path("case/in/mine.jsonl").write_text("{}\n")

    done = kirby("pull", *source(), "--topic", "orders", "--to", "folder:case")

    assert done.err == "kirby: case/in has files of something else: name an empty folder\n"
    assert os.listdir("case/in") == ["mine.jsonl"]


# Broken off


def cut(folder, keep):
    """As a kill leaves it: a file that ends within a line, no checksums."""
    path = Path(folder, "in/orders.jsonl")
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:keep]) + content[keep][:20])


@pytest.mark.parametrize("keep", [0, 1, 2_500])
def test_it_goes_on_after_the_last_whole_line(kirby, far, source, monkeypatch, keep):
    far.fill("orders", 5_000)
    rules = json.dumps(
        {"in": {"key": {"rule": "hash"}, "value": {"in": {"who": {"rule": "fake"}}}}}
    )
    far.ask("insert into kirby.mask (topic_id, rules) select id, %s from kirby.topic", rules)
    command = ["pull", *source(), "--topic", "orders", "--to", "folder:case"]
    with monkeypatch.context() as patch:
        patch.setattr("kirby.server.slices.Slice.finish", broken)
        assert kirby(*command).code == 1
    whole = Path("case/in/orders.jsonl").read_bytes()
    assert manifest()["complete"] is False
    cut("case", keep)

    done = kirby(*command)

    assert done.code == 0, done.err
    assert Path("case/in/orders.jsonl").read_bytes() == whole  # the same hashes and fakes, too
    assert manifest()["topics"]["orders"]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert manifest()["topics"]["orders"]["lines"] == 5_000
    assert len(far.audits("export_begun")) == 1
    if keep:
        assert f"{keep:,} were there from before" in done.out


def broken(*_):
    raise Unavailable("the connection broke off")


def test_a_part_of_another_slice_is_not_mixed_with_this_one(kirby, far, source, monkeypatch):
    far.fill("orders", 100)
    command = ["pull", *source(), "--topic", "orders", "--to", "folder:case"]
    with monkeypatch.context() as patch:
        patch.setattr("kirby.server.slices.Slice.finish", broken)
        kirby(*command)

    done = kirby(*command, "--key", "K1")

    assert done.err.startswith("kirby: case holds a part of another slice: repeat that command")


def test_it_does_not_go_on_when_the_masks_have_changed(kirby, far, source, monkeypatch):
    far.fill("orders", 100)
    command = ["pull", *source(), "--topic", "orders", "--to", "folder:case"]
    with monkeypatch.context() as patch:
        patch.setattr("kirby.server.slices.Slice.finish", broken)
        kirby(*command)
    far.ask("insert into kirby.mask (topic_id, deny) select id, true from kirby.topic")

    done = kirby(*command)

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "the masks of orders have changed since export 1 began" in done.err
    assert "remove case, and pull again" in done.err


@pytest.mark.parametrize("way", ["dsn", "url"])
def test_a_killed_pull_goes_on(far, far_web, until, tmp_path, way):
    far.fill("orders", 50_000)
    file = tmp_path / "case/in/orders.jsonl"
    given = (
        ["--from", far.login] if way == "dsn" else ["--from", far_web.url, "--token", far.token()]
    )
    command = [*KIRBY, "pull", *given, "--topic", "orders", "--to", "folder:case"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environ(), stderr=subprocess.PIPE)
    until(lambda: file.exists() and file.stat().st_size > 2_000_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = file.read_bytes()
    assert left.count(b"\n") < 50_000

    done = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    there = left.count(b"\n")
    assert f"{there:,} were there" in done.stdout
    found = [message["value"]["n"] for message in lines(file)]
    assert found == list(range(50_000))
    known = manifest(tmp_path / "case")["topics"]["orders"]
    assert known["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_memory_does_not_grow_with_what_is_pulled(far, far_web, tmp_path):
    """Ten times as many messages take no more than a few megabytes more."""
    far.fill("few", 10_000)
    far.fill("many", 100_000)
    token = far.token()
    used = {}
    for topic in ("few", "many"):
        program = (
            "import resource, sys; from kirby.server import cli\n"
            "try: cli.main()\n"
            "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        arguments = ["pull", "--from", far_web.url, "--token", token, "--topic", topic]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, "--to", f"folder:{topic}"],
            cwd=tmp_path, env=environ(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        used[topic] = int(done.stderr.split()[-1])
    assert used["many"] - used["few"] < 15_000  # KB


def flaky(function, fails):
    """The function, but some of its calls fail: those whose number is in ``fails``."""
    calls = iter(range(1_000_000))

    def ask(*arguments, **named):
        if next(calls) in fails:
            raise Unavailable("the database went away")
        return function(*arguments, **named)

    return ask


@pytest.mark.parametrize("target", ["folder:case", "preprod"])
def test_a_connection_that_breaks_off_is_made_again(
    kirby, far, source, no_pause, monkeypatch, target, dsn
):
    far.set("totals", A=1, B=2)
    far.fill("orders", 20_000)
    page, entries = exports.page, exports.entries
    monkeypatch.setattr(exports, "page", flaky(page, {0, 2, 3, 5}))
    monkeypatch.setattr(exports, "entries", flaky(entries, {0}))

    done = kirby("pull", *source(), "--topic", "orders", "--to", target)

    assert done.code == 0, done.err
    if target == "preprod":
        with connected(dsn) as conn:
            rows = conn.execute("select payload -> 'n' from kirby.message order by position")
            found = [n for (n,) in rows.fetchall()]
    else:
        found = [m["value"]["n"] for m in lines(Path("case/in/orders.jsonl"))]
    assert found == list(range(20_000))


def test_it_gives_up_in_one_line_and_goes_on_later(kirby, far, source, no_pause, monkeypatch):
    far.fill("orders", 20_000)
    command = ["pull", *source(), "--topic", "orders", "--to", "folder:case"]
    with monkeypatch.context() as patch:
        patch.setattr(exports, "page", flaky(exports.page, range(3, 1000)))
        failed = kirby(*command)
    partly = len(lines(Path("case/in/orders.jsonl")))

    done = kirby(*command)

    assert (failed.code, failed.err.count("\n")) == (1, 1)
    assert 0 < partly < 20_000
    assert done.code == 0, done.err
    assert [m["value"]["n"] for m in lines(Path("case/in/orders.jsonl"))] == list(range(20_000))


def test_a_full_disk_is_one_line_and_it_goes_on_later(far, tmp_path):
    far.fill("orders", 20_000)
    command = [
        *KIRBY, "pull", "--from", far.login, "--topic", "orders", "--to", "folder:case",
    ]  # fmt: skip

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    full = subprocess.run(
        command, cwd=tmp_path, env=environ(), capture_output=True, text=True, preexec_fn=small
    )
    done = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True)

    assert full.returncode == 1
    assert full.stderr == (
        "kirby: case/in/orders.jsonl cannot be written: File too large"
        " (what is there is kept: the same command goes on)\n"
    )
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "case/in/orders.jsonl")
    assert [m["value"]["n"] for m in found] == list(range(20_000))


# Into an environment


def rows(dsn, topic="orders"):
    with connected(dsn) as conn:
        return conn.execute(
            "select e.name, m.key, m.payload, m.headers from kirby.message m"
            " join kirby.topic t on t.id = m.topic_id join kirby.environment e"
            " on e.id = t.environment_id where t.name = %s order by m.position",
            [topic],
        ).fetchall()


def test_messages_and_states_come_into_an_environment_once(kirby, far, source, dsn):
    far.environment("prod")
    far.set("totals", A={"n": 1}, B=2)
    far.publish("orders", {"n": 1}, "A", {"h": 1})
    far.fill("orders", 2_500)
    there = far.ask("select key, payload from kirby.message order by position")
    first = far.value("select min(position) from kirby.message")
    command = [
        "pull", *source(environment="prod"), "--env", "prod", "--topic", "orders", "--state",
        "totals", "--after", first - 1, "--to", "preprod",
    ]  # fmt: skip

    done, again = kirby(*command), kirby(*command)

    assert done.code == 0, done.err
    assert "pulled 2,501 messages of orders from prod\n" in done.out
    assert "2,501 of orders were here already\n2 of totals were here already\n" in again.out
    found = rows(dsn)
    assert [(key, payload) for _, key, payload, _ in found] == there
    assert {name for name, *_ in found} == {"preprod"}
    assert found[0][3]["h"] == 1
    assert found[0][3]["origin"]["environment"] == "prod"
    with connected(dsn) as conn:
        state = conn.execute("select key, version, value from kirby.state_entry").fetchall()
        [(headers, *_)] = conn.execute(
            "select headers -> 'origin' from kirby.state_mutation limit 1"
        ).fetchall()
        audits = conn.execute(
            "select object, (after ->> 'new')::int from kirby.audit_event"
            " where verb = 'imported' order by position"
        ).fetchall()
    assert sorted(state) == [("A", 1, {"n": 1}), ("B", 1, 2)]
    assert headers["environment"] == "prod"
    assert audits == [
        ("topic/preprod/orders", 2_501),
        ("state/preprod/totals", 2),
        ("topic/preprod/orders", 0),
        ("state/preprod/totals", 0),
    ]


def test_an_environment_goes_on_after_the_last_page(kirby, far, source, dsn, no_pause, monkeypatch):
    far.fill("orders", 20_000)
    command = ["pull", *source(), "--topic", "orders", "--to", "preprod"]
    with monkeypatch.context() as patch:
        patch.setattr(exports, "page", flaky(exports.page, range(2, 1000)))
        assert kirby(*command).code == 1
    partly = len(rows(dsn))

    done = kirby(*command)

    assert 0 < partly < 20_000
    assert f"{partly:,} were there from before" in done.out
    assert [payload["n"] for _, _, payload, _ in rows(dsn)] == list(range(20_000))
    assert far.audits("export_ended")[-1]["sent"]["orders"] < 20_000 + 10_000  # not all twice


def test_a_slice_goes_from_a_folder_into_an_environment_once(kirby, far, source, dsn):
    far.set("totals", A=1)
    far.fill("orders", 3_000)
    first = far.value("select min(position) from kirby.message")
    kirby(
        "pull", *source(), "--topic", "orders", "--state", "totals", "--after", first - 1,
        "--to", "folder:case",
    )  # fmt: skip

    done = kirby("topic", "import", "case", "--env", "preprod")
    again = kirby("topic", "import", "case", "--env", "preprod")

    assert done.out == "imported 3,000 of orders\nimported 1 of state totals\n"
    assert again.out == (
        "imported 0 of orders; 3,000 were here already\n"
        "imported 0 of state totals; 1 were here already\n"
    )
    assert [payload["n"] for _, _, payload, _ in rows(dsn)] == list(range(3_000))


def test_a_folder_that_was_changed_or_is_not_whole_is_not_imported(kirby, far, source, dsn):
    far.fill("orders", 3)
    kirby("pull", *source(), "--topic", "orders", "--to", "folder:case")
    path = Path("case/in/orders.jsonl")
    path.write_text(path.read_text().replace("Anna-1", "Otto-1"))

    refused = kirby("topic", "import", "case")
    assert rows(dsn) == []
    forced = kirby("topic", "import", "case", "--changed")
    Path("case/manifest.json").write_text(
        Path("case/manifest.json").read_text().replace('"complete": true', '"complete": false')
    )

    assert refused.err.startswith("kirby: case/in/orders.jsonl is not as it was exported")
    assert forced.out == "imported 3 of orders\n"
    assert kirby("topic", "import", "case").err.startswith("kirby: case is not whole")


# Never back


def test_nothing_comes_back_to_where_it_was_exported(kirby, far, source, dsn, monkeypatch):
    far.environment("prod")
    far.set("totals", A=1)
    far.publish("orders", {"n": 1}, "A")
    command = ["--env", "prod", "--topic", "orders", "--states"]
    given = source(environment="prod")
    kirby("pull", *given, *command, "--to", "folder:case")
    kirby("pull", *given, *command, "--to", "preprod")
    monkeypatch.setenv("KIRBY_DSN", far.login)

    by_pull = kirby("pull", *given, *command, "--to", "prod")
    by_folder = kirby("topic", "import", "case", "--env", "prod")
    by_file = kirby("topic", "import", "case/in/orders.jsonl", "--env", "prod")
    by_way_of = kirby(
        "pull", "--from", dsn, "--env", "preprod", "--topic", "orders", "--to", "prod"
    )

    for done in (by_pull, by_folder, by_file, by_way_of):
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "exported from prod of this installation does not come back" in done.err
    assert far.value("select count(*) from kirby.message") == 1
    assert kirby("topic", "import", "case", "--env", "preprod").code == 0  # another one takes it


# What is wrong


def wrong(kirby, *arguments):
    done = kirby("pull", *arguments)
    assert done.code == 1
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    return done.err


def test_a_topic_that_is_not_there(kirby, far, source):
    far.publish("orders", 1)
    given = source()

    said = wrong(kirby, *given, "--topic", "orderz", "--to", "folder:case")
    assert "there is no topic orderz in dev" in said
    assert not Path("case").exists()
    said = wrong(kirby, *given, "--topic", "orders", "--env", "moon", "--to", "folder:case")
    assert "moon" in said


@pytest.mark.parametrize("token", ["kirby_wrong", "viewer", "with space", "é"])
def test_a_token_that_may_not(kirby, far, far_web, token, as_role):
    far.publish("orders", 1)
    given = far.token("viewer") if token == "viewer" else token
    worker = as_role(far.dsn, "kirby_worker")

    for address in (far_web.url, worker):
        said = wrong(
            kirby, "--from", address, "--token", given, "--topic", "orders", "--to", "folder:case"
        )
        assert "token" in said or "viewer" in said
    assert not Path("case").exists()


def test_a_token_of_a_file(kirby, far, far_web):
    far.publish("orders", 1)
    Path("secret").write_text(far.token() + "\n")
    given = ["--from", far_web.url, "--topic", "orders", "--to", "folder:case"]

    assert "cannot be read" in wrong(kirby, *given, "--token", "@nowhere")
    assert kirby("pull", *given, "--token", "@secret").code == 0


@contextmanager
def answering(status, body, **headers):
    """A server that answers everything alike; what it was sent."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(dict(self.headers))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b'{"error": "there is nothing at /api/v1/exports"}', "is an older Kirby"),
        (404, b"<html>", "is no Kirby"),
        (200, b"<html>", "is no Kirby"),
        (200, b"[]", "is no Kirby"),
        (200, b"{}", "is no Kirby"),
        (502, b"bad gateway", "answers 502"),
        (503, b'{"error": "the database is away"}', "the database is away"),
    ],
)
def test_a_server_that_cannot_be_pulled_from(kirby, no_pause, status, body, said):
    with answering(status, body) as (url, _):
        assert said in wrong(kirby, "--from", url, "--topic", "orders", "--to", "folder:case")
    assert not Path("case").exists()


def test_a_token_follows_no_redirect(kirby, no_pause):
    with answering(200, b"{}") as (other, seen), answering(302, b"", Location=other) as (url, _):
        said = wrong(
            kirby, "--from", url, "--token", "kirby_x", "--topic", "orders", "--to", "folder:case"
        )
    assert "leads elsewhere (302)" in said
    assert seen == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1", "no answer from http://127.0.0.1:1"),
        ("http://", "is not an address"),
        ("ftp://x", "ftp:// is no way to pull from"),
        ("postgresql://127.0.0.1:1/x", "no database at 127.0.0.1:1/x"),
        ("what is this", "the DSN cannot be read"),
    ],
)
def test_an_address_where_nothing_is(kirby, no_pause, address, said):
    assert said in wrong(kirby, "--from", address, "--topic", "orders", "--to", "folder:case")


def test_a_database_that_is_older(kirby, empty_dsn, no_pause):
    given = ["--topic", "orders", "--to", "folder:case"]

    assert "is an older Kirby, or none" in wrong(kirby, "--from", empty_dsn, *given)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "folder:case"], 2, "name a --topic, a --state, or --states"),
        (["--topic", "a/b", "--to", "folder:case"], 1, "is not a name for a topic"),
        (["--topic", "orders", "--to", "folder:"], 1, "names no folder"),
        (["--topic", "orders", "--to", "moon"], 1, "there is no environment moon"),
        (["--topic", "orders", "--since", "x", "--to", "folder:case"], 1, "'x' is no time"),
    ],
)
def test_what_cannot_be_asked_for(kirby, far, arguments, code, said):
    far.publish("orders", 1)

    done = kirby("pull", "--from", far.login, *arguments)

    assert done.code == code
    assert said in done.err


def test_a_state_of_many_keys_comes_whole(kirby, far, source):
    changes = [{"k": f"k{n:05}", "o": "set", "v": n} for n in range(60_000)]
    far.ask("select kirby.write('{}', %s)", json.dumps({"totals": changes}))

    done = kirby("pull", *source(), "--states", "--to", "folder:case")

    assert done.code == 0, done.err
    found = lines(Path("case/state/totals.jsonl"))
    assert [each["value"] for each in found] == list(range(60_000))


def test_masks_of_states(kirby, far, source):
    far.set("totals", anna={"mail": "a@b.c", "n": 1})
    rules = {"in": {"key": {"rule": "hash"}, "value": {"in": {"mail": {"rule": "drop"}}}}}
    far.ask(
        "insert into kirby.mask (state_id, rules) select id, %s from kirby.state", json.dumps(rules)
    )

    kirby("pull", *source(), "--states", "--to", "folder:case")

    [entry] = lines(Path("case/state/totals.jsonl"))
    assert entry["value"] == {"n": 1}
    assert entry["key"] != "anna"
    assert manifest()["masks"]["state totals"]["rules"] == {"@key": "hash", "mail": "drop"}


def test_a_connection_that_is_killed_is_made_again(kirby, far, no_pause, monkeypatch):
    far.fill("orders", 20_000)
    page, killed = exports.page, []

    def kill_once(conn, *arguments, **named):
        if not killed:
            killed.append(conn.info.backend_pid)
            far.ask("select pg_terminate_backend(%s)", *killed)
        return page(conn, *arguments, **named)

    monkeypatch.setattr(exports, "page", kill_once)
    done = kirby("pull", "--from", far.login, "--topic", "orders", "--to", "folder:case")

    assert done.code == 0, done.err
    assert len(lines(Path("case/in/orders.jsonl"))) == 20_000
    assert scalar(far.conn, "select count(*) from kirby.export") == 1
    assert isinstance(far.conn, psycopg.Connection)


# As a case


SCRIPT = """
import kirby

totals = kirby.state("totals")


@kirby.stream("orders", to="doubled")
def double(message: kirby.Message):
    key = message.key
    count = totals.get(key, {"count": 0})["count"] + 1
    totals[key] = {"count": count}
    return {"n": message.value["n"] * 2, "count": count}


if __name__ == "__main__":
    kirby.run()
"""


def test_the_unchanged_script_makes_of_a_slice_what_production_made(far, kirby, tmp_path, until):
    """Half of what production handled, in a folder, without a database: the same outputs."""
    (tmp_path / "script.py").write_text(SCRIPT)
    far.fill("orders", 200)
    serve = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environ(KIRBY_DSN=far.login)
    )
    doubled = (
        "select m.key, m.payload from kirby.message m join kirby.topic t on t.id = m.topic_id"
        " where t.name = 'doubled' order by m.position"
    )
    try:
        until(lambda: len(far.ask(doubled)) == 200)
        middle = far.value("select max(position) from kirby.message")
        far.fill("orders", 300)
        until(lambda: len(far.ask(doubled)) == 500)
    finally:
        serve.terminate()
        serve.wait()
    done = kirby(
        "pull", "--from", far.login, "--topic", "orders", "--after", middle, "--states",
        "--to", "folder:case",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environ(KIRBY_DSN="folder:case"),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert run.returncode == 0, run.stderr
    found = [(m["key"], m["value"]) for m in lines(Path("case/out/doubled.jsonl"))]
    wanted = far.ask(doubled)[200:]
    assert len(found) == 300
    assert sorted(found, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("target", ["folder:case", "dev"])
def test_ctrl_c_is_one_line_and_it_goes_on(far, far_web, dsn, until, tmp_path, target):
    far.fill("orders", 60_000)
    command = [
        *KIRBY, "pull", "--from", far_web.url, "--token", far.token(), "--topic", "orders",
        "--to", target,
    ]  # fmt: skip
    variables = environ(KIRBY_DSN=dsn)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    )
    file = tmp_path / "case/in/orders.jsonl"
    with connected(dsn) as conn:
        until(
            lambda: (
                (file.exists() and file.stat().st_size)
                or scalar(conn, "select count(*) from kirby.message")
            )
        )
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()

        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

        assert (process.returncode, said) == (
            1,
            "kirby: interrupted: the same command goes on where it was\n",
        )
        assert done.returncode == 0, done.stderr
        assert "were there from before" in done.stdout
        count = scalar(conn, "select count(*) from kirby.message")
    assert (len(lines(file)) if target == "folder:case" else count) == 60_000

"""What a user gets wrong is one clear line and exit code 1, and nothing is half done."""

import os
import shutil
import socket
import subprocess

import psycopg
import pytest
from fix_kirby import KIRBY, contents, environ, free_port, run_here

from kirby.server import schema

PLAIN = "print('hello')\n"
BLOCK = "# /// script\n{}\n# ///\n"


@pytest.fixture(scope="module")
def quiet_dsn(databases):
    """One database for all that is refused: each test shows that it stays as it is."""
    dsn = databases.create()
    with psycopg.connect(dsn) as conn:
        conn.execute("insert into kirby.job (name, kind) values ('taken', 'daemon')")
    yield dsn
    databases.drop(dsn)


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path, quiet_dsn, as_role):
    """`refused(text, *arguments)`: it is refused in one line with that text; nothing changed."""
    monkeypatch.setenv("KIRBY_DSN", as_role(quiet_dsn, "kirby_server"))
    monkeypatch.chdir(tmp_path)

    def refused(text, *arguments, stdin=b""):
        before = contents(quiet_dsn)

        done = run_here(monkeypatch, capsys, *arguments, stdin=stdin)

        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("kirby: ")
        assert done.err.count("\n") == 1
        assert text in done.err
        assert contents(quiet_dsn) == before

    return refused


DEPLOYS = [
    ("def f(:\n", [], "job.py:1: does not parse: invalid syntax"),
    ("x = '\0'\n", [], "does not parse"),
    (b"x = '\xff'\n", [], "job.py: not UTF-8"),
    (BLOCK.format("# dependencies = ["), [], "not valid TOML"),
    (BLOCK.format('# dependencies = ["no such thing"]'), [], "is not valid"),
    (BLOCK.format('# dependencies = ["idna>=99999"]'), [], "idna>=99999"),
    (BLOCK.format('# dependencies = ["kirby>=99999"]'), [], "this server's own SDK is"),
    (BLOCK.format('# requires-python = ">=4"'), [], "needs Python >=4"),
    (BLOCK.format("# [tool.kirby]\n# demon = true"), [], "did you mean daemon?"),
    (PLAIN, ["--env", "pred"], "there is no environment pred; did you mean prod?"),
    (PLAIN, ["--schedule", "99 * * * *"], "'99' is not acceptable in the minute field"),
    (PLAIN, ["--schedule", "0 0 30 2 *"], "never fires"),
    (PLAIN, ["--schedule", "@hourly", "--tz", "Mars/One"], "there is no time zone 'Mars/One'"),
    (PLAIN, ["--schedule", "@hourly", "--daemon"], "cannot be both a daemon and scheduled"),
    (PLAIN, ["--replicas", "2"], "replicas are for daemons"),
    (PLAIN, ["--daemon", "--replicas", "1001"], "from 0 to 1000"),
    (PLAIN, ["--max-attempts", "0"], "from 1 to 100"),
    (PLAIN, ["--var", "DAYS"], "'DAYS' is not NAME=VALUE"),
    (PLAIN, ["--var", "KIRBY_DSN=x"], "KIRBY_DSN is Kirby's own"),
    (PLAIN, ["--job", "Nightly Job"], "job name 'Nightly Job' must be"),
    (PLAIN, ["--job", "taken"], "taken is a daemon job already, and this would make it manual"),
    (PLAIN, ["--reason", "x" * 2000], "reason"),
]


@pytest.mark.parametrize(("source", "options", "text"), DEPLOYS)
def test_a_deploy_of_something_wrong_is_refused(source, options, text, refused, tmp_path):
    source = source.encode() if isinstance(source, str) else source
    (tmp_path / "job.py").write_bytes(source)

    refused(text, "deploy", "job.py", *options)


@pytest.mark.parametrize(
    ("target", "text"),
    [("nothing.py", "there is no such file"), (".", "no pyproject.toml"),
     ("/dev/null", "not a file"),
     ("notes.txt", "must be a .py file"), ("Ünï.py", "job name")],
)  # fmt: skip
def test_a_deploy_of_what_is_no_script_is_refused(target, text, refused, tmp_path):
    for name in ("notes.txt", "Ünï.py"):
        (tmp_path / name).write_text(PLAIN)

    refused(text, "deploy", target)


PAYLOADS = [
    ("{nope", "the payload is not JSON: Expecting property name"),
    ("", "the payload is empty"),
    ("NaN", "NaN is not JSON"),
    ('{"a": [Infinity]}', "Infinity is not JSON"),
    ("1e999", "which JSON does not have"),
    ('{"a": "\\u0000"}', "the NUL character"),
    ('["\\ud800"]', "a lone surrogate"),
    ('"' + "a" * (16 * 2**20) + '"', "16 MB"),
    ("[" * 100_000, "nested too deeply"),
    ("9" * 5000, "thousands of digits"),
    (b'"\xff\xfe"', "standard input is not UTF-8"),
    ("é".encode() * (8 * 2**20) + b"a", "16 MB"),
    (b"a" + "é".encode() * (8 * 2**20), "16 MB"),
]


@pytest.mark.parametrize(("payload", "text"), PAYLOADS, ids=[text for _, text in PAYLOADS])
def test_a_payload_that_cannot_be_kept_is_refused(payload, text, refused):
    refused(text, "topic", "publish", "orders", "-", stdin=payload)


ARGUMENTS = [
    (["topic", "publish", "bad name", "1"], "is not a name for a topic"),
    (["topic", "publish", "orders", "1", "--env", "nowhere"], "there is no environment nowhere"),
    (["topic", "publish", "orders", "1", "--key", "\udcff"], "is not UTF-8 text"),
    (["topic", "read", "nothing"], "there is no topic"),
    (["topic", "tail", "nothing"], "there is no topic"),
    (["topic", "read", "orders", "--since", "yesterday"], "'yesterday' is not a time"),
    (["state", "set", "totals", "k", "{"], "the value is not JSON"),
    (["state", "set", "totals", "k", "NaN"], "NaN is not JSON"),
    (["state", "set", "Bad Name", "k", "1"], "is not a name for a state"),
    (["state", "get", "nothing"], "there is no state"),
    (["state", "history", "nothing", "k"], "there is no state"),
    (["config", "set", "A=1", "1B=2"], "'1B' is not a name for a variable"),
    (["config", "set", "A"], "'A' is not NAME=VALUE"),
    (["config", "set", "A=1", "--job", "nothing"], "there is no job nothing"),
    (["config", "set", "A=1", "--env", "nowhere"], "there is no environment nowhere"),
    (["config", "effective", "nothing"], "there is no job"),
    (["environment", "add", "Bad Name"], "is not a name for an environment"),
    (["environment", "add", "prod"], "environment prod exists already"),
    (["job", "show", "nothing"], "there is no job"),
    (["job", "trigger", "nothing"], "there is no job"),
    (["run", "show", "99"], "there is no run 99"),
    (["run", "logs", "99", "-f"], "there is no run 99"),
    (["run", "cancel", "99"], "there is no run 99"),
    (["run", "retry", "99"], "there is no run 99"),
    (["schedule", "preview", "* * *"], "has 3 fields, there must be 5"),
    (["schedule", "preview", "@daily", "--tz", "Mars/One"], "there is no time zone 'Mars/One'"),
    (["user", "add", "joe", "--password", "short"], "too short"),
    (["user", "add", "joe"], "no password: give it on standard input"),
    (["user", "password", "nobody", "--password", "long-enough-it-is"], "there is no account"),
    (["db", "migrate"], "may not migrate"),
]


@pytest.mark.parametrize(("arguments", "text"), ARGUMENTS, ids=[" ".join(a) for a, _ in ARGUMENTS])
def test_an_argument_that_cannot_be_is_refused(arguments, text, refused):
    refused(text, *arguments)


USAGE = [
    ["nothing"], ["job"], ["job", "show"], ["deploy"], ["run", "show", "x"], ["run", "list", "-n0"],
    ["topic", "read", "orders", "--after", "-1"], ["topic", "read", "orders", "-n", "-1"],
    ["dev", "--port", "65536"], ["dev", "--slots", "0"], ["web", "--port", "x"],
    ["schedule", "preview", "@daily", "-n", "0"], ["run", "list", "--status", "odd"],
    ["user", "add", "joe", "--role", "king"], ["job", "list", "--jason"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_exit_code_2_and_says_how(arguments, monkeypatch, capsys):
    done = run_here(monkeypatch, capsys, *arguments)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: kirby")


# The database


@pytest.fixture
def kirby_on(monkeypatch, capsys, tmp_path):
    """`kirby_on(dsn, ...)`: with that KIRBY_DSN, or none; one line of error is its answer."""
    monkeypatch.chdir(tmp_path)

    def kirby_on(dsn, *arguments):
        if dsn is None:
            monkeypatch.delenv("KIRBY_DSN", raising=False)
        else:
            monkeypatch.setenv("KIRBY_DSN", dsn)
        done = run_here(monkeypatch, capsys, *arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err.count("\n") == 1
        return done.err

    return kirby_on


ON_A_DATABASE = [
    ["job", "list"], ["run", "logs", "1"], ["topic", "tail", "orders"], ["db", "check"],
    ["db", "migrate"], ["web", "--port", "0"], ["supervisor"], ["dev", "--port", "0"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", ON_A_DATABASE, ids=" ".join)
def test_a_database_that_refuses_connections_is_one_line(arguments, kirby_on):
    said = kirby_on(f"postgresql://me:secret@127.0.0.1:{free_port()}/x", *arguments)

    assert "kirby: no database at 127.0.0.1:" in said
    assert "Connection refused" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        ("postgresql://nowhere.invalid/x", "no database at nowhere.invalid:5432/x"),
        ("garbage", "the DSN cannot be read"),
        ("http://127.0.0.1/x", "the DSN cannot be read"),
        ("postgresql://127.0.0.1/x?colour=red", "the DSN cannot be read"),
        ("postgresql://127.0.0.1:high/x", "high"),
    ],
)
def test_a_dsn_that_leads_nowhere_is_one_line(dsn, text, kirby_on):
    assert text in kirby_on(dsn, "job", "list")


def test_no_dsn_at_all_says_what_to_do(kirby_on):
    assert "set KIRBY_DSN, or run 'kirby dev'" in kirby_on(None, "job", "list")


def test_a_kirby_dev_that_does_not_run_is_named(kirby_on, tmp_path):
    (tmp_path / ".kirby").mkdir()
    (tmp_path / ".kirby/dsn").write_text(f"postgresql://127.0.0.1:{free_port()}/kirby")

    assert "is 'kirby dev' running?" in kirby_on(None, "job", "list")


def test_a_wrong_password_is_one_line(kirby_on, dsn):
    wrong = psycopg.conninfo.make_conninfo(dsn, user="kirby_server", password="wrong-one")

    said = kirby_on(wrong, "job", "list")

    assert "password authentication failed" in said
    assert "wrong-one" not in said


def test_a_database_without_the_schema_says_what_to_run(kirby_on, empty_dsn):
    assert "has no Kirby schema: run 'kirby db migrate'" in kirby_on(empty_dsn, "job", "list")


@pytest.mark.parametrize(
    ("revision", "text"), [("9999", "newer than this Kirby"), (None, "has no Kirby schema")]
)
def test_a_schema_that_is_not_ours_is_named(revision, text, kirby_on, dsn):
    with psycopg.connect(dsn) as conn:
        conn.execute("delete from kirby.alembic_version")
        if revision:
            conn.execute("insert into kirby.alembic_version values (%s)", [revision])

        conn.execute(  # a Kirby to come may serve a supervisor of ours, but not for ever
            "create or replace function kirby.server_protocol() returns integer language sql"
            " immutable as 'select 99'"
        )

    for arguments in (["job", "list"], ["web", "--port", "0"], ["supervisor"], ["db", "check"]):
        assert text in kirby_on(dsn, *arguments)


def test_an_old_schema_says_what_to_run(kirby_on, dsn, monkeypatch):
    known = schema.revisions()
    monkeypatch.setattr(schema, "revisions", lambda: [*known, "9998"])

    said = kirby_on(dsn, "job", "list")

    assert f"has schema {known[-1]}, this Kirby needs 9998: run 'kirby db migrate'" in said


def test_a_newer_schema_is_left_alone(kirby_on, dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("update kirby.alembic_version set version_num = '9999'")

        assert "newer than this Kirby" in kirby_on(dsn, "db", "migrate")
        assert "newer than this Kirby" in kirby_on(dsn, "dev", "--port", "0")
        assert conn.execute("select version_num from kirby.alembic_version").fetchone() == ("9999",)


def test_a_dsn_that_may_not_migrate_says_what_it_needs(kirby_on, as_role, dsn):
    said = kirby_on(as_role(dsn, "kirby_server"), "dev", "--port", "0")

    assert "may not migrate" in said
    assert "an administrator's" in said


# Settings, ports and folders


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("KIRBY_ENVIROMENT", "prod", "did you mean KIRBY_ENVIRONMENT?"),
        ("KIRBY_PORT", "high", "KIRBY_PORT must be a whole number from 0 to 65535"),
        ("KIRBY_SLOTS", "0", "KIRBY_SLOTS must be a whole number from 1"),
        ("KIRBY_SECURE_COOKIES", "maybe", "must be true or false"),
        ("KIRBY_DSN_FILE", "/nowhere", "/nowhere cannot be read"),
        ("KIRBY_ENVIRONMENT", "nowhere", "there is no environment nowhere"),
    ],
)
def test_a_setting_that_is_wrong_stops_every_command(name, value, text, kirby, monkeypatch):
    if name == "KIRBY_DSN_FILE":
        monkeypatch.delenv("KIRBY_DSN")
    monkeypatch.setenv(name, value)

    done = kirby("job", "list")

    assert (done.code, done.out) == (1, "")
    assert text in done.err


@pytest.mark.parametrize("arguments", [["web"], ["dev"]], ids=["web", "dev"])
def test_a_busy_port_is_one_line_and_leaves_nothing(arguments, kirby_on, dsn, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        said = kirby_on(dsn, *arguments, "--port", port)

    assert f"port {port}" in said
    assert "choose another with --port" in said
    assert not (tmp_path / ".kirby/dsn").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--host", "192.0.2.1"], "not an address of this machine"),
        (["--host", "nowhere.invalid"], "not an address of this machine"),
        (["--data", "/proc/kirby"], "choose another --data"),
        (["--data", "/dev/null"], "choose another --data"),
    ],
)
def test_a_house_that_has_no_place_is_one_line(options, text, kirby_on):
    assert text in kirby_on(None, "dev", "--port", "0", *options)


def test_data_of_another_postgres_is_one_line_and_stays_as_it_is(kirby_on, tmp_path):
    data = tmp_path / ".kirby/postgres/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9.6\n")

    said = kirby_on(None, "dev", "--port", "0")

    assert "is of PostgreSQL 9.6, the programs in" in said
    assert sorted(path.name for path in data.iterdir()) == ["PG_VERSION"]


def test_a_data_folder_of_somebody_else_is_one_line(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / ".kirby").mkdir(mode=0o500)

    done = subprocess.run(
        [*KIRBY, "dev", "--port", "0"], cwd=tmp_path, env=environ(), capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "cannot be used: Permission denied: choose another --data" in done.stderr


@pytest.mark.parametrize("words", ["not json", "[]", '{"kirby_server": "x"}'])
def test_broken_passwords_of_the_roles_are_one_line(words, kirby_on, dsn, tmp_path):
    (tmp_path / ".kirby").mkdir()
    (tmp_path / ".kirby/roles.json").write_text(words)

    assert "roles.json cannot be read" in kirby_on(dsn, "dev", "--port", "0")


# Output


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_an_output_that_is_full_is_one_line(dsn):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*KIRBY, "environment", "list"],
            env=environ(KIRBY_DSN=dsn), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == "kirby: the output: No space left on device\n"


def test_a_reader_that_goes_away_is_no_error_to_speak_of(dsn):
    head = f"{KIRBY[0]} -m kirby environment list --json | {shutil.which('true')}"

    done = subprocess.run(head, shell=True, env=environ(KIRBY_DSN=dsn), capture_output=True)

    assert done.stderr == b""


def test_a_fault_of_kirby_itself_is_one_line_too(kirby, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("kirby.server.environments.listing", broken)

    done = kirby("environment", "list")

    assert done.code == 1
    assert done.err.startswith("kirby: a fault in Kirby itself: ZeroDivisionError: oh")
    assert done.err.count("\n") == 1

"""Each command as a person and as a program use it; every listing is one JSON document."""

import json
import subprocess
import sys

import psycopg
import pytest
from alembic.script import ScriptDirectory
from fix_kirby import KIRBY, environ
from fix_runs import Runs

from kirby.server import schema
from kirby.server.cli import kirby as group

SCRIPT = """\
# /// script
# [tool.kirby]
# description = "Says hello"
# variables = { NAME = "you" }
# ///
print("hello")
"""


@pytest.fixture
def house(kirby, dsn, tmp_path):
    """A database with one of each: a job that ran, a topic, a subscription, a state, a variable."""
    (tmp_path / "hello.py").write_text(SCRIPT)
    with psycopg.connect(dsn) as conn:  # a clone of the template has not got the template's grants
        name = psycopg.sql.Identifier(conn.info.dbname)
        grant = psycopg.sql.SQL("grant create on database {} to kirby_owner")
        conn.execute(grant.format(name))
    for command in (
        "deploy hello.py --reason first", "topic publish orders {\"a\":1} --key A",
        "state set totals EV {\"n\":1}", "state set totals EV {\"n\":2}", "config set DAYS=3",
        "environment add staging", "user add joe --password long-enough-it-is",
    ):  # fmt: skip
        done = kirby(*command.split(" "))
        assert done.code == 0, done.err
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select kirby.subscribe('orders', 'hello')")
        runs = Runs(conn)
        runs.supervisor = "11111111-1111-4111-8111-111111111111"
        conn.execute(
            "select kirby.register_supervisor(%s, 'here', '/srv', 7, 20)", [runs.supervisor]
        )
        yield runs


def start(kirby, house):
    """Trigger the job, and be the supervisor that runs it; the run's id."""
    run = json.loads(kirby("job", "trigger", "hello", "--json").out)["run"]
    record(house, run, "run_claimed", supervisor_id=house.supervisor)
    record(house, run, "run_started", pid=99)
    return run


def record(house, run, step, **data):
    house.conn.execute("select kirby.record_run(%s, %s, %s)", [run, step, json.dumps(data)])


def say(house, run, *texts, stream="stdout"):
    lines = [{"r": run, "s": stream, "l": "info", "x": text, "t": 1767225600} for text in texts]
    house.conn.execute(
        "select kirby.append_log_lines(%s, %s)", [house.supervisor, json.dumps(lines)]
    )
    house.conn.execute("notify kirby_log")


LISTINGS = {
    "job list": {"name", "kind", "version", "live", "next_tick", "last_status"},
    "job show hello": {"name", "versions", "next_ticks", "variables"},
    "run list": {"id", "job", "environment", "status", "exit_code", "seconds"},
    "run show {run}": {"id", "status", "events"},
    "run logs {run}": {"position", "stream", "text", "at"},
    "topic list": {"name", "lanes", "messages", "last_at"},
    "topic read orders": {"position", "key", "value", "recorded_at"},
    "subscription list": {"name", "topic", "mode", "behind", "seconds"},
    "state list": {"name", "keys", "updated_at"},
    "state get totals": {"key", "version", "value"},
    "state history totals EV": {"version", "op", "value", "recorded_at"},
    "config list": {"name", "value", "environment", "job"},
    "config effective hello": {"name", "value", "origin"},
    "environment list": {"name", "created_at"},
    "user list": {"login", "role", "created_at"},
    "schedule preview @daily": {"ticks"},
}


def test_every_listing_prints_one_json_document_and_a_table(kirby, house):
    run = start(kirby, house)
    say(house, run, "hello")
    record(house, run, "run_succeeded", exit_code=0)

    for command, fields in LISTINGS.items():
        arguments = command.format(run=run).split(" ")

        document, table = kirby(*arguments, "--json"), kirby(*arguments)

        found = json.loads(document.out)
        first = found[0] if isinstance(found, list) else found
        assert fields <= set(first), command
        assert (document.code, document.err) == (0, ""), command
        assert (table.code, table.err) == (0, ""), command
        assert table.out.strip(), command


EMPTY = [
    "run list", "topic list", "subscription list", "state list", "config list", "user list",
    "job list",
]  # fmt: skip


@pytest.mark.parametrize("command", EMPTY)
def test_a_listing_of_nothing_is_an_empty_document_and_a_sentence(command, kirby):
    assert json.loads(kirby(*command.split(), "--json").out) == []
    assert kirby(*command.split()).out.startswith("no ")


def test_every_command_that_lists_takes_json_and_all_have_a_short_help():
    for name, command in _commands(group):
        assert command.help, name
        if name.split()[-1] in ("list", "read", "get", "history", "logs", "preview", "effective"):
            assert "as_json" in {each.name for each in command.params}, name
        assert not command.get_short_help_str(58).endswith("..."), name


def _commands(above, path=""):
    for name, command in above.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path}{name} ")
        yield f"{path}{name}", command


def test_a_script_is_deployed_triggered_and_followed_to_its_end(kirby, house):
    shown = kirby("job", "show", "hello").out
    assert "description  Says hello" in shown
    assert 'variables    {"NAME": "you"}' in shown
    run = start(kirby, house)
    say(house, run, "one", "two")
    say(house, run, "oh", stream="stderr")
    record(house, run, "run_failed", exit_code=3, reason="it ended with exit code 3")

    followed = kirby("run", "logs", run, "-f")

    assert [line[13:] for line in followed.out.splitlines()] == ["  one", "  two", "! oh"]
    assert "exit code 3" in kirby("run", "show", run).out
    again = kirby("run", "retry", run)
    assert again.out == f"run {run + 1} is queued: 'kirby run logs {run + 1} -f' follows it\n"
    again = json.loads(kirby("run", "retry", run, "--current", "--json").out)
    assert again == {"run": run + 2, "version": 1, "status": "queued"}
    assert [each["id"] for each in json.loads(kirby("run", "list", "--json").out)] == [
        run + 2, run + 1, run,
    ]  # fmt: skip


def test_logs_are_followed_while_they_are_written(kirby, house, dsn, until):
    run = start(kirby, house)
    follower = subprocess.Popen(
        [*KIRBY, "run", "logs", str(run), "-f"], env=environ(KIRBY_DSN=dsn), text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with follower:
        say(house, run, "first")
        assert follower.stdout.readline()[13:] == "  first\n"
        say(house, run, "second")
        assert follower.stdout.readline()[13:] == "  second\n"
        record(house, run, "run_succeeded", exit_code=0)
        assert follower.stdout.read() == ""
        assert follower.wait(10) == 0


def test_a_run_is_cancelled_once(kirby, house):
    run = start(kirby, house)

    assert kirby("run", "cancel", run, "--reason", "enough").out == f"run {run} is being stopped\n"
    assert kirby("run", "cancel", run).out == f"run {run} is being stopped already\n"
    record(house, run, "run_cancelled", signal=15)
    late = kirby("run", "cancel", run)

    assert (late.code, late.err) == (1, f"kirby: run {run} has ended already: it is cancelled\n")
    assert "enough" in kirby("run", "show", run).out


def test_runs_are_found_by_job_status_and_environment(kirby, house):
    run = start(kirby, house)

    def ids(*options):
        return [each["id"] for each in json.loads(kirby("run", "list", "--json", *options).out)]

    assert ids("--job", "hello") == ids("--status", "live") == ids("--env", "dev") == [run]
    assert ids("--job", "other") == ids("--status", "bad") == ids("--env", "prod") == []


def test_messages_are_published_and_read_in_order(kirby, house):
    for stdin in ('{"from": "stdin"}', '"é"'):
        assert kirby("topic", "publish", "orders", "-", stdin=stdin).code == 0
    position = json.loads(kirby("topic", "publish", "orders", "--json", "--", "-1").out)["position"]

    lines = [json.loads(line) for line in kirby("topic", "read", "orders").out.splitlines()]

    assert [line["value"] for line in lines] == [{"a": 1}, {"from": "stdin"}, "é", -1]
    assert lines[-1]["position"] == position
    assert [line["key"] for line in lines] == ["A", None, None, None]
    last = json.loads(
        kirby("topic", "read", "orders", "--json", "--after", lines[-2]["position"]).out
    )
    assert [each["value"] for each in last] == [-1]
    assert len(json.loads(kirby("topic", "read", "orders", "--json", "-n", "2").out)) == 2
    assert json.loads(kirby("topic", "read", "orders", "--json", "--until", "2020-01-01").out) == []
    assert len(json.loads(kirby("topic", "read", "orders", "--json", "--since", "2h").out)) > 2
    since = kirby("topic", "read", "orders", "--json", "--since", "2020-01-01").out
    assert len(json.loads(since)) == 4


def test_a_topic_is_followed(kirby, house, dsn):
    tail = subprocess.Popen(
        [*KIRBY, "topic", "tail", "orders", "--after", "0"],
        env=environ(KIRBY_DSN=dsn), text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    with tail:
        assert json.loads(tail.stdout.readline())["value"] == {"a": 1}
        kirby("topic", "publish", "orders", '"next"')
        assert json.loads(tail.stdout.readline())["value"] == "next"
        tail.send_signal(2)
        assert tail.wait(10) == 130


def test_states_are_read_and_set(kirby, house):
    assert json.loads(kirby("state", "get", "totals", "EV").out) == {"n": 2}
    assert kirby("state", "set", "totals", "UA", "[1]").out == "totals[UA] is set\n"
    versions = json.loads(kirby("state", "history", "totals", "EV", "--json").out)
    assert [(each["version"], each["value"]) for each in versions] == [(2, {"n": 2}), (1, {"n": 1})]
    missing = kirby("state", "get", "totals", "XX")
    assert (missing.code, missing.err) == (1, "kirby: state totals has no key XX\n")


def test_the_narrowest_variable_is_the_effective_one(kirby, house):
    for options in ("NAME=all", "DAYS=4 --env dev", "DAYS=5 --job hello"):
        assert kirby("config", "set", *options.split()).code == 0

    found = json.loads(kirby("config", "effective", "hello", "--json").out)

    assert {each["name"]: (each["value"], each["origin"]) for each in found} == {
        "DAYS": ("5", "job"),
        "NAME": ("you", "deployment"),
    }


def test_a_password_is_read_from_standard_input(kirby, house):
    added = kirby("user", "add", "ann", "--role", "admin", stdin="a-long-password\n")
    assert (added.code, added.out) == (0, "ann may log in as admin\n")
    changed = kirby("user", "password", "ann", stdin="another-password\n")
    assert changed.out == "ann has a new password; its sessions are ended\n"


def test_ticks_are_shown_with_what_the_zone_does_to_them(kirby):
    shown = kirby(
        "schedule", "preview", "30 2 * * *", "--tz", "Europe/Brussels", "--from", "2027-03-27",
        "-n", "2",
    )  # fmt: skip

    assert shown.out.splitlines() == [
        "UTC               Europe/Brussels        NOTE",
        "2027-03-27 01:30  2027-03-27 02:30 CET",
        "2027-03-28 01:00  2027-03-28 03:00 CEST  shifted: 02:30 does not exist",
    ]


def test_ticks_as_json_are_in_utc_and_on_the_wall(kirby):
    shown = kirby(
        "schedule", "preview", "30 2 * * *", "--tz", "Europe/Brussels", "--from", "2027-03-28",
        "-n", "1", "--json",
    )  # fmt: skip

    assert json.loads(shown.out) == {
        "ticks": [
            {
                "at": "2027-03-28T01:00:00+00:00",
                "local": "2027-03-28T03:00:00+02:00",
                "note": "shifted: 02:30 does not exist",
            }
        ]
    }


def test_a_database_is_migrated_and_checked(monkeypatch, kirby, empty_dsn):
    monkeypatch.setenv("KIRBY_DSN", empty_dsn)

    first, second, check = kirby("db", "migrate"), kirby("db", "migrate"), kirby("db", "check")

    assert f"is at schema {schema.head()} (was empty before)" in first.out
    assert f"is at schema {schema.head()} (was there already)" in second.out
    assert f"is well: schema {schema.head()}" in check.out


def test_the_revisions_are_those_that_alembic_finds():
    found = ScriptDirectory.from_config(schema.config())

    assert schema.head() == found.get_current_head()
    assert schema.revisions() == [each.revision for each in found.walk_revisions()][::-1]


@pytest.mark.parametrize("name", ["KIRBY_DSN_FILE", "KIRBY_DATA"])
def test_the_database_is_found_by_file_and_by_folder(name, kirby, monkeypatch, tmp_path, dsn):
    monkeypatch.delenv("KIRBY_DSN")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dsn").write_text(f"{dsn}\n")
    monkeypatch.setenv(name, str(tmp_path / ("data" if name == "KIRBY_DATA" else "data/dsn")))

    assert kirby("environment", "list").code == 0


def test_a_cell_is_one_line_whatever_is_in_it(kirby, house):
    kirby("state", "set", "totals", "a\nb\x1b[31m東", '"x"')

    lines = kirby("state", "get", "totals").out.splitlines()

    assert len(lines) == 3
    assert any(line.startswith("a\\nb\\x1b[31m東") for line in lines)


def test_the_version_and_the_help_need_no_database(kirby, monkeypatch):
    monkeypatch.setenv("KIRBY_DSN", "postgresql://127.0.0.1:1/nowhere")

    assert kirby("--version").out.startswith("kirby 3.")
    assert "Usage: kirby" in kirby("--help").out
    assert "Usage: kirby topic publish" in kirby("topic", "publish", "--help").out


def test_kirby_is_a_module_and_a_program():
    for command in (KIRBY, [f"{sys.prefix}/bin/kirby"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert done.stdout.startswith("kirby 3.")


def test_what_the_driver_says_of_a_rollback_is_not_shown():
    """Ctrl-C in the middle of a statement: then the rollback fails too, and psycopg warns of it."""
    source = (
        "import logging, sys; from kirby.server import cli;"
        "cli.kirby.main = lambda **_: logging.getLogger('psycopg').warning('error ignored');"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

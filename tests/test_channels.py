"""kirby channel, and what it stands on: names, routes, tests, what was given up."""

import json
import re

import pytest

from kirby.server.supervisor import notifier as notifiers

pytest_plugins = ("fix_channels",)

MAIL = "mailtos://kirby:${SMTP}@mail.example.com?to=ops@example.com"


@pytest.fixture
def at_work(told):
    """A notifier in a thread, as a supervisor has it."""
    told.notifier.start()


def test_a_channel_is_told_everything_of_its_environment_unless_said_otherwise(kirby):
    done = kirby("channel", "add", "ops", MAIL)
    assert done.out == "ops is told everything: opened, resolved, ending, over\n"
    done = kirby("channel", "add", "quiet", MAIL, "--no-route", "--env", "prod")
    assert done.out == "quiet is told nothing: it has no route\n"
    assert "ops " in (listed := kirby("channel", "list").out)
    assert "quiet" not in listed
    kirby("channel", "add", "all", MAIL, "--everywhere")
    assert [each["name"] for each in json.loads(kirby("channel", "list", "--json").out)] == [
        "all", "ops",
    ]  # fmt: skip
    names = json.loads(kirby("channel", "list", "--env", "prod", "--json").out)
    assert [each["name"] for each in names] == ["all", "quiet"]


def test_routes_are_added_changed_and_removed(kirby, told):
    told.deploy(name="nightly")
    kirby("channel", "add", "ops", MAIL, "--everywhere", "--no-route")
    add = ("channel", "route", "add", "ops")
    assert kirby(*add, "--job", "nightly").code == 0
    done = kirby(*add, "--tag", "etl", "--on", "resolved,opened,updated", "--only-env", "prod")
    assert "jobs tagged etl in prod: opened, updated, resolved" in done.out
    kirby(*add, "--job", "nightly", "--on", "retried", "--kind", "failing", "--kind", "missed")
    routes = json.loads(kirby("channel", "route", "list", "ops", "--json").out)
    assert [(each["target"], each["events"], each["kinds"]) for each in routes] == [
        ("nightly", ["retried"], ["failing", "missed"]),
        ("etl", ["opened", "updated", "resolved"], []),
    ]
    for each in routes:
        kirby("channel", "route", "remove", "ops", each["id"])
    assert kirby("channel", "route", "list", "ops").out == "ops is told nothing\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "ops", MAIL), "there is a channel ops already: remove it, or choose another name"),
        (("add", "ops", MAIL, "--everywhere"), "there is a channel ops already"),
        (("add", "Ops", MAIL), "'Ops' is no name of a channel: small letters, digits and . _ -"),
        (("add", "x", "json://u:plain@h"), "write ${NAME} in its place, and give the"),
        (("add", "x", "json://${name}"), "${name} is no name of a secret: capital letters"),
        (("add", "x", "gopher://h"), "there is no service gopher:// to send to"),
        (("add", "x", MAIL, "--env", "prd"), "there is no environment prd; did you mean prod?"),
        (("show", "op"), "there is no channel op; did you mean ops?"),
        (("edit", "ops"), "say what changes: --url or --description"),
        (("route", "add", "ops"), "say of what: --job NAME, --tag NAME or --everything"),
        (("route", "add", "ops", "--job", "nightl"), "no job nightl; did you mean nightly?"),
        (("route", "add", "ops", "--everything", "--on", "lost"), "'lost' is no event: opened,"),
        (("route", "add", "ops", "--everything", "--on", ","), "say which events are told"),
        (("route", "add", "ops", "--tag", "a", "--kind", "sad"), "'sad' is no kind of incident"),
        (("route", "add", "ops", "--tag", "a", "--only-env", "prod"), "ops is of dev, not of prod"),
        (("route", "remove", "ops", "77"), "the channel ops has no route 77"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_changes_nothing(arguments, said, kirby, told):
    told.deploy(name="nightly")
    kirby("channel", "add", "ops", MAIL)
    before = told.ask("select * from kirby.channel, kirby.route")
    done = kirby("channel", *arguments)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert told.ask("select * from kirby.channel, kirby.route") == before


def test_a_test_prints_what_the_server_answered(kirby, told, hook, at_work):
    kirby("channel", "add", "hook", hook.url)
    done = kirby("channel", "test", "hook")
    assert re.fullmatch(r"hook took it in \d\.\d s: Sent JSON POST notification\.\n", done.out)
    hook.broken = {"/hook"}
    done = kirby("channel", "test", "hook")
    assert done.code == 1
    assert "the channel hook does not work: Failed to send JSON" in done.err
    assert "no such room" in done.err
    assert json.loads(kirby("channel", "test", "hook", "--json").out)["outcome"] == "failed"


def test_a_test_that_nobody_sends_says_so(kirby, monkeypatch):
    monkeypatch.setattr("kirby.server.cli.channels.PATIENCE", 0.3)
    kirby("channel", "add", "ops", MAIL)
    done = kirby("channel", "test", "ops")
    assert done.code == 1
    assert "nobody sent the test within 0 s: is a supervisor at work" in done.err


def test_show_tells_all_of_a_channel_and_resend_sends_what_was_given_up(kirby, told, hook):
    kirby("channel", "add", "hook", hook.url, "--description", "the chat")
    hook.broken = {"/hook"}
    told.wrong("it is stuck")
    told.tell()
    for _ in notifiers.PAUSES:
        told.later("2 hours")
        told.send()
    out = kirby("channel", "show", "hook").out
    for text in ("the chat", "broken", "it is stuck", "no such room", "parked", "everything"):
        assert text in out
    undelivered = json.loads(kirby("channel", "show", "hook", "--json").out)["undelivered"]
    assert [each["event"] for each in undelivered] == ["opened"]
    listed = kirby("subscription", "list").out  # it is one as every other
    assert "kirby.notices" in listed
    hook.broken = set()
    assert kirby("channel", "resend", "hook").out == "1 notice to send\n"
    told.send()
    assert hook.events()[-1] == "opened"
    assert kirby("channel", "resend", "hook").out == "nothing waits\n"


def test_notices_can_be_unparked_as_any_message(kirby, told, hook):
    kirby("channel", "add", "hook", hook.url)
    hook.broken = {"/hook"}
    told.wrong()
    told.tell()
    for _ in notifiers.PAUSES:
        told.later("2 hours")
        told.send()
    hook.broken = set()
    assert kirby("subscription", "unpark", "kirby.notices", "channels").code == 0
    told.send()
    assert hook.events()[-1] == "opened"


def test_a_changed_address_is_used_for_what_waits(kirby, told, hook):
    kirby("channel", "add", "hook", f"json://{hook.host}/wrong")
    hook.broken = {"/wrong"}
    told.wrong()
    told.tell()
    assert kirby("channel", "edit", "hook", "--url", hook.url).code == 0
    kirby("channel", "resend", "hook")
    told.send()
    assert hook.events() == ["opened"]

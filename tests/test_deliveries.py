"""Notices reach real servers: once for each incident, and again when they must."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from fix_runs import drive, supervise_fixture  # noqa: F401
from psycopg.types.json import Jsonb

pytest_plugins = ("fix_channels",)

KILLED = """
import os, sys, threading
from kirby.server.supervisor.notifier import Notifier
notifier = Notifier(sys.argv[1], lambda: True, environ={})
while True:
    notifier.tick()
"""


def test_an_incident_is_a_mail_when_it_begins_and_one_when_it_is_over(told, mail):
    nightly = told.deploy(name="nightly")
    run = told.trigger(nightly)
    told.say(run, "KeyError: <b>price</b>")
    told.channel("ops", mail.url)
    incident = told.wrong(deployment=nightly, run=run)
    told.tell()
    [opened] = mail.got
    assert opened["subject"] == "[dev] FAILING nightly: it fails: exit code 3"
    assert opened["to"] == "ops@x.test"
    text = opened.get_body(("html",)).get_content()
    assert "KeyError: &lt;b&gt;price&lt;/b&gt;" in text
    assert f"https://k.test/incidents/{incident}?env=dev" in text
    assert f"kirby incident ack {incident}" in text

    told.wrong(deployment=nightly)  # one more of it
    told.tell()
    assert len(mail.got) == 1

    told.well(incident)
    told.tell()
    [_, resolved] = mail.got
    assert resolved["subject"] == "[dev] RESOLVED nightly: it fails: exit code 3"
    assert opened["references"] == resolved["references"] == f"<incident-{incident}@kirby>"


def test_who_heard_nothing_of_the_beginning_hears_nothing_of_the_end(told, hook):
    told.channel("first", f"json://{hook.host}/first")
    incident = told.wrong()
    told.tell()
    told.channel("late", f"json://{hook.host}/late")

    told.well(incident)
    told.tell()

    assert hook.events("first") == ["opened", "resolved"]
    assert hook.events("late") == []


def test_a_webhook_gets_the_facts_and_a_key_by_which_it_knows_a_notice_again(told, hook):
    told.channel("hook", hook.url)
    incident = told.wrong(details='{"stage": "running too long"}')
    told.tell()
    told.well(incident)
    told.tell()
    [opened, resolved] = hook.got
    facts = opened.body["kirby"]
    assert (facts["incident"], facts["event"], facts["kind"]) == (incident, "opened", "failing")
    assert facts["details"] == {"stage": "running too long"}
    assert opened.body["title"] == "[dev] FAILING it fails: exit code 3"
    assert "running too long" in opened.body["message"]
    assert hook.events() == ["opened", "resolved"]
    keys = {each.headers["Idempotency-Key"] for each in hook.got}
    assert len(keys) == 2
    assert (opened.body["type"], resolved.body["type"]) == ("failure", "success")


def test_a_secret_comes_from_the_variables_of_whoever_delivers_and_is_nowhere_else(
    told, hook, as_role, dsn, tmp_path
):
    (tmp_path / "password").write_text("mellon/friend\n")
    channel = told.channel("hook", f"json://kirby:${{PW}}@{hook.host}/hook?+X-Token=${{TOKEN}}")
    told.wrong()
    told.tell()
    [failed] = told.deliveries(channel)
    assert (
        failed["answer"]
        == "KIRBY_CHANNEL_PW is not set where notices are delivered, by the supervisors"
    )

    secrets = {"KIRBY_CHANNEL_PW_FILE": str(tmp_path / "password"), "KIRBY_CHANNEL_TOKEN": "a b&c"}
    knows = told.another(as_role(dsn, "kirby_server"), environ=secrets)
    told.later("15 seconds")
    hook.broken = {"/hook"}
    told.send(knows)
    [sent] = hook.got
    assert sent.headers["Authorization"] == "Basic a2lyYnk6bWVsbG9uL2ZyaWVuZA=="
    assert sent.headers["X-Token"] == "a b&c"
    knows.stop()
    for table in ("delivery", "due", "message", "incident", "channel", "job_event"):
        rows = told.ask(f"select t::text as t from kirby.{table} t")
        assert rows or table in ("incident",)
        assert not any("mellon" in row["t"] or "friend" in row["t"] for row in rows)


def test_what_was_sent_by_a_notifier_that_was_killed_is_sent_again_under_the_same_key(
    told, hook, dsn, as_role, until
):
    told.channel("hook", hook.url)
    told.wrong()
    told.later()
    told.announce()
    hook.held["/hook"] = threading.Event()
    process = subprocess.Popen([sys.executable, "-c", KILLED, as_role(dsn, "kirby_server")])
    until(lambda: hook.got)  # it was received, and is not settled
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    hook.held["/hook"].set()
    told.send()
    assert len(hook.got) == 1  # its claim is held: nobody knows that it is dead
    told.later("16 seconds")
    told.send()
    first, second = (each.headers["Idempotency-Key"] for each in hook.got)
    assert first == second
    told.later("1 hour")
    told.send()
    assert len(hook.got) == 2
    [delivery] = told.ask("select * from kirby.delivery")
    assert (delivery["outcome"], delivery["attempt"]) == ("delivered", 2)


def test_a_channel_that_is_broken_is_an_incident_told_through_the_others_until_it_works(told, hook):
    broken = told.channel("hook", hook.url)
    told.channel("other", f"json://{hook.host}/other")
    hook.broken = {"/hook"}
    told.wrong()
    told.tell()
    assert told.incidents() == []
    told.tell("12 seconds")
    told.tell("36 seconds")
    [incident] = told.incidents()
    assert incident["title"].startswith("the channel hook cannot be reached: Failed to send")
    assert "no such room" in incident["title"]  # what the server answered
    hook.broken = set()
    told.tell()
    assert hook.events("other")[-1] == "opened"
    assert hook.of("other")[-1].body["kirby"]["incident"] == incident["id"]
    assert incident["id"] not in [each.body["kirby"]["incident"] for each in hook.of("hook")]

    told.tell("2 minutes")  # the next try works
    assert told.deliveries(broken)[-1]["outcome"] == "delivered"
    told.tell()
    [incident] = told.incidents()
    assert incident["status"] == "resolved"
    assert hook.of("other")[-1].body["kirby"]["event"] == "resolved"


def test_a_channel_hears_everything_in_its_order_however_often_it_failed(told, hook):
    told.channel("hook", hook.url)
    hook.broken = {"/hook"}
    first = told.wrong("first", fingerprint="1")
    told.tell()
    told.well(first)
    told.wrong("second", fingerprint="2")
    told.tell("2 seconds")
    assert hook.events() == ["opened"]  # the others wait behind it
    hook.broken = set()
    told.tell("12 seconds")
    told.tell()
    kirby = [each.body["kirby"] for each in hook.got[1:]]
    assert [(k["title"], k["event"]) for k in kirby] == [
        ("first", "opened"), ("first", "resolved"), ("second", "opened"),
    ]  # fmt: skip


def test_a_channel_that_hangs_holds_up_no_other(told, hook, until):
    hanging = told.channel("hook", hook.url)
    other = told.channel("other", f"json://{hook.host}/other")
    hook.held["/hook"] = threading.Event()
    told.wrong()
    told.later()
    told.announce()
    until(lambda: told.notifier.tick() and told.deliveries(other))
    assert told.deliveries(hanging) == []
    hook.held["/hook"].set()
    told.send()
    assert [each["outcome"] for each in told.deliveries(hanging)] == ["delivered"]


def test_a_delivery_that_takes_too_long_has_failed(told, hook, dsn, as_role):
    channel = told.channel("hook", hook.url)
    impatient = told.another(as_role(dsn, "kirby_server"), within=0.3)
    hook.held["/hook"] = threading.Event()
    told.wrong()
    told.later()
    told.announce()
    told.send(impatient)
    hook.held["/hook"].set()
    [delivery] = told.deliveries(channel)
    assert delivery["outcome"] == "failed"
    assert "did not finish" in delivery["answer"]
    impatient.stop()


def test_a_notice_is_given_up_in_the_end_and_can_be_sent_again(told, hook):
    channel = told.channel("hook", hook.url)
    hook.broken = {"/hook"}
    told.wrong()
    told.tell()
    for _ in range(7):
        told.later("2 hours")
        told.send()
    became = [each["outcome"] for each in told.deliveries(channel)]
    assert became == ["failed"] * 7 + ["parked"]
    [parked] = told.ask("select * from kirby.notices_at(%s)", channel)
    assert parked["parked_at"] is not None
    told.later("1 day")
    told.send()
    assert len(told.deliveries(channel)) == 8  # it is not tried any more

    hook.broken = set()
    assert told.value("select kirby.resend_notices(%s, 'somebody')", channel) == 1
    told.send()
    assert told.deliveries(channel)[-1]["outcome"] == "delivered"
    assert told.ask("select * from kirby.notices_at(%s)", channel) == []
    [incident] = told.incidents()
    assert incident["status"] == "resolved"


def test_of_a_channel_that_was_removed_nothing_is_left_to_do(told, hook):
    channel = told.channel("hook", hook.url)
    hook.broken = {"/hook"}
    told.wrong()
    for wait in ("11 seconds", "12 seconds", "36 seconds"):
        told.tell(wait)
    told.value("select kirby.remove_channel(%s, 'somebody')", channel)
    [incident] = told.incidents()
    assert (incident["status"], incident["resolved_by"]) == ("resolved", "somebody")
    seen = len(hook.got)
    told.tell("2 hours")
    assert len(hook.got) == seen
    assert told.ask("select * from kirby.due where reason <> 'done'") == []


def test_what_is_no_notice_is_put_aside_and_holds_up_nothing(told, hook):
    told.channel("hook", hook.url)
    told.conn.execute("select kirby.publish('kirby.notices', %s, key => 'hook')", ['{"a": 1}'])
    told.conn.execute("select kirby.publish('kirby.notices', '7', key => 'hook')")
    told.wrong()
    told.tell()
    told.send()
    assert hook.events() == ["opened"]
    parked = told.ask("select error from kirby.due where parked_at is not null")
    assert len(parked) == 2
    assert all(row["error"].startswith("this is no notice of Kirby") for row in parked)


@pytest.mark.parametrize("extra", [{"run": True}, {"headers": {"origin": {"installation": "x"}}}])
def test_what_a_script_wrote_or_a_pull_brought_is_told_to_nobody(told, hook, extra):
    """What a notice says would be true enough; it is not this house that says it."""
    told.channel("hook", hook.url)
    told.wrong()
    told.tell()
    [told_before] = told.ask("select payload from kirby.message where key = 'hook'")
    run = told.trigger(told.deploy(name="forger")) if "run" in extra else None
    message = {"v": told_before["payload"], "k": "hook", "h": extra.get("headers")}
    told.ask(
        "select kirby.append_messages(1::smallint, %s, %s)",
        run, Jsonb({"kirby.notices": [message]}),
    )  # fmt: skip
    told.send()
    assert len(hook.got) == 1
    [parked] = told.ask("select error from kirby.due where parked_at is not null")
    assert "not from Kirby" in parked["error"]


def test_a_test_waits_for_nothing_and_is_not_tried_again(told, hook):
    channel = told.channel("hook", hook.url)
    hook.broken = {"/hook"}
    told.wrong()
    told.tell()
    position = told.value("select kirby.try_channel(%s, 1::smallint, 'somebody')", channel)
    told.send()
    told.later("2 hours")
    told.send()
    tested = [each for each in told.deliveries(channel) if each["position"] == position]
    assert [each["outcome"] for each in tested] == ["failed"]
    assert told.value("select failures from kirby.channel where id = %s", channel) == 2


@pytest.mark.parametrize(("scope", "target"), [("job", "nightly"), ("tag", "etl")])
def test_a_storm_is_told_to_whoever_would_have_been_told_of_a_part_of_it(told, hook, scope, target):
    own = told.channel("own", f"json://{hook.host}/own", route=False)
    others = told.channel("others", f"json://{hook.host}/others", route=False)
    told.route(own, scope, target)
    told.route(others, scope, "nobody")
    for number in range(20):
        name = "nightly" if number == 7 else f"job-{number}"
        deployment = told.deploy(name=name, tags=("etl",) if number == 7 else ())
        told.wrong(f"{name} fails", deployment=deployment, fingerprint=name)
    told.tell()
    told.tell()
    [storm] = hook.got
    assert storm.path == "/own"
    assert storm.body["kirby"]["kind"] == "storm"
    assert len(storm.body["kirby"]["told"]) == 20
    assert "- nightly fails" in storm.body["message"]


def test_a_job_that_fails_and_then_works_is_told_by_the_supervisor_that_leads(
    told, hook, supervise, monkeypatch, until
):
    monkeypatch.setenv("KIRBY_CHANNEL_TOKEN", "sesame")
    told.channel("hook", f"json://{hook.host}/hook?+X-Token=${{TOKEN}}")
    nightly = told.deploy("print('no price today'); raise SystemExit(3)", name="nightly")
    supervisor = supervise(url="https://kirby.test")
    failed = told.trigger(nightly)
    drive(supervisor, lambda: told.get(failed)["status"] == "failed")
    drive(supervisor, lambda: told.incidents("failing"))
    told.later("9 seconds")  # no more: leases hold on
    drive(supervisor, lambda: hook.got)
    [opened] = hook.got
    assert opened.headers["X-Token"] == "sesame"
    assert "no price today" in opened.body["message"]
    assert f"https://kirby.test/runs/{failed}?env=dev" in opened.body["message"]

    told.deploy("print('all is well')", name="nightly")
    told.trigger(nightly)
    drive(supervisor, lambda: len(hook.got) == 2)
    assert hook.events() == ["opened", "resolved"]
    supervisor.stop()
    assert [each["outcome"] for each in told.ask("select outcome from kirby.delivery")] == [
        "delivered", "delivered",
    ]  # fmt: skip

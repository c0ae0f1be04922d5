"""Why a job ran, did not, or will: each reason, in a person's words. The clock is set by hand."""

import json
import uuid
from datetime import datetime

import pytest
from fix_schedules import house_fixture  # noqa: F401
from fix_web import connected, deploy
from starlette.testclient import TestClient

from kirby.core import subscriptions
from kirby.core.errors import NotFound
from kirby.server import query, why
from kirby.server.environments import Environment

BRUSSELS = "Europe/Brussels"


@pytest.fixture
def ask(house, monkeypatch):
    """`ask("report")`: the answers about last, now and next, each as a list of sentences."""
    monkeypatch.setattr(query, "driver", lambda conn: conn)

    def ask(name, at=None, environment="dev"):
        [row] = house.ask("select id, name, created_at from kirby.environment where name = %s",
                          environment)  # fmt: skip
        moment = datetime.fromisoformat(at) if at else None
        found = why.job(house.conn, Environment(**row), name, moment)
        told = {"last": [], "now": [], "next": [], "all": found}
        for answer in found.answers:
            told[answer.about].append(answer.text)
        return told

    return ask


def alive(house, **options):
    """A supervisor that holds its lease."""
    values = {"labels": [], "slots": 4, **options}
    house.conn.execute(
        "insert into kirby.supervisor (id, host, folder, pid, slots, labels, lease_until)"
        " values (%s, 'h', '', 1, %s, %s, kirby.now() + interval '1 year')",
        [str(uuid.uuid4()), values["slots"], values["labels"]],
    )


def test_it_ran_because_its_schedule_says_so_and_will_again(house, ask):
    house.set("2027-03-26T12:00", BRUSSELS)
    report = house.schedule("30 2 * * *", tz=BRUSSELS)
    house.go("2027-03-27T12:00", BRUSSELS)
    [run] = house.of(report)

    told = ask("report")

    assert told["last"] == [
        f"Sat 2027-03-27 02:30 CET: it ran, its schedule names that time: run {run['id']} succeeded"
    ]
    assert told["now"] == ["nothing of it runs"]
    assert told["next"] == [
        "Sun 2027-03-28 03:00 CEST (shifted: 02:30 does not exist): it will run"
    ]
    assert told["all"].says.startswith("at 02:30 every day (Europe/Brussels), version 1 since")
    assert told["all"].answers[0].run_id == run["id"]


def test_what_is_planned_has_not_happened_at_a_moment_to_come(house, ask):
    house.set("2027-01-01T12:00")
    house.schedule("0 * * * *")
    house.go("2027-01-01T13:30")
    told = ask("report", at="2027-01-01T16:30+00:00")
    assert [line[:24] for line in told["last"]] == ["Fri 2027-01-01 13:00 UTC"]
    assert told["next"] == ["Fri 2027-01-01 17:00 UTC: it will run"]


def test_paused_it_says_by_whom_why_and_until_when(house, ask):
    house.set("2027-01-01T12:00")
    house.schedule("0 * * * *")
    id = house.add(scope="job", target="report", until_at="2027-01-01T16:30Z", reason="broken")
    house.go("2027-01-01T14:10")
    held = f"paused until 2027-01-01 16:30 UTC by exception {id}: broken"

    told = ask("report")

    assert told["last"] == [f"Fri 2027-01-01 14:00 UTC: it did not run: {held}"]
    assert told["now"] == [f"{held} (ann)", "nothing of it runs"]
    assert told["next"] == [
        f"Fri 2027-01-01 15:00 UTC (and 1 more): it will not run: {held}",
        "Fri 2027-01-01 17:00 UTC: it will run",
    ]
    assert [each.exceptions for each in told["all"].answers] == [[id], [id], [], [id], []]
    house.go("2027-01-01T17:10")
    assert "it ran, its schedule names that time" in ask("report")["last"][0]
    assert ask("report", "2027-01-01T14:10+00:00")["last"] == told["last"]
    assert ask("report", "2027-01-01T14:10+00:00")["now"] == told["now"]


def test_a_schedule_that_an_exception_put_in_its_place_is_named(house, ask):
    house.set("2027-01-01T11:50")
    house.schedule("0 3 * * *")
    id = house.add(scope="job", target="report", effect="schedule", schedules=["30 12 * * *"],
                   density=28, until_at="2027-01-03T00:00Z")  # fmt: skip
    house.go("2027-01-01T13:00")

    assert f"it ran, the schedule of exception {id} names that time" in ask("report")["last"][0]


def test_a_holiday_is_named_with_its_calendar(house, ask):
    house.conn.execute("insert into kirby.calendar (name, days, updated_by)"
                       " values ('feasts', '[\"01-01\"]', 'test')")  # fmt: skip
    house.set("2026-12-31T12:00")
    house.schedule("0 6 * * *", exclude=["feasts"])
    house.go("2026-12-31T13:00")

    coming = ask("report", "2026-12-31T13:00+00:00")["next"]
    house.go("2027-01-01T12:00")

    assert coming[0] == (
        "Fri 2027-01-01 06:00 UTC: it will not run: excluded by the calendar feasts: 01-01"
    )
    assert coming[1] == "Sat 2027-01-02 06:00 UTC: it will run"
    assert ask("report")["last"] == [
        "Fri 2027-01-01 06:00 UTC: it did not run: excluded by the calendar feasts: 01-01"
    ]
    assert ", not on the days of feasts," in ask("report")["all"].says


def test_the_run_before_it_had_not_ended(house, ask):
    alive(house)
    house.set("2027-01-01T11:59")
    report = house.schedule("0 * * * *")
    house.go("2027-01-01T12:30", end=None)
    [run] = house.of(report)
    house.start_run(run["id"])
    house.go("2027-01-01T13:30", end=None)

    told = ask("report")

    assert told["last"][0].endswith("13:00 UTC: it did not run: the run before it had not ended")
    assert told["now"] == [f"run {run['id']} runs since Fri 2027-01-01 12:30 UTC"]


def test_what_a_queued_run_waits_for(house, ask):
    house.set("2027-01-01T11:59")
    report = house.schedule("0 * * * *", labels=["gpu"])
    house.go("2027-01-01T12:10", end=None)
    [run] = house.of(report)

    nobody = ask("report")["now"]
    alive(house, labels=["eu"])
    wrong = ask("report")["now"]

    assert nobody == [f"run {run['id']} waits: no supervisor is alive"]
    assert wrong == [f"run {run['id']} waits: no living supervisor has the label gpu"]


def test_a_retry_that_is_put_off_is_told_with_its_attempt(house, ask):
    house.set("2027-01-01T11:59")
    alive(house)
    report = house.schedule("0 12 * * *", max_attempts=3, retry_pause=600)
    house.go("2027-01-01T12:00", end=None)
    [run] = house.of(report)
    house.start_run(run["id"])
    house.end_run(run["id"], "run_failed")
    [_, again] = house.of(report)

    [now] = [text for text in ask("report")["now"] if text.startswith("run ")]

    assert now.startswith(f"run {again['id']} waits: it is put off until 2027-01-01 12:")
    assert now.endswith("; it is attempt 2")
    house.set("2027-01-01T13:00")
    house.start_run(again["id"])
    house.end_run(again["id"])
    assert ask("report")["last"][1].endswith(
        f"run {run['id']} was tried again: run {again['id']} succeeded"
    )


def test_somebody_started_it_by_hand(house, ask):
    house.set("2027-01-01T12:00")
    house.deploy("pass", name="by-hand")
    assert ask("by-hand")["last"] == ["it has not run yet: no tick was due and nobody started it"]
    deployment = house.value("select id from kirby.deployment")
    run = house.trigger(deployment)
    house.finish()

    told = ask("by-hand")

    assert told["last"] == [
        f"Fri 2027-01-01 12:00 UTC: test started it by hand: run {run} succeeded"
    ]
    assert told["next"] == ["when somebody starts it: it has no schedule"]


def test_after_another_job(house, ask):
    house.set("2027-01-01T12:00")
    load = house.deploy("pass", name="load")
    house.schedule("after: load", name="clean")
    assert ask("clean")["next"] == ["when load has succeeded"]
    run = house.trigger(load)
    house.finish()
    house.go("2027-01-01T12:01")

    assert f"it ran, run {run} of the job before it had succeeded" in ask("clean")["last"][0]


def test_a_tick_that_its_jitter_puts_off_has_not_begun(house, ask):
    house.set("2027-01-01T11:59")
    report = house.schedule("0 12 * * *", jitter=3600)
    [tick] = [t for t in house.ticks(report) if t["at"].hour == 12][:1]
    assert tick["fire_at"] > tick["at"]
    house.set("2027-01-01T12:00:01")

    [last] = ask("report")["last"]

    assert last.startswith("Fri 2027-01-01 12:00 UTC: it has not begun: its jitter puts it off")


def test_a_due_tick_that_nobody_fires_is_told(house, ask):
    house.set("2027-01-01T11:59")
    house.schedule("0 12 * * *")
    house.set("2027-01-01T12:05")

    dead = ask("report")["last"][0]
    alive(house)
    slow = ask("report")["last"][0]

    assert dead.endswith("12:00 UTC: it is due, and no supervisor is alive to fire it")
    assert slow.endswith("it is due, and nobody has fired it for 300 s")


def test_a_schedule_that_nobody_has_planned_yet(house, ask):
    house.set("2027-01-01T11:59")
    house.deploy("pass", name="new", kind="scheduled", schedules=["0 12 * * *"])

    assert ask("new")["next"] == [
        "Fri 2027-01-01 12:00 UTC, as its schedule says: no supervisor is alive to plan it"
    ]


def test_a_daemon_that_is_paused_is_silent_on_purpose(house, ask):
    house.set("2027-01-01T12:00")
    house.deploy("pass", name="serve", kind="daemon", replicas=2)
    before = ask("serve")
    id = house.add(scope="job", target="serve", until_at="2027-01-02T00:00Z", reason="upkeep")
    after = ask("serve")

    assert before["now"] == ["0 of 2 replicas are there; the leader queues what is missing"]
    assert after["now"] == [
        f"paused until 2027-01-02 00:00 UTC by exception {id}: upkeep (ann)",
        "0 of 2 replicas are there; on purpose: see above",
    ]
    assert after["next"] == ["it is kept running: what ends is started again"]


def test_open_incidents_are_told(house, ask):
    house.set("2027-01-01T11:59")
    report = house.schedule("0 12 * * *")
    house.go("2027-01-01T12:00", end="run_failed")
    [incident] = house.ask("select * from kirby.incident where deployment_id = %s", report)

    assert (
        f"incident {incident['id']} since Fri 2027-01-01 12:00 UTC: {incident['title']}"
        in (ask("report")["now"])
    )


def test_where_it_is_not_deployed_it_says_where_it_is(house, ask):
    house.set("2027-01-01T12:00")
    house.deploy("pass", name="load", environment="prod")

    with pytest.raises(NotFound, match="load is not deployed in dev: it is in prod"):
        ask("load")
    with pytest.raises(NotFound, match=r"there is no job in dev called lod$"):
        ask("lod")
    with pytest.raises(NotFound, match="load was not deployed in prod yet at 2020-01-01 00:00:00"):
        ask("load", "2020-01-01T00:00+00:00", environment="prod")


# By command, API and page


def test_by_command_api_and_page_it_is_the_same(kirby, dsn, give, site, admin):
    with connected(dsn) as conn:
        deploy(conn, "hourly", "scheduled", schedules=["0 * * * *"])
    headers = {"Authorization": f"Bearer {give('viewer')}"}
    client = TestClient(site, headers=headers)

    text = kirby("why", "job", "hourly")
    document = kirby("why", "job", "hourly", "--json")
    found = client.get("/api/v1/jobs/hourly/why").json()
    page = admin.get("/jobs/hourly").text

    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("hourly in dev: every hour (UTC), version 1 since")
    assert "last  it has not run yet" in text.out
    told = json.loads(document.out)
    assert [each["text"] for each in told["answers"]] == [each["text"] for each in found["answers"]]
    assert all(each["text"] in page for each in found["answers"])
    assert "<h2>Why</h2>" in page
    later = client.get("/api/v1/jobs/hourly/why?at=2000-01-01")
    assert (later.status_code, "was not deployed" in later.json()["error"]) == (404, True)
    assert client.get("/api/v1/jobs/hourly/why?at=noon").status_code == 400
    missing = kirby("why", "job", "hourli")
    assert missing.err == "kirby: there is no job in dev called hourli; did you mean hourly?\n"


def test_a_pause_beyond_what_is_planned_says_that_nothing_planned_will_run(house, ask):
    house.set("2027-01-01T12:00")
    house.schedule("0 * * * *")
    id = house.add(scope="job", target="report", until_at="2027-02-01T00:00Z", reason="closed")
    house.look()

    first, rest = ask("report")["next"]

    assert f"it will not run: paused until 2027-02-01 00:00 UTC by exception {id}: closed" in first
    assert rest.startswith("none of the ")
    assert rest.endswith(" ticks planned so far will run")


def test_messages_that_it_could_not_handle_are_told(kirby, dsn):
    with connected(dsn) as conn:
        deploy(conn, "totals", "daemon")
        held, _ = subscriptions.subscribe(conn, "readings", "totals", on_failure="park")
        for number in range(2):
            conn.execute("select kirby.publish('readings', %s::text::jsonb)", [number])
        while batch := subscriptions.claim(conn, held, 10):
            failed = [subscriptions.Failure(each, "park", "oops") for each in batch.positions]
            subscriptions.settle(conn, batch, failures=failed)

    told = kirby("why", "job", "totals").out
    assert "2 messages of readings could not be handled, since" in told
    assert "kirby subscription show readings totals" in told
    assert "a daemon, 1 replica, version 1" in told

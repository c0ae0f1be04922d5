"""What people go through when something is wrong, told as they would tell it."""

import pytest
from fix_incidents import house_fixture  # noqa: F401


@pytest.fixture
def ana(house):
    """Somebody who is told of everything in a channel."""
    house.channel()
    return house


def events(notices):
    return [notice["event"] for notice in notices]


def test_a_job_that_fails_is_told_once_and_once_more_when_it_is_well(ana):
    report = ana.scheduled("report")
    ana.ran(report, fails="ValueError: no orders for 2026-11-23")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["event"] == "opened"
    assert notice["job"] == "report"
    assert "ValueError: no orders" in notice["title"]

    ana.ran(report, fails="ValueError: no orders for 2026-11-24")
    ana.ran(report, fails="ValueError: no orders for 2026-11-25")
    ana.later("11 s")
    assert ana.told() == []
    [incident] = ana.incidents()
    assert incident["count"] == 3

    ana.ran(report)
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]
    assert ana.incidents() == []


def test_another_error_of_the_same_job_is_another_story(ana):
    report = ana.scheduled("report")
    ana.ran(report, fails="ValueError: no orders")
    ana.ran(report, fails="PermissionError: /data/orders.csv")
    ana.later("11 s")

    assert len(ana.told()) == 2
    ana.ran(report)
    ana.later("1 s")
    assert events(ana.told()) == ["resolved", "resolved"]


def test_attempts_that_are_tried_again_wake_nobody(ana):
    report = ana.scheduled("report", max_attempts=3, retry_pause=0)
    run_id = ana.trigger(report)
    for _ in range(2):
        [run_id] = ana.start(ana.at_work)
        ana.fail(run_id, "ConnectionError: away for a moment")
    [last] = ana.start(ana.at_work)
    ana.record(last, "run_succeeded", exit_code=0)
    ana.later("1 minute")

    assert ana.told() == []
    assert ana.incidents("resolved") == []


def test_the_last_attempt_does(ana):
    report = ana.scheduled("report", max_attempts=2, retry_pause=0)
    ana.trigger(report)
    for _ in range(2):
        [run_id] = ana.start(ana.at_work)
        ana.fail(run_id, "ConnectionError: away")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["event"] == "opened"


def test_whoever_asks_for_retries_hears_of_each(house):
    house.channel(events=["retried", "opened"])
    report = house.scheduled("report", max_attempts=3, retry_pause=0)
    house.trigger(report)
    for _ in range(3):
        [run_id] = house.start(house.at_work)
        house.fail(run_id, "ConnectionError: away")
        house.later("1 s")
    house.later("11 s")

    assert events(house.told()) == ["retried", "retried", "opened"]


def test_a_rerun_by_hand_that_fails_again_is_no_new_episode(ana):
    report = ana.scheduled("report")
    failed = ana.ran(report, fails="ValueError: no orders")
    ana.later("11 s")
    assert events(ana.told()) == ["opened"]

    for _ in range(3):
        failed = ana.value("select kirby.retry_run(%s, 'bob')", failed)
        ana.start(ana.at_work)
        ana.fail(failed, "ValueError: no orders")
        ana.later("11 s")

    assert ana.told() == []
    [incident] = ana.incidents()
    assert incident["count"] == 4


def test_a_job_that_may_fail_twice_is_told_at_the_third_time(ana):
    report = ana.scheduled("report", alert_after=3, recover_after=2)
    for _ in range(2):
        ana.ran(report, fails="ValueError: no orders")
    ana.ran(report)
    for _ in range(2):
        ana.ran(report, fails="ValueError: no orders")
    ana.later("11 s")
    assert ana.told() == []

    ana.ran(report, fails="ValueError: no orders")
    ana.later("11 s")
    assert events(ana.told()) == ["opened"]

    ana.ran(report)
    ana.later("11 s")
    assert ana.told() == []
    ana.ran(report)
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]


def test_kirby_was_down_while_the_nightly_report_was_due(ana):
    """She is told that Kirby was down, what was late by it, and that all is well again; not that
    each job by itself is late."""
    ana.at_work  # noqa: B018
    report, backup = ana.scheduled("report"), ana.scheduled("backup")
    for each in (report, backup):
        ana.tick(each, ago="-60 s")
    ana.down("2 hours")
    ana.round()

    assert {(i["kind"], i["job"]) for i in ana.incidents()} == {
        ("platform", None), ("missed", "report"), ("missed", "backup"),
    }  # fmt: skip
    ana.start(ana.at_work)
    ana.later("11 s")
    ana.later("1 s")
    opened, resolved = ana.told()
    assert opened["event"] == "opened"
    assert "Kirby itself was down for 2 h" in opened["title"]
    assert opened["told"] == 2
    assert resolved["event"] == "resolved"
    assert ana.incidents() == []
    [outage] = ana.ask("select to_at - from_at as span from kirby.outage")
    assert outage["span"].total_seconds() == pytest.approx(7200, abs=60)


def test_an_outage_in_which_nothing_was_due_is_known_and_not_told(ana):
    ana.down("2 hours")
    ana.round()
    ana.later("11 s")

    assert ana.told() == []
    assert ana.value("select count(*) from kirby.outage") == 1


def test_a_job_that_hangs_is_told_while_it_still_hangs(ana):
    report = ana.scheduled("report", finish_by=1800.0)
    ana.tick(report)
    ana.round()
    [run_id] = ana.start(ana.at_work)
    ana.later("29 minutes")
    assert ana.incidents() == []

    ana.later("2 minutes")
    ana.later("11 s")
    [notice] = ana.told()
    assert notice["kind"] == "stuck"
    assert f"run {run_id} has been running for 31 min" in notice["title"]
    assert "within 30 min" in notice["title"]

    ana.conn.execute("select kirby.cancel_run(%s, 'it hangs', 'ana')", [run_id])
    ana.record(run_id, "run_cancelled")
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]
    assert ana.marks(report) == [("start", "met"), ("finish", "missed")]


def test_a_job_that_succeeds_in_time_meets_both_its_marks(ana):
    report = ana.scheduled("report", finish_by=1800.0)
    ana.tick(report)
    ana.round()
    [run_id] = ana.start(ana.at_work)
    ana.record(run_id, "run_succeeded", exit_code=0)
    ana.later("1 hour")

    assert ana.marks(report) == [("start", "met"), ("finish", "met")]
    assert ana.told() == []


def test_a_daemon_that_lives_but_says_nothing(ana):
    worker = ana.daemon("worker", heartbeat=300.0)
    ana.conn.execute("select kirby.plan_daemons()")
    [run_id] = ana.start(ana.at_work)
    ana.later("4 minutes")
    ana.say(run_id, "at work", stream="stdout")
    ana.later("4 minutes")
    assert ana.incidents() == []

    ana.later("2 minutes")
    ana.later("11 s")
    [notice] = ana.told()
    assert notice["kind"] == "silent"
    assert "replica 0 is alive but silent" in notice["title"]
    ana.later("5 minutes")
    [incident] = ana.incidents()
    assert incident["count"] == 1  # it is the same silence all along

    ana.say(run_id, "at work again", stream="stdout")
    ana.later("16 s")
    assert events(ana.told()) == ["resolved"]
    assert worker


def test_a_job_that_runs_but_whose_topic_gets_nothing(ana):
    ana.daemon("scraper", expects={"prices": 900})
    ana.conn.execute("select kirby.plan_daemons()")
    [run_id] = ana.start(ana.at_work)
    ana.later("16 minutes")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["kind"] == "silent"
    assert "no message in prices for 16 min" in notice["title"]
    assert f"run {run_id} is alive but silent" in notice["title"]

    ana.publish("prices")
    ana.later("16 s")
    assert events(ana.told()) == ["resolved"]


def test_a_suspended_job_is_silent_on_purpose(ana):
    report = ana.scheduled("report", finish_by=3600.0)
    scraper = ana.daemon("scraper", heartbeat=60.0, expects={"prices": 60})
    ana.pause("report")
    ana.pause("scraper")
    ana.tick(report)
    ana.round()
    for _ in range(5):
        ana.later("20 minutes")

    assert ana.told() == []
    assert ana.incidents() == []
    assert ana.marks(report) == [("start", "void"), ("finish", "void")] or ana.marks(report) == []
    assert scraper


def test_nobody_has_the_labels_that_a_job_asks_for(ana):
    ana.at_work  # noqa: B018
    train = ana.scheduled("train", labels=["gpu"])
    ana.tick(train)
    ana.round()
    ana.later("11 minutes")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["kind"] == "missed"
    assert "02:00 CET has not started" in notice["title"]
    assert "no living supervisor has the label gpu" in notice["title"]

    ana.start(ana.supervisor("big", labels=["gpu"]))
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]


def test_no_supervisor_is_alive(ana):
    report = ana.scheduled("report")
    ana.tick(report)
    ana.round()
    ana.later("11 minutes")

    [incident] = ana.incidents()
    assert incident["details"]["stage"] == "not_claimed"
    assert "no supervisor is alive" in incident["title"]


def test_every_slot_is_taken(ana):
    small = ana.supervisor("small", slots=1)
    long = ana.scheduled("long")
    ana.trigger(long)
    ana.start(small)
    report = ana.scheduled("report")
    ana.tick(report)
    ana.round()
    ana.later("11 minutes")

    [incident] = ana.incidents()
    assert "all 1 slots of the supervisor are taken" in incident["title"]


def test_the_virtualenv_does_not_get_ready(ana):
    report = ana.scheduled("report")
    ana.tick(report)
    ana.round()
    [run_id] = ana.claim(ana.at_work)
    ana.later("11 minutes")
    [incident] = ana.incidents()
    assert incident["details"]["stage"] == "not_started"
    assert "claimed by web-1, but it still prepares its virtualenv" in incident["title"]

    ana.record(run_id, "run_failed", reason="numpy 9.9 cannot be built")
    ana.later("11 s")
    failing = [each for each in ana.incidents() if each["kind"] == "failing"]
    assert failing[0]["title"] == "numpy 9.9 cannot be built"
    assert failing[0]["details"]["stage"] == "not started"


def test_a_virtualenv_that_does_not_build_is_told_as_a_failure_and_not_twice(ana):
    report = ana.scheduled("report")
    ana.tick(report)
    ana.round()
    [run_id] = ana.claim(ana.at_work)
    ana.record(run_id, "run_failed", reason="numpy 9.9 cannot be built")
    ana.later("11 minutes")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["kind"] == "failing"
    assert ana.marks(report) == [("start", "missed")]


def test_a_tick_that_nobody_fired(ana):
    report = ana.scheduled("report")
    ana.tick(report, ago="11 minutes")
    ana.conn.execute("select kirby.watch_deadlines()")

    [incident] = ana.incidents()
    assert incident["details"]["stage"] == "not_fired"


def test_a_job_that_comes_and_goes_is_told_to_flap_and_then_left_alone(ana):
    report = ana.scheduled("report")
    for _ in range(2):
        ana.ran(report, fails="ValueError: no orders")
        ana.later("11 s")
        ana.ran(report)
        ana.later("11 s")
    assert events(ana.told()) == ["opened", "resolved"] * 2

    for _ in range(5):
        ana.ran(report, fails="ValueError: no orders")
        ana.later("11 s")
        ana.ran(report)
        ana.later("11 s")
    assert events(ana.told()) == ["opened"]
    [incident] = ana.incidents()
    assert incident["flapping"]
    assert incident["count"] == 5

    ana.later("61 minutes")
    ana.later("1 s")
    assert ana.incidents() == []
    assert events(ana.told())[-1] == "resolved"


def test_five_hundred_jobs_that_fail_at_once_give_one_message(ana):
    runs = [ana.trigger(ana.deploy("pass", name=f"job-{n}")) for n in range(500)]
    big = ana.supervisor("big", slots=1000)
    ana.claim(big, 1000)
    for run_id in runs:
        ana.record(run_id, "run_started", pid=1)
        ana.fail(run_id, f"OSError: [Errno 28] No space left on device: '/data/{run_id}'")
    ana.later("11 s")
    assert ana.told() == []  # they are still being gathered
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["kind"] == "storm"
    assert notice["event"] == "opened"
    assert notice["title"].startswith("500 incidents at once: ")
    assert "No space left on device" in notice["title"]

    for row in ana.ask("select id from kirby.deployment"):
        ana.ran(row["id"], supervisor=big)
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]
    assert ana.incidents() == []


def test_what_is_silenced_is_told_nothing_and_heard_of_afterwards(ana):
    report = ana.scheduled("report")
    ana.ran(report, fails="ValueError: no orders")
    [incident] = ana.incidents()
    ana.conn.execute("select kirby.silence_incident(%s, kirby.now() + interval '2 hours', 'ana',"
                     " 'we know')", [incident["id"]])  # fmt: skip
    ana.later("1 hour")
    assert ana.told() == []

    ana.later("61 minutes")
    assert events(ana.told()) == ["opened"]


def test_a_silence_holds_for_the_same_when_it_comes_back(ana):
    report = ana.scheduled("report")
    ana.ran(report, fails="ValueError: no orders")
    [incident] = ana.incidents()
    ana.conn.execute("select kirby.silence_incident(%s, kirby.now() + interval '2 hours', 'ana')",
                     [incident["id"]])  # fmt: skip
    ana.ran(report)
    ana.ran(report, fails="ValueError: no orders")
    ana.later("30 minutes")

    assert len(ana.incidents()) == 1
    assert ana.told() == []


def test_digests_while_it_is_open_until_somebody_sees_to_it(ana):
    report = ana.scheduled("report")
    ana.ran(report, fails="ValueError: no orders")
    ana.later("11 s")
    ana.later("61 minutes")
    ana.later("30 minutes")
    assert events(ana.told()) == ["opened", "updated"]

    [incident] = ana.incidents()
    ana.conn.execute("select kirby.acknowledge_incident(%s, 'ana', 'on it')", [incident["id"]])
    ana.later("1 day")
    assert ana.told() == []
    ana.ran(report)
    ana.later("1 s")
    assert events(ana.told()) == ["resolved"]


def test_a_job_that_keeps_failing_is_paused_for_an_hour_and_then_tried(ana):
    report = ana.scheduled("report", pause_after=3)
    for _ in range(2):
        ana.ran(report, fails="ValueError: no orders")
    in_force = "select count(*) from kirby.exceptions_of(%s, kirby.now()) where effect = 'pause'"
    assert ana.value(in_force, report) == 0
    ana.ran(report, fails="ValueError: no orders")

    assert ana.value(in_force, report) == 1
    ana.later("61 minutes")
    assert ana.value(in_force, report) == 0


def test_a_daemon_that_keeps_dying_is_failing_until_it_stays_up(ana):
    ana.daemon("worker", alert_after=3)
    ana.conn.execute("select kirby.plan_daemons()")
    for _ in range(3):
        [run_id] = ana.start(ana.at_work)
        ana.fail(run_id, "KeyError: 'price'")
        ana.later("5 minutes")
    [notice] = ana.told()
    assert notice["kind"] == "failing"
    assert "KeyError: 'price'" in notice["title"]

    ana.start(ana.at_work)
    ana.later("31 s")
    ana.later("15 s")
    assert events(ana.told()) == ["resolved"]


def test_a_daemon_that_nobody_starts_is_missed(ana):
    ana.at_work  # noqa: B018
    ana.daemon("worker", labels=["gpu"])
    ana.conn.execute("select kirby.plan_daemons()")
    ana.later("11 minutes")
    ana.later("11 s")

    [notice] = ana.told()
    assert notice["kind"] == "missed"
    assert "replica 0 does not run" in notice["title"]
    assert "label gpu" in notice["title"]
    ana.start(ana.supervisor("big", labels=["gpu"]))
    ana.later("31 s")
    ana.later("15 s")
    assert events(ana.told()) == ["resolved"]

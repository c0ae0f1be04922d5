"""Marks: planned with their ticks, void on purpose, looked at when due and not before."""

import threading

import psycopg
import pytest
from fix_incidents import House, house_fixture  # noqa: F401

DUE = """
    select kind, extract(epoch from due_at - tick_at)::integer as seconds from kirby.deadline
     where deployment_id = %s order by tick_at, kind desc
"""


READ = """
    select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables
     where schemaname = 'kirby' and relname = 'deadline'
"""


def read(house):
    """How many marks were read so far in this transaction."""
    return house.value(READ)


def dues(house, deployment):
    return [(row["kind"], row["seconds"]) for row in house.ask(DUE, deployment)]


def plan(house, deployment, *minutes, **columns):
    """Ticks so many minutes from now, planned in one statement."""
    house.ask(
        "insert into kirby.tick (deployment_id, at, local, fire_at, excluded)"
        " select %s, kirby.now() + m * interval '1 minute', '02:00',"
        " kirby.now() + m * interval '1 minute' + %s::interval, %s::text"
        " from unnest(%s::double precision[]) m returning at",
        deployment, columns.get("jitter", "0 s"), columns.get("excluded"), [*map(float, minutes)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [
        ((1, 1441), (600, 600)),  # daily: ten minutes
        ((1, 9), (240, 240)),  # half of eight minutes
        ((1, 2, 3), (30, 30, 30)),
        ((1, 1.1), (30, 30)),  # never less than half a minute
        ((1,), (600,)),  # nobody knows the next one
    ],
)
def test_a_run_must_start_within_half_the_time_to_the_next_one(house, minutes, seconds):
    job = house.scheduled("report")
    plan(house, job, *minutes)
    assert dues(house, job) == [("start", each) for each in seconds]


def test_a_tick_that_is_planned_alone_looks_at_the_one_before(house):
    job = house.scheduled("report")
    plan(house, job, 1)
    plan(house, job, 5)
    assert dues(house, job) == [("start", 600), ("start", 120)]


def test_what_the_version_says_wins_and_the_jitter_counts(house):
    job = house.scheduled("report", start_by=90.0, finish_by=3600.0)
    plan(house, job, 1, 2, jitter="20 s")
    assert dues(house, job) == [("start", 110), ("finish", 3620)] * 2


def test_what_a_calendar_excludes_has_no_marks(house):
    job = house.scheduled("report")
    plan(house, job, 1, 2, excluded="holidays: 2026-12-25")
    assert dues(house, job) == []


def test_marks_go_with_ticks_that_are_planned_anew(house):
    job = house.scheduled("report", finish_by=60.0)
    plan(house, job, 1, 2)
    house.conn.execute("delete from kirby.tick where deployment_id = %s", [job])
    assert dues(house, job) == []
    plan(house, job, 1)
    assert len(dues(house, job)) == 2


def test_marks_follow_a_tick_that_is_fired_later(house):
    job = house.scheduled("report")
    plan(house, job, 1)
    house.conn.execute("update kirby.tick set fire_at = fire_at + interval '50 s'"
                       " where deployment_id = %s", [job])  # fmt: skip
    assert dues(house, job) == [("start", 650)]


def test_a_tick_that_a_calendar_excludes_later_on_is_not_missed(house):
    job = house.scheduled("report")
    plan(house, job, 1)
    house.conn.execute("update kirby.tick set excluded = 'x' where deployment_id = %s", [job])
    assert house.marks(job) == [("start", "void")]


def test_a_tick_that_is_skipped_in_time_is_not_missed(house):
    job = house.scheduled("report")
    house.trigger(job)  # the run before it has not ended
    house.tick(job)
    house.round()
    assert house.marks(job) == [("start", "void")]
    house.later("1 hour")
    assert house.incidents() == []


def test_ticks_that_an_outage_swallowed_are_missed_each_and_told_as_one(house):
    house.channel()
    job = house.scheduled("report")
    plan(house, job, 1, 11, 21, 31)
    house.down("1 hour")
    house.round()

    [missed] = [each for each in house.incidents() if each["kind"] == "missed"]
    assert missed["count"] >= 3
    assert "Kirby itself was down for 1 h" in missed["title"]
    house.later("11 s")
    assert [notice["kind"] for notice in house.told()] == ["platform"]


def test_a_pause_that_came_too_late_excuses_nothing(house):
    job = house.scheduled("report")
    house.tick(job)
    house.round()
    house.later("1 minute")
    house.pause("report")
    house.later("10 minutes")
    assert [each["kind"] for each in house.incidents()] == ["missed"]


def test_a_run_that_somebody_cancels_is_not_missed(house):
    job = house.scheduled("report", finish_by=60.0)
    house.tick(job)
    house.round()
    [run] = house.of(job)
    house.conn.execute("select kirby.cancel_run(%s, 'not today', 'ana')", [run["id"]])
    assert house.marks(job) == [("start", "void"), ("finish", "void")]


def test_nobody_waits_any_longer_for_a_run_that_was_cancelled(house):
    job = house.scheduled("report")
    house.tick(job)
    house.round()
    house.later("11 minutes")
    [run] = house.of(job)
    house.conn.execute("select kirby.cancel_run(%s, 'not today', 'ana')", [run["id"]])
    [incident] = house.incidents("resolved")
    assert incident["resolution"] == f"run {run['id']} was cancelled"


def test_a_start_that_was_late_is_known_as_missed_and_over(house):
    job = house.scheduled("report")
    house.tick(job)
    house.round()
    house.later("11 minutes")
    assert len(house.incidents()) == 1
    house.start(house.at_work)
    assert house.incidents() == []
    assert house.marks(job) == [("start", "missed")]


def test_what_is_late_for_want_of_another_attempt_is_late(house):
    job = house.scheduled("report", finish_by=1800.0, max_attempts=3, retry_pause=7200)
    house.tick(job)
    house.round()
    [run_id] = house.start(house.at_work)
    house.fail(run_id, "ConnectionError: away")
    house.conn.execute("update kirby.run set not_before = kirby.now() + interval '2 hours'"
                       " where status = 'queued'")  # fmt: skip
    house.later("31 minutes")

    [incident] = house.incidents()
    assert incident["kind"] == "late"
    assert "it is put off until" in incident["title"]
    house.later("2 hours")
    [again] = house.start(house.at_work)
    house.record(again, "run_succeeded", exit_code=0)
    assert house.incidents() == []


def test_daemons_and_outputs_have_marks_as_their_version_says(house):
    job = house.daemon("worker", replicas=2, heartbeat=60.0, expects={"prices": 30})
    what = "select kind, subject from kirby.deadline where deployment_id = %s order by 1, 2"
    found = [(row["kind"], row["subject"]) for row in house.ask(what, job)]
    assert found == [
        ("heartbeat", "0"), ("heartbeat", "1"), ("output", "prices"),
        ("start", "0"), ("start", "1"),
    ]  # fmt: skip

    house.daemon("worker", replicas=1)
    assert house.ask(what, job) == [{"kind": "start", "subject": "0"}]


def test_a_silence_that_a_pause_explains_begins_when_the_pause_has_ended(house):
    house.daemon("scraper", expects={"prices": 600})
    house.conn.execute("select kirby.plan_daemons()")
    house.start(house.at_work)
    house.pause("scraper", until="2 hours")
    for minutes in [5] * 23 + [1] * 10:
        house.later(f"{minutes} minutes")
    assert house.incidents() == []  # the pause ended five minutes ago
    house.later("6 minutes")
    assert [each["kind"] for each in house.incidents()] == ["silent"]


def test_a_silent_job_without_a_run_says_so(house):
    house.scheduled("loader", expects={"prices": 60})
    house.later("2 minutes")
    [incident] = house.incidents()
    assert "no run is under way" in incident["title"]


def test_what_was_closed_a_month_ago_is_forgotten(house):
    job = house.scheduled("report")
    house.tick(job)
    house.round()
    house.start(house.at_work)
    house.later("20 days")
    assert house.value("select kirby.forget_deadlines()") == 0
    house.later("11 days")
    assert house.value("select kirby.forget_deadlines()") == 1
    assert house.marks(job) == []


def test_a_look_reads_what_is_due_and_not_what_is_planned(house):
    for number in range(20):
        plan(house, house.scheduled(f"job-{number}"), *range(5, 105))
    house.conn.execute("analyze kirby.deadline")
    before = read(house)
    assert house.value("select kirby.watch_deadlines()") == 0
    assert read(house) == before


def test_two_leaders_find_a_missed_mark_once(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        house = House(conn)
        jobs = [house.scheduled(f"job-{number}") for number in range(30)]
        for job in jobs:
            house.tick(job)
        house.round()
        house.conn.execute("update kirby.test_clock set shift = shift + interval '11 minutes'")
        house.conn.execute("update kirby.pulse set at = kirby.now()")

        def look():
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("select kirby.watch_deadlines()")

        leaders = [threading.Thread(target=look) for _ in range(4)]
        for each in leaders:
            each.start()
        for each in leaders:
            each.join()
        assert [each["count"] for each in house.incidents()] == [1] * 30


def test_a_replica_that_nobody_queues_is_missed(house):
    house.daemon("worker")  # and no planner looks after it
    house.later("11 minutes")
    assert house.incidents() == []
    house.later("11 minutes")
    [incident] = house.incidents()
    assert incident["title"] == "replica 0 does not run: nobody has queued it"
    house.conn.execute("select kirby.plan_daemons()")
    house.start(house.at_work)
    house.later("31 s")
    house.later("15 s")
    assert house.incidents() == []


def test_a_tick_that_an_exception_skips_after_an_outage_is_not_missed(house):
    job = house.scheduled("report")
    house.pause("report", until="2 hours")
    plan(house, job, 1, 31)
    house.down("1 hour")
    house.round()
    assert {status for _, status in house.marks(job)} == {"void"}
    assert [each["kind"] for each in house.incidents()] in ([], ["platform"])

"""What becomes of ticks when they are due: late ones, excluded ones, those that wait their turn."""

from datetime import UTC, datetime, timedelta

from fix_schedules import house_fixture  # noqa: F401
from psycopg.types.json import Jsonb

from kirby.server import schedules

LATER = "a later tick was due already"
BUSY = "the run before it had not ended"


def missed(house):
    return [event["count"] for event in house.events("ticks_missed")]


def causes(house, deployment):
    return [run["cause"] for run in house.of(deployment)]


# Catch-up


def test_after_an_outage_the_last_tick_runs_and_the_others_are_said_to_be_skipped(house):
    job = house.schedule("0 * * * *")

    house.set("2026-11-20T15:30")
    house.look()

    assert house.ran(job) == ["Fri 15:00"]
    assert house.skipped(job) == [("Fri 13:00", LATER), ("Fri 14:00", LATER)]


def test_catch_up_none_runs_nothing_that_is_late(house):
    job = house.schedule("0 * * * *", catch_up="none", start_by=600)

    house.set("2026-11-20T15:30")
    house.look()
    house.go("2026-11-20T16:00")

    assert house.ran(job) == ["Fri 16:00"]
    assert house.skipped(job)[-1] == ("Fri 15:00", "it was too late for it")


def test_catch_up_all_runs_them_one_after_the_other_with_their_instants(house):
    job = house.schedule("0 * * * *", catch_up="all")

    house.set("2026-11-20T15:30")
    at = []
    for _ in range(5):
        house.look()
        at += [run["tick_at"].astimezone(UTC).hour for run in house.of(job)[len(at) :]]
        assert len([run for run in house.of(job) if run["status"] == "queued"]) <= 1
        house.finish()

    assert at == [13, 14, 15]
    assert house.skipped(job) == []


def test_of_what_is_caught_up_there_is_a_most(house):
    job = house.schedule("0 * * * *", catch_up="all", catch_up_most=2)

    house.set("2026-11-20T17:30")
    house.go(timedelta(0))

    assert house.ran(job) == ["Fri 16:00", "Fri 17:00"]
    assert {reason for _, reason in house.skipped(job)} == {"more than 2 ticks were due"}


def test_a_tick_that_is_in_time_waits_behind_those_that_are_caught_up(house):
    job = house.schedule("0 * * * *", catch_up="all")
    house.set("2026-11-20T15:59")
    house.look()
    house.set("2026-11-20T16:00")
    house.look()
    house.finish()

    house.go("2026-11-20T16:30")

    assert house.ran(job) == ["Fri 13:00", "Fri 14:00", "Fri 15:00", "Fri 16:00"]


def test_a_clock_that_jumps_a_year_ahead_makes_no_storm(house):
    job = house.schedule("* * * * *")
    every = house.schedule("* * * * *", name="every", catch_up="all", catch_up_most=5,
                           concurrency="allow")  # fmt: skip

    house.set("2027-11-20T12:00")
    for _ in range(3):
        house.look()

    assert len(house.of(job)) == 1
    assert len(house.of(every)) == 5
    assert sorted(missed(house)) == [10_000, 10_000]
    assert house.ran(job) == ["Sat 12:00"]


def test_a_clock_that_jumps_back_runs_nothing_again(house):
    job = house.schedule("0 * * * *")
    house.go("2026-11-20T18:30")
    before = house.ran(job)

    house.set("2026-11-20T12:30")
    house.look()
    house.go("2026-11-20T18:30")

    assert house.ran(job) == before
    assert len(house.of(job)) == len(before)


def test_an_outage_longer_than_the_plan_is_counted(house):
    job = house.schedule("0 0 * * *")

    house.set("2026-11-30T06:00")
    house.look()

    assert house.ran(job) == ["Mon 00:00"]
    [event] = house.events("ticks_missed")
    known = [tick["at"] for tick in house.ticks(job) if tick["at"] <= house.now()]
    assert event["count"] + len(known) == 10  # the midnights of 21 to 30 November
    assert datetime.fromisoformat(event["until"]) == known[-1]


def test_a_new_version_never_runs_for_the_past(house):
    job = house.schedule("0 3 * * *")
    house.set("2026-11-20T12:30")
    house.schedule("15 * * * *")

    house.go("2026-11-20T13:30")

    assert house.ran(job) == ["Fri 13:15"]


# What holds and what delays


def test_what_a_calendar_excludes_is_skipped_and_says_by_what(house):
    house.conn.execute(
        "insert into kirby.calendar (name, days, windows, updated_by) values (%s, %s, %s, 'ann')",
        ["holidays", Jsonb(["2026-11-21"]), Jsonb([])],
    )
    job = house.schedule("0 3 * * *", exclude=["holidays"])

    house.go("2026-11-22T12:00")

    assert house.ran(job) == ["Sun 03:00"]
    [(at, reason)] = house.skipped(job)
    assert at == "Sat 03:00"
    assert "holidays: 2026-11-21" in reason


def test_jitter_delays_the_start_and_not_the_instant(house):
    job = house.schedule("0 * * * *", jitter=600, name="late")
    by = schedules.offset("dev/late", 600)

    house.set("2026-11-20T13:00")
    assert house.look() == 0
    house.go("2026-11-20T13:30", end=None)

    [run] = house.of(job)
    assert timedelta(0) < by < timedelta(minutes=10)
    assert run["tick_at"].astimezone(UTC) == datetime(2026, 11, 20, 13, tzinfo=UTC)
    assert run["queued_at"] - run["tick_at"] == by


def test_who_pauses_a_job_sees_nothing_begin_not_even_what_was_delayed(house):
    job = house.schedule("0 * * * *", jitter=600, name="late")
    house.set("2026-11-20T13:00:01")
    house.add(scope="job", target="late", from_at="2026-11-20T13:00:01Z",
              until_at="2026-11-20T13:50Z")  # fmt: skip

    house.go("2026-11-20T13:40")

    assert house.ran(job) == []
    assert [at for at, _ in house.skipped(job)] == ["Fri 13:00"]


def test_nothing_of_an_outage_begins_in_a_pause(house):
    job = house.schedule("0 * * * *")
    house.add(scope="job", target="report", from_at="2026-11-20T13:30Z",
              until_at="2026-11-20T16:10Z", on_return="run_once")  # fmt: skip

    house.set("2026-11-20T13:45")
    house.look()
    assert house.ran(job) == []
    house.go("2026-11-20T16:30")

    assert house.ran(job) == ["Fri 16:10"]
    assert causes(house, job) == ["return"]


# After other jobs


def test_a_job_runs_after_each_success_of_another(house):
    first = house.schedule("0 * * * *", name="load")
    then = house.schedule("after: load", name="report")

    house.go("2026-11-20T14:30")

    assert causes(house, first) == ["schedule", "schedule"]
    assert causes(house, then) == ["after", "after"]
    runs = [tick["after_run"] for tick in house.ticks(then)]
    assert runs == [run["id"] for run in house.of(first)]


def test_it_does_not_run_after_a_failure_nor_after_a_job_elsewhere(house):
    house.schedule("0 * * * *", name="load")
    house.schedule("30 * * * *", name="load", environment="prod")
    then = house.schedule("after: load", name="report")
    elsewhere = house.schedule("after: load", name="report", environment="prod")

    house.go("2026-11-20T13:15", end="run_failed")
    assert house.of(then) == []
    house.go("2026-11-20T13:45")

    assert house.of(then) == []
    assert len(house.of(elsewhere)) == 1


def test_exceptions_hold_what_runs_after_another(house):
    house.schedule("0 * * * *", name="load")
    then = house.schedule("after: load", name="report")
    house.add(scope="job", target="report", until_at="2026-11-20T14:30Z",
              from_at="2026-11-20T12:00Z")  # fmt: skip

    house.go("2026-11-20T15:30")

    assert len(house.skipped(then)) == 2
    assert causes(house, then) == ["after"]


def test_a_version_that_names_no_job_follows_none(house):
    house.schedule("0 * * * *", name="load")
    then = house.schedule("after: load", name="report")
    house.schedule("0 6 * * *", name="report")

    house.go("2026-11-20T13:15")

    assert house.of(then) == []


# The rows


def test_what_was_skipped_and_caught_up_and_skipped_again_is_true_in_both_logs(house):
    job = house.schedule("0 * * * *")
    house.add(scope="job", target="report", from_at="2026-11-20T12:30Z",
              until_at="2026-11-20T15:30Z", on_return="catch_up")  # fmt: skip
    house.go("2026-11-20T15:29")
    house.add(scope="job", target="report", from_at="2026-11-20T15:30Z",
              until_at="2026-11-20T17:30Z")  # fmt: skip
    house.go("2026-11-20T19:30")

    assert house.ask("select * from kirby.verify_ticks()") == []
    assert house.ran(job)[-1] == "Fri 19:00"


def test_one_that_cannot_be_planned_does_not_stop_the_others(house, caplog):
    house.schedule("0 * * * *", name="bad")
    good = house.schedule("0 * * * *", name="good")
    house.add(scope="job", target="bad", effect="schedule", schedules=["61 * * * *"],
              from_at="2026-11-20T12:30Z", until_at="2026-11-20T15:30Z")  # fmt: skip

    house.go("2026-11-20T13:30")

    assert house.ran(good) == ["Fri 13:00"]
    assert "dev/bad cannot be planned" in caplog.text


def test_a_new_version_does_not_run_for_the_past_of_the_old_one(house):
    """The leader was away; meanwhile somebody deployed another schedule."""
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.set("2026-11-20T15:30")

    house.schedule("0 3 * * *", name="poll")

    assert house.ran(poll) == []
    assert {why for _, why in house.skipped(poll)} == {"another version was deployed after it"}


def test_one_that_cannot_be_fired_holds_up_no_other(house):
    house.set("2026-11-20T11:59:30")
    broken, sound = house.schedule("* * * * *", name="a"), house.schedule("* * * * *", name="b")
    house.conn.execute(f"alter table kirby.run add check (deployment_id <> {broken})")
    house.set("2026-11-20T12:00:00")

    house.look()

    assert (house.ran(broken), house.ran(sound)) == ([], ["Fri 12:00"])
    assert house.ticks(broken)[0]["status"] == "planned"

"""Exceptions to schedules, as the people tell it who use them. The clock is set by hand."""

from datetime import datetime, timedelta

import pytest
from fix_schedules import house_fixture  # noqa: F401

BRUSSELS = "Europe/Brussels"


def test_paused_until_monday_morning_and_back_without_anyone(house):
    """The source is down for the weekend. On Monday at eight all is as before, by itself."""
    house.set("2026-11-20T17:30", BRUSSELS)  # a Friday
    report = house.schedule("0 6,8,20 * * *", tz=BRUSSELS)
    id = house.add(scope="job", target="report", until_at="2026-11-23T07:00Z",
                   reason="the source is down")  # fmt: skip

    house.go("2026-11-23T20:30", BRUSSELS)

    assert house.ran(report, BRUSSELS) == ["Mon 08:00", "Mon 20:00"]
    held = house.skipped(report, BRUSSELS)
    assert [at for at, _ in held] == [
        "Fri 20:00", "Sat 06:00", "Sat 08:00", "Sat 20:00", "Sun 06:00", "Sun 08:00", "Sun 20:00",
        "Mon 06:00",
    ]  # fmt: skip
    assert {why for _, why in held} == {
        f"paused until 2026-11-23 08:00 Europe/Brussels by exception {id}: the source is down"
    }


def test_slower_while_the_source_is_broken(house):
    """Every minute is too much for a source that limps: every two hours, until it is mended."""
    house.set("2026-11-20T11:59:30")
    poll = house.schedule("*/10 * * * *", name="poll")
    id = house.add(scope="job", target="poll", effect="schedule", schedules=["every 2h"],
                   density=336, until_at="2026-11-20T18:05Z", reason="limps")  # fmt: skip

    house.go("2026-11-20T18:40")

    assert house.ran(poll) == [
        "Fri 12:00", "Fri 14:00", "Fri 16:00", "Fri 18:00", "Fri 18:10", "Fri 18:20", "Fri 18:30",
        "Fri 18:40",
    ]  # fmt: skip
    assert house.skipped(poll)[0][1] == (
        f"runs at every 2h instead until 2026-11-20 18:05 UTC by exception {id}: limps"
    )


def test_the_replacement_may_name_instants_that_the_schedule_does_not(house):
    house.set("2026-11-20T00:30")
    nightly = house.schedule("0 3 * * *", name="nightly")
    house.add(scope="job", target="nightly", effect="schedule", schedules=["30 12 * * *"],
              density=28, until_at="2026-11-22T00:00Z")  # fmt: skip

    house.go("2026-11-22T04:00")

    assert house.ran(nightly) == ["Fri 12:30", "Sat 12:30", "Sun 03:00"]


def test_of_overlapping_exceptions_the_most_restrictive_one_counts(house):
    """Slow for everybody, paused for one, and what is left comes back step by step."""
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="environment", effect="schedule", schedules=["every 3h"], density=224,
              until_at="2026-11-20T20:30Z", reason="load")  # fmt: skip
    house.add(scope="job", target="poll", until_at="2026-11-20T16:30Z", reason="mended by Bob")

    house.go("2026-11-20T22:00")

    assert house.ran(poll) == ["Fri 18:00", "Fri 21:00", "Fri 22:00"]
    assert [why.partition(" by")[0].partition(" until")[0] for _, why in house.skipped(poll)] == [
        *["paused"] * 5, "runs at every 3h instead", *["runs at every 3h instead"] * 2
    ]  # fmt: skip


def test_of_two_slower_schedules_the_slower_one_counts(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    for every, density in (("every 2h", 336), ("every 4h", 168)):
        house.add(scope="job", target="poll", effect="schedule", schedules=[every], density=density,
                  until_at="2026-11-21T00:00Z")  # fmt: skip

    house.go("2026-11-20T21:00")

    assert house.ran(poll) == ["Fri 12:00", "Fri 16:00", "Fri 20:00"]


def test_ended_early_it_is_over_at_once(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-11-25T00:00Z")
    house.go("2026-11-20T14:30")

    house.ask("select kirby.end_exception(%s, 'bob', 'it was the cable')", id)
    house.go("2026-11-20T16:30")

    assert house.ran(poll) == ["Fri 15:00", "Fri 16:00"]
    assert house.events("exception_ended")[0]["reason"] == "it was the cable"


def test_an_end_between_two_looks_counts_though_nothing_was_planned_anew(house):
    """What is due is decided by what holds at that moment, not by what was planned."""
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-11-25T00:00Z")
    house.look()
    house.ask("select kirby.end_exception(%s, 'bob')", id)
    house.set("2026-11-20T12:00:01")

    assert house.value("select kirby.fire_ticks()") == 1
    assert house.ran(poll) == ["Fri 12:00"]


def test_extended_it_lasts_longer(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-11-20T13:30Z")
    house.go("2026-11-20T13:10")

    house.ask(
        """select kirby.change_exception(%s, '{"until_at": "2026-11-20T15:30Z"}', 'bob')""", id
    )
    house.go("2026-11-20T16:30")

    assert house.ran(poll) == ["Fri 16:00"]


def test_run_once_on_return_if_anything_was_missed(house):
    house.set("2026-11-20T11:59")
    hourly = house.schedule("0 * * * *", name="hourly")
    yearly = house.schedule("0 0 1 1 *", name="yearly")
    house.add(scope="environment", until_at="2026-11-20T14:30Z", on_return="run_once")

    house.go("2026-11-20T15:10")

    assert house.ran(hourly) == ["Fri 14:30", "Fri 15:00"]
    assert house.ran(yearly) == []
    assert [tick["at"].year for tick in house.ticks(yearly)] == [2027]


def test_run_once_when_it_is_ended_early(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-12-20T14:30Z", on_return="run_once")
    house.go("2026-11-20T13:20")

    house.ask("select kirby.end_exception(%s, 'bob')", id)
    house.go("2026-11-20T13:40")

    assert house.ran(poll) == ["Fri 13:20"]


def test_catching_up_runs_what_was_held_with_the_instants_it_was_for(house):
    """One after the other, the last three: each run knows for which hour it is."""
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", until_at="2026-11-20T17:30Z", on_return="catch_up",
              return_most=3)  # fmt: skip

    house.go("2026-11-20T18:10")

    assert house.ran(poll) == ["Fri 15:00", "Fri 16:00", "Fri 17:00", "Fri 18:00"]
    assert [at for at, _ in house.skipped(poll)] == ["Fri 12:00", "Fri 13:00", "Fri 14:00"]
    runs = house.ask("select tick_at, queued_at from kirby.run order by id")
    assert [run["tick_at"].hour for run in runs] == [15, 16, 17, 18]
    assert {run["queued_at"].strftime("%H:%M") for run in runs[:3]} == {"17:30"}


def test_what_is_caught_up_does_not_pile_up(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", until_at="2026-11-20T17:30Z", on_return="catch_up")
    house.go("2026-11-20T17:45", end=None)

    live = house.ask("select id from kirby.run where status = 'queued'")

    assert len(live) == 1
    assert len([t for t in house.ticks(poll, "planned") if t["again"]]) == 5


def test_many_jobs_do_not_return_all_at_once(house):
    house.set("2026-11-20T11:59")
    jobs = [house.schedule("0 * * * *", name=f"job-{n}") for n in range(60)]
    house.add(scope="environment", until_at="2026-11-20T14:30Z", on_return="run_once")

    house.go("2026-11-20T14:35")

    begun = [
        house.ask("select queued_at from kirby.run where deployment_id = %s", job) for job in jobs
    ]
    assert all(len(each) == 1 for each in begun)
    moments = {each[0]["queued_at"] for each in begun}
    assert len(moments) > 40
    assert max(moments) - min(moments) < timedelta(minutes=1)


def test_every_sunday_night_for_maintenance(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 */2 * * *", name="poll")
    windows = [[f"2026-11-{day}T01:00Z", f"2026-11-{day}T05:00Z"] for day in (22, 29)]
    house.add(scope="everything", environment_id=None, recurs="0 1 * * sun", lasts=4 * 3600,
              windows=windows, until_at="2026-12-01T00:00Z", reason="maintenance")  # fmt: skip

    house.go("2026-11-30T00:00")

    assert [at for at, _ in house.skipped(poll)] == ["Sun 02:00", "Sun 04:00"] * 2


def test_the_next_two_ticks_are_skipped(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", effect="skip", most=2, until_at="2026-11-21T00:00Z")

    house.go("2026-11-20T15:30")

    assert house.ran(poll) == ["Fri 14:00", "Fri 15:00"]


def test_at_most_two_an_hour(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("*/10 * * * *", name="poll")
    house.add(scope="job", target="poll", effect="rate", most=2, per=3600,
              until_at="2026-11-21T00:00Z")  # fmt: skip

    house.go("2026-11-20T13:55")

    assert house.ran(poll) == ["Fri 12:00", "Fri 12:10", "Fri 13:00", "Fri 13:10"]


def test_only_by_hand(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", effect="manual", until_at="2026-11-21T00:00Z")
    house.go("2026-11-20T13:30")

    house.ask("select kirby.queue_run(%s, 'manual', 'ann')", poll)

    assert house.ran(poll) == []
    assert [run["cause"] for run in house.ask("select cause from kirby.run")] == ["manual"]


def test_a_retry_waits_until_the_pause_is_over(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll", max_attempts=3, retry_pause=1)
    house.go("2026-11-20T12:00", end=None)
    house.add(scope="job", target="poll", until_at="2026-11-20T14:30Z")
    [run] = house.ask("select id from kirby.run where deployment_id = %s", poll)
    house.start_run(run["id"])

    house.end_run(run["id"], "run_failed")

    [retry] = house.ask("select not_before from kirby.run where cause = 'retry'")
    assert retry["not_before"].strftime("%H:%M") == "14:30"


def test_a_paused_daemon_stands_still_and_comes_back(house):
    house.set("2026-11-20T12:00")
    daemon = house.deploy("pass", name="mill", kind="daemon", replicas=2)
    house.value("select kirby.plan_daemons()")
    house.add(scope="tag", target="mills", until_at="2026-11-20T13:00Z")
    assert house.value("select kirby.plan_daemons()") == 0

    house.add(scope="job", target="mill", until_at="2026-11-20T13:00Z")
    house.value("select kirby.plan_daemons()")
    house.value("select kirby.plan_daemons()")
    states = house.ask("select status, reason from kirby.run where deployment_id = %s", daemon)
    assert [tuple(each.values()) for each in states] == [
        ("cancelled", "paused by an exception")
    ] * 2

    house.set("2026-11-20T13:00")
    assert house.value("select kirby.plan_daemons()") == 2


@pytest.mark.parametrize(("scope", "target"), [("tag", "nightly"), ("topic", "orders")])
def test_all_jobs_with_a_tag_or_that_read_a_topic(house, scope, target):
    house.set("2026-11-20T11:59")
    in_it = house.schedule("0 * * * *", name="in-it", tags=["nightly"],
                           needs='{"reads": ["orders"]}')  # fmt: skip
    other = house.schedule("0 * * * *", name="other")
    house.add(scope=scope, target=target, until_at="2026-11-20T14:30Z")

    house.go("2026-11-20T13:30")

    assert (house.ran(in_it), len(house.ran(other))) == ([], 2)


def test_what_held_at_a_moment_can_be_asked_for_later_and_as_it_was_known_then(house):
    house.set("2026-11-20T11:00")
    poll = house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-11-20T20:00Z")
    house.set("2026-11-20T13:00")
    house.ask("select kirby.end_exception(%s, 'bob')", id)
    house.set("2026-11-25T00:00")

    def held(at, known=None):
        return house.value("select count(*) from kirby.exceptions_of(%s, %s, %s)", poll, at, known)

    day = datetime.fromisoformat("2026-11-20T00:00+00:00")
    assert held(day + timedelta(hours=12)) == 1
    assert held(day + timedelta(hours=14)) == 0
    assert held(day + timedelta(hours=14), day + timedelta(hours=12)) == 1


def test_the_log_is_told_once_that_all_is_as_before(house):
    house.set("2026-11-20T11:59")
    house.schedule("0 * * * *", name="poll")
    id = house.add(scope="job", target="poll", until_at="2026-11-20T14:30Z")
    house.go("2026-11-20T13:30")
    house.ask("""select kirby.change_exception(%s, '{"until_at": "2026-11-20T15:30Z"}', 'b')""", id)
    house.go("2026-11-20T15:30")

    assert [house.value("select kirby.note_exceptions()") for _ in range(2)] == [1, 0]
    [event] = house.events("exception_over")
    assert (event["exception_id"], event["held"], event["jobs"]) == (id, 4, 1)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"until_at": None}, "an exception needs an end"),
        ({"reason": " "}, "an exception needs a reason"),
        ({"until_at": "2026-11-20T10:00Z"}, "before it begins"),
        ({"until_at": "2028-11-20T10:00Z"}, "a year at the most"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(house, said, error):
    house.set("2026-11-20T12:00")
    document = {"scope": "environment", "until_at": "2026-11-21T00:00Z", **said}
    with pytest.raises(Exception, match=error) as refused:
        house.add(**document)
    assert refused.value.sqlstate == "KB001"


def test_one_that_is_over_cannot_be_changed(house):
    house.set("2026-11-20T12:00")
    id = house.add(scope="environment", until_at="2026-11-20T13:00Z")
    house.set("2026-11-20T13:00")

    with pytest.raises(Exception, match="over since 2026-11-20 13:00 UTC") as refused:
        house.ask("select kirby.end_exception(%s, 'bob')", id)
    assert refused.value.sqlstate == "KB004"


def test_a_promise_is_kept_though_the_end_is_a_tick_that_cannot_run(house):
    """Paused until two, every hour: at two a run by hand goes on. Then what was held runs."""
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", until_at="2026-11-20T14:00Z", on_return="catch_up")
    house.go("2026-11-20T13:50")
    house.ask("select kirby.queue_run(%s, 'manual', 'ann')", poll)
    house.go("2026-11-20T14:10", end=None)
    assert house.ran(poll) == []

    house.finish()
    house.go("2026-11-20T14:20")

    assert house.ran(poll) == ["Fri 12:00", "Fri 13:00"]


def test_a_promise_outlives_the_next_pause(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", until_at="2026-11-20T14:30Z", on_return="run_once")
    house.add(scope="job", target="poll", from_at="2026-11-20T14:10Z", until_at="2026-11-20T16:30Z")

    house.go("2026-11-20T16:45")

    assert house.ran(poll) == ["Fri 14:30"]
    [run] = house.ask("select queued_at from kirby.run")
    assert run["queued_at"].strftime("%H:%M") == "16:30"


def test_what_is_caught_up_waits_for_the_next_pause_to_end(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", until_at="2026-11-20T14:30Z", on_return="catch_up")
    house.go("2026-11-20T14:30", end=None)
    house.add(scope="job", target="poll", until_at="2026-11-20T16:30Z", reason="again")
    house.finish()

    house.go("2026-11-20T16:45")

    assert house.ran(poll) == ["Fri 12:00", "Fri 13:00", "Fri 14:00"]
    held = [tick["at"].hour for tick in house.ticks(poll, "skipped")]
    assert held == [15, 16]


def test_skipped_ticks_are_those_that_would_have_run(house):
    house.set("2026-11-20T11:59")
    poll = house.schedule("0 * * * *", name="poll")
    house.ask("update kirby.tick set excluded = 'x: today' where extract(hour from at) = 12"
              " returning 1")  # fmt: skip
    house.add(scope="job", target="poll", effect="skip", most=2, until_at="2026-11-21T00:00Z")
    house.conn.execute("update kirby.deployment set plan_at = null")

    house.go("2026-11-20T15:30")

    assert house.ran(poll) == ["Fri 15:00"]

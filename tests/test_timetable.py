"""The timetable: scheduled jobs by when they run next, with the last tick and what holds them."""

import json

import pytest
from fix_schedules import house_fixture  # noqa: F401
from fix_web import connected, deploy

from kirby.server import query, timetable
from kirby.server.environments import Environment

BRUSSELS = "Europe/Brussels"


@pytest.fixture
def listed(house, monkeypatch):
    """`listed(find="x")`: the timetable of dev."""
    monkeypatch.setattr(query, "driver", lambda conn: conn)

    def listed(environment="dev", **options):
        [row] = house.ask("select id, name, created_at from kirby.environment where name = %s",
                          environment)  # fmt: skip
        return timetable.listing(house.conn, Environment(**row), **options)

    return listed


def test_what_runs_next_comes_first_with_its_last_tick(house, listed):
    house.set("2027-03-27T12:00", BRUSSELS)
    house.schedule("30 2 * * *", tz=BRUSSELS, name="nightly")
    house.schedule("*/15 * * * *", name="poll")
    house.schedule("after: poll", name="follow")
    house.go("2027-03-28T12:05", BRUSSELS)

    poll, nightly, follow = listed()

    assert (poll.job, poll.says) == ("poll", "every 15 minutes (UTC)")
    assert (nightly.job, f"{nightly.local:%a %H:%M %Z}") == ("nightly", "Mon 02:30 CEST")
    assert (nightly.last, nightly.run_status, nightly.exception) == ("queued", "succeeded", "")
    assert f"{nightly.last_at:%H:%M}" == "01:00"  # 02:30 did not exist
    assert (follow.job, follow.at, follow.last) == ("follow", None, "queued")


def test_an_exception_in_force_and_what_it_skipped_are_told(house, listed):
    house.set("2027-01-01T12:00")
    house.schedule("0 * * * *", name="poll")
    house.add(scope="job", target="poll", effect="rate", most=1, per=86400,
              until_at="2027-01-03T00:00Z")  # fmt: skip
    id = house.add(scope="job", target="poll", until_at="2027-01-02T00:00Z", reason="broken")
    house.go("2027-01-01T14:10")

    [poll] = listed()

    assert (poll.exception_id, poll.exception, poll.exception_reason) == (id, "paused", "broken")
    assert (poll.last, poll.run_id) == ("skipped", None)
    assert "broken" in poll.last_reason


def test_a_few_of_many_and_those_of_a_name(house, listed):
    house.set("2027-01-01T12:00")
    for number in range(5):
        house.schedule(f"{number} * * * *", name=f"job{number}")

    assert [each.job for each in listed(limit=2)] == ["job1", "job2"]
    assert {each.total for each in listed(limit=2)} == {5}
    assert [each.job for each in listed(find="OB4")] == ["job4"]
    assert listed(find="%") == []
    assert listed("prod") == []


def test_a_job_without_a_schedule_is_not_in_it(house, listed):
    house.deploy("pass", name="byhand", kind="manual")
    assert listed() == []


def test_by_command_api_and_page_it_is_the_same(kirby, dsn, site, admin):
    with connected(dsn) as conn:
        deploy(conn, "hourly", "scheduled", schedules=["0 * * * *"])
    found = kirby("schedule", "list", "--json")
    [said] = json.loads(found.out)
    assert (said["job"], said["says"]) == ("hourly", "every hour (UTC)")
    assert admin.get("/api/v1/schedules").json() == [said]
    assert admin.get("/api/v1/schedules?find=x").json() == []
    assert "every hour (UTC)" in admin.get("/schedules").text
    assert "every hour (UTC)" in kirby("schedule", "list").out
    assert kirby("schedule", "list", "--find", "x").out == (
        "no scheduled job in dev has x in its name\n"
    )
    assert "No scheduled job in dev has" in admin.get("/schedules?find=x").text
    kirby("exception", "add", "--job", "hourly", "--until", "2h", "--reason", "broken")
    [held] = admin.get("/api/v1/schedules").json()
    assert (held["exception"], held["exception_reason"]) == ("paused", "broken")
    assert f"/exceptions/{held['exception_id']}" in admin.get("/schedules").text
    assert "paused until" in kirby("schedule", "list").out
    part = admin.get("/schedules", headers={"HX-Request": "true"}).text
    assert "hourly" in part
    assert "<html" not in part

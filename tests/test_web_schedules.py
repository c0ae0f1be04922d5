"""Pages about when: a schedule tried out, calendars kept, what a deploy shows before it is done."""

import pytest
from fix_deploy import made_release
from fix_web import connected, scalar

from kirby.server import calendars, database, environments


@pytest.fixture
def holidays(engine):
    with database.unit(engine) as conn:
        dev = environments.get(conn, "dev")
        calendars.add(conn, dev, "holidays", days=["12-25"],
                      windows=["0 1 * * sun for 4h"], actor="test")  # fmt: skip


def test_a_schedule_is_tried_out_before_it_is_saved(viewer, holidays):
    page = viewer.get(
        "/schedules?line=30 2 * * *%0Aevery 12h&tz=Europe/Brussels&from=2027-03-27&n=4"
        "&exclude=holidays&jitter=10m&job=load"
    ).text

    assert "at 02:30 every day; every 12h (Europe/Brussels)" in page
    assert "Sun 2027-03-28 03:00 CEST" in page
    assert "shifted: 02:30 does not exist" in page
    assert "it runs at 03:00 instead" in page
    assert "excluded</span> holidays: 0 1 * * sun for 4h" in page
    assert "<th>Starts</th>" in page


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("line=61 * * * *", "is not acceptable in the minute field"),
        ("line=@daily&tz=Mars", "There is no time zone"),
        ("line=@daily&n=x", "N must be a whole number"),
        ("line=@daily&n=100000", "N must be a whole number"),
        ("line=@daily&from=noon", "is not a time"),
        ("line=@daily&exclude=feasts", "There is no calendar in dev called feasts"),
        ("line=@daily&jitter=long", "it must be a duration"),
    ],
)
def test_what_is_wrong_is_told_above_the_form(viewer, asked, message):
    answer = viewer.get(f"/schedules?{asked}")

    assert answer.status_code == 400
    assert message in answer.text


def test_programs_try_out_schedules_too(api, holidays):
    found = api("GET", "/schedules/preview", params={
        "line": ["30 2 * * *", "after: load"], "tz": "Europe/Brussels", "from": "2027-03-28",
        "n": 1, "exclude": "holidays",
    }, role="viewer").json()  # fmt: skip

    [tick] = found["ticks"]
    assert (tick["at"], tick["local"]) == (
        "2027-03-28T01:00:00+00:00", "2027-03-28T03:00:00+02:00",
    )  # fmt: skip
    assert tick["note"] == "shifted: 02:30 does not exist"
    assert tick["excluded"] == "holidays: 0 1 * * sun for 4h"
    assert "whenever load has succeeded" in found["says"]
    none = api("GET", "/schedules/preview", role="viewer")
    assert (none.status_code, none.json()["error"]) == (
        400, "say when: a cron line, 'every 45m' or 'after: JOB'",
    )  # fmt: skip


def test_calendars_are_kept_on_pages(admin, dsn):
    form = {"name": "feasts", "days": "12-25, 2026-07-21", "windows": "0 1 * * sun for 4h\n"}
    added = admin.post("/schedules", data=form)
    assert added.status_code == 303
    page = admin.get(added.headers["location"]).text
    for text in ("12-25", "2026-07-21", "0 1 * * sun for 4h", "feasts has 2 days and 1 windows"):
        assert text in page.replace("Feasts", "feasts")
    admin.post("/calendars/feasts", data={"do": "take", "days": "12-25"})
    admin.post("/calendars/feasts", data={"do": "take", "windows": "0 1 * * sun for 4h"})
    admin.post("/calendars/feasts", data={"do": "add", "days": "2027-01-01"})
    with connected(dsn) as conn:
        assert scalar(conn, "select days from kirby.calendar") == ["2026-07-21", "2027-01-01"]
        assert scalar(conn, "select windows from kirby.calendar") == []
    assert "feasts" in admin.get("/schedules").text
    removed = admin.post("/calendars/feasts", data={"do": "remove"})
    assert "Feasts is removed" in admin.get(removed.headers["location"]).text
    assert admin.get("/calendars/feasts").status_code == 404


def test_a_form_that_is_wrong_comes_back_with_why(admin, viewer, holidays):
    wrong = admin.post("/schedules", data={"name": "feasts", "days": "xmas"})
    assert wrong.status_code == 400
    assert "is not a day" in wrong.text
    assert 'value="feasts"' in wrong.text
    assert admin.post("/calendars/holidays", data={"do": "dance"}).status_code == 400
    assert viewer.post("/calendars/holidays", data={"do": "remove"}).status_code == 403
    assert viewer.post("/schedules", data={"name": "x"}).status_code == 403
    assert "Take out" not in viewer.get("/calendars/holidays").text


def test_a_deploy_shows_when_it_will_run_before_it_is_done(admin, engine, holidays):
    source = '# /// script\n# [tool.kirby]\n# schedule = "30 2 * * *"\n# ///\n'
    with database.unit(engine) as conn:
        release = made_release(conn, "nightly", source)

    page = admin.get(
        f"/deploy/{release}?tz=Europe/Brussels&exclude=holidays&jitter=5m&catch_up=all(3)"
    ).text
    assert "at 02:30 every day (Europe/Brussels)" in page
    assert "it runs at 03:00 instead" in page
    assert page.count("02:30 CE") == 5
    assert 'value="holidays"' in page
    assert "all(3)" in page
    wrong = admin.post(f"/deploy/{release}", data={"do": "show", "schedule": "every 0m"})
    assert wrong.status_code == 400
    done = admin.post(f"/deploy/{release}", data={"do": "deploy", "exclude": "holidays",
                                                  "jitter": "5m", "expects": "orders=15m",
                                                  "tags": "a, b", "start_by": "none"})  # fmt: skip
    assert done.status_code == 303, done.text
    job = admin.get("/jobs/nightly").text
    for text in ("holidays", "orders=15m", "a, b"):
        assert text in job
    again = admin.get(f"/deploy/{release}").text
    assert 'name="exclude" value="holidays"' in again
    assert 'name="jitter" value="5m"' in again
    assert "orders=15m</textarea>" in again

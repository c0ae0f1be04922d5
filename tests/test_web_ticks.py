"""The page and the API of a job's ticks: what will run, and what did."""

import pytest
from fix_schedules import House
from fix_web import connected


@pytest.fixture
def house(dsn):
    with connected(dsn) as conn:
        house = House(conn)
        house.schedule("0 * * * *", name="poll", tz="Europe/Brussels")
        house.add(scope="job", target="poll", until_at="2026-11-20T14:30Z", reason="limping")
        yield house


def test_what_will_run_and_what_is_held(viewer, house):
    page = viewer.get("/jobs/poll/ticks")

    assert page.status_code == 200
    assert page.text.count('class="pill s-skipped"') == 2
    assert "limping" in page.text
    found = viewer.get("/api/v1/jobs/poll/ticks?n=4").json()["ticks"]
    assert [each["decision"] for each in found] == ["skip", "skip", "run", "run"]
    assert found[0]["local"].startswith("2026-11-20T14:00:00+01:00")
    assert house.value("select count(*) from kirby.tick where status <> 'planned'") == 0


def test_what_became_of_those_before(viewer, house):
    house.go("2026-11-20T15:30")

    found = viewer.get("/api/v1/jobs/poll/ticks?since=2026-11-20T12:30").json()["ticks"]
    assert [each["decision"] for each in found] == ["skip", "skip", "run"]
    assert found[2]["run_id"] is not None
    assert f"#{found[2]['run_id']}" in viewer.get("/jobs/poll/ticks?since=2026-11-20T12:30").text


def test_what_is_no_time_and_no_job(viewer, house):
    page = viewer.get("/jobs/poll/ticks?since=lately")
    assert (page.status_code, "is not a time" in page.text) == (400, True)
    assert viewer.get("/api/v1/jobs/poll/ticks?since=lately").status_code == 400
    assert viewer.get("/jobs/pol/ticks").status_code == 404
    assert viewer.get("/api/v1/jobs/poll/ticks?n=5000").status_code == 400

"""The pages and the API of exceptions; the timeline on the page of a job."""

import pytest
from fix_schedules import House
from fix_web import connected

API = "/api/v1/exceptions"


@pytest.fixture
def house(dsn):
    with connected(dsn) as conn:
        house = House(conn)
        house.schedule("0 * * * *", name="poll", tz="Europe/Brussels")
        yield house


@pytest.fixture
def bearer(give, stranger, house):
    """`bearer("POST", path, {...})` with an operator's token."""
    headers = {"Authorization": f"Bearer {give('operator', 'ci')}"}

    def bearer(method, path="", body=None):
        return stranger.request(method, API + path, headers=headers, json=body)

    return bearer


FORM = {"about": "job", "target": "poll", "until": "monday 08:00", "effect": "pause",
        "reason": "the source is down", "return": "next-tick"}  # fmt: skip


def test_a_pause_is_planned_made_extended_and_ended_on_its_pages(admin, house):
    assert "No exceptions in force or coming" in admin.get("/exceptions").text
    planned = admin.post("/exceptions", data={**FORM, "do": "plan"})
    assert planned.status_code == 200
    assert "poll paused until Mon 2026-11-23 08:00 Europe/Brussels; 67 ticks" in planned.text
    assert house.value("select count(*) from kirby.schedule_exception") == 0

    made = admin.post("/exceptions", data=FORM)
    assert made.status_code == 303
    page = admin.get(made.headers["location"]).text
    assert "poll paused until" in page
    assert "the source is down" in page
    id = house.value("select max(id) from kirby.schedule_exception")

    house.go("2026-11-20T14:30")
    page = admin.get(f"/exceptions/{id}").text
    assert "What it has held" in page
    assert ">poll</a>" in page
    admin.post(f"/exceptions/{id}", data={"do": "extend", "until": "tuesday 08:00"})
    assert "Tue 2026-11-24 08:00" in admin.get(f"/exceptions/{id}").text
    admin.post(f"/exceptions/{id}", data={"do": "end", "reason": "it was the cable"})
    page = admin.get(f"/exceptions/{id}").text
    assert "it was the cable" in page
    assert "End it now" not in page
    assert "it was the cable" in admin.get("/exceptions?past=yes").text
    assert "No exceptions in force" in admin.get("/exceptions").text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"target": ""}, "Say which job"),
        ({"until": "soon"}, "is not a time"),
        ({"effect": "rate"}, "say how many in which time"),
        ({"effect": "nothing"}, "choose what it is about"),
        ({"reason": " "}, "say why"),
    ],
)
def test_a_form_that_cannot_be_keeps_what_was_written(admin, house, changes, error):
    answer = admin.post("/exceptions", data={**FORM, **changes})

    assert answer.status_code == 400
    assert error.lower() in answer.text.lower()
    assert 'value="next-tick"' in answer.text
    assert house.value("select count(*) from kirby.schedule_exception") == 0


def test_a_viewer_looks_and_changes_nothing(viewer, house):
    assert "Make an exception" not in viewer.get("/exceptions").text
    assert viewer.post("/exceptions", data=FORM).status_code == 403


def test_the_job_has_its_timeline_with_bands_and_marks(admin, house):
    house.conn.execute("update kirby.test_clock set at = clock_timestamp()")
    house.look()
    house.conn.execute("update kirby.test_clock set at = clock_timestamp() + interval '1 minute'")
    until = house.value("select (kirby.now() + interval '3 hours')::text")
    id = house.add(scope="job", target="poll", reason="limping", until_at=until)

    page = admin.get("/jobs/poll").text

    assert 'class="instants"' in page
    assert f'href="/exceptions/{id}?env=dev"' in page
    assert "limping" in page
    assert page.count('class="mark planned"') >= 10


def test_the_api_plans_makes_shows_extends_and_ends(bearer):
    said = {"job": "poll", "for": "3h", "rate": "1/2h", "reason": "slowly", "return": "run-once"}
    planned = bearer("POST", "", {**said, "plan": True})
    assert (planned.status_code, planned.json()["jobs"], planned.json()["ticks"]) == (
        200, ["poll"], 3,
    )  # fmt: skip
    assert bearer("GET").json() == []

    made = bearer("POST", "", said)
    assert made.status_code == 201
    id = made.json()["exception"]["id"]
    assert made.json()["does"].startswith(f"exception {id}: poll at most 1 in 2h until Fri")
    assert [each["id"] for each in bearer("GET", "?job=poll").json()] == [id]

    extended = bearer("POST", f"/{id}/extend", {"for": "5h", "reason": "still"}).json()
    assert extended["until_at"].startswith("2026-11-20T17:00")
    assert bearer("POST", f"/{id}/end", {}).json()["status"] == "ended"
    shown = bearer("GET", f"/{id}").json()
    assert [each["change"] for each in shown["history"]] == ["added", "changed", "ended"]
    again = bearer("POST", f"/{id}/end", {})
    assert (again.status_code, "is over since" in again.json()["error"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"job": "poll", "for": "1h"}, 400, "say why"),
        ({"job": "pol", "for": "1h", "reason": "x"}, 404, "did you mean poll"),
        ({"job": "poll", "for": "1h", "reason": "x", "pauze": True}, 400, "'pauze' is not known"),
        ({"job": "poll", "for": "1h", "reason": "x", "schedule": 7}, 400, "a line, or a list"),
        ({"job": "poll", "for": 7, "reason": "x"}, 400, "for must be a text"),
        ({"job": "poll", "until": True, "reason": "x"}, 400, "until must be a text"),
        ({"job": True, "for": "1h", "reason": "x"}, 400, "job must be a text"),
        ({"job": "poll", "for": "1h", "reason": "x", "skip": "many"}, 400, "how many ticks"),
    ],
)
def test_the_api_says_in_a_line_what_is_wrong(bearer, body, status, error):
    answer = bearer("POST", "", body)

    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_the_front_page_names_what_is_in_force(admin, house):
    house.add(scope="job", target="poll", until_at="2026-11-20T13:00Z", reason="limping")
    house.add(scope="job", target="poll", from_at="2026-11-21T13:00Z", reason="not yet",
              until_at="2026-11-22T13:00Z")  # fmt: skip

    page = admin.get("/").text

    assert "poll</a> paused until Fri 2026-11-20 13:00 UTC: limping" in page
    assert "not yet" not in page

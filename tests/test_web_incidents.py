"""The pages and the API about incidents."""

import pytest
from fix_incidents import House
from fix_web import connected


@pytest.fixture
def kirby(dsn):
    with connected(dsn) as conn:
        yield House(conn)


@pytest.fixture
def failing(kirby):
    """The id of an incident of a job that fails."""
    kirby.ran(kirby.scheduled("report"), fails="ValueError: no <orders>")
    [incident] = kirby.incidents()
    return incident["id"]


@pytest.fixture
def operator(client, people):
    return client(people("operator"))


def test_a_calm_house_says_so(viewer, kirby):
    assert "Nothing is wrong in dev" in viewer.get("/incidents").text


def test_the_list_shows_what_is_wrong_and_what_was(viewer, kirby, failing):
    page = viewer.get("/incidents").text
    assert "ValueError: no &lt;orders&gt;" in page
    assert f"/incidents/{failing}?env=dev" in page
    assert "No incident" in viewer.get("/incidents?status=resolved").text
    assert viewer.get("/incidents?kind=missed").text.count("no &lt;orders&gt;") == 0
    assert viewer.get("/incidents?status=gone").status_code == 400


def test_only_the_changing_part_is_fetched_again(viewer, failing):
    part = viewer.get("/incidents", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "report" in part


def test_one_has_its_story_and_the_last_lines(viewer, kirby, failing):
    kirby.later("11 s")
    page = viewer.get(f"/incidents/{failing}").text
    assert "What has happened" in page
    assert "opened, to 0 channels" in page
    assert "The last lines" in page
    assert "See to it" not in page  # a viewer only looks
    assert viewer.post(f"/incidents/{failing}", data={"do": "ack"}).status_code == 403
    assert viewer.get("/incidents/999").status_code == 404


def test_a_storm_shows_what_it_tells_of(viewer, kirby):
    for number in range(12):
        kirby.ran(kirby.scheduled(f"job-{number}"), fails="OSError: disk full")
    kirby.later("11 s")
    [storm] = [each for each in kirby.incidents() if each["kind"] == "storm"]

    page = viewer.get("/incidents").text
    assert "12 incidents at once" in page
    assert page.count("OSError: disk full") == 1  # those in it are not listed beside it
    inside = viewer.get(f"/incidents/{storm['id']}").text
    assert inside.count("job-") >= 12


def test_somebody_sees_to_it_silences_it_and_says_that_it_is_over(operator, kirby, failing):
    address = f"/incidents/{failing}"
    answer = operator.post(address, data={"do": "ack", "reason": "on it"})
    assert answer.status_code == 303
    assert "on it" in operator.get(address).text

    operator.post(address, data={"do": "silence", "span": "4h"})
    assert "silenced" in operator.get("/incidents").text
    operator.post(address, data={"do": "tell"})
    assert "Tell again" not in operator.get(address).text
    operator.post(address, data={"do": "resolve"})
    assert kirby.incidents() == []

    late = operator.post(address, data={"do": "ack"})
    assert late.status_code == 409
    assert "is over since" in late.text
    assert operator.post(address, data={"do": "sing"}).status_code == 400


def test_the_overview_names_it_once(viewer, failing):
    page = viewer.get("/").text
    assert f"/incidents/{failing}?env=dev" in page
    assert page.count("ValueError: no &lt;orders&gt;") == 1
    assert "Nothing is wrong" not in page


def test_the_api_lists_shows_and_changes(viewer, operator, kirby, failing):
    [found] = viewer.get("/api/v1/incidents").json()
    assert (found["id"], found["state"], found["job"]) == (failing, "open", "report")
    story = viewer.get(f"/api/v1/incidents/{failing}").json()
    assert [each["type"] for each in story["timeline"]] == ["incident_opened"]
    assert story["log"] == ["ValueError: no <orders>"]

    address = f"/api/v1/incidents/{failing}"
    assert viewer.post(f"{address}/ack").status_code == 403
    known = operator.post(f"{address}/ack", json={"reason": "on it"}).json()
    assert known["state"] == "acknowledged"
    quiet = operator.post(f"{address}/silence", json={"until": "2h"}).json()
    assert quiet["state"] == "silenced"
    loud = operator.post(f"{address}/silence", json={"until": None}).json()
    assert loud["silenced_until"] is None
    assert operator.post(f"{address}/silence", json={}).status_code == 400
    assert operator.post(f"{address}/silence", json={"until": "soon"}).status_code == 400
    assert operator.post(f"{address}/resolve").json()["state"] == "resolved"
    assert operator.post(f"{address}/ack").status_code == 409
    assert viewer.get("/api/v1/incidents").json() == []
    assert len(viewer.get("/api/v1/incidents?status=all").json()) == 1


@pytest.mark.parametrize("query", ["limit=9999", "status=gone", "kind=angry", "env=nowhere"])
def test_what_the_api_does_not_take_is_one_line(viewer, kirby, query):
    answer = viewer.get(f"/api/v1/incidents?{query}")
    assert answer.status_code in (400, 404)
    assert "\n" not in answer.json()["error"]


def test_what_is_seen_again_and_again_is_one_line(viewer, kirby):
    report = kirby.scheduled("report")
    for _ in range(4):
        kirby.ran(report, fails="ValueError: no orders")
    [incident] = kirby.incidents()
    page = viewer.get(f"/incidents/{incident['id']}").text
    assert page.count("seen again") == 1
    assert "seen again 3\u00d7" in page

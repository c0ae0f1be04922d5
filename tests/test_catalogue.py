"""The catalogue: words of people, of code and of deployments; what is in topics and states."""

import json

from fix_lineage import airport_fixture, declare  # noqa: F401
from fix_web import publish, scalar, set_keys
from hypothesis import given
from hypothesis import strategies as st

from kirby.server import catalogue

SAVE = {"description": "Flights that left.", "owner": "anna", "reason": "asked for"}


def entry(kirby, kind, name):
    return json.loads(kirby("catalogue", "show", kind, name, "--json").out)


def test_code_speaks_for_a_job(airport, kirby):
    found = entry(kirby, "job", "tally")["entry"]

    assert (found["description"], found["source"]) == ("Adds up.\nBy carrier.", "code")


def test_the_newest_release_speaks(airport, kirby):
    declare(airport.conn, "delays", "tally", {"release": "carriers 1.2", "doc": "Adds up better."})

    assert entry(kirby, "job", "tally")["entry"]["description"] == "Adds up better."


def test_a_deployment_speaks_where_code_says_nothing(airport, kirby):
    airport.conn.execute("update kirby.job set description = 'All of it.'")

    found = entry(kirby, "job", "carriers")["entry"]
    assert (found["description"], found["source"]) == ("All of it.", "deployment")


def test_people_go_before_code_and_may_let_it_speak_again(airport, kirby):
    done = kirby(
        "catalogue", "describe", "job", "tally", "Ours.", "--owner", "team", "--reason", "x"
    )
    assert done.code == 0
    found = entry(kirby, "job", "tally")["entry"]
    assert (found["description"], found["source"], found["owner"]) == ("Ours.", "people", "team")

    kirby("catalogue", "describe", "job", "tally", "")

    found = entry(kirby, "job", "tally")["entry"]
    assert (found["source"], found["owner"]) == ("code", "team")


def test_each_change_is_audited(airport, kirby):
    kirby("catalogue", "describe", "topic", "departures", "One.", "--reason", "first")
    kirby("catalogue", "describe", "topic", "departures", "Two.")

    rows = airport.conn.execute(
        "select object, before ->> 'description', after ->> 'description', reason"
        " from kirby.audit_event where verb = 'described' order by position"
    ).fetchall()
    assert rows == [
        ("topic/dev/departures", None, "One.", "first"),
        ("topic/dev/departures", "One.", "Two.", None),
    ]


def test_everything_is_listed(airport, kirby):
    found = json.loads(kirby("catalogue", "list", "--json").out)

    assert [(each["kind"], each["name"]) for each in found] == [
        ("topic", "alerts"), ("topic", "delays"), ("topic", "departures"),
        ("state", "carrier_delay"),
        ("job", "archive"), ("job", "carriers"), ("job", "delay"), ("job", "tally"),
    ]  # fmt: skip
    assert "Adds up." in kirby("catalogue", "list").out


def test_refusals_are_one_line(airport, kirby):
    wrong = kirby("catalogue", "show", "topic", "departure")
    nothing = kirby("catalogue", "describe", "topic", "departures")
    nobody = kirby("catalogue", "describe", "state", "nothing", "x")
    long = kirby("catalogue", "describe", "topic", "departures", "x" * 10001)

    assert "did you mean departures?" in wrong.err
    assert "give a DESCRIPTION" in nothing.err
    assert "there is no state nothing in dev" in nobody.err
    assert "at most 10,000 characters" in long.err
    assert {wrong.code, nothing.code, nobody.code, long.code} == {1}
    assert kirby("catalogue", "show", "table", "x").code == 2


def test_members_of_a_topic_are_those_that_were_seen(airport, kirby):
    publish(airport.conn, "orders", {"id": 1, "lines": [{"sku": "a"}, {"sku": None}]})
    publish(airport.conn, "orders", {"id": "two", "note": {"by": "x"}})

    found = entry(kirby, "topic", "orders")["contents"]

    assert found["sampled"] == 2
    assert found["sample"] == {"id": "two", "note": {"by": "x"}}
    members = {each["path"]: (each["types"], each["count"], each["of"]) for each in found["fields"]}
    assert members == {
        "": (["object"], 2, 2),
        "id": (["integer", "text"], 2, 2),
        "note": (["object"], 1, 2),
        "note.by": (["text"], 1, 1),
        "lines": (["list"], 1, 2),
        "lines[]": (["object"], 1, 1),
        "lines[].sku": (["null", "text"], 1, 1),
    }
    assert "1 of 2" in kirby("catalogue", "show", "topic", "orders").out


def test_members_of_a_state(airport, kirby):
    set_keys(airport.conn, "rates", usd=1.08, eur=1)

    [member] = entry(kirby, "state", "rates")["contents"]["fields"]
    assert (member["types"], member["count"]) == (["integer", "number"], 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(JSON, max_size=5))
def test_any_values_have_members(values):
    found = catalogue.observed(values)

    assert bool(found) == bool(values)
    assert all(0 < each.count <= len(values) for each in found)


def test_the_page_describes(airport, admin):
    done = admin.post("/catalogue/topic/departures", data=SAVE)
    page = admin.get(done.headers["location"]).text

    assert done.status_code == 303
    assert "Flights that left." in page
    assert "<b>anna</b>" in page
    assert "Described by a-admin" in page
    assert "carrier" in page
    actor, reason = airport.conn.execute(
        "select actor, reason from kirby.audit_event where verb = 'described'"
    ).fetchone()
    assert (actor, reason) == ("a-admin", "asked for")


def test_a_form_that_is_refused_comes_back_as_it_was(airport, admin):
    done = admin.post("/catalogue/topic/departures", data=SAVE | {"description": "y" * 10001})

    assert done.status_code == 400
    assert "y" * 10001 in done.text
    assert "At most" in done.text or "at most 10,000" in done.text
    assert admin.post("/catalogue/topic/nothing", data=SAVE).status_code == 404
    assert admin.get("/catalogue/table/x").status_code == 400


def test_a_viewer_reads_only(airport, viewer):
    assert viewer.get("/catalogue").status_code == 200
    assert "Describe it" not in viewer.get("/catalogue/topic/departures").text
    assert viewer.post("/catalogue/topic/departures", data=SAVE).status_code == 403
    assert scalar(airport.conn, "select count(*) from kirby.description") == 0


def test_pages_lead_to_it(airport, viewer):
    assert "/catalogue/topic/departures" in viewer.get("/topics/departures").text
    assert "/catalogue/state/carrier_delay" in viewer.get("/states/carrier_delay").text
    assert "/catalogue/job/carriers" in viewer.get("/jobs/carriers").text

"""kirby trace, and its page: what something was made from, and what was made of it."""

import json

from fix_lineage import airport_fixture  # noqa: F401
from fix_sdk import house_fixture, sdk_fixture, stop_after  # noqa: F401
from fix_web import publish

import kirby as kirby_sdk
from kirby.server import database, environments, lineage


def steps(found):
    return {(step.depth, step.kind, step.place): step.total for step in found}


def test_a_figure_leads_to_exactly_its_flights(airport, engine):
    with database.unit(engine) as conn:
        found = lineage.trace(conn, airport.figure, limit=100)

    assert steps(found.up) == {
        (1, "message", "delays"): 12,
        (1, "mutation", "carrier_delay"): 2,
        (2, "message", "departures"): 12,
    }
    assert found.down == []
    assert [node.position for node in found.up[-1].nodes] == airport.flights[::-1]
    newest = found.up[0].nodes[0]
    assert (newest.job, newest.release, newest.replay) == ("delay", "carriers 1.1", True)
    assert newest.parents == [airport.flights[-1]]
    assert newest.run_id == airport.run
    assert newest.seconds is not None
    assert newest.seconds >= 0
    assert found.up[0].jobs == ["delay"]


def test_a_flight_leads_to_everything_it_touched(airport, engine):
    with database.unit(engine) as conn:
        found = lineage.trace(conn, airport.flights[0])
        near = lineage.trace(conn, airport.flights[0], up=False, depth=1)

    assert steps(found.down) == {
        (1, "message", "delays"): 1,
        (2, "message", "alerts"): 1,
        (2, "mutation", "carrier_delay"): 1,
    }
    assert found.up == []
    assert steps(near.down) == {(1, "message", "delays"): 1}
    assert near.up is None


def test_only_the_newest_are_named_and_all_are_counted(airport, engine):
    with database.unit(engine) as conn:
        found = lineage.trace(conn, airport.figure, limit=3)

    assert [len(step.nodes) for step in found.up] == [3, 2, 3]
    assert [step.total for step in found.up] == [12, 2, 12]


def test_the_command_prints_both_ways(airport, kirby):
    done = kirby("trace", airport.delays[0])

    assert done.code == 0
    assert f"step 1: topic departures: 1\n    {airport.flights[0]}  topic departures" in done.out
    assert "step 1: state carrier_delay: 1" in done.out
    assert "by delay (carriers 1.1)" in done.out.splitlines()[0]
    assert kirby("trace", airport.delays[0], "--up").out.count("made from it") == 0


def test_the_command_takes_a_key_of_a_state(airport, kirby):
    newest = json.loads(kirby("trace", "--state", "carrier_delay", "--key", "UA", "--json").out)
    first = kirby("trace", "--state", "carrier_delay", "--key", "UA", "--version", 1, "--json")

    assert newest["origin"]["position"] == airport.figure
    assert newest["up"][0]["total"] == 12
    assert json.loads(first.out)["up"][0]["total"] == 4


def test_refusals_are_one_line(airport, kirby):
    wrong = kirby("trace", 999999999)
    key = kirby("trace", "--state", "carrier_delay", "--key", "nobody")

    assert wrong.code == 1
    assert "there is no message and no change of a state at position 999999999" in wrong.err
    assert key.code == 1
    assert "there is no key nobody in state carrier_delay of dev" in key.err
    assert kirby("trace").code == 2
    assert kirby("trace", 5, "--state", "a", "--key", "b").code == 2


def test_the_page_shows_both_ways(airport, viewer):
    page = viewer.get(f"/trace/{airport.delays[0]}")

    assert page.status_code == 200
    assert f"/trace/{airport.flights[0]}?" in page.text
    assert "carrier_delay" in page.text
    assert viewer.get(f"/trace/{airport.figure}?limit=3").text.count("the newest 3 of 12") == 2
    assert viewer.get("/trace/999999999").status_code == 404
    assert viewer.get("/trace?position=x").status_code == 400
    assert viewer.get(f"/trace?position={airport.figure}").headers["location"] == (
        f"/trace/{airport.figure}"
    )


def test_pages_of_messages_and_keys_lead_to_it(airport, viewer):
    assert f"/trace/{airport.delays[0]}" in viewer.get(f"/messages/{airport.delays[0]}").text
    assert f"/trace/{airport.figure}" in viewer.get("/states/carrier_delay/key?key=UA").text
    by_key = viewer.get("/states/carrier_delay/key/trace?key=UA&version=1")
    assert by_key.status_code == 303
    assert by_key.headers["location"].startswith("/trace/")


def test_hostile_names_are_escaped(airport, viewer):
    hostile = publish(airport.conn, "departures", {"a": "<script>"}, "<script>alert(1)</script>")

    assert "<script>alert" not in viewer.get(f"/trace/{hostile}").text


# With the SDK itself


def test_what_handlers_write_is_traced_exactly(sdk, dsn):
    departures = kirby_sdk.topic("departures")
    departures.publish_many([{"carrier": n % 2, "n": n} for n in range(60)], key="a")
    seen = stop_after(60)
    figures = kirby_sdk.state("figures")

    @kirby_sdk.stream("departures", to="delays", batch=20, name="delay")
    def delay(flights):
        """The delay of each flight."""
        for flight in flights:
            yield kirby_sdk.Out(flight, key=str(flight["carrier"]))

    @kirby_sdk.stream("delays", name="tally")
    def tally(flight):
        key = str(flight["carrier"])
        figures[key] = figures.get(key, 0) + 1
        seen()

    kirby_sdk.run()

    admin = database.engine(dsn)
    try:
        with database.unit(admin) as conn:
            [first, *_] = departures.read(limit=1)
            dev = environments.get(conn, "dev")
            up = lineage.trace(conn, lineage.version(conn, dev, "figures", "0"), limit=100)
            down = lineage.trace(conn, first.position, limit=100)
    finally:
        admin.dispose()

    # A list hands its parents on as a whole: the flights of all lists that these delays were in.
    delays = [step for step in up.up if step.place == "delays"]
    assert [(step.depth, step.total, step.jobs) for step in delays] == [(1, 30, ["delay"])]
    flights = [step for step in up.up if step.place == "departures"]
    assert [(step.depth, step.total) for step in flights] == [(2, 60)]
    assert steps(down.down)[1, "message", "delays"] >= 20
    assert {step.place for step in down.down} == {"delays", "figures"}
    assert figures.get("0") == 30

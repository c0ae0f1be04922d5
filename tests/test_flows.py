"""The flow: counted by the hour, beside what is declared; drawn; told by the command line."""

import json
from datetime import UTC, datetime, timedelta
from itertools import combinations

import psycopg
import pytest
from fix_lineage import airport_fixture, count, declare  # noqa: F401
from fix_log import log_fixture  # noqa: F401
from fix_web import connected, publish, scalar

from kirby.server import database, environments, flows
from kirby.server.web import layers

NOW = datetime.now(UTC)


def graph(engine, since=timedelta(days=1), until=timedelta(hours=1)):
    with database.unit(engine) as conn:
        dev = environments.get(conn, "dev")
        now = datetime.now(UTC)
        return flows.graph(conn, dev, now - since, now + until)


def edges(found):
    return {(edge.source[1], edge.target[1]): edge for edge in found.edges}


def test_what_flowed_and_what_is_declared(airport, engine):
    found = edges(graph(engine))

    assert found["delay", "delays"].made == 12
    assert found["delay", "delays"].replays == 4
    assert found["delay", "delays"].releases == {"carriers 1.1"}
    assert found["departures", "delay"].made == 12
    assert found["tally", "carrier_delay"].made == 3
    assert found["delays", "tally"].made == 6
    assert found[flows.OUTSIDE[1], "departures"].made == 12
    assert {ends: edge.difference for ends, edge in found.items() if edge.difference} == {
        ("tally", "alerts"): "undeclared",
        ("archive", "cold-storage"): "unseen",
        ("departures", "archive"): "unseen",
    }


def test_another_period_has_another_flow(airport, engine):
    found = graph(engine, since=timedelta(days=9), until=-timedelta(days=8))

    assert [edge for edge in found.edges if edge.made] == []
    assert edges(found)["delay", "delays"].difference == "unseen"


def test_a_job_that_says_nothing_is_no_difference(airport, engine):
    via = {"via": [["silent", None, "departures", airport.flights[0], ""]]}
    message = {"k": None, "v": 1, "p": airport.flights[:1], "h": via}
    airport.conn.execute(
        "select kirby.append_messages(1::smallint, null, %s)", [json.dumps({"else": [message]})]
    )
    count(airport.conn)

    assert edges(graph(engine))["silent", "else"].difference == ""
    assert edges(graph(engine))["departures", "silent"].difference == "undeclared"


def test_what_a_deployment_lists_is_declared(airport, engine):
    airport.conn.execute(
        "update kirby.deployment_version set needs = %s",
        [json.dumps({"reads": ["departures"], "writes": ["reports"]})],
    )

    assert edges(graph(engine))["carriers", "reports"].difference == "unseen"
    assert edges(graph(engine))["departures", "carriers"].declared


def test_without_via_the_job_is_that_of_the_run(airport, engine):
    airport.conn.execute(
        "select kirby.append_messages(1::smallint, %s, %s)",
        [airport.run, json.dumps({"plain": [{"v": 1}]})],
    )
    count(airport.conn)

    assert edges(graph(engine))["carriers", "plain"].made == 1


def test_a_feed_comes_out_of_its_state(airport, engine):
    via = {"via": [["tally", None, "delays", airport.delays[0], ""]]}
    message = {"k": "UA", "v": 1, "p": [airport.figure], "h": via}
    airport.conn.execute(
        "select kirby.append_messages(1::smallint, null, %s)",
        [json.dumps({"state.carrier_delay": [message]})],
    )
    count(airport.conn)

    found = edges(graph(engine))
    assert found["carrier_delay", "state.carrier_delay"].made == 1
    assert found["carrier_delay", "state.carrier_delay"].difference == ""
    assert ("tally", "state.carrier_delay") not in found


def test_it_is_counted_in_pieces_and_equals_the_log(airport):
    conn = airport.conn
    expected = conn.execute("select * from kirby.flow order by 1, 2, 3, 4, 5, 6, 7").fetchall()
    conn.execute("truncate kirby.flow, kirby.parent_index")
    conn.execute("update kirby.flow_counted set messages = 0, mutations = 0")
    pieces = 1
    while scalar(conn, "select kirby.count_flow(5)"):
        pieces += 1

    assert pieces > 5
    assert conn.execute("select * from kirby.flow order by 1, 2, 3, 4, 5, 6, 7").fetchall() == (
        expected
    )
    assert conn.execute("select * from kirby.verify_flow()").fetchall() == []
    assert conn.execute("select * from kirby.verify_parent_index()").fetchall() == []


@pytest.mark.parametrize(
    ("spoil", "table"),
    [
        ("update kirby.flow set made = made + 1 where job = 'delay'", "flow"),
        ("update kirby.flow set replays = 0", "flow"),
        ("delete from kirby.flow where job = 'tally'", "flow"),
        ("update kirby.parent_index set lowest = highest", "parent_index"),
        ("delete from kirby.parent_index", "parent_index"),
    ],
)
def test_verify_names_what_is_wrong(airport, kirby, spoil, table):
    assert kirby("db", "verify").code == 0
    airport.conn.execute(spoil)

    done = kirby("db", "verify")

    assert done.code == 1
    assert f"{table}:" in done.out + done.err


def test_what_retention_removed_is_no_fault(log):
    log.old("orders", 20, "30 days")
    log.publish("orders", 1)
    log.count()
    log.ask("select kirby.count_flow()")
    log.keep("orders", "1 day", even_unread=True)

    log.retain()

    assert len(log.there("orders")) == 1
    assert log.wrong() == []


def test_an_open_writer_is_counted_when_it_has_committed(log):
    log.publish("orders", 1)
    with psycopg.connect(log.dsn) as writer:
        writer.execute("select kirby.publish('orders', '2')")
        log.publish("orders", 3)
        log.count()
        log.ask("select kirby.count_flow()")
        assert log.value("select coalesce(sum(made), 0) from kirby.flow") <= 1
    log.count()
    log.ask("select kirby.count_flow()")

    assert log.value("select sum(made) from kirby.flow") == 3
    assert log.wrong() == []


def test_strange_headers_stop_nobody(airport):
    conn = airport.conn
    for headers in (
        {"via": 5},
        {"via": [[]]},
        {"via": [[None, {}, [], "x"]]},
        {"via": [["j" * 9000]]},
    ):
        scalar(conn, "select kirby.publish('orders', '1', headers => %s)", json.dumps(headers))
    count(conn)

    assert scalar(conn, "select sum(made) from kirby.flow f join kirby.topic t on t.id = place_id"
                        " where kind = 'message' and t.name = 'orders'") == 4  # fmt: skip
    assert conn.execute("select * from kirby.verify_flow()").fetchall() == []


def test_the_leader_counts(dsn, until, airport):
    from kirby.server.supervisor.housekeeping import Housekeeper

    keeper = Housekeeper(dsn, lambda: True)
    publish(airport.conn, "fresh", 1)
    keeper.start()
    try:
        until(lambda: scalar(airport.conn, "select made from kirby.flow f join kirby.topic t"
              " on t.id = f.place_id and f.kind = 'message' where t.name = 'fresh'"))  # fmt: skip
    finally:
        keeper.stop()


# Declarations


def test_a_declaration_is_kept_for_each_release(airport):
    conn = airport.conn
    declare(conn, "departures", "delay", {"release": "carriers 1.2", "to": ["delays"]})
    declare(conn, "departures", "delay", {"to": ["elsewhere"]})

    rows = conn.execute(
        "select release, document -> 'to' from kirby.declaration where job = 'delay' order by 1"
    ).fetchall()
    assert rows == [("carriers 1.1", ["elsewhere"]), ("carriers 1.2", ["delays"])]


def test_a_declaration_is_a_document_of_ones_own(airport):
    conn = airport.conn
    with pytest.raises(psycopg.Error, match="JSON object of at most 64 kB"):
        conn.execute("select kirby.declare(1, '[]')")
    with pytest.raises(psycopg.Error, match="at most 64 kB"):
        conn.execute("select kirby.declare(1, %s)", [json.dumps({"doc": "x" * 70000})])
    with pytest.raises(psycopg.Error, match="there is no subscription 999"):
        conn.execute("select kirby.declare(999, '{}')")


def test_strange_declarations_stop_nobody(airport, engine):
    declare(airport.conn, "departures", "strange", {"to": {"a": 1}, "states": "x"})
    declare(airport.conn, "departures", "stranger", {"to": [1, None, {"a": 2}], "states": None})

    assert ("strange", "x") not in edges(graph(engine))


# The command and the page


def test_the_command_lists_the_edges(airport, kirby):
    done = kirby("flow")
    found = json.loads(kirby("flow", "--since", "2h", "--json").out)

    assert done.code == 0
    assert "job tally" in done.out
    assert "not declared" in done.out
    assert "declared, not seen" in done.out
    assert ["job", "delay"] in found["nodes"]
    [edge] = [each for each in found["edges"] if each["target"] == ["state", "carrier_delay"]]
    assert (edge["made"], edge["difference"]) == (3, None)


def test_the_command_refuses_in_one_line(airport, kirby):
    done = kirby("flow", "--since", "yesterday")

    assert done.code == 1
    assert "'yesterday' is not a time" in done.err


def test_the_page_draws_and_links(airport, viewer):
    page = viewer.get("/flow").text

    assert page.count('class="box') == 10
    for link in (
        "/topics/departures",
        "/states/carrier_delay",
        "/jobs/carriers",
        "/catalogue/job/tally",
    ):
        assert f'<a href="{link}?env=dev" class="box' in page
    assert page.count("d-undeclared") == 1
    assert page.count("d-unseen") == 2
    assert viewer.get("/flow?since=9y").status_code == 400
    assert viewer.get("/flow?until=2020-01-01T00:00").status_code == 200


def test_an_empty_environment_says_so(viewer):
    assert "Nothing flows here yet" in viewer.get("/flow").text


def test_hostile_names_are_escaped(dsn, viewer):
    with connected(dsn) as conn:
        via = {"via": [["<script>alert(1)</script>", "<b>", "a", 1, ""]]}
        scalar(conn, "select kirby.publish('a', '1', headers => %s)", json.dumps(via))
        count(conn)

    page = viewer.get("/flow").text
    assert "&lt;script&gt;alert" in page
    assert "<script>alert" not in page
    assert viewer.get("/catalogue/job/%3Cscript%3Ealert(1)%3C/script%3E").status_code == 200


# The drawing


def test_every_line_goes_to_the_right_but_one_of_a_circle():
    nodes = list("abcd")
    found = layers.drawing(nodes, [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "d")])

    x = {node: place[0] for node, place in found.places.items()}
    assert x["a"] < x["b"] < x["c"] < x["d"]
    assert found.lines.keys() == {("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "d")}


def test_both_ways_between_two_are_two_lines():
    found = layers.drawing("ab", [("a", "b"), ("b", "a")])

    assert found.lines["a", "b"] != found.lines["b", "a"]


def test_no_two_boxes_overlap():
    nodes = [f"n{n}" for n in range(40)]
    lines = [(f"n{n}", f"n{(n * 7 + 3) % 40}") for n in range(40)] + [
        ("n0", f"n{n}") for n in range(9)
    ]
    found = layers.drawing(nodes, lines)

    for (ax, ay), (bx, by) in combinations(found.places.values(), 2):
        assert ax != bx or abs(ay - by) >= layers.HEIGHT
    assert all(0 <= y <= found.height - layers.HEIGHT + 0.1 for _, y in found.places.values())
    assert all(0 <= x <= found.width - layers.WIDTH + 0.1 for x, _ in found.places.values())


def test_a_ladder_is_drawn_without_a_crossing():
    lines = [(f"a{n}", f"b{n}") for n in range(6)] + [(f"b{5 - n}", f"c{5 - n}") for n in range(6)]
    nodes = [f"{x}{n}" for x in "cba" for n in (3, 1, 5, 0, 2, 4)]
    found = layers.drawing(nodes, lines)

    y = {node: place[1] for node, place in found.places.items()}
    orders = [[node[1] for node in sorted(y, key=y.get) if node[0] == layer] for layer in "abc"]
    assert orders[0] == orders[1] == orders[2]


def test_nothing_is_drawn_of_nothing():
    assert layers.drawing([], []).lines == {}

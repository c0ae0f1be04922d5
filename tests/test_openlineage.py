"""OpenLineage events, taken apart and built anew by the project's own classes.

Those are generated from its schemas: they refuse members there are not, miss those there must be,
and check addresses, times and identities.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import attr
import pytest
from fix_lineage import airport_fixture  # noqa: F401
from fix_web import record
from openlineage.client import facet_v2, serde
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

MODULES = [
    facet_v2.documentation_dataset, facet_v2.documentation_job, facet_v2.error_message_run,
    facet_v2.job_type_job, facet_v2.nominal_time_run, facet_v2.output_statistics_output_dataset,
    facet_v2.ownership_dataset, facet_v2.ownership_job, facet_v2.schema_dataset,
    facet_v2.source_code_location_job,
]  # fmt: skip
CLASSES = {name: found for module in MODULES for name, found in vars(module).items()}
OWN = "kirby_run"


def built(given):
    """A facet as the class that its schema's address names builds it."""
    name = given["_schemaURL"].rpartition("/")[2]
    members = {k: v for k, v in given.items() if k not in ("_schemaURL", "_producer")}
    if name == "RunFacet":
        return given
    if "fields" in members:
        field = CLASSES["SchemaDatasetFacetFields"]
        members["fields"] = [field(**each) for each in members["fields"]]
    if "owners" in members:
        owner = CLASSES["Owner"]
        members["owners"] = [owner(**each) for each in members["owners"]]
    facet = CLASSES[name](**members, producer=given["_producer"])
    assert facet._schemaURL.rpartition("/")[2] == name
    assert facet._schemaURL.split("/")[-3] == given["_schemaURL"].split("/")[-3]
    return facet


def facets(given):
    return {name: built(each) for name, each in given.items()}


def rebuilt(event):
    """The event as the project's own classes make it, as JSON."""
    expected = {each.name for each in attr.fields(RunEvent)}
    assert event.keys() <= expected | {"schemaURL"}
    run = {k: v for k, v in event["run"]["facets"].items() if k != OWN}
    made = RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=Run(runId=event["run"]["runId"], facets=facets(run)),
        job=Job(
            event["job"]["namespace"], event["job"]["name"], facets(event["job"]["facets"])
        ),
        inputs=[
            InputDataset(each["namespace"], each["name"], facets=facets(each["facets"]))
            for each in event["inputs"]
        ],
        outputs=[
            OutputDataset(
                each["namespace"], each["name"], facets=facets(each["facets"]),
                outputFacets=facets(each["outputFacets"]),
            )
            for each in event["outputs"]
        ],
        producer=event["producer"],
    )  # fmt: skip
    return json.loads(serde.Serde.to_json(made))


def without(value, *names):
    """A document without some members, and without those that are empty."""
    if isinstance(value, dict):
        return {
            k: without(v, *names)
            for k, v in value.items()
            if k not in names and v not in (None, {}, [])
        }
    return [without(each, *names) for each in value] if isinstance(value, list) else value


def export(kirby, *options):
    done = kirby("lineage", "export", *options)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_every_event_is_what_the_schemas_ask_for(airport, kirby):
    kirby("catalogue", "describe", "topic", "departures", "Flights.", "--owner", "anna")
    kirby("catalogue", "describe", "job", "carriers", "All of it.", "--owner", "anna")
    airport.conn.execute("select kirby.append_messages(1::smallint, %s, %s)",
                         [airport.run, json.dumps({"reports": [{"v": {"a": 1}}]})])  # fmt: skip
    record(airport.conn, airport.run, "run_failed", exit_code=1, reason="it broke")
    for _ in range(2):
        airport.conn.execute("select kirby.count_messages()")
        airport.conn.execute("select kirby.count_flow()")

    found = export(kirby)

    assert {event["eventType"] for event in found} == {"START", "COMPLETE", "FAIL"}
    for event in found:
        event["run"]["facets"].pop(OWN, None)
        assert without(rebuilt(event), "tags") == without(event)
    names = {
        f for event in found for each in event["outputs"] + event["inputs"] for f in each["facets"]
    }
    assert names == {"schema", "documentation", "ownership"}


def test_a_run_begins_and_ends_with_what_it_wrote(airport, kirby):
    airport.conn.execute("select kirby.append_messages(1::smallint, %s, %s)",
                         [airport.run, json.dumps({"reports": [{"v": 1}, {"v": 2}]})])  # fmt: skip
    record(airport.conn, airport.run, "run_failed", exit_code=1, reason="it broke")
    for _ in range(2):
        airport.conn.execute("select kirby.count_messages()")
        airport.conn.execute("select kirby.count_flow()")

    first, last = [event for event in export(kirby) if event["job"]["name"] == "carriers"]

    assert (first["eventType"], last["eventType"]) == ("START", "FAIL")
    assert first["run"]["runId"] == last["run"]["runId"]
    assert last["run"]["facets"]["errorMessage"]["message"] == "it broke"
    [output] = last["outputs"]
    assert (output["namespace"], output["name"]) == ("kirby://dev", "topic/reports")
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 2


def test_jobs_without_runs_are_told_by_the_hour(airport, kirby):
    start, end = [event for event in export(kirby) if event["job"]["name"] == "tally"]

    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert [each["name"] for each in end["inputs"]] == ["topic/delays"]
    assert {each["name"] for each in end["outputs"]} == {"state/carrier_delay", "topic/alerts"}


def test_a_run_that_goes_on_says_so(airport, kirby):
    airport.conn.execute("select kirby.append_messages(1::smallint, %s, %s)",
                         [airport.run, json.dumps({"reports": [{"v": 1}]})])  # fmt: skip
    for _ in range(2):
        airport.conn.execute("select kirby.count_messages()")
        airport.conn.execute("select kirby.count_flow()")

    types = [e["eventType"] for e in export(kirby) if e["job"]["name"] == "carriers"]
    assert types == ["START", "RUNNING"]


def test_the_same_is_exported_every_time(airport, kirby):
    assert export(kirby) == export(kirby)
    assert export(kirby, "--since", "2020-01-01", "--until", "2020-01-02") == []


@pytest.fixture
def receiver():
    """A receiver of events, which refuses from the second on if told to."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            refused = getattr(server, "most", 99) <= len(taken)
            if not refused:
                taken.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(503 if refused else 201)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.taken = taken
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_events_are_posted(airport, kirby, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/api/v1/lineage"
    done = kirby("lineage", "export", "--url", url, "--api-key", "k")

    assert done.code == 0
    assert [(path, key) for path, key, _ in receiver.taken] == (
        [("/api/v1/lineage", "Bearer k")] * len(export(kirby))
    )
    assert [event for _, _, event in receiver.taken] == export(kirby)


def test_a_receiver_that_refuses_is_named(airport, kirby, receiver):
    receiver.most = 1
    url = f"http://127.0.0.1:{receiver.server_port}/"
    done = kirby("lineage", "export", "--url", url)
    nowhere = kirby("lineage", "export", "--url", "file:///etc/passwd")

    assert done.code == 1
    assert "did not take event 2: Service Unavailable" in done.err
    assert nowhere.code == 1
    assert "is not an address of a receiver" in nowhere.err

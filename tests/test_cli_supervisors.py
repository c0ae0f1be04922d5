"""kirby supervisor list, drain, resume; kirby run show and retry with all that a run has."""

import json
import uuid

import pytest
from fix_runs import Runs
from fix_web import connected


@pytest.fixture
def runs(dsn):
    with connected(dsn) as conn:
        yield Runs(conn)


def supervisor(runs, host):
    found = uuid.uuid4()
    runs.ask(
        "select kirby.register_supervisor(%s, %s, %s, 1, 9, '1 minute', %s, '3.1', 2)",
        found, host, str(found), ["gpu"],
    )  # fmt: skip
    return found


def test_supervisors_are_listed_drained_and_resumed(kirby, runs):
    supervisor(runs, "a")
    [listed] = json.loads(kirby("supervisor", "list", "--json").out)
    assert (listed["host"], listed["labels"], listed["status"]) == ("a", ["gpu"], "alive")

    drained = kirby("supervisor", "drain", "a", "--stop", "--reason", "new disk")
    assert drained.out == "a is being drained: 0 under way, 0 of them daemons' replicas\n"
    assert "being drained already" in kirby("supervisor", "drain", "a", "--stop").out
    assert "draining" in kirby("supervisor", "list").out

    assert kirby("supervisor", "resume", "a").out == "a takes runs again\n"
    assert kirby("supervisor", "resume", "a").out == "a takes runs already\n"
    events = runs.ask(
        "select verb, reason from kirby.audit_event where starts_with(verb, 'supervisor')"
        " order by position"
    )
    assert [row["verb"] for row in events] == ["supervisor_drained", "supervisor_resumed"]
    assert events[0]["reason"] == "new disk"


def test_a_host_with_several_needs_an_id_and_an_unknown_one_is_named(kirby, runs):
    first, _ = supervisor(runs, "a"), supervisor(runs, "a")

    assert (
        "there are 2 supervisors at a: name one by its id" in kirby("supervisor", "drain", "a").err
    )
    assert kirby("supervisor", "drain", str(first)[:8]).code == 0
    missing = kirby("supervisor", "drain", "aa")
    assert (missing.code, missing.err) == (1, "kirby: there is no supervisor aa; did you mean a?\n")


def ended(runs, **options):
    owner = supervisor(runs, "a")
    run_id = runs.start("print()", labels=["gpu"], **options)
    runs.ask("select kirby.claim_runs(%s, 9)", owner)
    runs.ask("select kirby.record_run(%s, 'run_started', '{\"pid\": 1}')", run_id)
    used = {"exit_code": 0, "peak_memory": 50 * 2**20, "cpu_seconds": 1.25}
    runs.ask("update kirby.run set progress = 0.4, progress_text = 'page 40' where id = %s"
             " returning id", run_id)  # fmt: skip
    runs.ask("select kirby.record_run(%s, 'run_succeeded', %s)", run_id, json.dumps(used))
    return run_id


def test_a_run_shows_what_it_runs_and_what_it_used(kirby, runs):
    run_id = ended(runs, command=["echo", "a b"])

    said = kirby("run", "show", run_id).out

    for line in ("echo 'a b'", "40% page 40", "50 MB at its peak", "1.25 s", "gpu"):
        assert line in said
    assert json.loads(kirby("run", "show", run_id, "--json").out)["peak_memory"] == 50 * 2**20


def test_it_is_run_again_at_the_version_that_is_asked_for(kirby, runs):
    run_id = ended(runs, name="moving")
    runs.deploy("2", name="moving")
    runs.deploy("3", name="moving", rerun="current")

    assert "queued at version 3:" in kirby("run", "retry", run_id).out
    assert "is queued:" in kirby("run", "retry", run_id, "--original").out
    again = kirby("run", "retry", run_id, "--version", "2", "--json").out
    assert json.loads(again)["version"] == 2
    assert "this job has no version 9" in kirby("run", "retry", run_id, "--version", "9").err
    assert kirby("run", "retry", run_id, "--version", "2", "--current").code == 2


def test_a_rerun_that_is_skipped_says_so(kirby, runs):
    run_id = ended(runs, name="single", concurrency="skip")
    live = runs.trigger(runs.get(run_id)["deployment_id"])

    said = kirby("run", "retry", run_id).out

    assert said == f"run {live + 1} is skipped: run {live} had not ended\n"


@pytest.mark.parametrize("labels", ["GPU", "a b", "gpu,-x", "x" * 64])
def test_a_label_that_is_none_is_refused(kirby, labels):
    refused = kirby("supervisor", "--labels", labels)

    assert refused.code == 1
    assert "is not a label" in refused.err

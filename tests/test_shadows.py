"""Shadows: another version of a job on the same messages, beside, and what differs."""

import itertools
import json

import pytest
from fix_runs import drive, runs_fixture, supervise_fixture  # noqa: F401
from fix_sdk import house_fixture, scripts_fixture, sdk_fixture, stop_after  # noqa: F401

import kirby

orders = kirby.Topic("orders")
PRICE = """
    @kirby.stream("orders", to="invoices")
    def price(order):
        counts = kirby.state("counts")
        for effect in kirby.effect("mail"):
            say("mailed")
        counts["n"] = counts.get("n", 0) + 1
        kirby.topic("log").publish(order)
        %s

    kirby.run()
    say("ended")
"""


def live(sdk, count, **options):
    seen = stop_after(count)

    @kirby.stream("orders", to="invoices", **options)
    def price(order):
        seen()
        return 2 * order

    kirby.run()
    kirby.sdk.streams.REGISTERED.clear()


def shadowed(command, scripts, id, body):
    """Run it as the shadow until it has done its part."""
    script = scripts(PRICE % body, KIRBY_SHADOW=str(id))
    assert script.line() == "ended"
    assert script.end()[0] == 0
    found = command("shadow", "show", id, "--json")
    assert found.code == 0, found.err
    return json.loads(found.out)


@pytest.fixture(name="started")
def started_fixture(sdk, kirby, runs):
    """Six orders, the middle four of which are to be compared."""
    runs.deploy("print(1)", name="job")
    for n in range(6):
        orders.publish(n, key=str(n % 3))
    positions = [each.position for each in orders.read()]
    live(sdk, 6)
    begun = kirby(
        "shadow", "start", "job", "--since", positions[1], "--until", positions[5], "--json"
    )
    assert begun.code == 0, begun.err
    return json.loads(begun.out)["id"], positions


def test_a_shadow_that_does_the_same_is_equal(sdk, kirby, scripts, started):
    id, _ = started
    found = shadowed(kirby, scripts, id, "return 2 * order")

    compared = {each["topic"]: each for each in found["topics"]}
    counts = ("equal", "different", "missing", "extra")
    assert [compared["invoices"][each] for each in counts] == [4, 0, 0, 0]
    assert [compared["log"][each] for each in counts] == [0, 0, 0, 4]


def test_a_shadow_writes_beside_and_has_no_effects(sdk, kirby, scripts, started):
    id, _ = started
    before = sdk.values("invoices")

    shadowed(kirby, scripts, id, "return 2 * order")

    assert sdk.values("invoices") == before
    assert sorted(sdk.values(f"invoices.shadow-{id}")) == [2, 4, 6, 8]
    assert sorted(sdk.values(f"log.shadow-{id}")) == [1, 2, 3, 4]
    assert sdk.ask("select name from kirby.state") == [(f"counts__shadow_{id}",)]
    assert sdk.value("select count(*) from kirby.effect") == 0
    assert sdk.ask("select name from kirby.subscription order by name") == [
        ("job",), (f"job.shadow-{id}",),
    ]  # fmt: skip


def test_differences_are_counted_and_shown(sdk, kirby, scripts, started):
    id, positions = started

    found = shadowed(
        kirby, scripts, id,
        "return {1: 2, 2: 5, 3: None}.get(order, iter([order * 2, 'more']))",
    )  # fmt: skip

    [invoices] = [each for each in found["topics"] if each["topic"] == "invoices"]
    counts = [invoices[each] for each in ("equal", "different", "missing", "extra")]
    assert counts == [2, 1, 1, 1]
    told = kirby("shadow", "show", id).out
    assert f"invoices  {positions[2]}: 2=4 became 2=5" in told
    assert f"invoices  {positions[3]}: 0=6 is missing" in told
    assert f'invoices  {positions[4]}: 1="more" is extra' in told


def test_what_its_code_fails_on_is_parked_and_it_goes_on(sdk, kirby, scripts, started):
    id, _ = started

    found = shadowed(kirby, scripts, id, "return 2 * order if order != 2 else 1 / 0")

    assert found["shadow"]["parked"] == 1
    [invoices] = [each for each in found["topics"] if each["topic"] == "invoices"]
    assert (invoices["equal"], invoices["missing"]) == (3, 1)


def test_cursors_of_a_shadow_are_right_and_go_when_it_is_stopped(sdk, kirby, scripts, started):
    id, _ = started
    shadowed(kirby, scripts, id, "return 1")
    assert sdk.ask("select * from kirby.verify_cursors()") == []

    assert kirby("shadow", "stop", id).code == 0

    assert sdk.ask("select name from kirby.subscription") == [("job",)]
    again = kirby("shadow", "stop", id)
    assert (again.code, "was stopped already" in again.err) == (1, True)
    script = scripts(PRICE % "return 1", KIRBY_SHADOW=str(id))
    code, errors = script.end()
    assert (code, f"shadow {id} was stopped" in errors) == (1, True)


def test_the_loop_form_and_lists_end_as_well(sdk, kirby, scripts, started):
    id, _ = started
    script = scripts(
        """
        for message in kirby.topic("orders").consume():
            kirby.topic("invoices").publish(2 * message.value, key=message.key)
        say("ended")
        """,
        KIRBY_SHADOW=str(id),
    )
    assert script.line() == "ended"
    assert sorted(sdk.values(f"invoices.shadow-{id}")) == [2, 4, 6, 8]

    other = scripts(
        """
        @kirby.stream("orders", to="sums", batch=10, name="other")
        def handle(values):
            return values
        kirby.run()
        say("ended")
        """,
        KIRBY_SHADOW=str(id),
    )
    assert other.line() == "ended"
    assert sorted(itertools.chain(*sdk.values(f"sums.shadow-{id}"))) == [1, 2, 3, 4]


def test_topics_that_a_shadow_does_not_read_are_not_served(sdk, kirby, scripts, started):
    id, _ = started
    sdk.publish("others", 1)
    script = scripts(
        """
        @kirby.stream("others")
        def handle(value):
            say("served")
        kirby.run()
        say("ended")
        """,
        KIRBY_SHADOW=str(id),
    )
    assert script.line() == "ended"


def test_a_shadow_is_a_run_of_another_version(runs, supervise, sdk, kirby):
    shown = "import os; print(os.environ['KIRBY_SHADOW'], os.environ['KIRBY_RELEASE'][:4])"
    deployment = runs.deploy(shown, name="job")
    runs.deploy("print(2)", name="job")
    orders.publish(1)
    live(sdk, 1)
    begun = kirby("shadow", "start", "job", "--release", "1", "--since", "0", "--json")
    assert begun.code == 0, begun.err
    found = json.loads(begun.out)

    drive(supervise(), lambda: runs.get(found["run_id"])["ended_at"])

    assert runs.texts(found["run_id"]) == [f"{found['id']} job "]
    assert runs.get(found["run_id"])["version"] == 1
    again = kirby("run", "retry", found["run_id"])
    assert again.code == 0, again.err
    assert sdk.value("select shadow_id from kirby.run order by id desc limit 1") == found["id"]
    # Others do not wait for it, nor are they skipped for its sake.
    assert sdk.value("select kirby.live_run(%s)", deployment) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["job", "--since", "nonsense"], "nonsense"),
        (["other", "--since", "0"], "job in dev called"),
        (["job", "--since", "0", "--topic", "others"], "job does not read topic others"),
        (
            ["job", "--since", "0", "--release", "9"],
            "no version of job is, or has, the release '9'",
        ),
        (["job", "--since", "9000000"], "there is nothing after position"),
    ],
)
def test_refusals_are_one_line(sdk, kirby, runs, given, told):
    runs.deploy("print(1)", name="job")
    orders.publish(1)
    live(sdk, 1)

    refused = kirby("shadow", "start", *given)

    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert told in refused.err
    assert kirby("shadow", "list").out.startswith("no shadows in dev")

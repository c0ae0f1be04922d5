"""Diffs: each kind of change is found, said in words, and bounded."""

import pytest
from fix_deploy import acme, made_release

from kirby.server import contents, database, deployments, diffs, variables
from kirby.server.diffs import Change
from kirby.server.needs import Needs
from kirby.server.plans import Plan

LOCK = "{}==1.0 \\\n    --hash=sha256:aa\ncommon==2.0 \\\n    --hash=sha256:bb\n"


@pytest.fixture
def unit(engine):
    return lambda: database.unit(engine)


def stored(conn, plan, source="print(1)\n", lock=""):
    """Deploy it; its release."""
    release_id = made_release(conn, plan.name, source, lock)
    deployments.deploy(conn, plan, release_id, actor="test")
    return release_id


def compared(conn, plan, source="print(1)\n", lock=""):
    """What deploying it would change."""
    release = contents.get(conn, made_release(conn, plan.name, source, lock))
    return diffs.of_plan(conn, plan, release)


BASE = Plan("nightly", "dev", schedules=("@daily",), variables={"DAYS": "7", "OLD": "x"})


def test_the_same_is_no_change(unit):
    with unit() as conn:
        stored(conn, BASE)
        diff = compared(conn, BASE)

    assert diff.is_empty
    assert (diff.before, diff.after) == (1, None)
    assert list(diffs.sentences(diff)) == []


def test_requirements_are_added_changed_and_taken_away(unit):
    with unit() as conn:
        stored(conn, BASE, lock=LOCK.format("old-one"))
        diff = compared(conn, BASE, lock=LOCK.format("new-one").replace("2.0", "2.1"))

    assert diff.requirements == [
        Change("common", "2.0", "2.1"),
        Change("old-one", "1.0", None),
        Change("new-one", None, "1.0"),
    ]
    assert list(diffs.sentences(diff)) == [
        "requirements: common 2.0 → 2.1; - old-one 1.0; + new-one 1.0"
    ]


def test_variables_say_where_they_come_from(unit):
    with unit() as conn:
        stored(conn, BASE)
        variables.put(conn, "OLD", "wide", environment="dev", job=None, actor="test")
        variables.put(conn, "FAR", "away", environment="prod", job=None, actor="test")
        variables.put(conn, "EVERY", "where", environment=None, job=None, actor="test")
        variables.put(conn, "DAYS", "1", environment=None, job="nightly", actor="test")
        plan = Plan("nightly", "dev", schedules=("@daily",), variables={"NEW": "y"})
        diff = compared(conn, plan)

    assert diff.variables == [
        Change("DAYS", "7", "1", "deployment → job"),
        Change("NEW", None, "y", "deployment"),
        Change("OLD", "x", "wide", "deployment → environment"),
    ]
    assert {each.name: each.origin for each in diff.effective} == {
        "DAYS": "job", "EVERY": "global", "NEW": "deployment", "OLD": "environment",
    }  # fmt: skip


def test_what_is_planned_is_what_a_run_gets(unit):
    with unit() as conn:
        for scope in ((None, None), ("dev", None)):
            variables.put(conn, "A", str(scope), environment=scope[0], job=None, actor="test")
        stored(conn, BASE)
        variables.put(conn, "A", "both", environment="dev", job="nightly", actor="test")
        variables.put(conn, "A", "job", environment=None, job="nightly", actor="test")
        deployment_id, version = deployments.find(conn, "dev", "nightly")
        planned = variables.planned(conn, "dev", "nightly", BASE.variables)

        assert planned == variables.effective(database.driver(conn), deployment_id, version)
    assert planned["A"].value == "both"


def test_schedule_topics_and_policies(unit):
    before = Plan(
        "nightly", "dev", schedules=("@daily",), needs=Needs(reads=("a", "b"), writes=("b",))
    )
    after = Plan(
        "nightly", "dev", schedules=("@hourly", "0 3 * * *"), tz="Asia/Tokyo", timeout=90.0,
        labels=("eu", "gpu"), command=("sh", "-c", "true"), concurrency="queue", entry="acme:main",
        needs=Needs(reads=("a",), writes=("a", "c")),
    )  # fmt: skip
    with unit() as conn:
        stored(conn, before)
        diff = compared(conn, after)

    assert diff.schedule == [
        Change("when", "@daily", "@hourly, 0 3 * * *"), Change("time zone", "UTC", "Asia/Tokyo"),
    ]  # fmt: skip
    assert diff.topics == [
        Change("a", "read", "read and written"),
        Change("b", "read and written", None),
        Change("c", None, "written"),
    ]
    assert {each.name: (each.before, each.after) for each in diff.policies} == {
        "entry": ("none", "acme:main"),
        "command": ("none", "sh -c true"),
        "timeout": ("none", "90s"),
        "labels": ("none", "eu, gpu"),
        "concurrency": ("default", "queue"),
    }


def test_what_is_new_is_compared_with_nothing(unit):
    with unit() as conn:
        diff = compared(conn, BASE)

    assert diff.before is None
    assert diff.source == []
    assert Change("when", None, "@daily") in diff.schedule
    assert diff.policies == []  # as they are when nobody says anything


def test_source_is_compared_line_by_line(unit):
    with unit() as conn:
        stored(conn, BASE, "-- one\nsame\n")
        diff = compared(conn, BASE, "++ two\nsame\nmore\n")

    assert [kind for kind, _ in diffs.marked(diff.source)] == [
        "file", "file", "place", "removed", "added", "same", "added",
    ]  # fmt: skip
    assert diffs.counts(diff) == (2, 1)
    assert list(diffs.sentences(diff)) == ["source: 2 lines added, 1 removed"]


def test_a_long_difference_is_cut_and_says_so(unit):
    with unit() as conn:
        stored(conn, BASE, "".join(f"a{n}\n" for n in range(3000)))
        diff = compared(conn, BASE, "".join(f"b{n}\n" for n in range(3000)))

    assert (len(diff.source), diff.more) == (2000, 4003)


def test_two_stored_versions_of_a_package(api, engine):
    files = {"acme/data.bin": "\0\1", "acme/old.py": "x = 1\n"}
    for version, given in (("1.0", files), ("2.0", {"acme/new.py": "y = 2\n"})):
        done = api("POST", "/deploy", data={"job": "send"},
                   files={"file": acme(version, files=given)})  # fmt: skip
        assert done.status_code == 201, done.text
    with database.unit(engine) as conn:
        deployment_id, _ = deployments.find(conn, "dev", "send")
        diff = diffs.between(conn, "send", "dev", deployment_id, 1, 2)

    source = "\n".join(diff.source)
    assert "--- acme/old.py\n+++ (not there)" in source
    assert "--- (not there)\n+++ acme/new.py" in source
    assert '-    print("hello 1.0")\n+    print("hello 2.0")' in source
    assert "data.bin" not in source
    assert "METADATA" not in source
    assert Change("version", "1.0", "2.0") in diff.release
    assert diff.requirements == []


def test_a_value_in_a_line_is_short_and_plain():
    text = diffs.sentence(Change("A", "x" * 100, "two\nlines\x1b[31m"))

    assert text == f"A {'x' * 59}… → two�lines�[31m"


def test_the_releases_of_before_are_compared_as_well(unit):
    """Their jobs were not stored, but they were scripts."""
    with unit() as conn:
        release_id = stored(conn, BASE)
        release = contents.get(conn, release_id)

    assert [job.name for job in release.jobs] == ["nightly"]
    assert release.texts == {"nightly.py": "print(1)\n"}

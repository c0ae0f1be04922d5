"""kirby incident list, show, ack, silence, resolve."""

import json

import pytest
from fix_incidents import House
from fix_web import connected


@pytest.fixture
def house(dsn):
    with connected(dsn) as conn:
        yield House(conn)


@pytest.fixture
def say(kirby):
    """`say("list")`: what `kirby incident list` prints."""

    def say(*words):
        result = kirby("incident", *words)
        assert result.err == ""
        assert result.code == 0
        return result.out

    return say


@pytest.fixture
def failing(house):
    """An incident of a job that fails."""
    house.ran(house.scheduled("report"), fails="ValueError: no orders")
    [incident] = house.incidents()
    return incident["id"]


def test_a_calm_house_says_so(say, house):
    assert say("list") == "nothing is wrong in dev\n"
    assert json.loads(say("list", "--json")) == []


def test_the_list_names_job_kind_and_error(say, failing):
    said = say("list")
    assert "failing" in said
    assert "report" in said
    assert "it ended with exit code 1: ValueError: no orders" in said

    [found] = json.loads(say("list", "--json"))
    assert found["id"] == failing
    assert found["state"] == "open"
    assert found["details"]["host"] == "web-1"


def test_one_is_shown_with_its_story_and_the_last_lines(say, house, failing):
    house.later("11 s")
    said = say("show", failing)
    assert "the last lines of run" in said
    assert "  ValueError: no orders" in said
    assert "opened: it ended with exit code 1" in said
    assert "opened: told to 0 channels" in said

    found = json.loads(say("show", failing, "--json"))
    assert [each["type"] for each in found["timeline"]] == ["incident_told", "incident_opened"]
    assert found["log"] == ["ValueError: no orders"]


def test_somebody_sees_to_it(say, house, failing):
    said = say("ack", failing, "--reason", "on it")
    assert said == f"incident {failing} is acknowledged: no more digests\n"
    assert "already" in say("ack", failing)

    assert "acknowledged" in say("list")
    story = say("show", failing)
    assert "acknowledged: on it" in story


def test_a_silence_ends_by_itself_or_by_hand(kirby, say, house, failing):
    assert "is silenced until" in say("silence", failing, "--for", "2h")
    assert "silenced" in say("list")
    house.later("3 hours")
    assert "silenced" not in say("list")

    assert kirby("incident", "silence", failing, "--until", "2100-01-01").code == 1
    say("silence", failing, "--for", "1d")
    assert say("silence", failing, "--end").endswith("is told again\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["silence", "1"], "say how long: either --for 2h, --until TIME, or --end"),
        (["silence", "1", "--for", "soon"], "'soon' is no time"),
        (["silence", "1", "--until", "2001-01-01"], "2001-01-01 is in the past: a silence must"),
        (["silence", "1", "--until", "yesterday"], "yesterday"),
        (["silence", "1", "--for", "0s"], "0s is no time at all: write it like 2h"),
        (["silence", "1", "--for", "91d"], "90 days at the most"),
        (["show", "99"], "there is no incident 99"),
        (["ack", "99"], "there is no incident 99"),
        (["resolve", "99"], "there is no incident 99"),
        (["list", "--status", "closed"], "'closed' is no status: open, resolved, all"),
        (["list", "--kind", "angry"], "'angry' is no kind of incident"),
    ],
)
def test_what_cannot_be_done_is_one_line(kirby, failing, words, error):
    assert failing == 1
    result = kirby("incident", *words)
    assert result.code == 1
    [line] = result.err.splitlines()
    assert error in line


def test_somebody_says_that_it_is_over(kirby, say, house, failing):
    assert say("resolve", failing) == f"incident {failing} is resolved\n"
    assert say("resolve", failing) == f"incident {failing} was resolved\n"
    assert "nothing is wrong" in say("list")
    assert "report" in say("list", "--status", "resolved")
    assert kirby("incident", "ack", failing).code == 1

    verbs = house.ask("select verb from kirby.audit_event where object = %s order by position",
                      f"incident/{failing}")  # fmt: skip
    assert [each["verb"] for each in verbs] == ["incident_resolved"]

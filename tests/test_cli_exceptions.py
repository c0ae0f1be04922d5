"""kirby exception add, list, show, extend, end."""

import json

import pytest
from fix_schedules import House
from fix_web import connected


@pytest.fixture
def house(dsn):
    """A house whose clock stands at Friday noon, with a job that runs every hour in Brussels."""
    with connected(dsn) as conn:
        house = House(conn)
        house.schedule("0 * * * *", name="poll", tz="Europe/Brussels", tags=["sources"])
        yield house


@pytest.fixture
def say(kirby, house):
    def say(*words):
        result = kirby("exception", *words)
        assert (result.err, result.code) == ("", 0)
        return result.out

    return say


def test_a_pause_says_what_it_does_and_when_it_ends(say):
    said = say("add", "--job", "poll", "--until", "monday 08:00", "--reason", "source down")

    assert said.partition(": ")[2] == (
        "poll paused until Mon 2026-11-23 08:00 Europe/Brussels; 67 ticks fall into that time;"
        " then by itself: the next tick\n"
    )


def test_with_plan_nothing_is_done(say, house):
    said = say("add", "--tag", "sources", "--for", "3h", "--schedule", "every 2h", "--plan",
               "--reason", "x", "--return", "catch-up=5")  # fmt: skip

    assert said == (
        "this exception: poll runs at every 2h instead until Fri 2026-11-20 15:00 UTC;"
        " 3 ticks fall into that time; then by itself: what was held, at most 5\n"
    )
    assert house.value("select count(*) from kirby.schedule_exception") == 0


def test_the_list_and_one_of_it(say):
    say("add", "--all", "--for", "2h", "--manual", "--reason", "moving house")
    say("add", "--job", "poll", "--from", "tomorrow", "--for", "1d", "--rate", "4/12h",
        "--reason", "r")  # fmt: skip

    in_force, coming = json.loads(say("list", "--json"))
    assert (coming["status"], in_force["status"]) == ("coming", "in force")
    assert (coming["effect"], coming["most"], coming["per"]) == ("rate", 4, 43200)
    table = say("list")
    assert "everything in dev" in table
    assert "only by hand" in table
    assert "at most 4 in 12h" in say("show", str(coming["id"]))


def test_extended_then_ended(say):
    say("add", "--job", "poll", "--for", "2h", "--reason", "x")
    [found] = json.loads(say("list", "--json"))
    id = str(found["id"])

    assert say("extend", id, "--until", "18:30", "--reason", "still down") == (
        f"exception {id} holds until Fri 2026-11-20 18:30 Europe/Brussels\n"
    )
    assert "poll in dev runs as before" in say("end", id)
    assert say("list") == "no exceptions: all schedules are as they were deployed\n"
    story = say("show", id)
    assert [line.split()[0] for line in story.splitlines()[-3:]] == ["added", "changed", "ended"]
    assert "still down" in story


def test_every_sunday_night(say, house):
    say("add", "--everything", "--recurs", "0 1 * * sun", "--lasts", "4h", "--until", "2026-12-24",
        "--reason", "maintenance")  # fmt: skip

    assert house.value("select count(*) from kirby.exception_window") == 5
    assert "paused, each 0 1 * * sun for 4h" in say("list")


def test_extended_within_a_window_each_window_is_there_once(say, house):
    say("add", "--job", "poll", "--recurs", "0 1 * * *", "--lasts", "4h", "--until", "monday",
        "--reason", "maintenance")  # fmt: skip
    assert "0 1 * * * for 4h\n" in say("show", str(json.loads(say("list", "--json"))[0]["id"]))
    house.set("2026-11-21T06:00Z")
    assert house.value("select kirby.note_exceptions()") == 1  # that of Saturday
    house.set("2026-11-22T01:00Z")  # 02:00 in Brussels: the one of Sunday has begun
    [found] = json.loads(say("list", "--json"))

    say("extend", str(found["id"]), "--until", "2026-11-22T03:00")
    said = say("extend", str(found["id"]), "--until", "tuesday 02:00", "--reason", "not yet done")

    assert "until Tue 2026-11-24 02:00 Europe/Brussels" in said
    windows = house.value(
        "select array_agg(to_char(from_at, 'DD HH24') || to_char(until_at, '-HH24')"
        " order by from_at) from kirby.exception_window where version = 3"
    )
    assert windows == ["21 00-04", "22 00-04", "23 00-04", "24 00-01"]
    house.set("2026-11-22T05:00Z")
    assert house.value("select kirby.note_exceptions()") >= 1
    assert [event["from"][:10] for event in house.events("exception_over")] == [
        "2026-11-21",
        "2026-11-22",
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--job", "pol", "--for", "1h", "--reason", "x"), "did you mean poll?"),
        (("--tag", "source", "--for", "1h", "--reason", "x"), "did you mean sources?"),
        (("--job", "poll", "--reason", "x"), "say when it ends"),
        (("--job", "poll", "--for", "1h"), "say why"),
        (("--job", "poll", "--until", "soon", "--reason", "x"), "write it like"),
        (("--job", "poll", "--until", "2020-01-01", "--reason", "x"), "over before it begins"),
        (("--job", "poll", "--for", "800d", "--reason", "x"), "a year at the most"),
        (("--job", "poll", "--for", "forever", "--reason", "x"), "forever is too long"),
        (
            ("--job", "poll", "--for", "1h", "--reason", "x", "--rate", "often"),
            "write it like 4/1h",
        ),
        (("--job", "poll", "--for", "1h", "--reason", "x", "--schedule", "never"), "1 field"),
        (("--job", "poll", "--for", "1h", "--reason", "x", "--pause", "--manual"), "say one of"),
        (("--for", "1h", "--reason", "x"), "say what it is about"),
        (("--job", "poll", "--for", "1h", "--reason", "x", "--recurs", "@daily"), "has both"),
        (
            ("--job", "poll", "--for", "1h", "--reason", "x", "--return", "maybe"),
            "one of next-tick",
        ),
        (
            ("--job", "poll", "--for", "1h", "--reason", "x", "--return", "catch-up=0"),
            "from 1 to 1,000",
        ),
        (
            ("--job", "poll", "--for", "1h", "--reason", "x", "--return", "catch-up=5000"),
            "from 1 to 1,000",
        ),
        (("--job", "poll", "--until", "forever", "--reason", "x"), "forever is too long"),
        (("--job", "poll", "--for", "1h", "--reason", "x", "--tz", "Mars/Base"), "no time zone"),
    ],
)
def test_what_cannot_be_is_one_line(kirby, house, words, error):
    result = kirby("exception", "add", *words)

    assert (result.code, result.out) == (1, "")
    assert error in result.err
    assert result.err.count("\n") == 1
    assert house.value("select count(*) from kirby.schedule_exception") == 0


def test_one_that_is_not_there_and_one_that_is_over(kirby, house):
    assert "there is no exception 7777" in kirby("exception", "show", "7777").err
    id = str(house.add(scope="environment", until_at="2026-11-20T13:00Z"))
    house.set("2026-11-20T14:00")
    assert "is over since 2026-11-20 13:00 UTC" in kirby("exception", "end", id).err
    assert "is over" in kirby("exception", "extend", id, "--for", "1h").err

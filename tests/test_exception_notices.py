"""People are told before an exception ends, and when it is over. The clock is set by hand."""

import pytest
from fix_schedules import house_fixture  # noqa: F401
from psycopg.types.json import Jsonb

from kirby.server import notices

pytest_plugins = ("fix_channels",)
NEW_CHANNEL = """
    insert into kirby.channel (environment_id, name, url, created_by)
    select id, %s, 'json://x.test', 'ann' from kirby.environment where name = 'dev' returning id
"""
NEW_ROUTE = """
    insert into kirby.route (channel_id, scope, target, kinds, created_by)
    values (%s, %s, %s, %s, 'ann') returning id
"""
HEARD = """
    select m.payload from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name = 'kirby.notices' and m.payload ->> 'channel' = %s order by m.position
"""


class People:
    def __init__(self, house):
        self.house = house
        house.set("2026-11-20T11:59")
        self.job = house.schedule("*/10 * * * *", tags=["etl"])
        self.hears("ops")

    def hears(self, name, scope="everything", target="", kinds=()):
        channel = self.house.value(NEW_CHANNEL, name)
        self.house.value(NEW_ROUTE, channel, scope, target, list(kinds))

    def go(self, *times):
        for time in times:
            self.house.go(f"2026-11-20T{time}")
            self.house.value("select kirby.note_exceptions()")

    def heard(self, channel="ops"):
        return [row["payload"] for row in self.house.ask(HEARD, channel)]

    def events(self, channel="ops"):
        return [each["event"] for each in self.heard(channel)]

    def pause(self, until="14:00", **document):
        said = {"scope": "job", "target": "report", "until_at": f"2026-11-20T{until}Z"}
        return self.house.add(**said | document)


@pytest.fixture(name="people")
def people_fixture(house):
    return People(house)


def test_told_once_before_the_end_and_once_at_it(people):
    id = people.pause(on_return="run_once")
    people.go("13:44")
    assert people.events() == []
    people.go("13:45", "13:50")
    [ending] = people.heard()
    people.go("14:00:01", "14:00:02", "15:00")
    [_, over] = people.heard()

    assert (ending["event"], ending["exception"], ending["title"]) == (
        "ending", id, "pause of job report, at 14:00 UTC",
    )  # fmt: skip
    assert (over["event"], over["held"], over["jobs"], over["ended_by"]) == ("over", 12, 1, None)
    letter = notices.letter(ending, 1, "https://k.test")
    assert letter.title == "[dev] ENDING SOON: pause of job report, at 14:00 UTC"
    for text in (letter.text, letter.html, letter.markdown):
        assert f"kirby exception extend {id}" in text
        assert f"https://k.test/exceptions/{id}?env=dev" in text
    assert notices.letter(over, 2).title == (
        "[dev] BACK TO NORMAL: job report; 12 ticks were held back"
    )


def test_what_is_caught_up_with_was_held_and_is_started(people):
    people.pause("13:05", on_return="catch_up", return_most=3)
    people.house.go("2026-11-20T13:04")
    people.house.set("2026-11-20T13:05")
    people.house.look()
    people.go("13:05:01")
    over = people.heard()[-1]
    assert (over["event"], over["held"], over["started"]) == ("over", 7, 3)


def test_extended_it_is_reminded_of_again(people):
    id = people.pause()
    people.go("13:50")
    later = Jsonb({"until_at": "2026-11-20T16:00Z"})
    people.house.ask("select kirby.change_exception(%s, %s, 'bob')", id, later)
    people.go("15:50")
    assert people.events() == ["ending", "ending"]
    people.house.ask(
        "select kirby.change_exception(%s, %s, 'bob', 'typo')", id, Jsonb({"ticket": "T-1"})
    )
    people.go("15:55", "16:01")
    assert people.events() == ["ending", "ending", "over"]


def test_ended_early_it_says_by_whom(people):
    id = people.pause()
    people.go("13:01")
    people.house.ask("select kirby.end_exception(%s, 'ann')", id)
    people.go("13:02", "14:30")
    [over] = people.heard()
    assert (over["event"], over["ended_by"]) == ("over", "ann")
    assert "ended early by ann" in notices.letter(over, 1).text


def test_silent_of_what_recurs_of_what_kirby_made_and_before_the_end_of_a_short_one(people):
    window = ["2026-11-20T12:00Z", "2026-11-20T13:30Z"]
    people.pause("20:00", recurs="0 12 * * *", lasts=5400, windows=[window])
    people.pause(actor="kirby")
    people.go("13:20", "13:31", "13:50", "14:01")
    assert people.events() == []
    people.pause("14:40")
    people.go("14:30", "14:41")
    assert people.events() == ["over"]


def test_who_hears_of_it(people):
    people.hears("job", "job", "report")
    people.hears("tag", "tag", "etl")
    people.hears("other", "job", "another")
    people.hears("kinds", kinds=["failing"])
    people.pause("12:30", scope="environment", target="")
    people.go("12:31")
    heard = {name: people.events(name) for name in ("ops", "job", "tag", "other", "kinds")}
    assert heard == {"ops": ["over"], "job": ["over"], "tag": ["over"], "other": [], "kinds": []}


def test_a_leader_that_dies_while_it_tells_leaves_it_to_the_next(people):
    people.pause("12:30")
    people.house.go("2026-11-20T12:31")
    with people.house.conn.transaction(force_rollback=True):
        people.house.value("select kirby.note_exceptions()")
        assert people.events() == ["over"]
    assert people.events() == []
    people.go("12:32", "12:33")
    assert people.events() == ["over"]


def test_one_that_cannot_be_told_keeps_no_other_from_being_told_and_is_tried_again(people):
    first = people.pause("12:30")
    people.pause("12:30")
    people.house.conn.execute(
        "alter table kirby.message add constraint broken check"
        f" ((payload ->> 'exception')::integer is distinct from {first}) not valid"
    )
    people.go("12:31")
    assert len(people.heard()) == 1
    people.house.conn.execute("alter table kirby.message drop constraint broken")
    people.go("12:32", "12:33")
    assert [each["exception"] for each in people.heard()] == [first + 1, first]


def test_it_reaches_a_real_webhook(told, hook):
    channel = told.channel("hook", hook.url, route=False)
    told.route(channel, events=["ending", "over"])
    told.deploy(name="nightly")
    environment = told.value("select id from kirby.environment where name = 'dev'")
    until = told.value("select (kirby.now() + interval '2 hours')::text")
    said = {"environment_id": environment, "scope": "job", "target": "nightly", "effect": "pause",
            "until_at": until, "reason": "the source is down"}  # fmt: skip
    id = told.value("select kirby.add_exception(%s, 'ann')", Jsonb(said))
    for interval in ("106 minutes", "15 minutes"):
        told.later(interval)
        told.value("select kirby.note_exceptions()")
        told.send()
    ending, over = (each.body["kirby"] for each in hook.got)
    assert (ending["event"], over["event"], over["held"]) == ("ending", "over", 0)
    assert ending["links"]["Extend it"] == f"https://k.test/exceptions/{id}?env=dev"
    assert f"kirby exception extend {id}" in hook.got[0].body["message"]
    assert [each["incident_id"] for each in told.deliveries(channel)] == [None, None]

"""Recurring exceptions, when the zone of their windows is another one than it was."""

from datetime import timedelta

import pytest
from fix_schedules import house_fixture  # noqa: F401
from psycopg.types.json import Jsonb

from kirby.server import recurring, windows
from kirby.server.ticks import Planner

WINDOWS = """
    select from_at, until_at from kirby.exception_window w
     where exception_id = %s and version = (select max(version) from kirby.exception_version
                                             where exception_id = w.exception_id)
     order by from_at
"""
BRUSSELS = "Europe/Brussels"


@pytest.fixture
def nights(house):
    """Each night from 1 to 3 in Brussels for two weeks; it is the third of them."""
    house.set("2027-01-04T12:00", BRUSSELS)
    house.report = house.schedule("30 * * * *", tz=BRUSSELS)
    found = windows.of("0 1 * * *", 7200, BRUSSELS, house.now(), house.now() + timedelta(days=14))
    id = house.add(scope="job", target="report", recurs="0 1 * * *", lasts=7200, tz=BRUSSELS,
                   until_at=str(house.now() + timedelta(days=14)), windows=found)  # fmt: skip
    house.go("2027-01-07T02:15", BRUSSELS)
    return id


def renew(house):
    """How many have other windows now."""
    return sum(recurring.renew(house.conn, each) for each in recurring.found(house.conn))


def begins(house, id):
    return [f"{row['from_at']:%d %H:%M}" for row in house.ask(WINDOWS, id)]


def test_windows_to_come_follow_the_zone_and_those_that_began_stay(house, nights):
    before = house.ask(WINDOWS, nights)
    house.conn.execute(  # as they were made when Brussels was an hour further
        "update kirby.exception_window set from_at = from_at - interval '1 hour',"
        " until_at = until_at - interval '1 hour' where exception_id = %s",
        [nights],
    )
    house.planner = Planner()
    house.go("2027-01-09T12:00", BRUSSELS)

    # the night that it is has one hour more
    assert begins(house, nights)[:5] == ["04 23:00", "05 23:00", "06 23:00", "07 01:15", "08 00:00"]
    assert house.ask(WINDOWS, nights)[4:] == before[3:]
    held = [at for at, _ in house.skipped(house.report, BRUSSELS)]
    assert held[-5:] == ["Thu 02:30", "Fri 01:30", "Fri 02:30", "Sat 01:30", "Sat 02:30"]
    [changed] = house.events("exception_changed")
    assert (changed["actor"], changed["reason"]) == ("kirby", "because")


def test_nothing_is_changed_where_the_zone_is_as_it_was(house, nights):
    assert renew(house) == 0
    assert house.events("exception_changed") == []


def test_a_window_that_is_open_is_not_opened_again(house, nights):
    house.conn.execute(  # it is 2:15: by the old zone the window ends at 5, by the new one at 3
        "update kirby.exception_window set from_at = from_at + interval '1 hour',"
        " until_at = until_at + interval '2 hours' where exception_id = %s",
        [nights],
    )
    assert renew(house) == 1
    assert begins(house, nights)[:4] == ["05 01:00", "06 01:00", "07 01:00", "08 00:00"]


def test_what_does_not_come_any_more_is_left_alone(house, nights):
    house.conn.execute("alter table kirby.exception_version disable trigger all")
    house.conn.execute("update kirby.exception_version set recurs = '0 1 30 6 *'")
    assert renew(house) == 0


def test_one_that_is_over_or_ended_is_left_alone(house, nights):
    house.conn.execute("update kirby.exception_window set from_at = from_at - interval '1 hour'")
    house.ask("select kirby.end_exception(%s, 'ann', 'done')", nights)
    assert renew(house) == 0


def shift(house):
    house.conn.execute(
        "update kirby.exception_window set from_at = from_at - interval '1 hour',"
        " until_at = until_at - interval '1 hour'"
    )


def test_what_a_person_changed_meanwhile_stays(house, nights):
    shift(house)
    [each] = recurring.found(house.conn)
    later = windows.of("0 5 * * *", 3600, BRUSSELS, house.now(), house.now() + timedelta(days=20))
    changed = {"recurs": "0 5 * * *", "lasts": 3600, "windows": later,
               "until_at": str(house.now() + timedelta(days=20))}  # fmt: skip
    house.ask("select kirby.change_exception(%s, %s, 'ann')", nights, Jsonb(changed))

    assert not recurring.renew(house.conn, each)
    assert begins(house, nights) == [f"{day:02} 04:00" for day in range(7, 27)]


def test_one_that_cannot_be_renewed_keeps_no_other_from_it(house, nights):
    other = house.add(scope="job", target="report", recurs="0 1 * * *", lasts=7200, tz=BRUSSELS,
                      until_at=str(house.now() + timedelta(days=9)),
                      windows=windows.of("0 1 * * *", 7200, BRUSSELS, house.now(),
                                         house.now() + timedelta(days=9)))  # fmt: skip
    shift(house)
    house.conn.execute(
        "alter table kirby.exception_window add constraint held"
        f" check (exception_id <> {other} or version = 1)"
    )
    house.planner = Planner()
    house.look()
    [event] = house.events("exception_changed")
    assert event["exception_id"] == nights

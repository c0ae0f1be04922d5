"""Days and windows of calendars: what is read, and what falls on them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirby.core.errors import Invalid
from kirby.server import cron, exclusions
from kirby.server.exclusions import Calendars

SUNDAY = {"cron": "0 1 * * sun", "minutes": 240}


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def of(*days, windows=(), tz=""):
    return exclusions.of("holidays", tz, days, windows)


def test_a_day_is_one_of_the_zone_that_is_asked_for():
    christmas = of("2026-12-25")

    assert christmas.excluded(at("2026-12-24T23:30"), "Europe/Brussels") == "holidays: 2026-12-25"
    assert christmas.excluded(at("2026-12-25T23:30"), "Europe/Brussels") == ""
    assert christmas.excluded(at("2026-12-25T23:30"), "UTC") == "holidays: 2026-12-25"


def test_a_calendar_with_a_zone_of_its_own_keeps_to_it():
    christmas = of("2026-12-25", tz="Asia/Tokyo")

    assert christmas.excluded(at("2026-12-24T16:00"), "Europe/Brussels") == "holidays: 2026-12-25"
    assert christmas.excluded(at("2026-12-25T16:00"), "Europe/Brussels") == ""


def test_a_day_of_every_year_and_a_stretch_of_days():
    both = of("12-25", "2026-07-20..2026-08-02", "02-29")

    for day, said in {
        "2030-12-25": "12-25",
        "2026-07-20": "2026-07-20..2026-08-02",
        "2026-08-02": "2026-07-20..2026-08-02",
        "2028-02-29": "02-29",
    }.items():
        assert both.excluded(at(f"{day}T12:00"), "UTC") == f"holidays: {said}"
    for day in ("2026-07-19", "2026-08-03", "2027-07-25", "2026-12-24", "2027-02-28"):
        assert both.excluded(at(f"{day}T12:00"), "UTC") == ""


def test_a_window_begins_with_its_cron_line_and_its_end_is_free():
    upkeep = of(windows=[SUNDAY])
    said = "holidays: 0 1 * * sun for 4h"

    assert upkeep.excluded(at("2026-11-29T00:59:59"), "UTC") == ""
    assert upkeep.excluded(at("2026-11-29T01:00"), "UTC") == said
    assert upkeep.excluded(at("2026-11-29T04:59:59"), "UTC") == said
    assert upkeep.excluded(at("2026-11-29T05:00"), "UTC") == ""
    assert upkeep.excluded(at("2026-11-29T00:30"), "Europe/Brussels") == said


@settings(max_examples=100, deadline=None)
@given(
    line=st.sampled_from(["0 1 * * sun", "30 2 * * *", "0 22 * * 5", "*/50 * * * *", "0 0 L * *"]),
    minutes=st.integers(1, 3000),
    tz=st.sampled_from(["UTC", "Europe/Brussels", "Australia/Lord_Howe"]),
    offset=st.integers(0, 60 * 24 * 400),
)
def test_a_window_is_what_it_says(line, minutes, tz, offset):
    moment = at("2026-03-01T00:00") + timedelta(minutes=offset)
    lasts = timedelta(minutes=minutes)
    begun = cron.ticks(cron.parse(line), tz, moment - lasts - timedelta(days=1), until=moment)
    naive = any(tick.at <= moment < tick.at + lasts for tick in begun)

    held = of(windows=[{"cron": line, "minutes": minutes}]).excluded(moment, tz)

    assert bool(held) == naive


def test_of_several_calendars_the_first_that_fits_is_named():
    both = Calendars((of("12-25"), exclusions.of("upkeep", "", [], [SUNDAY])))

    assert both.excluded(at("2026-11-29T02:00"), "UTC") == "upkeep: 0 1 * * sun for 4h"
    assert both.excluded(at("2026-12-25T02:00"), "UTC") == "holidays: 12-25"
    assert both.excluded(at("2026-12-26T02:00"), "UTC") == ""
    assert Calendars().excluded(at("2026-12-25T02:00"), "UTC") == ""


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        (" 2026-12-25", "2026-12-25"),
        ("12-25", "12-25"),
        ("02-29", "02-29"),
        ("2026-12-24 .. 2027-01-02", "2026-12-24..2027-01-02"),
    ],
)
def test_days_are_stored_in_one_form(given_, stored):
    assert exclusions.day(given_) == stored


def test_windows_are_stored_in_one_form():
    assert exclusions.window("0 1 * * sun  for 4h") == SUNDAY
    assert exclusions.said(SUNDAY) == "0 1 * * sun for 4h"
    assert exclusions.window("@daily for 90m") == {"cron": "@daily", "minutes": 90}


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (exclusions.day, "christmas", "'christmas' is not a day: write it like 2026-12-25"),
        (exclusions.day, "2026-02-30", "is not a day"),
        (exclusions.day, "02-30", "is not a day"),
        (exclusions.day, "2027-01-02..2026-12-24", "ends before it begins"),
        (exclusions.day, "12-24..12-26", "is not a day"),
        (exclusions.window, "4h", "write it like '0 1 * * sun for 4h'"),
        (exclusions.window, "0 25 * * * for 4h", "in the hour field"),
        (exclusions.window, "@daily for forever", "at most 31d"),
        (exclusions.window, "@daily for 5w", "at most 31d"),
        (exclusions.window, "@daily for 90s", "whole minutes"),
        (exclusions.window, "@daily for long", "'long' is not a span of time"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(read, text, message):
    with pytest.raises(Invalid) as refused:
        read(text)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1

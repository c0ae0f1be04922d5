"""Times to come, as people write them."""

from datetime import UTC, datetime

import pytest

from kirby.core.errors import Invalid
from kirby.server import times

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)  # a Monday, 09:30 in Brussels


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", "2026-11-23 08:30"),
        ("2h", "2026-11-23 10:30"),
        ("in 90m", "2026-11-23 10:00"),
        ("10:00", "2026-11-23 09:00"),
        ("8:00", "2026-11-24 07:00"),
        ("noon", "2026-11-23 11:00"),
        ("tomorrow", "2026-11-23 23:00"),
        ("tomorrow 8:00", "2026-11-24 07:00"),
        ("today 23:00", "2026-11-23 22:00"),
        ("monday 08:00", "2026-11-30 07:00"),
        ("Mon 10:00", "2026-11-23 09:00"),
        ("sunday", "2026-11-28 23:00"),
        ("2026-12-01T08:00", "2026-12-01 07:00"),
        ("2026-12-01 08:00", "2026-12-01 07:00"),
        ("2026-12-01T08:00Z", "2026-12-01 08:00"),
    ],
)
def test_a_time_is_on_the_wall_of_its_zone(text, at):
    found = times.parse(text, "Europe/Brussels", NOW)

    assert f"{found:%Y-%m-%d %H:%M}" == at


@pytest.mark.parametrize(
    "text", ["", "soon", "monday noonish", "25:00", "forever", "mon tue", "in"]
)
def test_what_is_no_time_is_refused_with_how_to_write_one(text):
    with pytest.raises(Invalid, match=r"write it like|no time of the day") as refused:
        times.parse(text, "Europe/Brussels", NOW)
    assert "\n" not in str(refused.value)


def test_a_time_that_the_clocks_leave_out_is_refused():
    with pytest.raises(Invalid, match="does not exist"):
        times.parse("2027-03-28T02:30", "Europe/Brussels", NOW)

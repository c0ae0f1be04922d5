"""Points of the log as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from kirby.core.errors import Invalid
from kirby.server import moments

NOW = datetime(2027, 3, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("", None),
        (" now ", None),
        ("2h", NOW - timedelta(hours=2)),
        ("90m ago", NOW - timedelta(minutes=90)),
        ("4711", 4711),
        ("9223372036854775807", 2**63 - 1),
        ("2027-03-28", datetime(2027, 3, 28, tzinfo=UTC)),
        ("2027-03-28T01:00", datetime(2027, 3, 28, 1, tzinfo=UTC)),
        ("2027-03-28 01:00:00.5+02:00", datetime(2027, 3, 27, 23, 0, 0, 500000, tzinfo=UTC)),
    ],
)
def test_a_point_is_read_and_written_so_that_it_is_read_again(text, point):
    assert moments.parse(text, NOW) == point
    assert moments.parse(moments.written(point), NOW) == point


@pytest.mark.parametrize(
    "text",
    ["tea", "-1", "1.5", "2h30", "0h", "9223372036854775808", "9" * 40, "999999999w",
     "2027-13-01", "0001-01-01T00:00+23:00", "٣", "2027-03-28T01:00+99:00"],
)  # fmt: skip
def test_what_is_no_point_is_refused_in_one_line(text):
    with pytest.raises(Invalid) as refused:
        moments.parse(text, NOW)
    assert "\n" not in str(refused.value)

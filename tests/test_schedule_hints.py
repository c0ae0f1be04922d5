"""What may surprise in a schedule is said; what does not, is not."""

from datetime import UTC, datetime

import pytest

from kirby.server import schedule_hints

AT = datetime(2026, 11, 23, tzinfo=UTC)


def hints(*lines, tz="Europe/Brussels"):
    return schedule_hints.warnings(lines, tz, AT)


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("0 0 13 * 5", "runs when either of its day fields fits: at 00:00 on day 13 of the month"
         " or on Friday"),
        ("*/45 * * * *", "'*/45' in the minute field is 0, 45: the last step of each hour is 15"
         " minutes long; 'every 45m' has steps of one length"),
        ("0 */5 * * *", "the last step of each day is 4 hours long; 'every 5h'"),
        ("30 2 * * *", "on 2027-03-28 02:30 does not exist in Europe/Brussels: it runs at 03:00"),
        ("30 2 * * *", "on 2027-10-31 02:30 occurs twice in Europe/Brussels: it runs the first"),
        ("every 1d", "'every 1d' counts 24 hours a day: when the clocks of Europe/Brussels change"),
        ("every 7h", "'every 7h' does not divide a day"),
        ("every 5s", "a daemon suits that better"),
        ("every 1h from 2027-01-01", "runs for the first time at 2026-12-31 23:00 UTC"),
    ],
)  # fmt: skip
def test_a_surprise_is_told(line, warning):
    assert any(warning in each for each in hints(line)), hints(line)


@pytest.mark.parametrize(
    "line",
    ["*/15 * * * *", "0 */6 * * *", "0 0 13 * *", "0 9 * * 1-5", "0 0 */10 * 1", "every 45m",
     "every 30s", "after: load", "0 * * * *", "@daily"],
)  # fmt: skip
def test_what_does_as_it_says_is_passed_over_in_silence(line):
    assert hints(line) == []


def test_a_zone_without_changes_has_none_to_warn_of():
    assert hints("30 2 * * *", "every 1d", tz="Asia/Kathmandu") == []


def test_the_same_is_told_once():
    assert len(hints("0 0 13 * 5", "0 0 13 * 5")) == 1

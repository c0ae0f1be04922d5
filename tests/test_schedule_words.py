"""Schedules in words."""

import pytest

from kirby.server import schedule_words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("15 * * * *", "at minute 15 of every hour"),
        ("@hourly", "every hour"),
        ("*/45 * * * *", "at minutes 0 and 45 of every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("30 */2 * * *", "every 2 hours at minute 30"),
        ("30 2 * * *", "at 02:30 every day"),
        ("30 1,2 * * 0", "at 01:30 and 02:30 on Sunday"),
        ("0 9-17 * * mon-fri", "every hour from 09:00 to 17:00 on Monday to Friday"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45"),
        ("* 3 * * *", "every minute from 03:00 to 03:59"),
        ("*/10 1,2,3,7 * * *", "every 10 minutes of the hours 1-3 and 7"),
        ("0 0 13 * 5", "at 00:00 on day 13 of the month or on Friday"),
        ("0 0 */10 * 1", "at 00:00 on day 1, 11, 21 and 31 of the month if on Monday"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        (
            "0 12 * * 5#2,0L",
            "at 12:00 on the second Friday of the month or on the last Sunday of the month",
        ),
        ("0 3 1 jan,jul *", "at 03:00 on day 1 of the month in January and July"),
        ("0 0 * 11-2 0,1,3", "at 00:00 on Sunday, Monday and Wednesday in January, February,"
         " November and December"),
        ("every 45m", "every 45m"),
        ("every 2h from 2026-01-01T06:00", "every 2h from 2026-01-01 05:00 UTC on"),
    ],
)  # fmt: skip
def test_a_line_is_said_in_words(line, said):
    assert schedule_words.explain([line], "Europe/Brussels") == f"{said} (Europe/Brussels)"


def test_all_lines_are_one_sentence():
    lines = ["0 6 * * *", "after: load", "after: clean"]

    assert schedule_words.explain(lines, "UTC") == (
        "at 06:00 every day; whenever load has succeeded; whenever clean has succeeded (UTC)"
    )
    assert schedule_words.explain(["after: load"], "UTC") == "whenever load has succeeded"
    assert schedule_words.explain([], "UTC") == "never by itself"

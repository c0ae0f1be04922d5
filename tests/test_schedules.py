"""Lines of a schedule: what is read, which instants they name, before and after any moment."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirby.core.errors import Invalid
from kirby.server import cron, schedules

BRUSSELS = ZoneInfo("Europe/Brussels")
NOW = datetime(2026, 11, 23, 10, 7, tzinfo=UTC)
ZONES = ("UTC", "Europe/Brussels", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns")
LINES = ("30 2 * * *", "*/20 1-3 * * *", "15 * * * *", "0 0 L * *", "every 45m", "every 7h",
         "every 1d", "every 2h from 2026-10-25T02:30", "after: load", "@hourly")  # fmt: skip


def local(ticks):
    return [f"{tick.local:%Y-%m-%d %H:%M}" for tick in ticks]


def of(*lines, tz="Europe/Brussels"):
    return schedules.parse(lines, tz)


def test_an_interval_is_counted_from_a_midnight_of_the_zone():
    assert local(of("every 45m").ticks(NOW, n=3)) == [
        "2026-11-23 11:15", "2026-11-23 12:00", "2026-11-23 12:45",
    ]  # fmt: skip
    assert local(of("every 6h", tz="Asia/Kathmandu").ticks(NOW, n=2)) == [
        "2026-11-23 18:00", "2026-11-24 00:00",
    ]  # fmt: skip
    assert local(of("every 1w").ticks(NOW, n=2)) == ["2026-11-30 00:00", "2026-12-07 00:00"]
    assert datetime(2026, 11, 30).weekday() == 0


def test_an_interval_begins_when_it_says_and_never_before():
    written = of("every 2h from 2026-11-24T06:00")

    assert local(written.ticks(NOW, n=2)) == ["2026-11-24 06:00", "2026-11-24 08:00"]
    assert written.before(datetime(2026, 11, 24, 4, 59, tzinfo=UTC)) == []
    assert local(written.before(datetime(2026, 11, 24, 5, tzinfo=UTC))) == ["2026-11-24 06:00"]
    assert local(of("every 2h from 2026-11-24T06:00+00:00").ticks(NOW, n=1)) == ["2026-11-24 07:00"]
    assert local(of("EVERY 2h FROM 2026-11-24").ticks(NOW, n=1)) == ["2026-11-24 00:00"]


def test_an_interval_has_one_length_through_both_changes_of_the_clocks():
    for start in (datetime(2026, 10, 25, tzinfo=UTC), datetime(2027, 3, 28, tzinfo=UTC)):
        found = list(of("every 30m").ticks(start - timedelta(hours=2), n=12))

        assert {b.at - a.at for a, b in pairwise(found)} == {timedelta(minutes=30)}
    [first] = [t for t in of("every 1h").ticks(datetime(2026, 10, 24, 23, 30, tzinfo=UTC), n=1)]
    assert (first.note, first.local.fold) == ("first of two 02:00", 0)
    second = next(of("every 1h").ticks(first.at))
    assert (second.note, second.local.fold) == ("second of two 02:00", 1)


def test_several_lines_are_one_series_without_doubles():
    written = of("0 9 * * *", "30 9 * * *", "0 9 * * 1-5", "every 30m from 2026-11-24T09:00")

    assert local(written.ticks(NOW, n=3)) == [
        "2026-11-24 09:00", "2026-11-24 09:30", "2026-11-24 10:00",
    ]  # fmt: skip


def test_lines_that_meet_keep_what_each_has_to_note():
    start = datetime(2027, 3, 27, 12, tzinfo=UTC)
    [tick] = [t for t in of("30 2 * * *", "0 3 * * *").ticks(start, n=2) if t.local.day == 28]

    assert (tick.note, f"{tick.local:%H:%M}") == ("shifted: 02:30 does not exist", "03:00")


def test_a_job_to_run_after_is_no_instant():
    written = of("after: load", "AFTER:clean.up", "after: load")

    assert written.after_jobs == ("load", "clean.up")
    assert not written.has_ticks
    assert list(written.ticks(NOW, n=1)) == []
    assert written.before(NOW) == []
    assert written.period(NOW) is None


def test_the_period_is_the_distance_of_the_next_two():
    assert of("every 45m").period(NOW) == timedelta(minutes=45)
    assert of("0 9 * * 1-5").period(datetime(2026, 11, 27, 0, tzinfo=UTC)) == timedelta(days=3)
    assert of("30 2 * * *").period(datetime(2027, 3, 27, 0, tzinfo=UTC)) == timedelta(hours=23.5)


def test_the_last_ones_before_a_moment_however_long_ago():
    assert local(of("0 0 29 2 *").before(NOW, 3)) == [
        "2016-02-29 00:00", "2020-02-29 00:00", "2024-02-29 00:00",
    ]  # fmt: skip
    assert local(of("*/15 * * * *").before(NOW, 2)) == ["2026-11-23 10:45", "2026-11-23 11:00"]
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert [tick.at for tick in of("0 * * * *").before(at)] == [at]
    assert of("0 * * * *").before(at, 0) == []


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=4),
    tz=st.sampled_from(ZONES),
    hours=st.integers(0, 24 * 365),
    n=st.integers(1, 40),
)
def test_before_and_after_are_two_views_of_one_series(lines, tz, hours, n):
    written = schedules.parse(lines, tz)
    start = datetime(2026, 9, 1, tzinfo=UTC) + timedelta(hours=hours)
    ahead = list(written.ticks(start, n=n))
    naive = sorted({tick.at for line in lines
                    for tick in islice(schedules.parse([line], tz).ticks(start), n)})  # fmt: skip

    assert [tick.at for tick in ahead] == naive[:n]
    assert all(tick.at.astimezone(ZoneInfo(tz)) == tick.local for tick in ahead)
    if ahead:
        assert [t.at for t in written.before(ahead[-1].at, len(ahead))] == [t.at for t in ahead]
        assert list(written.ticks(start, until=ahead[-1].at)) == ahead


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("every", "write it like 'every 45m'"),
        ("every 0m", "write it like"),
        ("every 5x", "write it like"),
        ("@every 5m", "write it like 'every 45m'"),
        ("every 5m since noon", "write it like"),
        ("every forever", "at most 3640d lie between two runs"),
        ("every 521w", "at most 3640d"),
        ("every 5m from noon", "'noon' is not a time: write it like 2027-03-28T01:00"),
        ("every 5m from 2027-03-28T02:30", "2027-03-28T02:30 does not exist in Europe/Brussels"),
        ("every 5m from 0001-01-01", "out of reach"),
        ("after:", "write 'after: JOB', one job a line"),
        ("after: a, b", "one job a line"),
        ("after: Load", "one job a line"),
        ("", "0 fields"),
        ("0 25 * * *", "'25' is not acceptable in the hour field"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(line, message):
    with pytest.raises(Invalid) as refused:
        of(line)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_of_several_lines_the_wrong_one_is_named():
    with pytest.raises(Invalid, match=r"schedule line 2 \(0 25 \* \* \*\): cron: '25' is not"):
        of("@daily", "0 25 * * *")
    with pytest.raises(Invalid, match="at most 50 lines"):
        of(*["@daily"] * 51)
    with pytest.raises(Invalid, match="did you mean Europe/Brussels"):
        of("@daily", tz="Europe/Brusels")


def test_naive_instants_are_refused():
    with pytest.raises(ValueError, match="aware"):
        of("every 5m").ticks(datetime(2026, 1, 1))


def test_a_schedule_without_lines_is_never_due():
    assert list(of().ticks(NOW, n=1)) == []


def test_jitter_is_stable_and_spread_over_its_whole_width():
    names = [f"prod/job-{n}" for n in range(1000)]
    found = [schedules.offset(name, 600) for name in names]

    assert found == [schedules.offset(name, 600) for name in names]
    assert all(timedelta(0) <= each < timedelta(minutes=10) for each in found)
    minutes = [sum(each // timedelta(minutes=1) == n for each in found) for n in range(10)]
    assert all(60 < count < 140 for count in minutes)
    assert schedules.offset("prod/job-1", 0) == timedelta(0)
    assert schedules.offset("prod/job-1", 600) == timedelta(milliseconds=FIRST_OFFSET)


FIRST_OFFSET = 103_774  # of prod/job-1 in 600 s: it must never change


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23T12:00", "2026-11-23T11:00:00+00:00"),
        (" 2026-11-23 ", "2026-11-22T23:00:00+00:00"),
        ("2026-11-23T12:00Z", "2026-11-23T12:00:00+00:00"),
        ("2026-10-25T02:30", "2026-10-25T00:30:00+00:00"),  # the first of two
    ],
)
def test_a_moment_is_on_the_wall_of_the_zone(text, at):
    assert schedules.moment(text, "Europe/Brussels").isoformat() == at


def test_clocks_that_change_are_told():
    found = list(cron.changes("Europe/Brussels", NOW, NOW + timedelta(days=365)))

    assert [f"{each:%Y-%m-%d %H:%M}" for each in found] == ["2027-03-28 01:00", "2027-10-31 01:00"]
    assert list(cron.changes("Asia/Kathmandu", NOW, NOW + timedelta(days=3650))) == []
    new_year = datetime(2011, 12, 29, 12, tzinfo=UTC)  # Apia left a day out at the year's end
    assert len(list(cron.changes("Pacific/Apia", new_year, new_year + timedelta(days=5)))) == 1

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from kirby.core.errors import Invalid
from kirby.server import cron

FROM, TO = datetime(2011, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
AROUND = timedelta(hours=15)

ZONES = (
    "Europe/Brussels",
    "Europe/Dublin",  # its winter time is the exception
    "America/New_York",
    "America/St_Johns",  # half an hour beside the others, and changes at 00:01 in 2011
    "America/Sao_Paulo",  # changed at midnight
    "Australia/Lord_Howe",  # changes by half an hour
    "Asia/Kathmandu",  # 5:45, never changes
    "Asia/Tehran",
    "Pacific/Apia",  # left out a whole day, 30 December 2011
    "Pacific/Chatham",
    "Africa/Casablanca",  # changes four times a year
    "Africa/Cairo",
    "UTC",
)


def changes(zone):
    at, found = FROM, []
    while at < TO:
        at, changed = cron._next_change(ZoneInfo(zone), at)
        found += [at] * changed
    return found


def ours(expression, zone, after, until):
    return list(cron.ticks(cron.parse(expression), zone, after, until=until))


def test_a_fixed_time_that_does_not_exist_moves_to_the_next_valid_instant():
    start = datetime(2027, 3, 27, 12, tzinfo=UTC)

    first, second = cron.ticks(cron.parse("30 2 * * *"), "Europe/Brussels", start, n=2)

    assert first.at == datetime(2027, 3, 28, 1, tzinfo=UTC)
    assert first.local.isoformat() == "2027-03-28T03:00:00+02:00"
    assert first.note == "shifted: 02:30 does not exist"
    assert (second.local.isoformat(), second.note) == ("2027-03-29T02:30:00+02:00", "")


def test_a_fixed_time_that_occurs_twice_fires_once_the_first_time():
    start = datetime(2027, 10, 30, 12, tzinfo=UTC)

    first, second = cron.ticks(cron.parse("30 2 * * *"), "Europe/Brussels", start, n=2)

    assert first.local.isoformat() == "2027-10-31T02:30:00+02:00"
    assert first.note == "first of two 02:30"
    assert second.local.isoformat() == "2027-11-01T02:30:00+01:00"


def test_starting_between_the_two_of_a_fixed_time_does_not_fire_the_second():
    start = datetime(2027, 10, 31, 0, 45, tzinfo=UTC)  # 02:45 the first time

    (tick,) = cron.ticks(cron.parse("30 2 * * *"), "Europe/Brussels", start, n=1)

    assert tick.local.isoformat() == "2027-11-01T02:30:00+01:00"


@pytest.mark.parametrize("zone", ZONES)
def test_an_interval_has_neither_a_gap_nor_a_double(zone):
    for change in changes(zone):
        found = ours("*/15 * * * *", zone, change - timedelta(hours=5), change + timedelta(hours=5))
        steps = {second.at - first.at for first, second in pairwise(found)}

        assert steps == {timedelta(minutes=15)}


def test_the_second_of_two_is_marked_where_both_are_due():
    start = datetime(2027, 10, 31, 0, 29, tzinfo=UTC)

    first, second = cron.ticks(cron.parse("30 * * * *"), "Europe/Brussels", start, n=2)

    assert (first.note, second.note) == ("first of two 02:30", "second of two 02:30")
    assert second.at - first.at == timedelta(hours=1)
    assert (first.local.fold, second.local.fold) == (0, 1)


def test_several_missing_times_are_made_up_for_once():
    start = datetime(2027, 3, 27, 23, tzinfo=UTC)

    found = ours("*/10 2 * * *", "Europe/Brussels", start, start + timedelta(hours=12))

    assert [tick.note for tick in found] == ["shifted: 02:00 does not exist"]


def test_a_missing_time_that_lands_on_a_due_one_adds_nothing():
    start = datetime(2027, 3, 27, 23, tzinfo=UTC)

    found = ours("0 2,3 * * *", "Europe/Brussels", start, start + timedelta(hours=12))

    assert [(tick.local.hour, tick.note) for tick in found] == [(3, "")]


def test_a_day_that_a_zone_leaves_out_is_made_up_for_at_its_end():
    start = datetime(2011, 12, 29, 11, tzinfo=UTC)

    found = ours("0 12 * * *", "Pacific/Apia", start, start + timedelta(days=2))

    assert [tick.local.isoformat() for tick in found][1:] == [
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T12:00:00+14:00",
    ]


def test_ticks_are_strictly_after_the_start_whatever_its_zone_and_seconds():
    noon = datetime(2026, 6, 1, 12, tzinfo=ZoneInfo("Asia/Kathmandu"))
    line = cron.parse("* * * * *")

    def first(start):
        return next(cron.ticks(line, "Asia/Kathmandu", start)).at

    assert first(noon) == noon + timedelta(minutes=1)
    assert first(noon - timedelta(microseconds=1)) == noon
    assert first(noon + timedelta(seconds=59.5)) == noon + timedelta(minutes=1)


def test_until_is_included_and_n_ends_earlier():
    start = datetime(2026, 6, 1, tzinfo=UTC)
    line = cron.parse("@hourly")

    assert len(ours("@hourly", "UTC", start, start + timedelta(hours=3))) == 3
    assert len(list(cron.ticks(line, "UTC", start, n=2, until=start + timedelta(hours=3)))) == 2
    assert not list(cron.ticks(line, "UTC", start, n=0))
    assert len(list(islice(cron.ticks(line, "UTC", start), 1000))) == 1000


def test_naive_instants_are_refused():
    with pytest.raises(ValueError, match="aware"):
        cron.ticks(cron.parse("@daily"), "UTC", datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 0 * * fri-mon", "0 0 * * 5,6,0,1"),
        ("0 0 * * 5-7", "0 0 * * fri,sat,sun"),
        ("0 0 * * 7", "0 0 * * SUN"),
        ("0 0 * nov-feb *", "0 0 * 1,2,11,12 *"),
        ("5-5 0 * * *", "5 0 * * *"),
        ("10/20 0 * * *", "10,30,50 0 * * *"),
        ("0 0 * * fri#2", "0 0 * * 5#2"),
        ("0 0 * * L5", "0 0 * * friL"),
        ("0 0 ? * 1", "0 0 * * mon"),
        ("@weekly", "0 0 * * sun"),
        ("@midnight", " 0\t0  * * * "),
    ],
)
def test_two_ways_to_write_the_same(one, other):
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert list(cron.ticks(cron.parse(one), "UTC", start, n=50)) == list(
        cron.ticks(cron.parse(other), "UTC", start, n=50)
    )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "0 fields, there must be 5"),
        ("* * * *", "4 fields, there must be 5"),
        ("* * * * * *", "seconds and years are not supported"),
        ("60 * * * *", "'60' is not acceptable in the minute field (0-59)"),
        ("*/0 * * * *", "'*/0' is not acceptable in the minute field"),
        ("*/90 * * * *", "the step of '*/90' is longer than the whole minute field"),
        ("-5 * * * *", "in the minute field"),
        ("1-2-3 * * * *", "'1-2-3' is not acceptable in the minute field"),
        ("? * * * *", "in the minute field"),
        ("h * * * *", "in the minute field"),
        ("0 24 * * *", "in the hour field (0-23)"),
        ("0 1,,2 * * *", "'' is not acceptable in the hour field"),
        ("0 0 0 * *", "in the day-of-month field (1-31)"),
        ("0 0 15W * *", "W (nearest weekday) is not known"),
        ("0 0 L-3 * *", "'l-3' is not acceptable in the day-of-month field"),
        ("0 0 * foo *", "'foo' is not acceptable in the month field (1-12 or jan-dec)"),
        ("0 0 * * monday", "in the day-of-week field (0-7 or sun-sat)"),
        ("0 0 * * 8", "in the day-of-week field"),
        ("0 0 * * 5#6", "'5#6' is not acceptable in the day-of-week field"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
        ("@reboot", "@reboot is no time"),
        ("@hourl", "did you mean @hourly?"),
        ("@sometimes", "known are @yearly"),
        ("CRON_TZ=UTC 0 0 * * *", "give the time zone as tz"),
        ("٣ * * * *", "plain ASCII"),
        ("0 0 * * *\n0 1 * * *", "plain ASCII"),
        ("9" * 2000, "at most 1000 characters"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line_that_names_the_field(expression, message):
    with pytest.raises(Invalid) as refused:
        cron.parse(expression)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Brussel", "did you mean Europe/Brussels?"),
        ("europe/brussels", "did you mean Europe/Brussels?"),
        ("utc", "did you mean UTC?"),
        ("CEST", "use a name such as Europe/Brussels"),
        ("", "use a name such as"),
        ("America", "use a name such as"),
        ("../../etc/passwd", "use a name such as"),
        ("localtime", "use a name such as"),
        ("\0", "use a name such as"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_suggestion(zone, message):
    with pytest.raises(Invalid) as refused:
        cron.ticks(cron.parse("@daily"), zone, FROM, n=1)

    assert message in str(refused.value)

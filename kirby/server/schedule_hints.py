"""What may surprise people in a schedule: said before it is deployed (pure, no database)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from kirby.server import cron, schedule_words, schedules
from kirby.server.cron import Cron
from kirby.server.schedules import Interval

YEAR = timedelta(days=360)  # each change of the clocks once
AROUND = timedelta(hours=3)  # of a change of the clocks: what it moves is due within
OFTEN = timedelta(seconds=10)
FIELDS = (("minute", 60), ("hour", 24))


def warnings(lines: Sequence[str], tz: str, at: datetime) -> list[str]:
    """A sentence for each surprise in the year after `at`; raises Invalid as ``parse``.

    Both day fields restricted (either will do), steps that do not go round evenly, hours that do
    not exist or occur twice, intervals that drift on the wall, and what never comes.
    """
    read = schedules.parse(lines, tz)
    found = [
        *(warning for each in read.crons for warning in _of_cron(each, tz, at)),
        *(warning for each in read.intervals for warning in _of_interval(each, tz, at)),
    ]
    return list(dict.fromkeys(found))


def _of_cron(line: Cron, tz: str, at: datetime) -> Iterator[str]:
    if either := _either(line):
        yield either
    yield from _uneven(line)
    yield from _clocks(line, tz, at)


def _either(line: Cron) -> str:
    """cron's oldest surprise: two restricted day fields are an OR."""
    parts = cron.fields(line.expression)
    if parts[2][0] in "*?" or parts[4][0] in "*?":
        return ""
    said = schedule_words.cron(line)
    return f"{line.expression!r} runs when either of its day fields fits: {said}"


def _uneven(line: Cron) -> Iterator[str]:
    """`*/45` in the minutes is 0 and 45: 45 minutes, then 15."""
    for text, (name, whole) in zip(cron.fields(line.expression), FIELDS, strict=False):
        span, _, step = text.partition("/")
        if span != "*" or not step or whole % int(step) == 0:
            continue
        values = [*range(0, whole, int(step))]
        listed = ", ".join(map(str, values))
        yield (
            f"{text!r} in the {name} field is {listed}: the last step of each"
            f" {'hour' if name == 'minute' else 'day'} is {whole - values[-1]} {name}s long;"
            f" 'every {int(step)}{name[0]}' has steps of one length"
        )


def _clocks(line: Cron, tz: str, at: datetime) -> Iterator[str]:
    """Fixed times that a change of the clocks moves, or makes occur twice."""
    for change in cron.changes(tz, at, at + YEAR):
        for tick in cron.ticks(line, tz, change - AROUND, until=change + AROUND):
            day = f"{tick.local:%Y-%m-%d}"
            if tick.note.startswith("shifted"):
                missing = tick.note.removeprefix("shifted: ")
                yield f"on {day} {missing} in {tz}: it runs at {tick.local:%H:%M} instead"
                break
            if tick.note.startswith("first") and not line.repeats:
                yield f"on {day} {tick.local:%H:%M} occurs twice in {tz}: it runs the first time"
                break


def _of_interval(interval: Interval, tz: str, at: datetime) -> Iterator[str]:
    if interval.every < OFTEN:
        yield f"{interval.line!r} starts a process each time: a daemon suits that better"
    if interval.start > at:
        yield f"{interval.line!r} runs for the first time at {interval.start:%Y-%m-%d %H:%M} UTC"
    moves = next(cron.changes(tz, at, at + YEAR), None) is not None
    if moves and interval.every % timedelta(days=1) == timedelta(0):
        yield (
            f"{interval.line!r} counts 24 hours a day: when the clocks of {tz} change it is at"
            " another time of day; a cron line such as '@daily' keeps its time"
        )
    if uneven := _drift(interval):
        yield uneven


def _drift(interval: Interval) -> str:
    day = timedelta(days=1)
    if interval.every >= day or not day % interval.every:
        return ""
    return f"{interval.line!r} does not divide a day: it is at other times each day"

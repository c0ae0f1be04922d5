"""What a schedule says, in words (pure, no database)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kirby.server import schedules, spans
from kirby.server.cron import Cron
from kirby.server.schedules import Interval

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
NTH = ("first", "second", "third", "fourth", "fifth")
FEW = 6  # times of day that are told one by one


def explain(lines: Sequence[str], tz: str) -> str:
    """All lines in one sentence; raises Invalid as ``schedules.parse``."""
    read = schedules.parse(lines, tz)
    said = [
        *map(cron, read.crons),
        *(_interval(each) for each in read.intervals),
        *(f"whenever {job} has succeeded" for job in read.after_jobs),
    ]
    zone = f" ({tz})" if read.has_ticks else ""
    return "; ".join(said) + zone if said else "never by itself"


def cron(cron: Cron) -> str:
    """What a cron line says, without its zone."""
    days = list(dict.fromkeys(_day(*pattern.split()[2::2]) for pattern in cron.days))
    months = cron.days[0].split()[3]
    within = "" if months == "*" else f" in {_names(months, MONTHS, 1)}"
    time, every = _time(cron), "" in days
    daily = " every day" if every and time.startswith("at ") and ":" in time else ""
    return f"{time}{daily if every else ' ' + ' or '.join(days)}{within}"


def _interval(interval: Interval) -> str:
    every = spans.text(interval.every)
    if interval.start == schedules.FIRST:
        return f"every {every}"
    return f"every {every} from {interval.start:%Y-%m-%d %H:%M} UTC on"


def _time(cron: Cron) -> str:
    hours, minutes = cron.hours, cron.minutes
    if len(hours) == 24:
        return _each(minutes, 60, "minute") or f"at {_minutes(minutes)} of every hour"
    if len(minutes) * len(hours) <= FEW:
        return "at " + _and([f"{h:02}:{m:02}" for h in hours for m in minutes])
    if len(minutes) == 1 and (often := _each(hours, 24, "hour")):
        return often if minutes == (0,) else f"{often} at {_minutes(minutes)}"
    often = _each(minutes, 60, "minute") or f"at {_minutes(minutes)}"
    if len(_stretches(hours)) == 1:
        return f"{often} from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[-1]:02}"
    return f"{often} of the hours {_and(_runs(hours, '{}'))}"


def _each(values: tuple[int, ...], whole: int, what: str) -> str:
    """`every 15 minutes`, where the values go round evenly; else ""."""
    step = whole // len(values)
    if values != tuple(range(0, whole, step)) or whole % step:
        return ""
    if step == whole:
        return "every hour" if whole == 60 else ""
    return f"every {what}" if step == 1 else f"every {step} {what}s"


def _minutes(minutes: tuple[int, ...]) -> str:
    return f"minute{'s' if len(minutes) > 1 else ''} {_and(_runs(minutes, '{}'))}"


def _day(days: str, weekdays: str) -> str:
    """`on day 1 and 15 of the month`; "" for every day."""
    if days == weekdays == "*":
        return ""
    said = [] if weekdays == "*" else [f"on {_weekdays(weekdays)}"]
    if days != "*":
        plain = tuple(int(each) for each in days.split(",") if each != "l")
        parts = [f"day {_and(_runs(plain, '{}'))}"] if plain else []
        parts += ["the last day"] if "l" in days else []
        said.insert(0, f"on {_and(parts)} of the month")
    return " if ".join(said)


def _weekdays(text: str) -> str:
    if "#" in text:
        day, _, nth = text.partition("#")
        return f"the {NTH[int(nth) - 1]} {DAYS[int(day)]} of the month"
    if text.startswith("l"):
        return f"the last {DAYS[int(text[1:])]} of the month"
    return _names(text, DAYS, 0)


def _names(text: str, names: Sequence[str], first: int) -> str:
    found: list[str] = []
    for low, high in _stretches(tuple(int(each) - first for each in text.split(","))):
        if high > low + 1:
            found.append(f"{names[low]} to {names[high]}")
        else:
            found += names[low : high + 1]
    return _and(found)


def _runs(values: tuple[int, ...], form: str) -> list[str]:
    """`["1-5", "8"]`."""
    found: list[str] = []
    for low, high in _stretches(values):
        if high > low + 1:
            found.append(f"{form.format(low)}-{form.format(high)}")
        else:
            found += [form.format(n) for n in range(low, high + 1)]
    return found


def _stretches(values: tuple[int, ...]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for value in values:
        if found and found[-1][1] == value - 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return found


def _and(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last

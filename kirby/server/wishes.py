"""What somebody wants of an exception, from the words of a command line, a form or JSON.

Keys: one of job, tag, topic, all, everything; until or for; and, if it is said: from, one of pause,
schedule, rate, skip, manual; recurs and lasts; return; tz, reason, ticket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import cron, exceptions, jobs, query, spans, times
from kirby.server.environments import Environment
from kirby.server.exceptions import Outlook, Wish

SCOPES = ("job", "tag", "topic", "all", "everything")
EFFECTS = ("pause", "schedule", "rate", "skip", "manual")
KEYS = (*SCOPES, "until", "for", "from", *EFFECTS, "recurs", "lasts", "return", "tz", "reason",
        "ticket")  # fmt: skip
RATE = re.compile(r"(\d{1,6})/(\S+)")
BACK = re.compile(r"(next[-_]tick|run[-_]once|catch[-_]up)(?:=(\d{1,4}))?")


def wish(conn: Connection, environment: Environment, said: Mapping[str, Any]) -> Wish:
    """The wish that these words say; raises Invalid, NotFound. Times are as on the wall of `tz`,
    without it of the job that it is about."""
    _check(said)
    scope, target = _scope(said)
    tz = said.get("tz") or _zone(conn, environment, scope, target)
    now: datetime = query.value(conn, "select kirby.now()")
    start = times.parse(said["from"], tz, now) if said.get("from") else None
    effect, rest = _effect(said)
    found = BACK.fullmatch(said.get("return") or "next-tick")
    if not found or (found[2] and found[1][0] != "c"):
        raise Invalid(
            f"return is {said['return']!r}: one of next-tick, run-once, catch-up, catch-up=N"
        )
    return Wish(
        scope="environment" if scope == "all" else scope,
        target=target,
        effect=effect,
        until=until(said, tz, start or now, now),
        start=start,
        tz=tz,
        recurs=said.get("recurs") or "",
        lasts=_seconds(said["lasts"]) if said.get("lasts") else None,
        on_return=found[1].replace("-", "_"),
        return_most=int(found[2] or 10),
        reason=said.get("reason") or "",
        ticket=said.get("ticket") or "",
        **rest,
    )


def until(said: Mapping[str, Any], tz: str, begin: datetime, now: datetime) -> datetime:
    """When it ends: `until`, or so long after it begins (`for`). Raises Invalid."""
    _check(said)
    given, span = said.get("until") or "", said.get("for")
    if bool(given) == bool(span):
        raise Invalid("say when it ends: until (a time) or for (a span); all is as before then")
    if not given or given.strip() == spans.FOREVER:
        return begin + timedelta(seconds=_seconds(span or given.strip()))
    return times.parse(given, tz, now)


def place(environment: Environment, found: Wish) -> Environment | None:
    """Where it holds; None: in every environment."""
    return None if found.scope == "everything" else environment


def sentence(id: int | None, said: Wish, view: Outlook) -> str:
    """What a wish does, in one line."""
    concerned = [*view.scheduled, *view.daemons]
    many = len(concerned) != 1
    who = f"{len(concerned)} jobs" if many else concerned[0].name
    what = exceptions.effect_text(said.effect, said.schedules, said.most, said.per)
    begin = f" from {clock(said.start, said.tz)}" if said.start else ""
    lasts = spans.text(timedelta(seconds=said.lasts or 0))
    again = f", each {said.recurs} for {lasts}," if said.recurs else ""
    ticks = f"{view.ticks}{'+' if view.is_more else ''} ticks fall"
    inside = f"; {'1 tick falls' if view.ticks == 1 else ticks} into that time"
    back = {
        "next_tick": "the next tick",
        "run_once": "one run at once, if any was missed",
        "catch_up": f"what was held, at most {said.return_most}",
    }[said.on_return]
    head = f"exception {id}" if id else "this exception"
    return (
        f"{head}: {who} {what}{begin}{again} until {clock(said.until, said.tz)}"
        f"{inside if view.scheduled else ''};"
        f" then by itself: {back}"
    )


def clock(at: datetime | None, tz: str) -> str:
    """A time on the wall of a zone, with its day; "" for none."""
    return f"{at.astimezone(cron.zone(tz)):%a %Y-%m-%d %H:%M} {tz}" if at else ""


def _check(said: Mapping[str, Any]) -> None:
    """JSON may hold anything; only `schedule` may be a list, and what is on or off a boolean."""
    for key, value in said.items():
        if isinstance(value, str | None) or key in ("schedule", "skip"):
            continue
        if isinstance(value, bool) and key in (*SCOPES, *EFFECTS):
            continue
        raise Invalid(f"{key} must be a text")


def _scope(said: Mapping[str, Any]) -> tuple[str, str]:
    given = [key for key in SCOPES if said.get(key)]
    if len(given) != 1:
        raise Invalid(f"say what it is about, one of {', '.join(SCOPES)}")
    if given[0] in ("all", "everything"):
        return given[0], ""
    return given[0], _name(said, given[0])


def _name(said: Mapping[str, Any], key: str) -> str:
    if not isinstance(said[key], str):
        raise Invalid(f"{key} must be a text")
    return str(said[key])


def _effect(said: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    given = [key for key in EFFECTS if said.get(key)] or ["pause"]
    if len(given) > 1:
        raise Invalid(f"say one of {', '.join(EFFECTS)}, not {' and '.join(given)}")
    value = said.get(given[0])
    match given[0]:
        case "schedule":
            lines = value.splitlines() if isinstance(value, str) else value
            return "schedule", {"schedules": tuple(_texts(lines))}
        case "rate":
            if not (found := RATE.fullmatch(str(value).strip())):
                raise Invalid(f"rate is {value!r}: write it like 4/1h")
            return "rate", {"most": int(found[1]), "per": _seconds(found[2])}
        case "skip":
            if not str(value).isdecimal() or not 0 < int(str(value)) < 10**6:
                raise Invalid(f"skip is {value!r}: how many ticks, from 1 to 999,999")
            return "skip", {"most": int(str(value))}
    return given[0], {}


def _texts(lines: Sequence[Any] | Any) -> list[str]:
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise Invalid("schedule is a line, or a list of lines")
    return [line.strip() for line in lines if line.strip()]


def _zone(conn: Connection, environment: Environment, scope: str, target: str) -> str:
    return jobs.get(conn, environment, target).tz if scope == "job" else "UTC"


def _seconds(text: str) -> float:
    span = spans.parse(text)
    if span is None:
        raise Invalid("forever is too long: an exception ends by itself, say when")
    return span.total_seconds()

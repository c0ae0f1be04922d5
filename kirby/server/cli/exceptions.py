"""kirby exception: pause or slow down schedules, until a time at which all is as before."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click
from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import cron, exceptions, jobs, query, spans, times
from kirby.server.cli import connection, output
from kirby.server.cli.jobs import reason_option
from kirby.server.environments import Environment
from kirby.server.exceptions import Outlook, ScheduleException, Wish

NUMBER = click.IntRange(1, 2**31 - 1)
RATE = re.compile(r"(\d{1,6})/(\S+)")
BACK = re.compile(r"(next-tick|run-once|catch-up)(?:=(\d{1,4}))?")
tz_option = click.option("--tz", help="Zone of the times; default: the job's, else UTC.")


@click.group()
def exception() -> None:
    """Pause or slow down schedules for a while."""


@exception.command()
@click.option("--job", help="The job that it is about …")
@click.option("--tag", help="… or all jobs with a tag …")
@click.option("--topic", help="… or all jobs that read a topic …")
@click.option("--all", "whole", is_flag=True, help="… or all of the environment …")
@click.option("--everything", is_flag=True, help="… or of all environments.")
@click.option("--until", help="When it ends: 'monday 08:00', a date, 2h.")
@click.option("--for", "span", metavar="SPAN", help="How long it lasts, instead of --until.")
@click.option("--from", "start", metavar="TIME", help="When it begins; default: now.")
@click.option("--pause", is_flag=True, help="Nothing runs (this is the default).")
@click.option("--schedule", "instead", multiple=True, metavar="LINE", help="This runs instead.")
@click.option("--rate", metavar="N/SPAN", help="At most so many ticks: 4/1h.")
@click.option("--skip", type=NUMBER, metavar="N", help="The next N ticks do not run.")
@click.option("--manual", is_flag=True, help="Runs only by hand.")
@click.option("--recurs", metavar="CRON", help="It begins again and again, until the end.")
@click.option("--lasts", metavar="SPAN", help="How long it holds each time.")
@click.option("--return", "back", default="next-tick", metavar="HOW",
              help="next-tick, run-once or catch-up[=N].")  # fmt: skip
@click.option("--ticket", default="", help="Where more is written of it.")
@click.option("--plan", is_flag=True, help="Say what it would do, and do nothing.")
@tz_option
@reason_option
@connection.env_option
@connection.json_option
def add(environment: str, as_json: bool, plan: bool, **said: Any) -> None:
    """Pause or slow down schedules until a time.

    At that time all is as before, by itself.
    """
    with connection.unit_in(environment) as (conn, where):
        place = None if said["everything"] else where
        wish = _wish(conn, place, said)
        view = exceptions.outlook(conn, place, wish)
        id = None if plan else exceptions.add(conn, place, wish, actor=connection.actor())
    if as_json:
        document = {"id": id, "jobs": [each.name for each in (*view.scheduled, *view.daemons)],
                    "ticks": view.ticks, "until": wish.until}  # fmt: skip
        output.document(document)
        return
    click.echo(_sentence(id, wish, view))


@exception.command("list")
@click.option("--job", help="Only those about a job.")
@click.option("--past", is_flag=True, help="Those that are over as well.")
@connection.limit_option(100, "How many.")
@connection.env_option
@connection.json_option
def list_(job: str | None, past: bool, limit: int, environment: str, as_json: bool) -> None:
    """List what is in force and what is coming."""
    with connection.unit_in(environment) as (conn, where):
        deployment_id = jobs.get(conn, where, job).deployment_id if job else None
        found = exceptions.listing(conn, where, deployment_id=deployment_id, past=past, limit=limit)
    if as_json or not found:
        hint = "no exceptions: all schedules are as they were deployed"
        output.listing(found, {}, as_json=as_json, empty=hint)
        return
    rows = [
        (each.id, each.status, each.where, each.what, _clock(each.until_at, each.tz), each.reason)
        for each in found
    ]
    output.table(rows, ("ID", "STATUS", "WHERE", "WHAT", "UNTIL", "REASON"))


@exception.command()
@click.argument("id", type=NUMBER)
@connection.json_option
def show(id: int, as_json: bool) -> None:
    """Show one, and all that was ever said of it."""
    with connection.unit() as conn:
        found, changes = exceptions.get(conn, id), exceptions.history(conn, id)
    if as_json:
        output.document({"exception": found, "history": changes})
        return
    output.facts(_facts(found))
    click.echo()
    rows = [
        (each.change, f"{each.recorded_at:%Y-%m-%d %H:%M} UTC", each.actor,
         _clock(each.until_at, found.tz), each.reason) for each in changes
    ]  # fmt: skip
    output.table(rows, ("WHAT", "AT", "BY", "UNTIL", "REASON"))


@exception.command()
@click.argument("id", type=NUMBER)
@click.option("--until", help="When it ends now: sooner or later.")
@click.option("--for", "span", metavar="SPAN", help="How long from now, instead of --until.")
@tz_option
@reason_option
def extend(id: int, until: str | None, span: str | None, tz: str | None, reason: str) -> None:
    """Let one that is not over end at another time."""
    with connection.unit() as conn:
        zone = tz or exceptions.get(conn, id).tz
        at = _until(conn, until, span, zone)
        exceptions.extend(conn, id, at, actor=connection.actor(), reason=reason)
    click.echo(f"exception {id} holds until {_clock(at, zone)}")


@exception.command()
@click.argument("id", type=NUMBER)
@reason_option
def end(id: int, reason: str) -> None:
    """End one now: schedules are as before."""
    with connection.unit() as conn:
        found = exceptions.get(conn, id)
        exceptions.end(conn, id, actor=connection.actor(), reason=reason)
    click.echo(f"exception {id} has ended: {found.where} runs as before")


# From words to a wish


def _wish(conn: Connection, place: Environment | None, said: dict[str, Any]) -> Wish:
    scope, target = _scope(said)
    tz = said["tz"] or _zone(conn, place, scope, target)
    effect, rest = _effect(said)
    found = BACK.fullmatch(said["back"])
    if not found or (found[2] and found[1] != "catch-up"):
        raise Invalid(f"--return {said['back']}: one of next-tick, run-once, catch-up, catch-up=N")
    return Wish(
        scope=scope,
        target=target,
        effect=effect,
        until=_until(conn, said["until"], said["span"], tz, said["start"]),
        start=_time(conn, said["start"], tz) if said["start"] else None,
        tz=tz,
        recurs=said["recurs"] or "",
        lasts=_seconds(said["lasts"]) if said["lasts"] else None,
        on_return=found[1].replace("-", "_"),
        return_most=int(found[2] or 10),
        reason=said["reason"],
        ticket=said["ticket"],
        **rest,
    )


def _scope(said: dict[str, Any]) -> tuple[str, str]:
    given = [(key, said[key]) for key in ("job", "tag", "topic") if said[key]]
    given += [("environment", "")] * said["whole"] + [("everything", "")] * said["everything"]
    if len(given) != 1:
        raise click.UsageError("say one of --job, --tag, --topic, --all, --everything")
    return given[0]


def _effect(said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = [key for key in ("pause", "instead", "rate", "skip", "manual") if said[key]]
    if len(given) > 1:
        raise click.UsageError("say one of --pause, --schedule, --rate, --skip, --manual")
    match given:
        case ["instead"]:
            return "schedule", {"schedules": tuple(said["instead"])}
        case ["rate"]:
            if not (found := RATE.fullmatch(said["rate"])):
                raise Invalid(f"--rate {said['rate']}: write it like 4/1h")
            return "rate", {"most": int(found[1]), "per": _seconds(found[2])}
        case ["skip"]:
            return "skip", {"most": said["skip"]}
        case ["manual"]:
            return "manual", {}
    return "pause", {}


def _zone(conn: Connection, place: Environment | None, scope: str, target: str) -> str:
    """The zone of the job that it is about: times are meant as on its wall."""
    if place is not None and scope == "job":
        return jobs.get(conn, place, target).tz
    return "UTC"


def _until(
    conn: Connection, until: str | None, span: str | None, tz: str, start: str | None = None
) -> datetime:
    if (until is None) == (span is None):
        raise click.UsageError("say when it ends: --until TIME or --for SPAN")
    if until is not None:
        return _time(conn, until, tz)
    begin = _time(conn, start or "now", tz)
    return begin + timedelta(seconds=_seconds(span or ""))


def _time(conn: Connection, text: str, tz: str) -> datetime:
    now: datetime = query.value(conn, "select kirby.now()")
    return times.parse(text, tz, now)


def _seconds(text: str) -> float:
    span = spans.parse(text)
    if span is None:
        raise Invalid("forever is too long: an exception ends by itself, say when")
    return span.total_seconds()


# What is said


def _sentence(id: int | None, wish: Wish, view: Outlook) -> str:
    count = len(view.scheduled) + len(view.daemons)
    jobs_ = f"{count} job" + "s" * (count != 1)
    if count == 1:
        jobs_ = (view.scheduled or view.daemons)[0].name
    what = exceptions.effect_text(wish.effect, wish.schedules, wish.most, wish.per)
    begin = f" from {_clock(wish.start, wish.tz)}" if wish.start else ""
    again = f", {wish.recurs} for {spans.text(timedelta(seconds=wish.lasts or 0))}" * bool(
        wish.recurs
    )
    ticks = f"{view.ticks}{'+' * view.is_more} tick" + "s" * (view.ticks != 1)
    held = f"; {ticks} of it" if count == 1 else f"; {ticks} of them"
    lies = f"{held} fall into that time" if view.scheduled else ""
    back = {"next_tick": "the next tick", "run_once": "one run at once, if any was missed",
            "catch_up": f"what was held, at most {wish.return_most}"}[wish.on_return]  # fmt: skip
    head = f"exception {id}" if id else "this exception"
    return (
        f"{head}: {jobs_} {what}{begin}{again} until {_clock(wish.until, wish.tz)}{lies};"
        f" then by itself: {back}"
    )


def _facts(found: ScheduleException) -> list[tuple[str, object]]:
    back = found.on_return.replace("_", " ")
    return [
        ("exception", found.id),
        ("status", found.status),
        ("where", f"{found.where} ({found.jobs} jobs)"),
        ("what", found.what),
        ("from", _clock(found.from_at, found.tz)),
        ("until", _clock(found.until_at, found.tz)),
        ("recurs", found.recurs and f"{found.recurs} for {found.lasts:g} s"),
        ("then", back if found.on_return != "catch_up" else f"{back}, at most {found.return_most}"),
        ("reason", found.reason),
        ("ticket", found.ticket),
        ("by", found.actor),
    ]


def _clock(at: datetime | None, tz: str) -> str:
    return f"{at.astimezone(cron.zone(tz)):%a %Y-%m-%d %H:%M} {tz}" if at else ""

"""kirby schedule: what runs next, and when a schedule would fire before it is deployed."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import click

from kirby.server import calendars, drafts, plans, previews, timetable
from kirby.server.cli import connection, output
from kirby.server.cli.deploy import DURATION
from kirby.server.drafts import Draft, DraftTick
from kirby.server.exclusions import Calendars
from kirby.server.previews import Previewed
from kirby.server.schedules import moment as moment
from kirby.server.timetable import Entry


@click.group()
def schedule() -> None:
    """When schedules fire."""


@schedule.command("list")
@click.option("--find", default="", metavar="TEXT", help="Jobs with this in their names.")
@connection.limit_option(100, "How many, those that run next first.")
@connection.env_option
@connection.json_option
def list_(find: str, limit: int, environment: str, as_json: bool) -> None:
    """List the scheduled jobs, those that run next first.

    With what the schedule says, what became of the last tick, and the exception in force.
    """
    with connection.unit_in(environment) as (conn, where):
        found = timetable.listing(conn, where, find=find, limit=limit)
    if as_json:
        output.document([each.document for each in found])
    elif not found:
        click.echo(
            f"no scheduled job in {environment}" + (f" has {find} in its name" if find else "")
        )
    else:
        output.table([_next(each) for each in found], ["JOB", "IT RUNS", "NEXT", "LAST", ""])
        if (total := found[0].total) > len(found):
            click.echo(f"{len(found):,} of {total:,}: -n for more, or --find", err=True)


def _next(each: Entry) -> list[str]:
    held = f"{each.exception} until {each.until_at:%Y-%m-%d %H:%M} UTC" if each.until_at else ""
    last = f"run {each.run_id} {each.run_status}" if each.run_id else each.last or ""
    skipped = f"{last}: {each.last_reason}" if each.last == "skipped" else last
    return [
        each.job,
        each.says,
        f"{each.local:%a %Y-%m-%d %H:%M %Z}" if each.local else "",
        f"{each.last_at:%Y-%m-%d %H:%M} {skipped}" if each.last_at else "",
        held,
    ]


@schedule.command()
@click.argument("lines", metavar="LINE...", nargs=-1, required=True)
@click.option("--tz", default="UTC", show_default=True, help="The time zone.")
@click.option("--from", "start", metavar="TIME", help="ISO 8601, of that zone if it names none.")
@connection.limit_option(20, "How many ticks.")
@click.option("--exclude", metavar="CALENDAR", multiple=True, help="Mark what falls on its days.")
@click.option("--jitter", metavar=DURATION, help="Start up to so much later.")
@click.option("--job", help="The job that it is for: settles its part of the jitter.")
@connection.env_option
@connection.json_option
def preview(
    lines: tuple[str, ...],
    tz: str,
    start: str | None,
    limit: int,
    exclude: tuple[str, ...],
    jitter: str | None,
    job: str | None,
    environment: str,
    as_json: bool,
) -> None:
    """Print the next ticks of a schedule.

    LINE is a cron line, 'every 45m [from TIME]' or 'after: JOB'. With what daylight saving and
    calendars do to each tick; surprises are told on standard error.
    """
    found = drafts.draft(
        lines,
        tz,
        moment(start, tz) if start else datetime.now(UTC),
        limit,
        excluding=_calendars(environment, exclude),
        jitter=plans.options({"jitter": jitter}).get("jitter", 0.0),
        deployment=f"{environment}/{job}" if job else "",
    )
    if as_json:
        output.document({"ticks": [_document(tick, exclude, job) for tick in found.ticks]})
    else:
        _show(found, job)
    for warning in found.warnings:
        click.echo(f"note: {warning}", err=True)


@schedule.command()
@click.argument("job")
@click.option("--since", metavar="TIME", help="What became of the ticks from then on.")
@connection.limit_option(20, "How many ticks.")
@connection.env_option
@connection.json_option
def show(job: str, since: str | None, limit: int, environment: str, as_json: bool) -> None:
    """Print the next ticks of a job, and what holds them.

    As exceptions and calendars stand now, each judged after those before it. With --since the
    ticks that were due, and what became of them (ISO 8601, UTC if it names no zone).
    """
    with connection.unit() as conn:
        if since:
            found = previews.history(conn, environment, job, moment(since, "UTC"), n=limit)
        else:
            found = previews.preview(conn, environment, job, n=limit)
    if as_json:
        output.document({"ticks": found})
    elif not found:
        click.echo("no tick was due" if since else f"{job}: no time is named")
    else:
        output.table([_told(tick) for tick in found], ["UTC", "LOCAL", "", "NOTE"])


def _told(tick: Previewed) -> list[str]:
    run = f"run {tick.run_id}" if tick.run_id else ""
    return [
        f"{tick.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        f"{tick.local:%a %H:%M:%S %Z}",
        run or tick.decision,
        "; ".join(filter(None, (tick.note, tick.reason))),
    ]


def _calendars(environment: str, names: tuple[str, ...]) -> Calendars:
    """What excludes; only then a database is asked. Raises NotFound."""
    with connection.unit_in(environment) if names else nullcontext((None, None)) as (conn, place):
        if conn is None or place is None:
            return Calendars()
        calendars.check(conn, environment, names)
        return calendars.load(conn, place.id, names)


def _show(found: Draft, job: str | None) -> None:
    if not found.ticks:
        click.echo(f"{found.says}: no time is named")
        return
    headings = ["UTC", found.tz, *(["STARTS"] if job else []), "NOTE"]
    output.table([_row(tick, job) for tick in found.ticks], headings)


def _document(tick: DraftTick, exclude: tuple[str, ...], job: str | None) -> dict[str, Any]:
    said = {"at": tick.at, "local": tick.local, "note": tick.note}
    excluded = {"excluded": tick.excluded} if exclude else {}
    return {**said, **excluded, **({"starts": tick.starts} if job else {})}


def _row(tick: DraftTick, job: str | None) -> list[str]:
    form = "%Y-%m-%d %H:%M" if not tick.at.second else "%Y-%m-%d %H:%M:%S"
    excluded = f"excluded by {tick.excluded}" if tick.excluded else ""
    return [
        f"{tick.at:{form}}",
        f"{tick.local:{form} %Z}",
        *([f"{tick.starts.astimezone(tick.local.tzinfo):%H:%M:%S}"] if job else []),
        "; ".join(filter(None, (tick.note, excluded))),
    ]

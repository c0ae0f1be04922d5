"""kirby exception: pause or slow down schedules, until a time at which all is as before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from kirby.server import exceptions, jobs, query, wishes
from kirby.server.cli import connection, output
from kirby.server.cli.jobs import reason_option
from kirby.server.exceptions import ScheduleException

NUMBER = click.IntRange(1, 2**31 - 1)
KEYS = {"span": "for", "start": "from", "back": "return"}
tz_option = click.option("--tz", help="Zone of the times; default: the job's, else UTC.")


@click.group()
def exception() -> None:
    """Pause or slow down schedules for a while."""


@exception.command()
@click.option("--job", help="The job that it is about …")
@click.option("--tag", help="… or all jobs with a tag …")
@click.option("--topic", help="… or all jobs that read a topic …")
@click.option("--all", "all", is_flag=True, help="… or all of the environment …")
@click.option("--everything", is_flag=True, help="… or of all environments.")
@click.option("--until", help="When it ends: 'monday 08:00', a date, 2h.")
@click.option("--for", "span", metavar="SPAN", help="How long it lasts, instead of --until.")
@click.option("--from", "start", metavar="TIME", help="When it begins; default: now.")
@click.option("--pause", is_flag=True, help="Nothing runs (this is the default).")
@click.option("--schedule", "schedule", multiple=True, metavar="LINE", help="This runs instead.")
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
        wish = wishes.wish(conn, where, {_key(key): value for key, value in said.items()})
        place = wishes.place(where, wish)
        view = exceptions.outlook(conn, place, wish)
        id = None if plan else exceptions.add(conn, place, wish, actor=connection.actor())
    if as_json:
        document = {"id": id, "jobs": [each.name for each in (*view.scheduled, *view.daemons)],
                    "ticks": view.ticks, "until": wish.until}  # fmt: skip
        output.document(document)
        return
    click.echo(wishes.sentence(id, wish, view))


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
        (
            each.id,
            each.status,
            each.where,
            f"{each.what}, each {each.often}" if each.recurs else each.what,
            wishes.clock(each.until_at, each.tz),
            each.reason,
        )
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
         wishes.clock(each.until_at, found.tz), each.reason) for each in changes
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
        now: datetime = query.value(conn, "select kirby.now()")
        at = wishes.until({"until": until, "for": span}, zone, now, now)
        exceptions.extend(conn, id, at, actor=connection.actor(), reason=reason)
    click.echo(f"exception {id} holds until {wishes.clock(at, zone)}")


@exception.command()
@click.argument("id", type=NUMBER)
@reason_option
def end(id: int, reason: str) -> None:
    """End one now: schedules are as before."""
    with connection.unit() as conn:
        found = exceptions.get(conn, id)
        exceptions.end(conn, id, actor=connection.actor(), reason=reason)
    click.echo(f"exception {id} has ended: {found.where} runs as before")


def _key(option: str) -> str:
    return KEYS.get(option, option)


# What is said


def _facts(found: ScheduleException) -> list[tuple[str, object]]:
    back = found.on_return.replace("_", " ")
    return [
        ("exception", found.id),
        ("status", found.status),
        ("where", f"{found.where} ({found.jobs} job{'' if found.jobs == 1 else 's'})"),
        ("what", found.what),
        ("from", wishes.clock(found.from_at, found.tz)),
        ("until", wishes.clock(found.until_at, found.tz)),
        ("recurs", found.often),
        ("then", back if found.on_return != "catch_up" else f"{back}, at most {found.return_most}"),
        ("reason", found.reason),
        ("ticket", found.ticket),
        ("by", found.actor),
    ]

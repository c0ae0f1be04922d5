"""kirby calendar: days and windows at which schedules that name them do not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
from sqlalchemy import Connection

from kirby.server import calendars, exclusions
from kirby.server.calendars import Calendar
from kirby.server.cli import connection, output
from kirby.server.cli.jobs import reason_option
from kirby.server.environments import Environment

Command = TypeVar("Command", bound=Callable[..., object])

everywhere_option = click.option("--everywhere", is_flag=True, help="The one for all environments.")
day_option = click.option(
    "--day", "days", multiple=True, metavar="DAY", help="2026-12-25, 12-25, FROM..TO; repeatable."
)
window_option = click.option(
    "--window", "windows", multiple=True, metavar="WINDOW", help="'CRON for 4h'; repeatable."
)


@click.group()
def calendar() -> None:
    """Days and hours at which schedules do not run."""


@calendar.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the calendars that jobs can name."""
    with connection.unit_in(environment) as (conn, where):
        found = calendars.listing(conn, where)
    if as_json or not found:
        hint = "no calendars: 'kirby calendar add NAME --day 12-25' adds one"
        output.listing(found, {}, as_json=as_json, empty=hint)
        return
    rows = [
        (each.name, each.environment or "all", each.tz, len(each.days), len(each.windows),
         each.used_by) for each in found
    ]  # fmt: skip
    output.table(rows, ("CALENDAR", "ENVIRONMENT", "ZONE", "DAYS", "WINDOWS", "USED BY"))


@calendar.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def show(name: str, environment: str, as_json: bool) -> None:
    """Show the days and windows of a calendar."""
    with connection.unit_in(environment) as (conn, where):
        found = calendars.get(conn, where, name)
    if as_json:
        output.document(found)
        return
    output.facts(
        [
            ("calendar", found.name),
            ("environment", found.environment or "all"),
            ("zone", found.tz or "that of each schedule"),
            ("days", found.days),
            ("windows", [exclusions.said(each) for each in found.windows]),
            ("used by", found.used_by),
            ("version", f"{found.version}, {found.updated_at:%Y-%m-%d %H:%M} UTC"),
            ("by", found.updated_by),
        ]
    )


@calendar.command()
@click.argument("name")
@day_option
@window_option
@click.option("--tz", help="Their time zone, if not that of each schedule.")
@connection.env_option
@everywhere_option
@reason_option
def add(
    name: str,
    days: tuple[str, ...],
    windows: tuple[str, ...],
    tz: str | None,
    environment: str,
    everywhere: bool,
    reason: str,
) -> None:
    """Add days and windows to a calendar.

    A new one if need be. Ticks of the jobs that name it are planned anew.
    """
    with _place(environment, everywhere) as (conn, where):
        found = calendars.add(
            conn, where, name, days=days, windows=windows, tz=tz, actor=connection.actor(),
            reason=reason,
        )  # fmt: skip
    click.echo(_sentence(found))


@calendar.command()
@click.argument("name")
@day_option
@window_option
@connection.env_option
@everywhere_option
@reason_option
def remove(
    name: str,
    days: tuple[str, ...],
    windows: tuple[str, ...],
    environment: str,
    everywhere: bool,
    reason: str,
) -> None:
    """Remove a calendar, or some of its days.

    Without --day and --window all of it, which no job may name then.
    """
    actor = connection.actor()
    with _place(environment, everywhere) as (conn, where):
        if not (days or windows):
            calendars.remove(conn, where, name, actor=actor, reason=reason)
            click.echo(f"the calendar {name} is removed")
            return
        found = calendars.take(
            conn, where, name, days=days, windows=windows, actor=actor, reason=reason
        )
    click.echo(_sentence(found))


@contextmanager
def _place(environment: str, everywhere: bool) -> Iterator[tuple[Connection, Environment | None]]:
    with connection.unit_in(environment) as (conn, where):
        yield conn, None if everywhere else where


def _sentence(found: Calendar) -> str:
    days = f"{len(found.days)} {'day' if len(found.days) == 1 else 'days'}"
    windows = f"{len(found.windows)} {'window' if len(found.windows) == 1 else 'windows'}"
    used = f"; {len(found.used_by)} deployed jobs name it" if found.used_by else ""
    place = f"in {found.environment}" if found.environment else "in all environments"
    return f"the calendar {found.name} {place} has {days} and {windows}{used}"

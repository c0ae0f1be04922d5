"""kirby schedule: when a cron line fires, before it is deployed."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kirby.core.errors import Invalid
from kirby.server import cron
from kirby.server.cli import connection, output


@click.group()
def schedule() -> None:
    """When schedules fire."""


@schedule.command()
@click.argument("expression", metavar="CRON")
@click.option("--tz", default="UTC", show_default=True, help="The time zone.")
@click.option("--from", "start", metavar="TIME", help="ISO 8601, of that zone if it names none.")
@connection.limit_option(20, "How many ticks.")
@connection.json_option
def preview(expression: str, tz: str, start: str | None, limit: int, as_json: bool) -> None:
    """Print the next ticks of a cron line.

    With what daylight saving does to them.
    """
    after = moment(start, tz) if start else datetime.now(UTC)
    ticks = list(cron.ticks(cron.parse(expression), tz, after, n=limit))
    if as_json:
        shown = [{"at": t.at, "local": t.local, "note": t.note} for t in ticks]
        output.document({"ticks": shown})
    elif not ticks:
        click.echo(f"{expression} does not fire again")
    else:
        rows = [(f"{t.at:%Y-%m-%d %H:%M}", f"{t.local:%Y-%m-%d %H:%M %Z}", t.note) for t in ticks]
        output.table(rows, ("UTC", tz, "NOTE"))


def moment(text: str, tz: str) -> datetime:
    """A time as people write it: ISO 8601, in the zone if it says none. Raises Invalid."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is not a time: write it like 2027-03-28T01:00") from None
    return given if given.tzinfo else given.replace(tzinfo=cron.zone(tz))

"""kirby schedule: when a cron line fires, before it is deployed."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kirby.core.errors import Invalid
from kirby.server import cron
from kirby.server.cli import connection, output


@click.group()
def schedule() -> None:
    """Schedules: see when they fire."""


@schedule.command()
@click.argument("expression")
@click.option("--tz", default="UTC", show_default=True, help="The time zone.")
@click.option("--from", "start", help="ISO 8601; now otherwise.")
@click.option("-n", "count", default=20, show_default=True, help="How many ticks.")
@connection.json_option
def preview(expression: str, tz: str, start: str | None, count: int, as_json: bool) -> None:
    """Print the next ticks of a cron line, with what daylight saving does to them."""
    after = moment(start, tz) if start else datetime.now(UTC)
    ticks = list(cron.ticks(cron.parse(expression), tz, after, n=count))
    if as_json:
        shown = [
            {
                "at": tick.at.isoformat().replace("+00:00", "Z"),
                "local": str(tick.local),
                "note": tick.note,
            }
            for tick in ticks
        ]
        output.document({"ticks": shown})
        return
    for tick in ticks:
        click.echo(f"{tick.at:%Y-%m-%d %H:%M} UTC   {tick.local} {tz}   {tick.note}".rstrip())


def moment(text: str, tz: str) -> datetime:
    """A time as people write it: ISO 8601, in the zone if it says none. Raises Invalid."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is not a time: write it like 2027-03-28T01:00") from None
    return given if given.tzinfo else given.replace(tzinfo=cron.zone(tz))

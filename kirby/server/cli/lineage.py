"""kirby lineage: events for catalogues beside Kirby."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kirby.server import openlineage
from kirby.server.cli import connection
from kirby.server.cli.flow import moment
from kirby.server.documents import text


@click.group()
def lineage() -> None:
    """Lineage for catalogues beside Kirby."""


@lineage.command()
@click.option("--since", default="1d", show_default=True, metavar="SPAN|TIME", help="From when.")
@click.option("--until", metavar="TIME", help="Up to when (ISO 8601); now without it.")
@click.option("--url", help="Post the events there (…/api/v1/lineage) instead of printing them.")
@click.option(
    "--api-key", envvar="OPENLINEAGE_API_KEY", help="What the receiver asks for; a bearer token."
)
@connection.env_option
def export(
    since: str, until: str | None, url: str | None, api_key: str | None, environment: str
) -> None:
    """Print runs as OpenLineage events.

    One JSON object a line; topics and states are their data sets.

    The same events every time: what was sent may be sent again.
    """
    end = moment(until) if until else datetime.now(UTC)
    begin = moment(since, before=end)
    with connection.unit_in(environment) as (conn, where):
        found = openlineage.events(conn, where, begin, end)
        if url is None:
            for event in found:
                click.echo(text(event))
            return
        sent = openlineage.send(found, url, api_key)
    click.echo(f"{sent} events were sent to {url}")

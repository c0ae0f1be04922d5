"""kirby flow: which job makes what out of which topic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from kirby.core.errors import Invalid
from kirby.server import flows, spans
from kirby.server.cli import connection, output

HEADINGS = ["FROM", "TO", "MADE", "REPLAYS", "LAST", "RELEASES", ""]
NOTES = {"undeclared": "not declared", "unseen": "declared, not seen", "": ""}


@click.command()
@click.option(
    "--since",
    default="1d",
    show_default=True,
    metavar="SPAN|TIME",
    help="From when: 2h, 7d, a time.",
)
@click.option("--until", metavar="TIME", help="Up to when (ISO 8601); now without it.")
@connection.env_option
@connection.json_option
def flow(since: str, until: str | None, environment: str, as_json: bool) -> None:
    """Show what flowed between topics, jobs and states.

    Also what is only declared.

    The flow is kept by the hour: the hours that the period touches.
    """
    end = moment(until) if until else datetime.now(UTC)
    begin = moment(since, before=end)
    with connection.unit_in(environment) as (conn, where):
        found = flows.graph(conn, where, begin, end)
    if as_json:
        output.document(
            {"since": begin, "until": end, "nodes": found.nodes, "edges": _plain(found)}
        )
    elif not found.edges:
        click.echo(f"nothing has flowed in {environment} since {begin:%Y-%m-%d %H:%M}")
    else:
        output.table([_row(edge) for edge in found.edges], HEADINGS)


def moment(text: str, *, before: datetime | None = None) -> datetime:
    """A time (ISO 8601), or a span before another one (2h). Raises Invalid."""
    if before is not None and spans.WRITTEN.fullmatch(text):
        return before - (spans.parse(text) or timedelta())
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is not a time: write it like 2027-03-28T14:00, or 2h") from None
    return given if given.tzinfo else given.astimezone()


def _plain(found: flows.Graph) -> list[dict[str, object]]:
    return [
        {
            "source": edge.source,
            "target": edge.target,
            "made": edge.made,
            "replays": edge.replays,
            "rate": found.rate(edge),
            "first_at": edge.first_at,
            "last_at": edge.last_at,
            "releases": sorted(edge.releases),
            "declared": edge.declared,
            "observed": edge.observed,
            "difference": edge.difference or None,
        }
        for edge in found.edges
    ]


def _row(edge: flows.Edge) -> list[object]:
    return [
        " ".join(edge.source) if edge.source != flows.OUTSIDE else "outside",
        " ".join(edge.target),
        edge.made,
        edge.replays,
        edge.last_at,
        ", ".join(sorted(edge.releases)),
        NOTES[edge.difference],
    ]

"""kirby incident: what is wrong, and who sees to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from kirby.core.errors import Invalid
from kirby.server import incidents
from kirby.server.cli import connection, output
from kirby.server.incidents import Incident, Moment

COLUMNS = {
    "id": "ID",
    "state": "STATE",
    "kind": "KIND",
    "job": "JOB",
    "count": "COUNT",
    "opened_at": "SINCE",
    "title": "WHAT",
}
TOLD = {"id": "ID", "status": "STATUS", "kind": "KIND", "job": "JOB", "title": "WHAT"}

reason_option = click.option("--reason", default="", help="Why; kept in the log.")
ID = click.argument("incident_id", metavar="ID", type=connection.POSITION)


@click.group()
def incident() -> None:
    """What is wrong: jobs that fail, are late or silent."""


@incident.command("list")
@click.option("--status", default="open", show_default=True, metavar="open|resolved|all",
              help="Those that are open, resolved, or all.")  # fmt: skip
@click.option("--kind", help="Only this kind: failing, missed, late, stuck …")
@click.option("--job", help="Only those of this job.")
@connection.limit_option(50, "How many at the most.")
@connection.env_option
@connection.json_option
def list_(
    status: str, kind: str | None, job: str | None, limit: int, environment: str, as_json: bool
) -> None:
    """List incidents, newest first."""
    with connection.unit_in(environment) as (conn, where):
        found = incidents.listing(conn, where, status=status, kind=kind, job=job, limit=limit)
    if as_json:
        output.document([_plain(each) for each in found])
        return
    is_calm = status == "open" and not (kind or job)
    empty = f"nothing is wrong in {environment}" if is_calm else f"no incident in {environment}"
    output.listing(found, COLUMNS, as_json=False, empty=empty)


@incident.command()
@ID
@connection.json_option
def show(incident_id: int, as_json: bool) -> None:
    """Show one: what is wrong, and what has happened."""
    with connection.unit() as conn:
        found = incidents.get(conn, incident_id)
        told = incidents.told(conn, found)
        timeline = incidents.timeline(conn, found)
        lines = incidents.lines(conn, found)
    if as_json:
        output.document({**_plain(found), "tells_of": told, "timeline": timeline, "log": lines})
        return
    output.facts(_facts(found))
    if told:
        click.echo(f"\nit tells of {len(told)}:")
        output.listing(told, TOLD, as_json=False, empty="")
    if lines:
        click.echo(f"\nthe last lines of run {found.run_id}:")
        click.echo("\n".join(f"  {line}" for line in lines))
    click.echo("\nwhat has happened, the newest first:")
    output.table([[each.at, each.actor, _said(each)] for each in timeline], ["AT", "BY", "WHAT"])


@incident.command()
@ID
@reason_option
def ack(incident_id: int, reason: str) -> None:
    """Say that you see to it: it is told no more.

    Its end is still told.
    """
    with connection.unit() as conn:
        news = incidents.acknowledge(conn, incident_id, actor=connection.actor(), reason=reason)
    known = "is acknowledged" if news else "was acknowledged already"
    click.echo(f"incident {incident_id} {known}: no more digests")


@incident.command()
@ID
@click.option("--for", "span", metavar="SPAN", help="For so long, like 2h or 3d.")
@click.option("--until", metavar="TIME", help="Until then, ISO 8601 (UTC without a zone).")
@click.option("--end", is_flag=True, help="End the silence now.")
@reason_option
def silence(incident_id: int, span: str | None, until: str | None, end: bool, reason: str) -> None:
    """Tell nobody of it for a while.

    Nor of the same, if it ends and comes back meanwhile.
    """
    if [bool(span), bool(until), end].count(True) != 1:
        raise Invalid("say how long: either --for 2h, --until TIME, or --end")
    with connection.unit() as conn:
        at = None if end else incidents.until(conn, span or until or "")
        incidents.silence(conn, incident_id, at, actor=connection.actor(), reason=reason)
    quiet = f"is silenced until {_when(at)}" if at else "is told again"
    click.echo(f"incident {incident_id} {quiet}")


@incident.command()
@ID
@reason_option
def resolve(incident_id: int, reason: str) -> None:
    """Say that it is over."""
    with connection.unit() as conn:
        was_open = incidents.resolve(conn, incident_id, actor=connection.actor(), reason=reason)
    click.echo(f"incident {incident_id} {'is' if was_open else 'was'} resolved")


def _plain(found: Incident) -> dict[str, Any]:
    plain: dict[str, Any] = output.plain(found)
    return {**plain, "state": found.state}


def _facts(found: Incident) -> list[tuple[str, Any]]:
    return [
        ("incident", found.id),
        ("state", found.state),
        ("what", found.title),
        ("kind", found.kind),
        ("stage", found.details.get("stage")),
        ("job", found.job),
        ("environment", found.environment),
        ("run", found.run_id),
        ("host", found.details.get("host")),
        ("count", found.count),
        ("since", found.opened_at),
        ("last seen", found.updated_at),
        ("acknowledged", found.acknowledged_by),
        ("silenced until", found.silenced_until),
        ("told in", found.told_in),
        ("resolved", found.resolved_at),
        ("by", found.resolved_by),
        ("because", found.resolution),
    ]


def _said(each: Moment) -> str:
    """A step in a line."""
    what = each.type.removeprefix("incident_")
    data = each.data
    if what == "told":
        count = data.get("channels", 0)
        return f"{data.get('event')}: told to {count} channel{'' if count == 1 else 's'}"
    words = data.get("title") if what in ("opened", "updated") else data.get("reason")
    until = f" until {data['until']}" if data.get("until") else ""
    return f"{what}{until}" + (f": {words}" if words else "")


def _when(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""kirby job: what is deployed."""

from __future__ import annotations

import click

from kirby.server import deployments, jobs
from kirby.server.cli import connection, output

COLUMNS = {
    "name": "JOB",
    "kind": "KIND",
    "version": "VERSION",
    "live": "LIVE",
    "last_status": "LAST RUN",
    "last_at": "AT",
    "next_tick": "NEXT TICK",
    "description": "DESCRIPTION",
}
VERSIONS = {"version": "VERSION", "created_at": "AT", "actor": "BY", "reason": "REASON"}


@click.group()
def job() -> None:
    """What is deployed; run it now."""


@job.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the jobs of an environment."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.listing(conn, where)
    empty = f"no jobs in {environment}: 'kirby deploy script.py --env {environment}' adds one"
    output.listing(found, COLUMNS, as_json=as_json, empty=empty)


@job.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def show(name: str, environment: str, as_json: bool) -> None:
    """Show one job: its schedule, variables and versions."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.get(conn, where, name)
        versions = jobs.versions(conn, found)
        ticks = jobs.next_ticks(conn, found)
    if as_json:
        output.document({**output.plain(found), "versions": versions, "next_ticks": ticks})
        return
    output.facts(
        [
            ("job", found.name),
            ("environment", environment),
            ("kind", found.kind),
            ("description", found.description),
            ("version", found.version),
            ("deployed", f"{found.deployed_at:%Y-%m-%d %H:%M} UTC by {found.deployed_by}"),
            ("schedule", found.schedules),
            ("time zone", found.tz if found.schedules else None),
            ("next tick", found.next_tick),
            ("replicas", found.replicas if found.kind == "daemon" else None),
            ("live runs", found.live),
            ("variables", found.variables),
        ]
    )
    click.echo()
    output.listing(versions, VERSIONS, as_json=False, empty="no versions")


@job.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def trigger(name: str, environment: str, as_json: bool) -> None:
    """Run a job now."""
    with connection.unit_in(environment) as (conn, where):
        run_id = jobs.trigger(conn, jobs.get(conn, where, name), actor=connection.actor())
        deployments.wake_supervisors(conn)
    if as_json:
        output.document({"run": run_id})
    else:
        click.echo(f"run {run_id} is queued: 'kirby run logs {run_id} -f' follows it")

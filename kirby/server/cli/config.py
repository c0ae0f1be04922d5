"""kirby config: plain variables of scripts."""

from __future__ import annotations

import click

from kirby.server import jobs, variables
from kirby.server.cli import connection, output
from kirby.server.cli.deploy import assignment
from kirby.server.database import driver

COLUMNS = {"name": "VARIABLE", "value": "VALUE", "environment": "ENVIRONMENT", "job": "JOB"}
EFFECTIVE = {"name": "VARIABLE", "value": "VALUE", "origin": "FROM"}


@click.group()
def config() -> None:
    """Variables that scripts get, by environment and job."""


@config.command("set")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("--env", "environment", help="Only in this environment.")
@click.option("--job", help="Only for this job.")
def set_(assignments: tuple[str, ...], environment: str | None, job: str | None) -> None:
    """Set variables.

    Everywhere, or with --env and --job only there; the narrowest wins.
    """
    pairs = [assignment(each) for each in assignments]
    with connection.unit() as conn:
        for name, value in pairs:
            variables.put(
                conn, name, value, environment=environment, job=job, actor=connection.actor()
            )
    click.echo(
        "; ".join(f"{name} is set" for name, _ in pairs) + " (for runs that start from now on)"
    )


@config.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List all variables and where they hold."""
    with connection.unit() as conn:
        found = variables.listing(conn)
    output.listing(found, COLUMNS, as_json=as_json, empty="no variables are set")


@config.command()
@click.argument("job")
@connection.env_option
@connection.json_option
def effective(job: str, environment: str, as_json: bool) -> None:
    """Print what a run of JOB would get, and from where."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.get(conn, where, job)
        values = variables.effective(driver(conn), found.deployment_id, found.version)
    output.listing(
        list(values.values()), EFFECTIVE, as_json=as_json, empty=f"{job} gets no variables"
    )

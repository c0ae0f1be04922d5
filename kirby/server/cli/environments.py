"""kirby environment: the namespaces."""

from __future__ import annotations

import click

from kirby.server import environments
from kirby.server.cli import connection, output


@click.group()
def environment() -> None:
    """Namespaces of topics, states, variables and jobs."""


@environment.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List the environments."""
    with connection.unit() as conn:
        found = environments.listing(conn)
    columns = {"name": "ENVIRONMENT", "created_at": "SINCE"}
    output.listing(found, columns, as_json=as_json, empty="no environments")


@environment.command()
@click.argument("name")
def add(name: str) -> None:
    """Add an environment."""
    with connection.unit() as conn:
        environments.add(conn, name, actor=connection.actor())
    click.echo(f"environment {name} is there")

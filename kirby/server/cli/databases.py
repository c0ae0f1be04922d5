"""kirby db: the schema of the database."""

from __future__ import annotations

import click

from kirby.core import db as connections
from kirby.server import schema
from kirby.server.cli import connection


@click.group()
def db() -> None:
    """The schema of the database."""


@db.command()
def migrate() -> None:
    """Bring the database to the newest schema, all or nothing. Needs an administrator's DSN."""
    address = connection.address()
    before = schema.current(address)
    schema.migrate(address)
    change = "was there already" if before == schema.head() else f"was {before or 'empty'} before"
    click.echo(f"{connections.place(address)} is at schema {schema.head()} ({change})")


@db.command()
def check() -> None:
    """Say whether the database answers and has our schema."""
    address = connection.checked()
    click.echo(f"{connections.place(address)} is well: schema {schema.head()}")

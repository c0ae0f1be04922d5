"""kirby db: the schema of the database."""

from __future__ import annotations

import os

import click

from kirby.core import db as connections
from kirby.core import dsn
from kirby.server import schema


@click.group()
def db() -> None:
    """The database: bring it to the newest schema, see what is wrong."""


@db.command()
def migrate() -> None:
    """Bring the database to the newest schema, all or nothing. Needs an administrator's DSN."""
    address = dsn.find(os.environ)
    before = schema.current(address)
    schema.migrate(address)
    change = "was there already" if before == schema.head() else f"was {before or 'empty'} before"
    click.echo(f"{connections.place(address)} is at schema {schema.head()} ({change})")


@db.command()
def check() -> None:
    """Say whether the database answers and has the schema that this Kirby needs."""
    address = dsn.find(os.environ)
    schema.check(address)
    click.echo(f"{connections.place(address)} is well: schema {schema.head()}")

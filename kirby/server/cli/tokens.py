"""kirby token: what programs show to the API, the package index and the database."""

from __future__ import annotations

import click

from kirby.server import accounts, spans, tokens
from kirby.server.cli import connection, output

COLUMNS = {
    "name": "TOKEN",
    "role": "ROLE",
    "environment": "ENVIRONMENT",
    "created_by": "BY",
    "created_at": "SINCE",
    "last_used_at": "LAST USED",
    "expires_at": "EXPIRES",
    "expired": "EXPIRED",
}


@click.group()
def token() -> None:
    """Tokens of programs: CI, twine, applications."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(accounts.ROLES), default="viewer", show_default=True)
@click.option("--env", "environment", help="Good in this environment only.  [default: all]")
@click.option("--expires", metavar="SPAN", help="12h, 30d, 2w …  [default: never]")
@connection.json_option
def add(name: str, role: str, environment: str | None, expires: str | None, as_json: bool) -> None:
    """Make a token and print it, once.

    Only its hash is kept. A developer may publish packages and deploy.
    """
    span = spans.parse(expires) if expires else None
    actor = connection.actor()
    with connection.unit() as conn:
        given = tokens.add(
            conn, name, role=role, environment=environment, expires=span, actor=actor
        )
    if as_json:
        output.document(given)
        return
    click.echo(given.token)
    click.echo("It is shown this once: keep it where no log sees it.", err=True)


@token.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List the tokens that were not removed."""
    with connection.unit() as conn:
        found = tokens.listing(conn)
    output.listing(found, COLUMNS, as_json=as_json, empty="no tokens")


@token.command()
@click.argument("name")
def remove(name: str) -> None:
    """Revoke a token: it opens nothing any more."""
    with connection.unit() as conn:
        tokens.remove(conn, name, actor=connection.actor())
    click.echo(f"the token {name} is removed")

"""kirby user: who may log in to the pages."""

from __future__ import annotations

import click

from kirby.server import accounts
from kirby.server.cli import connection, output

ROLES = ("viewer", "operator", "developer", "admin")


@click.group()
def user() -> None:
    """Users: local accounts for the pages."""


@user.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List the accounts."""
    with connection.unit() as conn:
        found = accounts.listing(conn)
    columns = {"login": "LOGIN", "role": "ROLE", "created_at": "SINCE", "disabled_at": "DISABLED"}
    output.listing(found, columns, as_json=as_json, empty="no accounts")


@user.command()
@click.argument("login")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True)
@click.password_option(help="Asked for if not given.")
def add(login: str, role: str, password: str) -> None:
    """Add an account."""
    with connection.unit() as conn:
        accounts.add(conn, login, password, role, actor=connection.actor())
    click.echo(f"{login} may log in as {role}")


@user.command()
@click.argument("login")
@click.password_option(help="Asked for if not given.")
def password(login: str, password: str) -> None:
    """Give an account a new password, and end its sessions."""
    with connection.unit() as conn:
        accounts.set_password(conn, login, password, actor=connection.actor())
    click.echo(f"{login} has a new password; its sessions are ended")

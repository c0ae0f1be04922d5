"""kirby user: who may log in to the pages."""

from __future__ import annotations

import sys

import click

from kirby.core.errors import Invalid
from kirby.server import accounts
from kirby.server.cli import connection, output

ROLES = ("viewer", "operator", "developer", "admin")
password_option = click.option("--password", help="Others on this machine can see it here.")


@click.group()
def user() -> None:
    """Local accounts for the pages."""


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
@password_option
def add(login: str, role: str, password: str | None) -> None:
    """Add an account.

    Its password is asked for, or read from standard input.
    """
    password = password or _asked()
    with connection.unit() as conn:
        accounts.add(conn, login, password, role, actor=connection.actor())
    click.echo(f"{login} may log in as {role}")


@user.command()
@click.argument("login")
@password_option
def password(login: str, password: str | None) -> None:
    """Give an account a new password and end its sessions.

    It is asked for, or read from standard input.
    """
    password = password or _asked()
    with connection.unit() as conn:
        accounts.set_password(conn, login, password, actor=connection.actor())
    click.echo(f"{login} has a new password; its sessions are ended")


def _asked() -> str:
    """A password from whoever sits there, typed twice, or else the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise Invalid("no password: give it on standard input, or with --password")
    return line

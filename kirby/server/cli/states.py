"""kirby state: the computed tables."""

from __future__ import annotations

import click

from kirby.server import states
from kirby.server.cli import connection, output
from kirby.server.topics import check_json

STATES = {"name": "STATE", "keys": "KEYS", "updated_at": "LAST CHANGE"}
ROWS = {"key": "KEY", "version": "VERSION", "updated_at": "CHANGED", "value": "VALUE"}
VERSIONS = {
    "version": "VERSION",
    "op": "CHANGE",
    "recorded_at": "AT",
    "run_id": "RUN",
    "value": "VALUE",
}


@click.group()
def state() -> None:
    """Computed tables, every version kept."""


@state.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the states of an environment."""
    with connection.unit_in(environment) as (conn, where):
        found = states.listing(conn, where)
    output.listing(found, STATES, as_json=as_json, empty=f"no states in {environment}")


@state.command()
@click.argument("name")
@click.argument("key", required=False)
@connection.limit_option(1000, "How many keys at the most.")
@connection.env_option
@connection.json_option
def get(name: str, key: str | None, limit: int, environment: str, as_json: bool) -> None:
    """Print the value of KEY, or of every key."""
    with connection.unit_in(environment) as (conn, where):
        found = states.get(conn, where, name)
        if key is not None:
            output.document(states.entry(conn, found, key).value)
            return
        rows = states.rows(conn, found, limit=limit)
    output.listing(rows, ROWS, as_json=as_json, empty=f"{name} is empty")


@state.command("set")
@click.argument("name")
@click.argument("key")
@click.argument("value")
@connection.env_option
def set_(name: str, key: str, value: str, environment: str) -> None:
    """Set KEY to VALUE.

    VALUE is JSON: a text has its own quotes, '"text"'.
    """
    given = check_json("value", value)
    with connection.unit_in(environment) as (conn, where):
        states.put(conn, where, name, key, given, actor=connection.actor())
    click.echo(f"{name}[{key}] is set")


@state.command()
@click.argument("name")
@click.argument("key")
@connection.limit_option(100, "How many versions.")
@connection.env_option
@connection.json_option
def history(name: str, key: str, limit: int, environment: str, as_json: bool) -> None:
    """Print every version of KEY, newest first."""
    with connection.unit_in(environment) as (conn, where):
        found = states.history(conn, states.get(conn, where, name), key, limit=limit)
    output.listing(found, VERSIONS, as_json=as_json, empty=f"{key} was never set in {name}")

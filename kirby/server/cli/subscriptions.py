"""kirby subscription: who reads a topic, and how far they are."""

from __future__ import annotations

import click

from kirby.server import subscriptions
from kirby.server.cli import connection, output

COLUMNS = {
    "topic": "TOPIC",
    "name": "SUBSCRIPTION",
    "mode": "MODE",
    "behind": "BEHIND",
    "seconds": "SECONDS",
    "retries": "RETRIES",
    "parked": "PARKED",
}


@click.group()
def subscription() -> None:
    """Who reads a topic, and how far behind."""


@subscription.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the subscriptions of an environment with their lag."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.listing(conn, where)
    output.listing(found, COLUMNS, as_json=as_json, empty=f"no subscriptions in {environment}")

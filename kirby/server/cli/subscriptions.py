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


UNDONE = {
    "position": "POSITION",
    "key": "KEY",
    "status": "STATUS",
    "attempt": "ATTEMPT",
    "due_at": "DUE",
    "payload": "PAYLOAD",
}


@subscription.command()
@click.argument("topic")
@click.argument("name")
@connection.limit_option(50, "How many messages at most.")
@connection.env_option
@connection.json_option
def show(topic: str, name: str, limit: int, environment: str, as_json: bool) -> None:
    """Show one, and its messages that failed."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        undone = subscriptions.undone(conn, where, found, limit=limit)
    if as_json:
        output.document({**output.plain(found), "undone": undone})
        return
    fields = ("topic", "name", "mode", "on_failure", "max_attempts", "paused_at", "behind",
              "seconds", "claims", "retries", "parked")  # fmt: skip
    output.facts((each.replace("_", " "), getattr(found, each)) for each in fields)
    click.echo()
    output.listing(undone, UNDONE, as_json=False, empty="no messages failed")
    for each in undone:
        if each.error is not None:
            click.echo(f"\n{each.position}: {each.error.rstrip()}")


positions_argument = click.argument("positions", nargs=-1, type=connection.POSITION)


@subscription.command()
@click.argument("topic")
@click.argument("name")
@positions_argument
@connection.env_option
def unpark(topic: str, name: str, positions: tuple[int, ...], environment: str) -> None:
    """Deliver parked messages again (all, or POSITIONS)."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        count = subscriptions.unpark(conn, found, list(positions) or None, actor=connection.actor())
    click.echo(f"{count} parked {'message is' if count == 1 else 'messages are'} tried again")


@subscription.command()
@click.argument("topic")
@click.argument("name")
@positions_argument
@click.option("--all", "everything", is_flag=True, help="All parked ones.")
@connection.env_option
def drop(
    topic: str, name: str, positions: tuple[int, ...], everything: bool, environment: str
) -> None:
    """Give up on parked messages (POSITIONS or --all)."""
    if bool(positions) == everything:
        raise click.UsageError("name the positions, or say --all")
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        count = subscriptions.drop(conn, found, list(positions) or None, actor=connection.actor())
    click.echo(f"{count} parked {'message is' if count == 1 else 'messages are'} given up")


@subscription.command()
@click.argument("topic")
@click.argument("name")
@connection.env_option
def pause(topic: str, name: str, environment: str) -> None:
    """Hand out nothing more until it is resumed."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        subscriptions.pause(conn, found, True, actor=connection.actor())
    click.echo(f"{name} of {topic} is paused; what is in hands is finished")


@subscription.command()
@click.argument("topic")
@click.argument("name")
@connection.env_option
def resume(topic: str, name: str, environment: str) -> None:
    """Let a paused one go on."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        subscriptions.pause(conn, found, False, actor=connection.actor())
    click.echo(f"{name} of {topic} goes on")

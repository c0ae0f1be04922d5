"""kirby subscription: who reads a topic, and how far they are."""

from __future__ import annotations

import json

import click

from kirby.core.errors import Invalid
from kirby.core.subscriptions import LIMITS, MAX_LIMIT
from kirby.server import subscriptions, topics
from kirby.server.cli import connection, output


class LimitType(click.ParamType):  # type: ignore[type-arg]
    """A number above zero, or "none"."""

    name = "number|none"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "none":
            return value
        try:
            number = self.kind(value)
        except ValueError:
            number = self.kind(0)
        if not 0 < number <= MAX_LIMIT:
            number_of = "whole number" if self.kind is int else "number"
            self.fail(f"{value!r} is not a {number_of} above zero, nor none")
        return number


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
              "seconds", "claims", "retries", "parked", *LIMITS)  # fmt: skip
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
@click.argument("position", type=connection.POSITION)
@click.argument("payload", required=False)
@click.option("--reason", help="Why, for the audit log.")
@click.option("--unpark", "again", is_flag=True, help="Deliver it again at once.")
@connection.env_option
def edit(
    topic: str,
    name: str,
    position: int,
    payload: str | None,
    reason: str | None,
    again: bool,
    environment: str,
) -> None:
    """Change what a parked message says when it is tried again.

    PAYLOAD is a JSON value; '-' reads it from standard input; without it $EDITOR opens on what the
    message says now. The topic keeps the message as it was published.
    """
    actor = connection.actor()
    if payload is None:
        payload = _edited(topic, name, position, environment)
    elif payload == "-":
        payload = connection.standard_input()
    value = topics.check_json("payload", payload)
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        subscriptions.edit(conn, found, position, value, actor=actor, reason=reason)
        if again:
            subscriptions.unpark(conn, found, [position], actor=actor)
    click.echo(f"message {position} is changed for {name}" + (", and tried again" if again else ""))


def _edited(topic: str, name: str, position: int, environment: str) -> str:
    """What a person makes of a parked message in an editor. Raises NotFound, Invalid."""
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        before = subscriptions.parked(conn, where, found, position).payload
    after = click.edit(json.dumps(before, indent=2, ensure_ascii=False) + "\n", extension=".json")
    if after is None:
        raise Invalid("nothing was changed: the editor was left without saving")
    return after


@subscription.command()
@click.argument("topic")
@click.argument("name")
@click.option("--max-in-flight", type=LimitType(int), help="Messages in hands at once.")
@click.option("--rate", type=LimitType(float), help="Messages a second.")
@click.option("--key-in-flight", type=LimitType(int), help="Messages of one key in hands at once.")
@click.option("--key-rate", type=LimitType(float), help="Messages of one key a second.")
@connection.env_option
def limit(topic: str, name: str, environment: str, **given: float | str | None) -> None:
    """Set limits for all workers together.

    'none' takes one away. A worker whose code names a limit sets it again when it starts.
    """
    named = [each for each in LIMITS if given[each] is not None]
    limits = {each: None if given[each] == "none" else given[each] for each in named}
    if not limits:
        raise click.UsageError("name a limit, such as --rate 10 or --rate none")
    with connection.unit_in(environment) as (conn, where):
        found = subscriptions.get(conn, where, topic, name)
        subscriptions.limit(conn, found, limits, actor=connection.actor())
    said = [
        f"{each.replace('_', ' ')} {'none' if at is None else at}" for each, at in limits.items()
    ]
    click.echo(f"{name} of {topic}: {', '.join(said)}")


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

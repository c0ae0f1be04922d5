"""kirby effect: what handlers did outside of the database."""

from __future__ import annotations

import click

from kirby.core.errors import Invalid
from kirby.server import effects
from kirby.server.cli import connection, output

COLUMNS = {
    "id": "ID",
    "name": "EFFECT",
    "status": "STATUS",
    "topic": "TOPIC",
    "position": "POSITION",
    "subscription": "SUBSCRIPTION",
    "times": "TIMES",
    "begun_at": "BEGUN",
    "key": "KEY",
}


@click.group()
def effect() -> None:
    """What handlers did in the outside world, each once."""


@effect.command("list")
@click.option("--in-doubt", is_flag=True, help="Only those that were begun and not confirmed.")
@click.option("--name", help="Only those of this name.")
@connection.limit_option(50, "How many at the most.")
@connection.env_option
@connection.json_option
def list_(in_doubt: bool, name: str | None, limit: int, environment: str, as_json: bool) -> None:
    """List effects, newest first."""
    with connection.unit_in(environment) as (conn, where):
        found = effects.listing(conn, where, in_doubt=in_doubt, name=name, limit=limit)
    kind = "effect is in doubt" if in_doubt else "effects"
    output.listing(found, COLUMNS, as_json=as_json, empty=f"no {kind} in {environment}")


@effect.command()
@click.argument("effect_id", metavar="ID", type=connection.POSITION)
@click.option("--done", is_flag=True, help="It happened: it is not done again.")
@click.option("--again", is_flag=True, help="It did not happen: it is done again.")
@connection.env_option
def resolve(effect_id: int, done: bool, again: bool, environment: str) -> None:
    """Say of an effect in doubt whether it happened.

    The message that was parked for it is delivered again.
    """
    if done == again:
        raise Invalid("say either --done (it happened) or --again (it did not)")
    with connection.unit_in(environment) as (conn, where):
        freed = effects.resolve(conn, where, effect_id, done=done, actor=connection.actor())
    said = "is done" if done else "is done again when its message comes"
    goes_on = "; its message is delivered again" if freed else ""
    click.echo(f"effect {effect_id} {said}{goes_on}")

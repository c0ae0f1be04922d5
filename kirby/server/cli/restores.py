"""kirby state restore: what would change, and then set it back."""

from __future__ import annotations

from collections.abc import Sequence

import click

from kirby.core import tasks
from kirby.core.errors import Invalid
from kirby.server import documents, moments, states
from kirby.server.cli import connection, output
from kirby.server.database import driver
from kirby.server.states import Difference

SHOWN = 20  # keys of a plan


@click.command()
@click.argument("name")
@click.argument("key", required=False)
@click.option("--to", "moment", metavar="TIME|POSITION", required=True, help="What it was then.")
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("--all", "whole", is_flag=True, help="The whole state.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would change, and stop.")
@click.option("--reason", default="", help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection.env_option
def restore(
    name: str,
    key: str | None,
    moment: str,
    prefix: str,
    whole: bool,
    only_plan: bool,
    reason: str,
    yes: bool,
    environment: str,
) -> None:
    """Set KEY, or all of a state, back to what it was.

    As new versions: nothing is lost. A key that had no value then is deleted. What would change is
    shown first.
    """
    if sum((key is not None, bool(prefix), whole)) != 1:
        raise click.UsageError("what is to be restored: KEY, --prefix PREFIX, or --all")
    with connection.unit_in(environment) as (conn, where):
        state = states.get(conn, where, name)
        then = moments.parse(moment, tasks.now(driver(conn)))
        if then is None:
            raise Invalid(f"{name} is what it is now: say to when")
        if key is not None:
            states.entry(conn, state, key)  # says if there never was such a key
        found = states.to_restore(conn, state, then, key=key, prefix=prefix)
    _show(name, found)
    if only_plan or not found:
        return
    if not yes:
        output.confirm("Set back?")
    with connection.unit_in(environment) as (conn, where):
        count = states.restore(
            conn,
            where,
            name,
            key=key,
            prefix=prefix,
            to=then,
            actor=connection.actor(),
            reason=reason,
        )
    click.echo(f"{name}: {count} {'key is' if count == 1 else 'keys are'} what it was then")


def _show(name: str, found: Sequence[Difference]) -> None:
    """What would become of each key: the change since then, the other way round."""
    for each in found[:SHOWN]:
        now = "nothing" if each.after_version is None else documents.text(each.after)
        then = "deleted" if each.before_version is None else documents.text(each.before)
        click.echo(f"{each.key}: {_short(now)} → {_short(then)}")
    if len(found) > SHOWN:
        click.echo(f"… and {len(found) - SHOWN:,} more")
    gone = sum(each.before_version is None for each in found)
    deleted = f", {gone:,} of them deleted: they had no value then" if gone else ""
    keys = f"{len(found):,} {'key' if len(found) == 1 else 'keys'}"
    click.echo(f"{name}: {keys} would change{deleted}" if found else f"{name} is as it was then")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"

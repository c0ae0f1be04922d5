"""kirby catalogue: what topics, states and jobs are, and who answers for them."""

from __future__ import annotations

import click

from kirby.core.errors import Invalid
from kirby.server import catalogue as entries
from kirby.server.cli import connection, output
from kirby.server.documents import text

ENTRIES = {"kind": "KIND", "name": "NAME", "owner": "OWNER", "description": "DESCRIPTION"}
KIND = click.Choice(entries.KINDS)


@click.group()
def catalogue() -> None:
    """What topics, states and jobs are, and who owns them."""


@catalogue.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List topics, states and jobs with what is said of them."""
    with connection.unit_in(environment) as (conn, where):
        found = entries.listing(conn, where)
    output.listing(found, ENTRIES, as_json=as_json, empty=f"there is nothing in {environment} yet")


@catalogue.command()
@click.argument("kind", type=KIND)
@click.argument("name")
@connection.env_option
@connection.json_option
def show(kind: str, name: str, environment: str, as_json: bool) -> None:
    """Show one entry with its sample and members.

    Also its description and owner; members are those of its newest values.
    """
    with connection.unit_in(environment) as (conn, where):
        entry = entries.get(conn, where, kind, name)
        contents = entries.contents(conn, where, kind, name)
    if as_json:
        output.document({"entry": entry, "contents": contents})
        return
    output.facts(
        [("Description", entry.description), ("From", entry.source), ("Owner", entry.owner)]
    )
    if contents is not None:
        click.echo(f"\nin the newest {contents.sampled:,} values:")
        rows = [
            [
                each.path or "(value)",
                ", ".join(each.types),
                f"{each.count} of {each.of}",
                text(each.example),
            ]
            for each in contents.fields
        ]
        output.table(rows, ["MEMBER", "TYPE", "THERE", "EXAMPLE"])


@catalogue.command()
@click.argument("kind", type=KIND)
@click.argument("name")
@click.argument("description", required=False)
@click.option("--owner", help="Who answers for it.")
@click.option("--reason", help="Why it is changed, for the audit log.")
@connection.env_option
def describe(
    kind: str,
    name: str,
    description: str | None,
    owner: str | None,
    reason: str | None,
    environment: str,
) -> None:
    """Say what a topic, a state or a job is.

    It goes before what code says of itself; an empty DESCRIPTION ('') lets that be seen again.
    """
    if description is None and owner is None:
        raise Invalid("give a DESCRIPTION, an --owner, or both")
    with connection.unit_in(environment) as (conn, where):
        entries.describe(
            conn,
            where,
            kind,
            name,
            description=description,
            owner=owner,
            reason=reason,
            actor=connection.actor(),
        )
    click.echo(f"{kind} {name} is described")

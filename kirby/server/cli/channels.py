"""kirby channel: where people hear of incidents, and whether it works."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from rich.console import Console

from kirby.core.errors import Invalid, KirbyError, Unavailable
from kirby.server import channels, environments, notices
from kirby.server.channels import Channel, Delivery
from kirby.server.cli import connection, output

PATIENCE = 30.0  # seconds for a test: more than three times what a delivery may take
LOOK = 0.2

COLUMNS = {
    "name": "CHANNEL",
    "environment": "ENVIRONMENT",
    "status": "STATUS",
    "url": "ADDRESS",
    "told": "TOLD",
    "waiting": "WAITING",
    "parked": "GIVEN UP",
    "delivered_at": "LAST DELIVERED",
}
ROUTES = {
    "id": "ID",
    "scope": "OF",
    "target": "NAME",
    "environment": "ENVIRONMENT",
    "events": "EVENTS",
    "kinds": "KINDS",
}
DELIVERIES = {
    "at": "AT",
    "event": "EVENT",
    "incident_id": "INCIDENT",
    "outcome": "OUTCOME",
    "attempt": "TRY",
    "seconds": "SECONDS",
    "answer": "ANSWER",
}
WAITING = {
    "position": "POSITION",
    "event": "EVENT",
    "title": "OF",
    "attempt": "TRIES",
    "due_at": "NEXT TRY",
    "parked_at": "GIVEN UP",
    "error": "BECAUSE",
}


@click.group()
def channel() -> None:
    """Where people hear of incidents: mail, chat, webhooks."""


@channel.command()
@click.argument("name")
@click.argument("url")
@click.option("--description", default="", help="What it is for.")
@click.option("--everywhere", is_flag=True, help="For all environments.")
@click.option("--no-route", is_flag=True, help="Tell it nothing yet.")
@connection.env_option
@connection.json_option
def add(
    name: str,
    url: str,
    description: str,
    everywhere: bool,
    no_route: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Add a channel; it is told when anything begins and ends.

    URL is an address as apprise has them. Write ${NAME} for a secret in it: whoever delivers has
    it in the variable KIRBY_CHANNEL_NAME.

    \b
      kirby channel add ops 'mailtos://kirby:${SMTP}@mail.example.com?to=ops@example.com'
      kirby channel add hook 'jsons://hooks.example.com/kirby?+X-Token=${HOOK_TOKEN}'
      kirby channel add chat 'slack://${SLACK_WEBHOOK}/#alarms'
    """
    with connection.unit() as conn:
        added = channels.add(
            conn,
            None if everywhere else environments.get(conn, environment),
            name,
            url,
            description=description,
            route=not no_route,
            actor=connection.actor(),
        )
    if as_json:
        output.document(added)
        return
    click.echo(f"{name} is told {added.told}")
    click.echo(f"Try it: kirby channel test {name}", err=True)


@channel.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the channels of an environment and those for all."""
    with connection.unit_in(environment) as (conn, where):
        found = channels.listing(conn, where)
    if as_json:
        output.document([_plain(each) for each in found])
    else:
        output.listing(found, COLUMNS, as_json=False, empty=f"no channels in {environment}")


@channel.command()
@click.argument("name")
@connection.limit_option(10, "How many deliveries at the most.")
@connection.env_option
@connection.json_option
def show(name: str, limit: int, environment: str, as_json: bool) -> None:
    """Show what is told there, and what became of it."""
    with connection.unit_in(environment) as (conn, where):
        found = channels.get(conn, where, name)
        last = channels.deliveries(conn, found, limit=limit)
        waiting = channels.waiting(conn, found, limit=limit)
    if as_json:
        output.document({**_plain(found), "deliveries": last, "undelivered": waiting})
        return
    output.facts(_facts(found))
    _table("Routes", found.routes, ROUTES)
    _table("Not delivered", waiting, WAITING)
    _table("Last deliveries", last, DELIVERIES)


@channel.command()
@click.argument("name")
@click.option("--url", help="Its new address.")
@click.option("--description", help="What it is for.")
@connection.env_option
def edit(name: str, url: str | None, description: str | None, environment: str) -> None:
    """Change a channel's address or description."""
    if url is None and description is None:
        raise Invalid("say what changes: --url or --description")
    with connection.unit_in(environment) as (conn, where):
        found = channels.get(conn, where, name)
        channels.edit(conn, found, url=url, description=description, actor=connection.actor())
    click.echo(f"the channel {name} is changed")


@channel.command()
@click.argument("name")
@connection.env_option
def remove(name: str, environment: str) -> None:
    """Remove a channel; nothing more is told there."""
    with connection.unit_in(environment) as (conn, where):
        channels.remove(conn, channels.get(conn, where, name), actor=connection.actor())
    click.echo(f"the channel {name} is removed")


@channel.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def test(name: str, environment: str, as_json: bool) -> None:
    """Send a test as every notice is sent; print the answer.

    It is sent by the supervisor that leads, with the secrets that it has.
    """
    with connection.unit_in(environment) as (conn, where):
        found = channels.get(conn, where, name)
        position = channels.test(conn, found, where, actor=connection.actor())
    became = _await(found, position)
    if as_json:
        output.document(became)
    if became.outcome != "delivered":
        raise KirbyError(f"the channel {name} does not work: {became.answer}")
    if not as_json:
        click.echo(f"{name} took it in {became.seconds:.1f} s: {became.answer}")


@channel.command()
@click.argument("name")
@connection.env_option
def resend(name: str, environment: str) -> None:
    """Send now what waits, and what was given up."""
    with connection.unit_in(environment) as (conn, where):
        count = channels.resend(conn, channels.get(conn, where, name), actor=connection.actor())
    click.echo(f"{count} notice{'' if count == 1 else 's'} to send" if count else "nothing waits")


@channel.group()
def route() -> None:
    """What is told at a channel."""


@route.command("add")
@click.argument("name", metavar="CHANNEL")
@click.option("--job", default="", help="Only of this job.")
@click.option("--tag", default="", help="Only of jobs with this tag.")
@click.option("--everything", is_flag=True, help="Of whatever goes wrong.")
@click.option("--only-env", default="", help="Only in this environment.")
@click.option("--on", "events", default=",".join(channels.USUAL), show_default=True,
              help=f"Any of {', '.join(notices.EVENTS)}.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only of such incidents.")
@connection.env_option
@connection.json_option
def add_route(
    name: str,
    job: str,
    tag: str,
    everything: bool,
    only_env: str,
    events: str,
    kinds: tuple[str, ...],
    environment: str,
    as_json: bool,
) -> None:
    """Have more told there; one of the same is changed."""
    if sum(map(bool, (job, tag, everything))) != 1:
        raise Invalid("say of what: --job NAME, --tag NAME or --everything")
    with connection.unit_in(environment) as (conn, where):
        changed = channels.add_route(
            conn,
            channels.get(conn, where, name),
            job=job,
            tag=tag,
            environment=only_env,
            events=[each.strip() for each in events.split(",") if each.strip()],
            kinds=kinds,
            actor=connection.actor(),
        )
    if as_json:
        output.document(_plain(changed))
    else:
        click.echo(f"{name} is told {changed.told}")


@route.command("list")
@click.argument("name", metavar="CHANNEL")
@connection.env_option
@connection.json_option
def list_routes(name: str, environment: str, as_json: bool) -> None:
    """List what is told there."""
    with connection.unit_in(environment) as (conn, where):
        found = channels.get(conn, where, name)
    output.listing(found.routes, ROUTES, as_json=as_json, empty=f"{name} is told nothing")


@route.command("remove")
@click.argument("name", metavar="CHANNEL")
@click.argument("route_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
@connection.env_option
def remove_route(name: str, route_id: int, environment: str) -> None:
    """Have that told there no more."""
    with connection.unit_in(environment) as (conn, where):
        found = channels.get(conn, where, name)
        changed = channels.remove_route(conn, found, route_id, actor=connection.actor())
    click.echo(f"{name} is told {changed.told}")


def _await(found: Channel, position: int) -> Delivery:
    deadline = time.monotonic() + PATIENCE
    with Console(stderr=True).status(f"testing {found.name}"):
        while time.monotonic() < deadline:
            with connection.unit() as conn:
                if became := channels.outcome(conn, found, position):
                    return became
            time.sleep(LOOK)
    raise Unavailable(
        f"nobody sent the test within {PATIENCE:.0f} s: is a supervisor at work, and is the"
        f" subscription {notices.SUBSCRIPTION} of {notices.TOPIC} not paused?"
    )


def _plain(found: Channel) -> dict[str, object]:
    return {**output.plain(found), "status": found.status}


def _facts(found: Channel) -> list[tuple[str, object]]:
    return [
        ("channel", found.name),
        ("environment", found.environment or "all"),
        ("description", found.description),
        ("address", found.url),
        ("status", found.status),
        ("failing since", found.failing_since),
        ("last delivered", found.delivered_at),
        ("added by", found.created_by),
    ]


def _table(title: str, rows: Sequence[object], columns: dict[str, str]) -> None:
    if rows:
        click.echo(f"\n{title}")
        output.listing(rows, columns, as_json=False, empty="")

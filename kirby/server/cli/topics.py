"""kirby topic: publish, read and follow."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import click

from kirby.core import db, protocol
from kirby.core import topics as log
from kirby.server import lanes as changes
from kirby.server import moments, spans, topics
from kirby.server import retention as policies
from kirby.server.cli import connection, output
from kirby.server.cli.schedules import moment

COLUMNS = {
    "name": "TOPIC",
    "lanes": "LANES",
    "messages": "MESSAGES",
    "last_at": "LAST MESSAGE",
    "subscriptions": "SUBSCRIPTIONS",
    "kept": "KEPT",
}
PAGE = 1000


@click.group()
def topic() -> None:
    """Publish, read and follow messages."""


@topic.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the topics of an environment."""
    with connection.unit_in(environment) as (conn, where):
        found = topics.listing(conn, where)
    output.listing(found, COLUMNS, as_json=as_json, empty=f"no topics in {environment}")


@topic.command()
@click.argument("name")
@click.argument("payload")
@click.option("--key", help="What orders it.")
@connection.env_option
@connection.json_option
def publish(name: str, payload: str, key: str | None, environment: str, as_json: bool) -> None:
    """Publish a message.

    PAYLOAD is a JSON value; '-' reads it from standard input.
    """
    if payload == "-":
        payload = connection.standard_input()
    with connection.unit_in(environment) as (conn, where):
        position = topics.publish(conn, where, name, payload, actor=connection.actor(), key=key)
    if as_json:
        output.document({"position": position})
    else:
        click.echo(f"published at position {position}")


@topic.command()
@click.argument("name")
@click.option("--after", type=connection.POSITION, default=0, help="Begin after this position.")
@click.option("--since", metavar="TIME", help="Recorded then or later: 2h (ago), or ISO 8601.")
@click.option("--until", metavar="TIME", help="Recorded before then: 2h (ago), or ISO 8601.")
@connection.limit_option(100, "How many at the most.")
@connection.env_option
@connection.json_option
def read(
    name: str,
    after: int,
    since: str | None,
    until: str | None,
    limit: int,
    environment: str,
    as_json: bool,
) -> None:
    """Print the messages of a topic in order.

    One JSON object a line; with --json one document.
    """
    start, end = _moment(since), _moment(until)
    with connection.unit_in(environment) as (conn, where):
        topics.get(conn, where, name)  # says what is not there, and what it may be called
    with _reader(environment) as reader:
        found = log.read(reader, name, after=after, limit=limit, since=start, until=end)
    if as_json:
        output.document(found)
    else:
        _print(found)


@topic.command()
@click.argument("name")
@click.option(
    "--after",
    type=connection.POSITION,
    help="Begin after this position; with what comes otherwise.",
)
@connection.env_option
def tail(name: str, after: int | None, environment: str) -> None:
    """Print messages as they come, until Ctrl-C.

    One JSON object a line.
    """
    with connection.unit_in(environment) as (conn, where):
        found = topics.get(conn, where, name)
    with _reader(environment, "kirby tail") as reader:
        db.hear(reader, log.channel(found.id))
        position = after if after is not None else (found.last_position or 0)
        while True:
            page = log.read(reader, name, after=position, limit=PAGE)
            _print(page)
            if page:
                position = page[-1].position
            if len(page) < PAGE:
                db.wait(reader, 1)


@topic.command()
@click.argument("name")
@click.option("--keep", metavar="SPAN", help="12h, 30d, 2w … or forever.")
@click.option("--even-unread", is_flag=True, help="Also remove what a subscription has not read.")
@connection.env_option
@connection.json_option
def retention(
    name: str, keep: str | None, even_unread: bool, environment: str, as_json: bool
) -> None:
    """Show how long a topic is kept, or set it.

    Messages that a subscription has not read stay, unless --even-unread is given.
    """
    if even_unread and keep is None:
        raise click.UsageError("--even-unread goes with --keep")
    span = spans.parse(keep) if keep is not None else None
    with connection.unit_in(environment) as (conn, where):
        if keep is not None:
            actor = connection.actor()
            policies.set_topic(conn, where, name, span, even_unread=even_unread, actor=actor)
        found = policies.topic(conn, where, name)
    if as_json:
        output.document(found)
        return
    output.facts((
        ("topic", found.topic),
        ("kept", spans.text(found.keep)),
        ("unread", "goes as well" if found.even_unread else "stays"),
        ("oldest", found.oldest_at),
        ("late", timedelta(seconds=int(found.late)) or None),
        ("because", found.blocked_by and f"{found.blocked_by}: {found.blocked_reason}"),
        ("removed to", found.gone_at),
    ))  # fmt: skip


@topic.command("lanes")
@click.argument("name")
@click.argument("lanes", type=click.IntRange(1, 1024), required=False)
@connection.env_option
def lanes_(name: str, lanes: int | None, environment: str) -> None:
    """Show how many lanes a topic has, or give it more.

    Every key stays in order. Waits for transactions that write to the topic, 10 s at most.
    """
    with connection.unit_in(environment) as (conn, where):
        found = topics.get(conn, where, name)
    if lanes is None:
        click.echo(f"{name} has {found.lanes} lanes")
        return
    with db.connect(connection.address(), application="kirby cli") as changer:
        position = changes.change(changer, found.id, lanes, actor=connection.actor())
    click.echo(f"{name} has {lanes} lanes above position {position}")


def _reader(environment: str, application: str = "kirby cli") -> db.Connection:
    """A connection in autocommit, as the horizon needs it."""
    reader = db.connect(connection.address(), application=application)
    protocol.greet(reader, token=os.environ.get("KIRBY_TOKEN"), environment=environment)
    return reader


def _moment(text: str | None) -> datetime | None:
    if text and spans.WRITTEN.fullmatch(text):
        ago = moments.parse(text, datetime.now(UTC))
        return ago if isinstance(ago, datetime) else None
    return moment(text, "UTC") if text else None


def _print(entries: list[log.Entry]) -> None:
    for entry in entries:
        click.echo(json.dumps(output.plain(entry), default=output.plain, ensure_ascii=False))

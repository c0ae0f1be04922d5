"""kirby state: the computed tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from kirby.core import tasks
from kirby.core.errors import Invalid
from kirby.core.states import Column, column
from kirby.server import documents, moments, states
from kirby.server.cli import compaction, connection, output, restores
from kirby.server.database import driver
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
DIFFERENCES = {
    "key": "KEY",
    "change": "CHANGE",
    "before_version": "VERSION",
    "after_version": "IS",
    "before": "WAS",
    "after": "NOW",
}
BLAMED = {
    "path": "PART",
    "value": "VALUE",
    "version": "SINCE VERSION",
    "recorded_at": "AT",
    "run_id": "RUN",
    "job": "JOB",
    "release": "RELEASE",
    "parents": "FROM",
}
COLUMNS = {"name": "COLUMN", "type": "TYPE", "path": "PATH", "indexed": "INDEX"}
MOMENT = "TIME|POSITION"

prefix_option = click.option("--prefix", default="", help="Only keys that begin with this.")


@click.group()
def state() -> None:
    """Computed tables, every version kept."""


state.add_command(compaction.show)
state.add_command(compaction.compact)
state.add_command(restores.restore)


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
        state = states.get(conn, where, name)
        found = states.history(conn, state, key, limit=limit)
        compaction.tell_history(conn, state, found, len(found) < limit)
    output.listing(found, VERSIONS, as_json=as_json, empty=f"{key} was never set in {name}")


@state.command()
@click.argument("name")
@click.argument("moment", metavar=MOMENT)
@click.argument("key", required=False)
@prefix_option
@connection.limit_option(1000, "How many keys at the most.")
@connection.env_option
@connection.json_option
def at(
    name: str,
    moment: str,
    key: str | None,
    prefix: str,
    limit: int,
    environment: str,
    as_json: bool,
) -> None:
    """Print what a state was: all of it, or KEY.

    At a time (ISO 8601, or a span such as 2h ago) or at a position of the log.
    """
    with connection.unit_in(environment) as (conn, where):
        found = states.get(conn, where, name)
        then = _moment(conn, moment)
        when = then if isinstance(then, datetime) else None
        position = then if isinstance(then, int) else None
        rows = states.at(
            conn, found, when=when, position=position, key=key, prefix=prefix, limit=limit
        )
        keys = None if key is None else [key]
        inexact = compaction.tell_gaps(conn, found, [then], keys=keys, prefix=prefix)
    if as_json:
        output.document([
            documents.plain(row) | {"exact": row.key not in inexact} for row in rows
        ])  # fmt: skip
        return
    if key is not None:
        if not rows:
            raise Invalid(f"{key} had no value in {name} then")
        output.document(rows[0].value)
        return
    output.listing(rows, ROWS, as_json=False, empty=f"{name} was empty")


@state.command()
@click.argument("name")
@click.argument("before", metavar=MOMENT)
@click.argument("after", metavar=f"[{MOMENT}]", required=False)
@prefix_option
@connection.limit_option(1000, "How many keys at the most.")
@connection.env_option
@connection.json_option
def diff(
    name: str,
    before: str,
    after: str | None,
    prefix: str,
    limit: int,
    environment: str,
    as_json: bool,
) -> None:
    """Print what changed in a state between two moments.

    Without the second moment: up to now.
    """
    with connection.unit_in(environment) as (conn, where):
        state = states.get(conn, where, name)
        one, other = _moment(conn, before), _moment(conn, after or "now")
        if one is None:
            raise Invalid("since now nothing can have changed: say since when")
        found = states.diff(conn, state, one, other, prefix=prefix, limit=limit)
        compaction.tell_gaps(conn, state, [one, other], prefix=prefix)
    output.listing(found, DIFFERENCES, as_json=as_json, empty=f"{name} is as it was")


@state.command()
@click.argument("name")
@click.argument("key")
@connection.env_option
@connection.json_option
def blame(name: str, key: str, environment: str, as_json: bool) -> None:
    """Print who made each part of KEY's value what it is.

    With version, run, job, release and messages.
    """
    with connection.unit_in(environment) as (conn, where):
        state = states.get(conn, where, name)
        found = states.blame(conn, state, key)
        compaction.tell_blame(conn, state, found)
    output.listing(found, BLAMED, as_json=as_json, empty=f"{key} has no value in {name}")


@state.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@connection.env_option
def load(name: str, file: str, environment: str) -> None:
    """Set the keys of a FILE (- is standard input), all or none.

    It holds one JSON object of keys and values, or a line {"key": …, "value": …} for each.
    """
    pairs = list(_pairs(_text(file)))
    with connection.unit_in(environment) as (conn, where):
        count = states.load(conn, where, name, pairs, actor=connection.actor())
    click.echo(f"{count} {'key' if count == 1 else 'keys'} of {name} set")


@state.command()
@click.argument("name")
@click.argument("columns", nargs=-1, metavar="[COLUMN:TYPE[=PATH]]...")
@click.option("--index", multiple=True, metavar="COLUMN", help="Make it quick to search for.")
@click.option("--none", is_flag=True, help="Take the columns away.")
@connection.env_option
@connection.json_option
def columns(
    name: str,
    columns: tuple[str, ...],
    index: tuple[str, ...],
    none: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Print or set the columns of a state's SQL views.

    Those given take the place of those it has.

    TYPE is integer, number, text, boolean, time, date or json; PATH leads to a part of the value,
    as in city:text=address.city. What does not fit is NULL.
    """
    if (none and columns) or (index and not columns):
        raise click.UsageError("say either columns, some with --index, or --none")
    wanted = [_column(each, index) for each in columns]
    for each in index:
        if each not in [column.name for column in wanted]:
            raise Invalid(f"there is no column {each} to have an index")
    with connection.unit_in(environment) as (conn, where):
        found = states.get(conn, where, name)
        if wanted or none:
            states.set_columns(conn, found, wanted, actor=connection.actor())
        has = states.columns(conn, found)
    if wanted or none:
        names = ", ".join(each.name for each in has) or "no columns of its own"
        click.echo(f"state_{environment}.{name} has {'columns ' if has else ''}{names}")
        return
    output.listing(has, COLUMNS, as_json=as_json, empty=f"{name} has no columns of its own")


def _column(written: str, index: tuple[str, ...]) -> Column:
    name, colon, kind = written.partition(":")
    if not colon:
        raise Invalid(f"{written} is not COLUMN:TYPE, such as minutes:integer")
    return column(name, kind, name in index)


def _moment(conn: Connection, text: str) -> int | datetime | None:
    """As people write it, by the clock of the database; None is now."""
    return moments.parse(text, tasks.now(driver(conn)))


def _text(file: str) -> str:
    held = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return held.decode()
    except UnicodeDecodeError as error:
        where = "standard input" if file == "-" else file
        raise Invalid(f"{where} is not UTF-8 text (byte {error.start})") from None


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    """The keys and values of a file. Raises Invalid, with the line."""
    whole = _document(text)
    if isinstance(whole, dict) and whole.keys() != {"key", "value"}:
        yield from whole.items()
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            entry = _document(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
                raise Invalid(f'line {number} is not {{"key": "…", "value": …}}: {line:.60}')
            yield entry["key"], entry.get("value")


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None

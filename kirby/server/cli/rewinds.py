"""kirby rewind: move subscriptions back in a topic; kirby rewinds: look after those that run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kirby.core.errors import Invalid
from kirby.server import moments, rewinds
from kirby.server.cli import connection, output
from kirby.server.moments import Moment
from kirby.server.rewinds import Plan, Rewind

LOOK = 0.5  # seconds between two looks at one that is waited for
COLUMNS = {
    "id": "REWIND",
    "topic": "TOPIC",
    "status": "STATUS",
    "done": "DONE",
    "total": "OF",
    "failed": "FAILED",
    "created_at": "MADE",
    "actor": "BY",
    "reason": "REASON",
}
READERS = {
    "name": "SUBSCRIPTION",
    "messages": "AGAIN",
    "fresh": "FIRST TIME",
    "in_hands": "IN HANDS",
    "on_replay": "ON REPLAY",
}
PROGRESS = {
    "name": "SUBSCRIPTION",
    "total": "REPLAYS",
    "done": "DONE",
    "in_hands": "IN HANDS",
    "waiting": "WAITING",
    "failed": "FAILED",
}


@click.command()
@click.argument("topic")
@click.option("--to", required=True, metavar="TIME|POSITION", help="What comes again first.")
@click.option("--until", metavar="TIME|POSITION", help="Before this time, up to this position.")
@click.option("--only", multiple=True, metavar="JOB", help="This subscription alone; repeatable.")
@click.option("--keys", multiple=True, metavar="KEY", help="This key alone; repeatable.")
@click.option("--states", is_flag=True, help="Set back first what was made of these messages.")
@click.option("--exact", is_flag=True, help="From an earlier point, if states need it.")
@click.option("--inexact", is_flag=True, help="From here, though states come out wrong.")
@click.option("--rate", type=float, metavar="N", help="At most so many messages a second.")
@click.option("--reason", default="", help="Why, for the audit log.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would happen, and stop.")
@click.option("--propose", is_flag=True, help="Keep the plan until somebody approves it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Return when it is over.")
@connection.env_option
@connection.json_option
def rewind(
    topic: str,
    to: str,
    until: str | None,
    only: tuple[str, ...],
    keys: tuple[str, ...],
    states: bool,
    exact: bool,
    inexact: bool,
    rate: float | None,
    reason: str,
    only_plan: bool,
    propose: bool,
    yes: bool,
    wait: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Deliver a topic again from a point on.

    TIME is ISO 8601 (UTC if it names no zone), or how long ago: 2h, 3d. What was settled comes
    again marked as replay, live messages follow in order.
    """
    if (exact or inexact) and not states:
        raise click.UsageError("--exact and --inexact are about --states: add it")
    if as_json and not (only_plan or propose or yes):
        raise click.UsageError("--json goes with --plan, --propose or --yes: nobody is asked")
    start, end = _point(to, "--to"), _point(until, "--until") if until is not None else None
    with connection.unit_in(environment) as (conn, where):
        plan = rewinds.plan(
            conn, where, topic, to=start, until=end, only=only, keys=keys, states=states, rate=rate,
            exact=exact, inexact=inexact,
        )  # fmt: skip
    if only_plan and as_json:
        output.document(plan.document)
        return
    if not as_json:
        _show_plan(plan)
    if only_plan:
        return
    if plan.inexact and not plan.accepted:
        raise Invalid(plan.inexact.text)
    if not (yes or propose):
        output.confirm("Rewind?")
    with connection.unit() as conn:
        act = rewinds.propose if propose else rewinds.begin
        found = act(conn, plan, actor=connection.actor(), reason=reason)
    if wait and not propose:
        found = _wait(environment, found.id, quiet=as_json)
    _say(found, as_json=as_json)


def _point(text: str, option: str) -> Moment:
    """A time or a position; raises Invalid."""
    point = moments.parse(text, datetime.now(UTC))
    if point is None:
        raise Invalid(f"{option} names no point in the past: write 2h, 2027-03-28T01:00 or 4711")
    return point


def _show_plan(plan: Plan) -> None:
    output.facts((
        ("topic", plan.topic),
        ("again", f"{plan.messages:,} messages from position {plan.after + 1}"
                  + (f" up to {plan.until}" if plan.until is not None else "")),
        ("keys", plan.keys),
        ("states", "are set back first" if plan.with_states else None),
        ("jobs", plan.jobs),
        ("takes about", timedelta(seconds=round(plan.seconds)) if plan.seconds else None),
    ))  # fmt: skip
    click.echo()
    output.listing(plan.subscriptions, READERS, as_json=False, empty="nobody reads it")
    made = [("topic", each.name, f"{each.messages:,} messages") for each in plan.topics]
    made += [
        ("state", each.name, f"{each.mutations:,} versions of {each.keys:,} keys")
        for each in plan.states
    ]
    made += [("effect", each.name, f"{each.times:,} times") for each in plan.effects]
    if made:
        click.echo("\nmade from these messages:")
        output.table(made, ("", "NAME", "COUNT"))
    for warning in plan.warnings:
        click.echo(f"{click.style('warning', fg='yellow')}: {warning}")


def _say(found: Rewind, *, as_json: bool) -> None:
    if as_json:
        output.document(found)
        return
    done = f", {found.done:,} of {found.total:,} messages done" if found.total else ""
    click.echo(f"rewind {found.id} of {found.topic} is {found.status}{done}")
    for each in found.waits:
        click.echo(f"it waits for {each}")


def _wait(environment: str, id: int, *, quiet: bool) -> Rewind:
    """Look until it is over, with a bar on standard error."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with connection.unit_in(environment) as (conn, where):
        found = rewinds.get(conn, where, id)
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bars:
        bar = bars.add_task(f"rewind {id}", total=None)
        while found.is_open:
            bars.update(bar, total=found.total or None, completed=found.done,
                        description=f"rewind {id}, {found.status}")  # fmt: skip
            time.sleep(LOOK)
            with connection.unit_in(environment) as (conn, where):
                found = rewinds.get(conn, where, id)
    return found


@click.group("rewinds")
def group() -> None:
    """Rewinds that were planned, run, or are over."""


id_argument = click.argument("id", type=connection.POSITION)
reason_option = click.option("--reason", default="", help="Why, for the audit log.")


@group.command("list")
@connection.limit_option(20, "How many at most.")
@connection.env_option
@connection.json_option
def list_(limit: int, environment: str, as_json: bool) -> None:
    """List the rewinds of an environment, the newest first."""
    with connection.unit_in(environment) as (conn, where):
        found = rewinds.listing(conn, where, limit=limit)
    output.listing(found, COLUMNS, as_json=as_json, empty=f"no rewinds in {environment}")


@group.command()
@id_argument
@connection.env_option
@connection.json_option
def show(id: int, environment: str, as_json: bool) -> None:
    """Show one: how far it is, and what it waits for."""
    with connection.unit_in(environment) as (conn, where):
        found = rewinds.get(conn, where, id)
    if as_json:
        output.document(found)
        return
    fields = ("topic", "status", "after", "until", "keys", "only", "rate", "actor", "reason",
              "created_at", "started_at", "ended_at", "total", "done", "failed")  # fmt: skip
    output.facts((each.replace("_", " "), getattr(found, each)) for each in fields)
    click.echo()
    output.listing(found.subscriptions, PROGRESS, as_json=False, empty="no subscriptions")
    for each in found.waits:
        click.echo(f"it waits for {each}")


Act = Callable[..., Rewind]


def _act(verb: Act, id: int, environment: str, *, as_json: bool, **given: str) -> None:
    """Do something to a rewind of this environment, and say how it is then."""
    with connection.unit_in(environment) as (conn, where):
        rewinds.get(conn, where, id)
        found = verb(conn, id, actor=connection.actor(), **given)
    _say(found, as_json=as_json)


@group.command()
@id_argument
@connection.env_option
@connection.json_option
def approve(id: int, environment: str, as_json: bool) -> None:
    """Begin one that was proposed."""
    _act(rewinds.approve, id, environment, as_json=as_json)


@group.command()
@id_argument
@reason_option
@connection.env_option
@connection.json_option
def pause(id: int, reason: str, environment: str, as_json: bool) -> None:
    """Hand out no more replays until it is resumed."""
    _act(rewinds.pause, id, environment, as_json=as_json, reason=reason)


@group.command()
@id_argument
@reason_option
@connection.env_option
@connection.json_option
def resume(id: int, reason: str, environment: str, as_json: bool) -> None:
    """Go on with a paused one."""
    _act(rewinds.resume, id, environment, as_json=as_json, reason=reason)


@group.command()
@id_argument
@reason_option
@connection.env_option
@connection.json_option
def abort(id: int, reason: str, environment: str, as_json: bool) -> None:
    """Give one up: go on where the subscriptions were.

    States that were set back get what they had, and what came since is delivered on top of that.
    """
    _act(rewinds.abort, id, environment, as_json=as_json, reason=reason)


@group.command()
@id_argument
@connection.env_option
@connection.json_option
def wait(id: int, environment: str, as_json: bool) -> None:
    """Return when one is over."""
    _say(_wait(environment, id, quiet=as_json), as_json=as_json)

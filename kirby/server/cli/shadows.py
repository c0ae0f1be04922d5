"""kirby shadow: another version of a job beside, on messages of the past."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kirby.core.errors import Invalid
from kirby.server import moments, shadows
from kirby.server.cli import connection, output
from kirby.server.moments import Moment
from kirby.server.shadows import Comparison, Shadow

COLUMNS = {
    "id": "ID",
    "job": "JOB",
    "version": "VERSION",
    "topics": "TOPICS",
    "run_id": "RUN",
    "run_status": "STATUS",
    "parked": "PARKED",
    "created_at": "BEGUN",
    "stopped_at": "STOPPED",
}
COMPARED = {
    "topic": "TOPIC",
    "equal": "EQUAL",
    "different": "DIFFERENT",
    "missing": "MISSING",
    "extra": "EXTRA",
}


@click.group()
def shadow() -> None:
    """Another version of a job beside, on messages of the past."""


@shadow.command()
@click.argument("job")
@click.option(
    "--release",
    help="A version of the deployment, or a release that one of them has. Without it nothing is"
    " run: run your script with KIRBY_SHADOW.",
)
@click.option("--topic", "topics", multiple=True, help="Only of this topic; may be repeated.")
@click.option("--since", required=True, metavar="TIME|POSITION", help="From here on.")
@click.option("--until", metavar="TIME|POSITION", help="Up to here; else up to now.")
@connection.env_option
@connection.json_option
def start(
    job: str,
    release: str | None,
    topics: tuple[str, ...],
    since: str,
    until: str | None,
    environment: str,
    as_json: bool,
) -> None:
    """Have another version of JOB handle a slice again.

    It works beside the job, on what its topics have.

    What it writes goes to topics and states of its own; effects are left out.
    """
    first = _point(since, "--since")
    last = None if until is None else _point(until, "--until")
    with connection.unit_in(environment) as (conn, where):
        found = shadows.start(
            conn,
            where,
            job,
            release=release,
            topics=topics,
            since=first,
            until=last,
            actor=connection.actor(),
        )
    if as_json:
        output.document(found)
        return
    run = f"run {found.run_id}" if found.run_id else f"run your script with KIRBY_SHADOW={found.id}"
    click.echo(f"shadow {found.id} of {job}: {run}; then kirby shadow show {found.id}")


@shadow.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the shadows of an environment, newest first."""
    with connection.unit_in(environment) as (conn, where):
        found = shadows.listing(conn, where)
    output.listing(found, COLUMNS, as_json=as_json, empty=f"no shadows in {environment}")


@shadow.command()
@click.argument("shadow_id", metavar="ID", type=connection.POSITION)
@click.option("--samples", type=click.IntRange(0, 1000), default=5, show_default=True)
@connection.env_option
@connection.json_option
def show(shadow_id: int, samples: int, environment: str, as_json: bool) -> None:
    """Compare what a shadow wrote with what the job did.

    Message by message.
    """
    with connection.unit_in(environment) as (conn, where):
        found = shadows.get(conn, where, shadow_id)
        compared = shadows.compare(conn, where, found, samples=samples)
    if as_json:
        output.document({"shadow": found, "topics": compared})
        return
    _show(found, compared)


@shadow.command()
@click.argument("shadow_id", metavar="ID", type=connection.POSITION)
@connection.env_option
def stop(shadow_id: int, environment: str) -> None:
    """Cancel the run of a shadow, and let go of its topics.

    What it wrote stays.
    """
    with connection.unit_in(environment) as (conn, where):
        shadows.stop(conn, where, shadow_id, actor=connection.actor())
    click.echo(f"shadow {shadow_id} is stopped")


def _show(found: Shadow, compared: list[Comparison]) -> None:
    output.facts((
        ("shadow", found.id),
        ("job", found.job),
        ("version", found.version),
        ("topics", ", ".join(found.topics)),
        ("messages", f"from position {found.after + 1} up to {found.until}"),
        ("run", found.run_id),
        ("status", "stopped" if found.stopped_at else found.run_status),
        ("parked", found.parked or None),
    ))  # fmt: skip
    click.echo()
    output.listing(compared, COMPARED, as_json=False, empty="it has written nothing yet")
    for each in compared:
        for sample in each.samples:
            click.echo(f"{each.topic}  {shadows.told(sample)}")


def _point(text: str, option: str) -> Moment:
    point = moments.parse(text, datetime.now(UTC))
    if point is None:
        raise Invalid(f"{option} names no point in the past: write 2h, 2027-03-28T01:00 or 4711")
    return point

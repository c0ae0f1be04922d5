"""kirby run: what ran, what it said, and stopping or repeating it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from kirby.core.errors import Conflict
from kirby.server import deployments, environments, runs
from kirby.server.cli import connection, output
from kirby.server.cli.logs import logs

COLUMNS = {
    "id": "RUN",
    "job": "JOB",
    "environment": "ENV",
    "version": "VERSION",
    "status": "STATUS",
    "queued_at": "QUEUED",
    "seconds": "SECONDS",
    "reason": "REASON",
}


@click.group()
def run() -> None:
    """See, follow, cancel and retry runs."""


run.add_command(logs)


@run.command("list")
@click.option("--env", "environment", help="Only this environment.  [default: all]")
@click.option("--job", help="Only this job.")
@click.option("--status", type=click.Choice((*runs.STATUSES, *runs.GROUPS)), help="Only these.")
@connection.limit_option(20, "How many at the most.")
@connection.json_option
def list_(
    environment: str | None, job: str | None, status: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""
    with connection.unit() as conn:
        where = environments.get(conn, environment) if environment else None
        found = runs.listing(conn, where, job=job, status=status, limit=limit)
    output.listing(found, COLUMNS, as_json=as_json, empty="no runs")


@run.command()
@click.argument("run_id", type=int)
@connection.json_option
def show(run_id: int, as_json: bool) -> None:
    """Show one run and its events."""
    with connection.unit() as conn:
        found = runs.get(conn, run_id)
        events = runs.events(conn, run_id)
    if as_json:
        output.document({**output.plain(found), "events": events})
        return
    fields = ("id", "job", "environment", "version", "runs", "status", "reason", "exit_code",
              "signal", "cause", "actor", "replica", "attempt", "labels", "queued_at",
              "started_at", "ended_at", "host", "pid")  # fmt: skip
    output.facts((name.replace("_", " "), getattr(found, name)) for name in fields)
    output.facts(_figures(found))
    click.echo()
    output.table(
        [(event.recorded_at, event.type, event.actor, _told(event)) for event in events],
        ("AT", "EVENT", "BY", ""),
    )


def _figures(found: runs.Run) -> Iterator[tuple[str, str]]:
    """How far it is, or was, and what it used."""
    if found.progress is not None or found.progress_text:
        part = "" if found.progress is None else f"{found.progress:.0%}"
        yield "progress", " ".join(filter(None, [part, found.progress_text]))
    if found.peak_memory is not None:
        memory = f"{found.peak_memory / 2**20:,.0f} MB at its peak"
        yield "memory", memory + (", and there was no more" if found.out_of_memory else "")
    if found.cpu_seconds is not None:
        yield "CPU time", f"{found.cpu_seconds:.2f} s"


# What an event says that is not a field of the run, which stands above.
TOLD = {
    "reason": "{}",
    "exit_code": "exit code {}",
    "signal": "signal {}",
    "pid": "process {}",
}


def _told(event: runs.Event) -> str:
    said = (form.format(event.data[name]) for name, form in TOLD.items() if event.data.get(name))
    return ", ".join(said)


@run.command()
@click.argument("run_id", type=int)
@click.option("--reason", default="", help="Why; kept in the log.")
def cancel(run_id: int, reason: str) -> None:
    """Stop a run: SIGTERM, then SIGKILL when its grace is over."""
    with connection.unit() as conn:
        if (found := runs.get(conn, run_id)).ended_at is not None:
            raise Conflict(f"run {run_id} has ended already: it is {found.status}")
        asked = runs.cancel(
            conn, run_id, actor=connection.actor(), reason=reason or "asked on the command line"
        )
        deployments.wake_supervisors(conn)
    click.echo(f"run {run_id} is being stopped" + ("" if asked else " already"))


@run.command()
@click.argument("run_id", type=int)
@click.option("--original", "current", flag_value=False, default=None, type=bool,
              help="At the version that it had.")  # fmt: skip
@click.option("--current", "current", flag_value=True, type=bool, help="At the deployed version.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="At this version of its job.")
@click.option("--reason", default="", help="Why; kept in the log.")
@connection.json_option
def retry(
    run_id: int, current: bool | None, version: int | None, reason: str, as_json: bool
) -> None:
    """Run an ended run again.

    At the version that its job says: the one it had, unless it was deployed with rerun "current".
    """
    if version is not None and current is not None:
        raise click.UsageError("--version says it all: leave --current and --original out")
    with connection.unit() as conn:
        before = runs.get(conn, run_id)
        actor = connection.actor()
        new = runs.retry(conn, run_id, actor=actor, current=current, version=version, reason=reason)
        found = runs.get(conn, new)
        deployments.wake_supervisors(conn)
    if as_json:
        output.document({"run": new, "version": found.version, "status": found.status})
    elif found.status == "skipped":
        click.echo(f"run {new} is skipped: {found.reason}")
    else:
        at = "" if found.version == before.version else f" at version {found.version}"
        click.echo(f"run {new} is queued{at}: 'kirby run logs {new} -f' follows it")

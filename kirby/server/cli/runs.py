"""kirby run: what ran, what it said, and stopping or repeating it."""

from __future__ import annotations

import click

from kirby.core import db
from kirby.core.errors import Conflict
from kirby.server import deployments, environments, runs
from kirby.server.cli import connection, output

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
PAGE = 1000


@click.group()
def run() -> None:
    """See, follow, cancel and retry runs."""


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
    fields = ("id", "job", "environment", "version", "status", "reason", "exit_code", "signal",
              "cause", "actor", "replica", "attempt", "queued_at", "started_at", "ended_at",
              "host", "pid")  # fmt: skip
    output.facts((name.replace("_", " "), getattr(found, name)) for name in fields)
    click.echo()
    output.table(
        [(event.recorded_at, event.type, event.actor, _told(event)) for event in events],
        ("AT", "EVENT", "BY", ""),
    )


# What an event says that is not a field of the run, which stands above.
TOLD = {"reason": "{}", "exit_code": "exit code {}", "signal": "signal {}", "pid": "process {}"}


def _told(event: runs.Event) -> str:
    said = (form.format(event.data[name]) for name, form in TOLD.items() if event.data.get(name))
    return ", ".join(said)


@run.command()
@click.argument("run_id", type=int)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@connection.json_option
def logs(run_id: int, follow: bool, as_json: bool) -> None:
    """Print what a run wrote."""
    found: list[runs.Line] = []
    with db.connect(connection.checked(), application="kirby cli") as listener:
        db.hear(listener, "kirby_log", "kirby_job")
        after, over = 0, False
        while True:
            with connection.unit() as conn:
                ended = runs.get(conn, run_id).ended_at is not None
                page = runs.lines(conn, run_id, after=after, limit=PAGE)
            if as_json:
                found += page
            else:
                _print(page)
            after = page[-1].position if page else after
            if len(page) == PAGE:
                continue
            if over or not follow:
                break
            over = ended  # once more: what came between the two looks
            if not over:
                db.wait(listener, 1)
    if as_json:
        output.document(found)


def _print(lines: list[runs.Line]) -> None:
    for line in lines:
        mark = {"stderr": "! ", "kirby": "* "}.get(line.stream, "  ")
        click.echo(f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] + f" {mark}{line.text}")


@run.command()
@click.argument("run_id", type=int)
@click.option("--reason", default="", help="Why; kept in the log.")
def cancel(run_id: int, reason: str) -> None:
    """Stop a run: SIGTERM, then SIGKILL after ten seconds."""
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
@click.option("--current", is_flag=True, help="At the deployed version, not the run's own.")
@connection.json_option
def retry(run_id: int, current: bool, as_json: bool) -> None:
    """Run an ended run again, at the version it had."""
    with connection.unit() as conn:
        new = runs.retry(conn, run_id, actor=connection.actor(), current=current)
        deployments.wake_supervisors(conn)
    if as_json:
        output.document({"run": new})
    else:
        click.echo(f"run {new} is queued: 'kirby run logs {new} -f' follows it")

"""kirby supervisor: be one, see them all, and drain one before its host goes."""

from __future__ import annotations

import click

from kirby.server import supervisors
from kirby.server.cli import connection, output, parts
from kirby.server.settings import labels_of

COLUMNS = {
    "host": "HOST",
    "status": "STATUS",
    "live": "RUNS",
    "replicas": "REPLICAS",
    "slots": "SLOTS",
    "labels": "LABELS",
    "version": "KIRBY",
    "pid": "PROCESS",
    "registered_at": "SINCE",
    "id": "ID",
}


@click.group(invoke_without_command=True)
@click.option("--slots", type=parts.SLOTS, help="How many runs at a time.  [default: 20]")
@click.option("--labels", help="What is special about this host, like gpu,eu.  [default: nothing]")
@parts.parent_option
@click.pass_context
def supervisor(
    context: click.Context, slots: int | None, labels: str | None, parent: int | None
) -> None:
    """Start and watch runs on this host.

    With a command: see the supervisors of all hosts, and drain one.
    """
    if context.invoked_subcommand is not None:
        return
    parts.tie(parent)
    from kirby.server.supervisor.serve import supervise

    given = None if labels is None else labels_of(labels)
    supervise(
        parts.settings(supervisor=True, slots=slots, labels=given),
        ready=lambda: click.echo("the supervisor is at work"),
    )


@supervisor.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List those alive, or ended within a day."""
    with connection.unit() as conn:
        found = supervisors.listing(conn)
    if as_json:
        output.document([{**output.plain(each), "status": each.status} for each in found])
    else:
        output.listing(found, COLUMNS, as_json=False, empty="no supervisor: 'kirby supervisor'")


reason_option = click.option("--reason", default="", help="Why; kept in the log.")


@supervisor.command()
@click.argument("which", metavar="HOST|ID")
@click.option("--stop", is_flag=True, help="And let it end when it has no run left.")
@reason_option
def drain(which: str, stop: bool, reason: str) -> None:
    """Give a supervisor no more runs.

    Daemons' replicas move to other hosts one by one, other runs end by themselves.
    """
    with connection.unit() as conn:
        found = supervisors.find(conn, which)
        changed = supervisors.drain(conn, found, actor=connection.actor(), stop=stop, reason=reason)
    runs = f"{found.live} under way, {found.replicas} of them daemons' replicas"
    click.echo(f"{found.host} is being drained{'' if changed else ' already'}: {runs}")


@supervisor.command()
@click.argument("which", metavar="HOST|ID")
@reason_option
def resume(which: str, reason: str) -> None:
    """Give a drained one runs again."""
    with connection.unit() as conn:
        found = supervisors.find(conn, which)
        changed = supervisors.resume(conn, found, actor=connection.actor(), reason=reason)
    click.echo(f"{found.host} takes runs again" if changed else f"{found.host} takes runs already")

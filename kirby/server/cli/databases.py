"""kirby db: the schema of the database, whether all is well in it, and what its logs keep."""

from __future__ import annotations

import sys

import click

from kirby.core import db as connections
from kirby.server import check as checks
from kirby.server import query, schema, spans
from kirby.server import retention as policies
from kirby.server import verify as projections
from kirby.server.cli import connection, output

LOGS = {"log": "LOG", "kept": "KEPT", "oldest_at": "OLDEST"}


@click.group()
def db() -> None:
    """The database: its schema, its state, its logs."""


@db.command()
def migrate() -> None:
    """Bring the database to the newest schema, all or nothing. Needs an administrator's DSN."""
    address = connection.address()
    before = schema.current(address)
    schema.migrate(address)
    change = "was there already" if before == schema.head() else f"was {before or 'empty'} before"
    click.echo(f"{connections.place(address)} is at schema {schema.head()} ({change})")


@db.command()
@connection.json_option
def check(as_json: bool) -> None:
    """Say what is wrong, or near it, and what to do.

    Exits 1 if something is wrong.
    """
    place = connections.place(connection.address())
    with connection.unit() as conn:
        report = checks.report(conn)
    if as_json:
        output.document({
            "well": report.well,
            "schema": schema.head(),
            "findings": report.findings,
            "facts": report.facts,
        })  # fmt: skip
    else:
        wrong = sum(finding.level == "wrong" for finding in report.findings)
        things = "1 thing is" if wrong == 1 else f"{wrong} things are"
        verdict = (
            f"is well: schema {schema.head()}" if report.well else f"is not well: {things} wrong"
        )
        click.echo(f"{place} {verdict}")
        for finding in report.findings:
            click.echo(str(finding))
    if not report.well:
        sys.exit(1)


@db.command()
@connection.limit_option(10, "How many differing rows of each projection to name.")
@connection.json_option
def verify(limit: int, as_json: bool) -> None:
    """Rebuild every projection and compare it.

    Names each row that differs from the real one; exits 1 if there is one. Reads everything.
    """
    verdicts = []
    with connection.unit() as conn:
        for verdict in projections.verdicts(conn, limit=limit):
            verdicts.append(verdict)
            if not as_json:
                _show(verdict)
    different = sum(verdict.different for verdict in verdicts)
    if as_json:
        output.document({"well": different == 0, "projections": verdicts})
    elif not different:
        click.echo(f"all {len(verdicts)} projections are what the log says")
    if different:
        sys.exit(1)


def _show(verdict: projections.Verdict) -> None:
    for row in verdict.rows:
        click.echo(str(row))
    if verdict.different > len(verdict.rows):
        more = verdict.different - len(verdict.rows)
        click.echo(f"{verdict.table}: {more:,} more {'differs' if more == 1 else 'differ'}")


@db.command()
@click.argument("log", required=False)
@click.option("--keep", metavar="SPAN", help="12h, 30d, 2w … or forever.")
@connection.json_option
def retention(log: str | None, keep: str | None, as_json: bool) -> None:
    """Show how long the logs are kept, or set it for one.

    Messages are kept by topic: kirby topic retention.
    """
    if (log is None) and keep is not None:
        raise click.UsageError("name the log that is to be kept so long")
    span = spans.parse(keep) if keep is not None else None
    with connection.unit() as conn:
        if log is not None and keep is not None:
            policies.set_log(conn, log, span, actor=connection.actor())
        found = policies.logs(conn)
    if log is None:
        output.listing(found, LOGS, as_json=as_json, empty="")
        return
    for each in found:
        if each.log == log:
            if as_json:
                output.document(each)
            else:
                output.facts(
                    (heading.lower(), getattr(each, name)) for name, heading in LOGS.items()
                )
            return
    raise query.missing("log", log, [each.log for each in found])

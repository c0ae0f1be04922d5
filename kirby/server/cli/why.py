"""kirby why: what is written down about why something is as it is."""

from __future__ import annotations

from itertools import groupby

import click

from kirby.server import schedules, why
from kirby.server.cli import connection, output
from kirby.server.why import Answer


@click.group("why")
def group() -> None:
    """Why a job ran, does not run, or will run next."""


@group.command()
@click.argument("name")
@connection.env_option
@click.option("--at", metavar="TIME", help="As of then: ISO 8601, in UTC if it names none.")
@connection.json_option
def job(name: str, environment: str, at: str | None, as_json: bool) -> None:
    """Tell why a job ran or did not, and when it runs next.

    Its schedule, calendars, exceptions, the runs before it, what a queued run waits for, open
    incidents: from what is written down.
    """
    moment = schedules.moment(at, "UTC") if at else None
    with connection.unit_in(environment) as (conn, where):
        found = why.job(conn, where, name, moment)
    if as_json:
        output.document(found)
        return
    click.echo(f"{found.job} in {found.environment}: {found.says}")
    for about, answers in groupby(found.answers, lambda answer: answer.about):
        _show(about, list(answers))


def _show(about: str, answers: list[Answer]) -> None:
    for number, answer in enumerate(answers):
        heading = about if number == 0 else ""
        click.echo(f"{click.style(f'{heading:<5}', bold=True)} {answer.text}")

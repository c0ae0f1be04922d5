"""kirby run logs: what a run wrote, or is writing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import click
from sqlalchemy import Engine

from kirby.core import db
from kirby.core.errors import Unavailable
from kirby.server import database, run_logs, runs
from kirby.server.cli import connection
from kirby.server.run_logs import Choice, Line

MARKS = {"stderr": "! ", "kirby": "* "}
PATIENCE = 1.0  # seconds between two looks, if nothing is heard


@click.command()
@click.argument("run_id", type=int)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option(
    "--after", "position", type=connection.POSITION, help="Only what follows this position."
)
@click.option("-n", "last", type=click.IntRange(1, 100_000), help="Begin with so many last lines.")
@click.option("--stream", type=click.Choice(run_logs.STREAMS), help="Only this stream.")
@click.option("--level", type=click.Choice(run_logs.LEVELS), help="Only this level and above.")
@click.option("--grep", "text", help="Only lines with this text, in capitals or not.")
@click.option("--positions", is_flag=True, help="Print the position of each line, for --after.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object a line, at once.")
@connection.json_option
def logs(
    run_id: int,
    follow: bool,
    position: int | None,
    last: int | None,
    stream: str | None,
    level: str | None,
    text: str | None,
    positions: bool,
    jsonl: bool,
    as_json: bool,
) -> None:
    """Print what a run wrote.

    With -f it goes on until the run has ended, also when the database is away for a while; if it
    is interrupted it says how to go on.
    """
    if last and position is not None:
        raise click.UsageError("--after and -n exclude each other")
    if jsonl and as_json:
        raise click.UsageError("--json and --jsonl exclude each other")
    reader = Reader(run_id, Choice.of(stream or "", level or "", text or ""), follow, position or 0)
    pages = reader.pages(last)
    try:
        if as_json:
            _print_document(pages)
        else:
            _print(pages, run_logs.as_json_lines if jsonl else lambda page: _text(page, positions))
    except KeyboardInterrupt:
        hint = f"kirby run logs {run_id}{' -f' * follow} --after {reader.position}"
        click.echo(f"stopped; to go on: {hint}", err=True)
        sys.exit(130)


@dataclass
class Reader:
    """Reads a log page by page; ``position`` is how far it is."""

    run_id: int
    choice: Choice
    follow: bool
    position: int

    def pages(self, last: int | None) -> Iterator[list[Line]]:
        """Pages with at least one line each, oldest first."""
        dsn = connection.checked()
        engine = database.engine(dsn, application="kirby cli", size=1)
        try:
            first = self._last(engine, last) if last else []
            if first:
                yield first
            yield from self._follow(dsn, engine) if self.follow else self._rest(engine)
        finally:
            engine.dispose()

    def _last(self, engine: Engine, count: int) -> list[Line]:
        with database.unit(engine) as conn:
            runs.get(conn, self.run_id)
            upto = run_logs.last(conn, self.run_id)
            found = run_logs.tail(
                conn, self.run_id, before=upto + 1, limit=count, choice=self.choice
            )
        self.position = upto
        return found

    def _rest(self, engine: Engine) -> Iterator[list[Line]]:
        """All that is there now."""
        with database.unit(engine) as conn:
            runs.get(conn, self.run_id)
            upto = run_logs.last(conn, self.run_id)
        while self.position < upto:
            with database.unit(engine) as conn:
                page = run_logs.after(
                    conn, self.run_id, self.position, upto=upto, choice=self.choice
                )
            self.position = page[-1].position if page else upto
            if page:
                yield page

    def _follow(self, dsn: str, engine: Engine) -> Iterator[list[Line]]:
        """All that comes until the run has ended, whatever becomes of the connection."""
        complained = False
        while True:
            try:
                with db.connect(dsn, application="kirby cli") as listener:
                    db.hear(listener, "kirby_log", "kirby_job")
                    while True:
                        with database.unit(engine) as conn:
                            ended = runs.get(conn, self.run_id).ended_at is not None
                        yield from self._rest(engine)
                        complained = False
                        if ended:  # all lines are in the log before the end is
                            return
                        with db.kirby_errors():
                            db.wait(listener, PATIENCE)
            except Unavailable as error:
                if not complained:
                    click.echo(f"waiting for the database: {error}", err=True)
                complained = True
                time.sleep(PATIENCE)


def _print(pages: Iterator[list[Line]], form: Callable[[list[Line]], str]) -> None:
    for page in pages:
        click.echo(form(page), nl=False)


def _text(page: list[Line], positions: bool) -> str:
    return "".join(
        (f"{line.position:>12} " if positions else "")
        + f"{line.at.astimezone():%H:%M:%S.%f}"[:-3]
        + f" {MARKS.get(line.stream, '  ')}{line.text}\n"
        for line in page
    )


def _print_document(pages: Iterator[list[Line]]) -> None:
    """One JSON array, printed as it grows: a log may be larger than memory."""
    click.echo("[", nl=False)
    for number, line in enumerate(chain.from_iterable(pages)):
        text = json.dumps(
            {"run_id": line.run_id, **run_logs.document(line)}, ensure_ascii=False, indent=2
        )
        click.echo(("," if number else "") + "\n" + text, nl=False)
    click.echo("\n]")

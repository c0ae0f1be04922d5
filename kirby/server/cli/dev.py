"""kirby dev: everything on this machine, in one command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kirby.server.cli.parts import PORT, SLOTS, with_options
from kirby.server.settings import Settings


@click.command()
@click.option("--port", type=PORT, help="The port of the pages; 0: a free one.  [default: 8700]")
@click.option("--host", help="The address of the pages.  [default: 127.0.0.1]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The folder; as KIRBY_DATA other commands find it too.  [default: .kirby]",
)
@click.option("--slots", type=SLOTS, help="How many runs at a time.  [default: 20]")
def dev(port: int | None, host: str | None, data: Path | None, slots: int | None) -> None:
    """Run everything on this machine, in one command.

    An embedded PostgreSQL, or the one that KIRBY_DSN names (as an administrator), the pages and a
    supervisor. Ctrl-C stops them all; the next start goes on where this one was.
    """
    from kirby.server.dev import run

    settings = with_options(
        Settings.from_env(os.environ), port=port, host=host, data=data, slots=slots
    )
    run(settings, say=click.echo)

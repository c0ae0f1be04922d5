"""kirby dev: everything on this machine, in one command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kirby.server.cli.parts import with_options
from kirby.server.settings import Settings


@click.command()
@click.option("--port", type=int, help="The port of the pages.  [default: 8700]")
@click.option("--host", help="The address of the pages.  [default: 127.0.0.1]")
@click.option("--data", type=click.Path(path_type=Path), help="The folder.  [default: .kirby]")
@click.option("--slots", type=int, help="How many runs at a time.  [default: 20]")
def dev(port: int | None, host: str | None, data: Path | None, slots: int | None) -> None:
    """Run everything here: an embedded PostgreSQL, the pages, a supervisor. Ctrl-C stops it all.

    With KIRBY_DSN (an administrator's) that database is used instead of the embedded one.
    """
    from kirby.server.dev import run

    settings = with_options(
        Settings.from_env(os.environ), port=port, host=host, data=data, slots=slots
    )
    run(settings, say=click.echo)

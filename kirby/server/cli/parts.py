"""kirby web, and what the parts of a server share: one process each."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import click

from kirby.server import pg_child
from kirby.server.cli import connection
from kirby.server.settings import Settings

PORT = click.IntRange(0, 65535)
SLOTS = click.IntRange(1, 10_000)


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings, with those options that were given."""
    return replace(
        settings, **{name: value for name, value in options.items() if value is not None}
    )


def settings(*, supervisor: bool = False, **options: Any) -> Settings:
    """The settings of this process: options over variables, with a database that is there."""
    dsn = connection.checked(supervisor=supervisor)
    return with_options(Settings.from_env(os.environ), dsn=dsn, **options)


def tie(parent: int | None) -> None:
    """End with the process that started this one, when it names itself (`kirby dev`)."""
    if parent is not None:
        pg_child.tie_to(parent, signal.SIGTERM)


parent_option = click.option("--parent", type=int, hidden=True)


@click.command()
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=PORT, help="The port; 0 takes a free one.  [default: 8700]")
@parent_option
def web(host: str | None, port: int | None, parent: int | None) -> None:
    """Serve the pages."""
    tie(parent)
    from kirby.server.web.serve import serve

    serve(settings(host=host, port=port), ready=lambda url: click.echo(f"the pages are at {url}"))

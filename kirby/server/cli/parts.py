"""kirby web, kirby supervisor: the parts of a server, one process each."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import click

from kirby.core import dsn
from kirby.server import pg_child, schema
from kirby.server.settings import Settings


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings, with those options that were given."""
    return replace(
        settings, **{name: value for name, value in options.items() if value is not None}
    )


def settings(**options: Any) -> Settings:
    """The settings of this process: options over variables, with a database that is there."""
    given = Settings.from_env(os.environ)
    made = with_options(given, dsn=given.dsn or dsn.find(os.environ), **options)
    schema.check(str(made.dsn))
    return made


def tie(parent: int | None) -> None:
    """End with the process that started this one, when it names itself (`kirby dev`)."""
    if parent is not None:
        pg_child.tie_to(parent, signal.SIGTERM)


parent_option = click.option("--parent", type=int, hidden=True)


@click.command()
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port.  [default: 8700]")
@parent_option
def web(host: str | None, port: int | None, parent: int | None) -> None:
    """Serve the pages."""
    tie(parent)
    from kirby.server.web.serve import serve

    serve(settings(host=host, port=port), ready=lambda url: click.echo(f"the pages are at {url}"))


@click.command()
@click.option("--slots", type=int, help="How many runs at a time.  [default: 20]")
@parent_option
def supervisor(slots: int | None, parent: int | None) -> None:
    """Start and watch runs on this host."""
    tie(parent)
    from kirby.server.supervisor import supervise

    supervise(settings(slots=slots), ready=lambda: click.echo("the supervisor is at work"))

"""What commands share: the database, the environment, and who is asking."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy import Connection

from kirby.core import dsn
from kirby.server import database, environments, schema
from kirby.server.environments import Environment

env_option = click.option(
    "--env",
    "environment",
    envvar="KIRBY_ENVIRONMENT",
    default="dev",
    show_default=True,
    help="The environment.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@contextmanager
def unit() -> Iterator[Connection]:
    """A unit of work on the database that KIRBY_DSN, or the `kirby dev` around here, names."""
    address = dsn.find(os.environ)
    schema.check(address)
    engine = database.engine(address, application="kirby cli", size=1)
    try:
        with database.unit(engine) as conn:
            yield conn
    finally:
        engine.dispose()


@contextmanager
def unit_in(name: str) -> Iterator[tuple[Connection, Environment]]:
    """A unit of work, and the environment of that name, which the protocol functions use too."""
    with unit() as conn:
        environment = environments.get(conn, name)
        driver = database.driver(conn)
        driver.execute("select set_config('kirby.environment', %s, false)", [name])
        yield conn, environment


def actor() -> str:
    """Who is asking, for the audit log: the login name on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:uid {os.getuid()}"


Command = Callable[..., Any]

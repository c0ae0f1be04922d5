"""What commands share: the database, the environment, and who is asking."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from kirby.core import dsn
from kirby.core.errors import Invalid, Unavailable
from kirby.core.folder import is_folder
from kirby.core.payload import MAX_BYTES
from kirby.server import database, environments, schema
from kirby.server.environments import Environment
from kirby.server.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

env_option = click.option(
    "--env",
    "environment",
    default=lambda: Settings.from_env(os.environ).environment,
    show_default="KIRBY_ENVIRONMENT, else dev",
    help="The environment.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


POSITION = click.IntRange(0, 2**63 - 1)


def limit_option(default: int, help: str) -> Callable[[Command], Command]:
    """``-n``, how many: at least one."""
    count = click.IntRange(1, 2**31 - 1)
    return click.option("-n", "limit", type=count, default=default, show_default=True, help=help)


def address() -> str:
    """The DSN: KIRBY_DSN, that of the folder KIRBY_DATA, or of the `kirby dev` around here.

    Raises Invalid if there is none.
    """
    settings = Settings.from_env(os.environ)
    if settings.dsn is not None:
        if is_folder(settings.dsn):
            raise Invalid(
                f"KIRBY_DSN is {settings.dsn}, and this needs a database: a folder is for scripts"
                " (python script.py) and for kirby test"
            )
        return settings.dsn
    if "KIRBY_DATA" in os.environ:
        return _of_folder(settings)
    return dsn.find(os.environ)


def _of_folder(settings: Settings) -> str:
    try:
        return (settings.data / dsn.FILE).read_text().strip()
    except OSError as error:
        raise Invalid(
            f"no 'kirby dev' was started on KIRBY_DATA={settings.data} yet: {error.strerror}"
        ) from None


@contextmanager
def unit() -> Iterator[Connection]:
    """A unit of work on the database of ``address``. Raises Unavailable or WrongSchema."""
    where = checked()
    engine = database.engine(where, application="kirby cli", size=1)
    try:
        with database.unit(engine) as conn:
            yield conn
    finally:
        engine.dispose()


def checked(*, supervisor: bool = False) -> str:
    """The DSN of a database that answers and has our schema, or one that serves a ``supervisor``.

    Raises Unavailable, WrongSchema.
    """
    where = address()
    try:
        schema.check(where, supervisor=supervisor)
    except Unavailable as error:
        if Settings.from_env(os.environ).dsn is not None:
            raise
        raise Unavailable(f"{error} (is 'kirby dev' running?)") from None
    return where


@contextmanager
def unit_in(name: str) -> Iterator[tuple[Connection, Environment]]:
    """A unit of work, and the environment of that name, which the protocol functions use too."""
    with unit() as conn:
        environment = environments.get(conn, name)
        driver = database.driver(conn)
        driver.execute("select set_config('kirby.environment', %s, true)", [name])
        yield conn, environment


def actor() -> str:
    """Who is asking, for the audit log: the login name on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:uid {os.getuid()}"


def standard_input() -> str:
    """Standard input as text, no more of it than a message may have. Raises Invalid."""
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1).decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.end > MAX_BYTES:
            return " " * (MAX_BYTES + 1)  # cut within a character: too large all the same
        raise Invalid(f"standard input is not UTF-8 text (byte {error.start})") from None

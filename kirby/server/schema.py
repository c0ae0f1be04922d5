"""Bring a database to the newest schema, and tell whether it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.exc import DBAPIError

from kirby.core import db
from kirby.core.errors import Denied, KirbyError, WrongSchema
from kirby.server import database
from kirby.server.paths import MIGRATIONS

if TYPE_CHECKING:
    from alembic.config import Config


PROTOCOL = 2  # of the functions that supervisors call: kirby.server_protocol()


def config() -> Config:
    """Alembic's configuration, made here so that the command works from an installed wheel."""
    from alembic.config import Config  # it is slow to import, and few processes migrate

    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def revisions() -> list[str]:
    """Every revision that this Kirby knows, oldest first: the files are numbered alike."""
    return sorted(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/*_*.py"))


def head() -> str:
    """The revision that this Kirby needs."""
    return revisions()[-1]


def migrate(dsn: str) -> None:
    """Bring the database to the newest schema: everything, or nothing at all.

    Migrators wait for each other. Raises Unavailable, WrongSchema (the database is newer), Denied
    (not an administrator's DSN), or KirbyError when a lock is not had within seconds.
    """
    if (revision := current(dsn)) is not None:
        _refuse_newer(revision)
    from alembic import command

    settings = config()
    engine = database.engine(dsn, application="kirby migrate", size=1)
    try:
        with engine.begin() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except (psycopg.Error, DBAPIError) as error:
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise Denied(
                f"this DSN may not migrate {db.place(dsn)}, give an administrator's:"
                f" {db.one_line(cause)}"
            ) from error
        raise KirbyError(f"the migration was rolled back: {db.one_line(cause)}") from error
    finally:
        engine.dispose()


def current(dsn: str) -> str | None:
    """The revision of the database; None if it has no Kirby schema."""
    with db.connect(dsn) as connection:
        known = connection.execute("select to_regclass('kirby.alembic_version')").fetchone()
        if known is None or known[0] is None:
            return None
        row = connection.execute("select version_num from kirby.alembic_version").fetchone()
        return str(row[0]) if row else None


def check(dsn: str, *, supervisor: bool = False) -> None:
    """Raise WrongSchema unless the database has exactly the schema that this Kirby needs.

    A ``supervisor`` may be one version behind: hosts are upgraded one after the other.
    """
    revision = current(dsn)
    if supervisor and revision not in (None, *revisions()) and _is_served(dsn):
        return
    if revision is None:
        raise WrongSchema(
            f"the database at {db.place(dsn)} has no Kirby schema: run 'kirby db migrate'"
        )
    _refuse_newer(revision)
    if revision != head():
        raise WrongSchema(
            f"the database at {db.place(dsn)} has schema {revision}, this Kirby needs {head()}:"
            " run 'kirby db migrate'"
        )


def _is_served(dsn: str) -> bool:
    """Whether the functions of a newer schema still serve supervisors of this version."""
    with db.connect(dsn) as connection:
        try:
            known = int(db.scalar(connection, "select kirby.server_protocol()"))
        except psycopg.Error:
            return False
    return known in (PROTOCOL, PROTOCOL + 1)


def _refuse_newer(revision: str) -> None:
    if revision not in revisions():
        raise WrongSchema(
            f"the database has schema {revision}, newer than this Kirby ({head()}): upgrade Kirby"
        )

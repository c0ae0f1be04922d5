"""Give Kirby's database roles a login, so that each part connects with no more than its rights."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from kirby.core import db
from kirby.core.errors import Busy, Denied, Invalid, Unavailable

WITH_PASSWORD = ("kirby_server", "kirby_worker")

IN_USE = "select exists (select from pg_stat_activity where usename = %s)"


def passwords(path: Path) -> dict[str, str]:
    """The roles' passwords, kept in a private file; made at the first call."""
    try:
        known = json.loads(path.read_text())
        return {role: str(known[role]) for role in WITH_PASSWORD}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError):
        raise Invalid(f"{path} cannot be read: remove it to have new passwords") from None
    made = {role: secrets.token_urlsafe(24) for role in WITH_PASSWORD}
    write_private(path, json.dumps(made))
    return made


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.rename(path)


def open_logins(admin_dsn: str, known: dict[str, str]) -> dict[str, str]:
    """A DSN for each role, after making sure that it works. Needs an administrator once.

    Raises Denied if a role cannot log in and the administrator may not change that, Busy if
    somebody else works as that role with another password.
    """
    opened = {
        role: make_conninfo(admin_dsn, user=role, password=word) for role, word in known.items()
    }
    for role, dsn in opened.items():
        if not _works(dsn):
            _alter(admin_dsn, role, known[role])
    return opened


def open_auditor(admin_dsn: str) -> None:
    """Let the auditor log in where the server asks for no password: the private socket."""
    with db.connect(admin_dsn) as conn:
        conn.execute("alter role kirby_auditor login")


def _works(dsn: str) -> bool:
    try:
        db.connect(dsn).close()
    except Unavailable:
        return False
    return True


def _alter(admin_dsn: str, role: str, password: str) -> None:
    """Set the password; the server gets its SCRAM verifier only, so that no log holds it."""
    try:
        with db.connect(admin_dsn) as conn:
            if db.scalar(conn, IN_USE, [role]):
                raise Busy(
                    f"somebody works as {role} on this server with another password, another"
                    " 'kirby dev' perhaps: stop it, or put its password into roles.json"
                )
            made = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            statement = sql.SQL("alter role {} login password {}")
            conn.execute(statement.format(sql.Identifier(role), sql.Literal(made.decode())))
    except errors.InsufficientPrivilege:
        raise Denied(
            f"{role} cannot log in, and this DSN may not change that: give {role} a login and put"
            " its password into roles.json, or use an administrator's DSN"
        ) from None

"""The first words between a worker and the database: who I am, and which functions we both know."""

from __future__ import annotations

from dataclasses import dataclass

from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import WrongSchema

PROTOCOL = 1
SETTINGS = """
    select set_config('kirby.token', %s, false), set_config('kirby.environment', %s, false)
"""
HELLO = "select protocol, environment, run_id from kirby.hello()"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the database says of whoever connected."""

    environment: str
    run_id: int | None


def greet(conn: Connection, *, token: str | None, environment: str | None) -> Greeting:
    """Present the token and the environment for the life of this connection.

    Raises Denied, NotFound (no such environment) or WrongSchema.
    """
    with kirby_errors():
        conn.execute(SETTINGS, [token or "", environment or ""])
        [(known, name, run_id)] = conn.execute(HELLO).fetchall()
    if known != PROTOCOL:
        raise WrongSchema(
            f"the database speaks protocol {known}, this Kirby speaks {PROTOCOL}:"
            " install the SDK of that server"
        )
    return Greeting(name, run_id)

"""The first words between a worker and the database: who I am, and which functions we both know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kirby.core import db
from kirby.core.backends import answered
from kirby.core.db import Connection, kirby_errors
from kirby.core.errors import WrongSchema

PROTOCOL = 1
HELLO = "select protocol, environment, run_id from kirby.hello()"
RESUME = "select kirby.resume(%s)"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the database says of whoever connected."""

    environment: str
    run_id: int | None


@answered
def greet(
    conn: Connection, *, token: str | None, environment: str | None, holder: str = ""
) -> Greeting:
    """Present the token and the environment for the life of this connection.

    ``holder`` names the session that goes on over lost connections: its claims are its own.
    Raises Denied, NotFound (no such environment) or WrongSchema.
    """
    settings = {
        "kirby.token": token or "",
        "kirby.environment": environment or "",
        "kirby.holder": holder,
    }
    with kirby_errors():
        db.configure(conn, settings)
        [(known, name, run_id)] = conn.execute(HELLO).fetchall()
    if known != PROTOCOL:
        raise WrongSchema(
            f"the database speaks protocol {known}, this Kirby speaks {PROTOCOL}:"
            " install the SDK of that server"
        )
    return Greeting(name, run_id)


@answered
def resume(conn: Connection, claims: Sequence[int]) -> None:
    """Go on after a lost connection with these claims.

    What else the holder has was never received, and is given back to be handed out again.
    """
    with kirby_errors():
        conn.execute(RESUME, [list(claims)])

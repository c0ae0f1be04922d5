"""Environments: the namespaces that topics, states and deployments belong to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from kirby.server import query

LISTING = "select id, name, created_at from kirby.environment order by id"


@dataclass(frozen=True, slots=True)
class Environment:
    id: int
    name: str
    created_at: datetime


def listing(conn: Connection) -> list[Environment]:
    """Every environment, oldest first."""
    return query.rows(conn, Environment, LISTING)


def get(conn: Connection, name: str) -> Environment:
    """The environment of that name; raises NotFound with the closest name there is."""
    return pick(listing(conn), name)


def pick(known: list[Environment], name: str) -> Environment:
    """The one of that name among those already read; raises NotFound."""
    for environment in known:
        if environment.name == name:
            return environment
    raise query.missing("environment", name, [environment.name for environment in known])


def add(conn: Connection, name: str, *, actor: str) -> int:
    """Add an environment and return its id; audited. Raises Invalid or Taken."""
    added = query.value(
        conn, "select kirby.add_environment(%(name)s, %(actor)s)", name=name, actor=actor
    )
    return int(added)

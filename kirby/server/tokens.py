"""Tokens of programs: for the API, the package index, and as kirby.token of an application.

Only the hash of a token is kept; the token itself is seen once, by whoever asked for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kirby.core.errors import Denied, Invalid, Taken
from kirby.server import accounts, documents, environments, query

PREFIX = "kirby_"  # so that it is recognised where it does not belong
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

RETIRE = """
    update kirby.token set revoked_at = expires_at
     where name = %(name)s and role is not null and revoked_at is null
       and expires_at <= kirby.now()
"""
ADD = """
    insert into kirby.token (hash, environment_id, name, role, created_by, expires_at)
    values (%(hash)s, %(environment_id)s, %(name)s, %(role)s, %(actor)s,
            kirby.now() + %(expires)s::interval)
        on conflict (name) where role is not null and revoked_at is null do nothing
    returning id, expires_at
"""
LISTING = """
    select t.id, t.name, t.role, e.name as environment, t.created_by, t.created_at,
           t.expires_at, coalesce(t.expires_at <= kirby.now(), false) as expired, t.last_used_at
      from kirby.token t
      left join kirby.environment e on e.id = t.environment_id
     where t.role is not null and t.revoked_at is null
     order by t.name collate "C"
"""
REVOKE = """
    update kirby.token set revoked_at = kirby.now()
     where name = %(name)s and role is not null and revoked_at is null
    returning id
"""
FIND = """
    select t.id, t.name, t.role, e.name as environment, t.revoked_at,
           coalesce(t.expires_at <= kirby.now(), false) as expired,
           coalesce(t.last_used_at < kirby.now() - interval '1 minute', true) as unnoted
      from kirby.token t
      left join kirby.environment e on e.id = t.environment_id
     where t.hash = %(hash)s and t.role is not null
"""
NOTE = "update kirby.token set last_used_at = kirby.now() where id = %(id)s"
AUDIT = "select kirby.audit(%(actor)s, %(verb)s, %(object)s, null, %(after)s::jsonb)"


class Unknown(Denied):
    """Not a token that opens anything: it was never given, was revoked, or has expired."""


@dataclass(frozen=True, slots=True)
class Given:
    """A new token: its secret is nowhere else."""

    token: str
    name: str
    role: str
    environment: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    name: str
    role: str
    environment: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    expired: bool
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token it is; without an environment it is good in all of them."""

    name: str
    role: str
    environment: str | None


@dataclass(frozen=True, slots=True)
class _Added:
    id: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Found:
    id: int
    name: str
    role: str
    environment: str | None
    revoked_at: datetime | None
    expired: bool
    unnoted: bool


def add(
    conn: Connection,
    name: str,
    *,
    role: str,
    actor: str,
    environment: str | None = None,
    expires: timedelta | None = None,
) -> Given:
    """Make a token and return it, once; audited. Raises Invalid, NotFound or Taken."""
    if not NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of a token: letters, digits and . _ @ -, at most 64")
    if role not in accounts.ROLES:
        raise Invalid(f"{role!r} is not a role: {', '.join(accounts.ROLES)}")
    where = environments.get(conn, environment).id if environment else None
    secret = PREFIX + secrets.token_urlsafe(32)
    query.execute(conn, RETIRE, name=name)
    given = query.row(
        conn,
        _Added,
        ADD,
        hash=_hash(secret),
        environment_id=where,
        name=name,
        role=role,
        actor=actor,
        expires=expires,
    )
    if given is None:
        raise Taken(f"there is a token {name} already: remove it, or choose another name")
    after = {"role": role, "environment": environment, "expires_at": given.expires_at}
    _audit(conn, actor, "token_added", name, documents.text(after))
    return Given(secret, name, role, environment, given.expires_at)


def listing(conn: Connection) -> list[Entry]:
    """Every token that was not removed, by name; those of runs are not among them."""
    return query.rows(conn, Entry, LISTING)


def remove(conn: Connection, name: str, *, actor: str) -> None:
    """Revoke a token: it opens nothing from here on; audited. Raises NotFound."""
    if query.value(conn, REVOKE, name=name) is None:
        raise query.missing("token", name, [entry.name for entry in listing(conn)])
    _audit(conn, actor, "token_removed", name, None)


def recognise(conn: Connection, secret: str) -> Bearer:
    """Whose token this is; that it was used is noted, to the minute. Raises Unknown, with why."""
    found = query.row(conn, _Found, FIND, hash=_hash(secret))
    if found is None:
        raise Unknown("this token is not known here: 'kirby token add NAME' makes one")
    if found.revoked_at is not None:
        raise Unknown(f"the token {found.name} was removed")
    if found.expired:
        raise Unknown(f"the token {found.name} has expired")
    if found.unnoted:
        query.execute(conn, NOTE, id=found.id)
    return Bearer(found.name, found.role, found.environment)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _audit(conn: Connection, actor: str, verb: str, name: str, after: str | None) -> None:
    query.value(conn, AUDIT, actor=actor, verb=verb, object=f"token/{name}", after=after)

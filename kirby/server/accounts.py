"""Local accounts: passwords, sessions, and slowing down those who guess."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection

from kirby.core.errors import Denied, Invalid, Taken
from kirby.server import query

LOGIN = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
ROLES = ("viewer", "operator", "developer", "admin")
SESSION_HOURS = 12
MIN_PASSWORD = 10
MAX_PASSWORD = 1024  # bytes: hashing megabytes is a way to keep a server busy

# Failures that cost nothing yet, and the longest wait between two attempts, in seconds.
FREE_PER_LOGIN, LONGEST_PER_LOGIN = 5, 60
FREE_PER_ADDRESS, LONGEST_PER_ADDRESS = 20, 900

HASHER = PasswordHasher()  # argon2id, 64 MiB, 3 passes
CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aeiou"

ADD = """
    insert into kirby.account (login, password_hash, role)
    values (%(login)s, %(password_hash)s, %(role)s)
        on conflict (login) do nothing
    returning id
"""
LISTING = """
    select id, login, role, created_at, disabled_at from kirby.account order by login
"""
BY_LOGIN = """
    select id, login, role, password_hash from kirby.account
     where login = %(login)s and disabled_at is null
"""
BY_SESSION = """
    select a.id, a.login, a.role
      from kirby.session s
      join kirby.account a on a.id = s.account_id
     where s.hash = %(hash)s and s.expires_at > kirby.now() and a.disabled_at is null
"""
OPEN_SESSION = """
    insert into kirby.session (hash, account_id, expires_at)
    values (%(hash)s, %(account_id)s, kirby.now() + make_interval(hours => %(hours)s))
"""
CLOSE_SESSION = "delete from kirby.session where hash = %(hash)s"
CLOSE_EXPIRED = "delete from kirby.session where expires_at < kirby.now()"
REHASH = "update kirby.account set password_hash = %(password_hash)s where id = %(account_id)s"

LOCK = "select pg_advisory_xact_lock(hashtext('kirby.login'))"
FAILURES = """
    select count(*) filter (where login = %(login)s) as of_login,
           count(*) filter (where address = %(address)s) as of_address,
           extract(epoch from kirby.now() - max(at) filter (where login = %(login)s))::float8
             as since_login,
           extract(epoch from kirby.now() - max(at) filter (where address = %(address)s))::float8
             as since_address
      from kirby.login_failure
     where (login = %(login)s or address = %(address)s)
       and at > (select kirby.now() - interval '1 hour')
"""
FORGET_OLD = "delete from kirby.login_failure where at < (select kirby.now() - interval '1 hour')"
COUNT_FAILURE = """
    insert into kirby.login_failure (login, address, at)
    values (%(login)s, %(address)s, kirby.now())
"""
FORGET = "delete from kirby.login_failure where login = %(login)s"
AUDIT = "select kirby.audit(%(actor)s, %(verb)s, %(object)s, null, %(after)s::jsonb)"
ANY_ACCOUNT = "select exists (select from kirby.account)"
LOCK_ACCOUNTS = "lock table kirby.account in share row exclusive mode"


END_SESSIONS = "delete from kirby.session where account_id = %(account_id)s"


def covers(held: str, role: str) -> bool:
    """Whether a role is that one, or above it."""
    return ROLES.index(held) >= ROLES.index(role)


class TooManyAttempts(Denied):
    """This login or address failed too often: wait."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a session belongs to."""

    id: int
    login: str
    role: str

    @property
    def may_operate(self) -> bool:
        """Whether this person may change anything."""
        return self.role != "viewer"


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    login: str
    role: str
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login under way: counted as a failure until ``admit`` says otherwise."""

    login: str
    account: Account | None
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Known:
    id: int
    login: str
    role: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class _Failures:
    of_login: int
    of_address: int
    since_login: float | None
    since_address: float | None


def listing(conn: Connection) -> list[Entry]:
    """Every account, by login."""
    return query.rows(conn, Entry, LISTING)


def add(conn: Connection, login: str, password: str, role: str, *, actor: str) -> int:
    """Add an account and return its id; audited. Raises Invalid or Taken."""
    check(login, password, role)
    account_id = query.value(conn, ADD, login=login, password_hash=HASHER.hash(password), role=role)
    if account_id is None:
        raise Taken(f"there is an account {login} already")
    _audit(conn, actor, "account_added", login, f'{{"role": "{role}"}}')
    return int(account_id)


def check(login: str, password: str, role: str) -> None:
    """Raise Invalid for a login, password or role that no account may have."""
    if not LOGIN.fullmatch(login):
        raise Invalid(f"{login!r} is not a login: small letters, digits and . _ @ -, at most 64")
    if role not in ROLES:
        raise Invalid(f"{role!r} is not a role: {', '.join(ROLES)}")
    if len(password) < MIN_PASSWORD:
        raise Invalid(f"the password is too short: at least {MIN_PASSWORD} characters")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD:
        raise Invalid(f"the password is too long: at most {MAX_PASSWORD} bytes")


def set_password(conn: Connection, login: str, password: str, *, actor: str) -> None:
    """Give an account a new password and end its sessions; audited. Raises Invalid or NotFound."""
    known = query.row(conn, _Known, BY_LOGIN, login=login)
    if known is None:
        raise query.missing("account", login, [each.login for each in listing(conn)])
    check(login, password, known.role)
    query.execute(conn, REHASH, password_hash=HASHER.hash(password), account_id=known.id)
    query.execute(conn, END_SESSIONS, account_id=known.id)
    _audit(conn, actor, "password_changed", login, None)


def ensure_admin(conn: Connection) -> str | None:
    """Make the first account, ``admin``, and return its password; None if there is any account."""
    query.execute(conn, LOCK_ACCOUNTS)
    if query.value(conn, ANY_ACCOUNT):
        return None
    password = readable_password()
    add(conn, "admin", password, "admin", actor="kirby")
    return password


def readable_password() -> str:
    """Four words of made-up syllables: 66 random bits that can be read out and typed."""
    word = (CONSONANTS, VOWELS, CONSONANTS, VOWELS, CONSONANTS)
    return "-".join("".join(map(secrets.choice, word)) for _ in range(4))


def attempt(conn: Connection, login: str, address: str) -> Attempt:
    """Begin a login; commit before the password is checked: guesses in parallel count as well.

    Raises TooManyAttempts, with the time to wait, after too many failures of a login or address.
    """
    query.execute(conn, LOCK)
    query.execute(conn, FORGET_OLD)
    login = login.strip().lower()
    known = query.row(conn, _Known, BY_LOGIN, login=login) if LOGIN.fullmatch(login) else None
    counted = _counted_as(login, known)
    wait = _wait(query.one(conn, _Failures, FAILURES, login=counted, address=address))
    if wait > 0:
        raise TooManyAttempts(f"too many failed logins: try again in {_spoken(wait)}")
    query.execute(conn, COUNT_FAILURE, login=counted, address=address)
    if known is None:
        return Attempt(counted, None, _dummy_hash())
    return Attempt(counted, Account(known.id, known.login, known.role), known.password_hash)


def _counted_as(login: str, known: _Known | None) -> str:
    """An unknown login may be a password in the wrong field: only its hash is kept."""
    if known is not None:
        return known.login
    return "unknown:" + hashlib.sha256(login.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _wait(failures: _Failures) -> float:
    return max(
        _left(failures.of_login, failures.since_login, FREE_PER_LOGIN, LONGEST_PER_LOGIN),
        _left(failures.of_address, failures.since_address, FREE_PER_ADDRESS, LONGEST_PER_ADDRESS),
    )


def _left(failed: int, since: float | None, free: int, longest: int) -> float:
    """Seconds to wait: 2, 4, 8 … after the free failures, from the last one on."""
    if failed < free or since is None:
        return 0
    return min(2.0 ** min(failed - free + 1, 16), longest) - since


def _spoken(seconds: float) -> str:
    if seconds <= 90:
        return f"{max(int(seconds + 1), 1)} s"
    return f"{int(seconds / 60 + 1)} minutes"


@functools.cache
def _dummy_hash() -> str:
    """For a login that does not exist: the answer takes as long as for one that does."""
    return HASHER.hash(secrets.token_urlsafe())


def verify(begun: Attempt, password: str) -> Account | None:
    """The account, if the password is its own.

    Takes 64 MiB and a tenth of a second: hold no connection meanwhile.
    """
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD:
        return None
    try:
        HASHER.verify(begun.password_hash, password)
    except (VerificationError, InvalidHashError):
        return None
    return begun.account


def admit(conn: Connection, begun: Attempt, account: Account, password: str) -> str:
    """The password was right: open a session and return its secret, for the cookie; audited."""
    if HASHER.check_needs_rehash(begun.password_hash):
        fresh = HASHER.hash(password)
        query.execute(conn, REHASH, password_hash=fresh, account_id=account.id)
    query.execute(conn, FORGET, login=begun.login)
    query.execute(conn, CLOSE_EXPIRED)
    secret = open_session(conn, account)
    _audit(conn, account.login, "logged_in", account.login, None)
    return secret


def refuse(conn: Connection, begun: Attempt) -> Denied:
    """The password was wrong: audit it for a known account, and return what to say."""
    if begun.account is not None:
        _audit(conn, "unknown", "login_failed", begun.account.login, None)
    return Denied("wrong name or password")


def open_session(conn: Connection, account: Account) -> str:
    """A new session of an account; its secret, of which only the hash is kept."""
    secret = secrets.token_urlsafe(32)
    query.execute(
        conn, OPEN_SESSION, hash=_hash(secret), account_id=account.id, hours=SESSION_HOURS
    )
    return secret


def recognise(conn: Connection, secret: str) -> Account | None:
    """Whose session this is; None if it ended, was revoked, or never was."""
    return query.row(conn, Account, BY_SESSION, hash=_hash(secret))


def log_out(conn: Connection, account: Account, secret: str) -> None:
    """End a session at once; audited."""
    query.execute(conn, CLOSE_SESSION, hash=_hash(secret))
    _audit(conn, account.login, "logged_out", account.login, None)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _audit(conn: Connection, actor: str, verb: str, login: str, after: str | None) -> None:
    subject = f"account/{login}"
    query.value(conn, AUDIT, actor=actor, verb=verb, object=subject, after=after)

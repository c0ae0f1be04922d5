"""Where a pull comes from: a database by its DSN, or an installation's web by its address.

Both yield whole lines of JSON, in order, from after a position on. A connection that breaks off is
made again, and goes on after the last whole line.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from kirby.core import db, protocol
from kirby.core.errors import (
    Conflict,
    Denied,
    Invalid,
    KirbyError,
    NotFound,
    Unavailable,
    WrongSchema,
)
from kirby.server import exports
from kirby.server.exports import Asked, Export

PAUSES = (0.2, 0.5, 1, 2, 5, 10)  # seconds before each new try, without anything in between
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 18
BY_STATUS: dict[int, type[KirbyError]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
}
Answer = TypeVar("Answer")


class Remote(Protocol):
    """A source of exports; ``place`` is what people call it, ``environment`` None its usual one."""

    place: str
    environment: str | None

    def begin(self, asked: Asked) -> Export:
        """Begin an export. Raises Denied, NotFound, Invalid, Unavailable, WrongSchema."""

    def messages(
        self, export: int, topic: str, *, after: int, limit: int | None
    ) -> Iterator[bytes]:
        """Whole lines of messages after a position. Raises as ``begin``, and Conflict."""

    def entries(self, export: int, state: str) -> Iterator[bytes]:
        """Whole lines of the entries of a state; from the beginning only."""

    def end(self, export: int) -> None:
        """Say that all of it has arrived."""

    def close(self) -> None:
        """Let go of connections."""


class Restarted(KirbyError):
    """The connection broke off within a state, which can only be read from its beginning."""


def open(address: str, *, token: str | None, environment: str | None, actor: str) -> Remote:
    """The remote at a DSN or an http(s) address. Raises Invalid."""
    if address.startswith(("http://", "https://")):
        return Web(address, token, environment)
    if "://" in address and not address.startswith(("postgresql://", "postgres://")):
        raise Invalid(f"{address.partition('://')[0]}:// is no way to pull from: give a DSN or URL")
    return Database(address, token, environment, actor)


class Database:
    """By SQL: the masks are laid by the database, whatever the login."""

    def __init__(self, dsn: str, token: str | None, environment: str | None, actor: str) -> None:
        self.place = db.place(dsn)
        self._dsn, self._token, self.environment = dsn, token, environment
        self._actor = actor
        self._conn: db.Connection | None = None

    def begin(self, asked: Asked) -> Export:
        return self._ask(lambda conn: exports.begin(conn, asked, actor=self._actor))

    def messages(
        self, export: int, topic: str, *, after: int, limit: int | None
    ) -> Iterator[bytes]:
        while True:
            page = self._page(export, topic, after, limit)
            if page.lines:
                yield page.lines.encode()
            after, limit = page.position, limit and limit - page.messages
            if page.done or limit == 0:
                return

    def _page(self, export: int, topic: str, after: int, limit: int | None) -> exports.Page:
        return self._ask(
            lambda conn: exports.page(
                conn, export, topic, after=after, limit=limit, actor=self._actor
            )
        )

    def entries(self, export: int, state: str) -> Iterator[bytes]:
        after: str | None = None
        while True:
            page = self._entries(export, state, after)
            if page.lines:
                yield page.lines.encode()
            if page.after is None:
                return
            after = page.after

    def _entries(self, export: int, state: str, after: str | None) -> exports.Entries:
        return self._ask(
            lambda conn: exports.entries(conn, export, state, after=after, actor=self._actor)
        )

    def end(self, export: int) -> None:
        self._ask(lambda conn: exports.end(conn, export, actor=self._actor))

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _ask(self, question: Callable[[db.Connection], Answer]) -> Answer:
        for pause in (*PAUSES, None):
            try:
                return question(self._connection())
            except Unavailable:
                self.close()
                if pause is None:
                    raise
                time.sleep(pause)
            except WrongSchema:
                raise _too_old(self.place) from None
        raise AssertionError("not reached")

    def _connection(self) -> db.Connection:
        if self._conn is None:
            conn = db.connect(self._dsn, application="kirby pull")
            try:
                protocol.greet(conn, token=self._token, environment=self.environment)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn


class Web:
    """By the API. The token is sent to this address and nowhere else: redirects are refused."""

    def __init__(self, url: str, token: str | None, environment: str | None) -> None:
        self.place = url.rstrip("/")
        if not urlsplit(url).hostname:
            raise Invalid(f"{url} is not an address: write it like https://kirby.example.org")
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {_header(token)}"
        self.environment = environment
        self._opener = urllib.request.build_opener(_NoRedirects)

    def begin(self, asked: Asked) -> Export:
        plan = self._document("/api/v1/exports", asked.plain())
        if not isinstance(plan.get("export"), int):
            raise _no_kirby(self.place)
        return Export(plan)

    def messages(
        self, export: int, topic: str, *, after: int, limit: int | None
    ) -> Iterator[bytes]:
        path = f"/api/v1/topics/{quote(topic, safe='')}/messages"
        failed = 0
        while True:
            try:
                for lines in self._lines(path, export=export, after=after, limit=limit):
                    yield lines
                    failed, after = 0, _position(lines)
                    limit = limit and limit - lines.count(b"\n")
                return
            except Unavailable:
                if limit == 0:
                    return
                if failed == len(PAUSES):
                    raise
                time.sleep(PAUSES[failed])
                failed += 1

    def entries(self, export: int, state: str) -> Iterator[bytes]:
        path = f"/api/v1/states/{quote(state, safe='')}/entries"
        try:
            yield from self._lines(path, export=export)
        except Unavailable as error:
            raise Restarted(str(error)) from error

    def end(self, export: int) -> None:
        self._document(f"/api/v1/exports/{export}/end", {})

    def close(self) -> None:
        """Nothing is kept open."""

    def _document(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        for pause in (*PAUSES[:3], None):
            try:
                with self._call(path, json.dumps(body).encode()) as answer:
                    return self._read(answer)
            except Unavailable:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")

    def _read(self, answer: http.client.HTTPResponse) -> dict[str, Any]:
        with _lost(self.place):
            text = answer.read(1 << 24)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _no_kirby(self.place)
        return found

    def _lines(self, path: str, **query: object) -> Iterator[bytes]:
        """Whole lines; what comes of a line before a connection breaks off is dropped."""
        rest = b""
        with self._call(path, None, **query) as answer:
            while True:
                with _lost(self.place):
                    block = answer.read(BLOCK)
                if not block:
                    break
                lines, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield lines + newline
        if rest:
            raise Unavailable(f"the answer of {self.place} ended within a line")

    def _call(self, path: str, body: bytes | None, **query: object) -> http.client.HTTPResponse:
        given = {name: value for name, value in query.items() if value is not None}
        if self.environment:
            given["env"] = self.environment
        address = f"{self.place}{path}" + (f"?{urlencode(given)}" if given else "")
        request = urllib.request.Request(address, body, self._headers)  # noqa: S310 - checked
        try:
            with _lost(self.place):
                answer: http.client.HTTPResponse = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, path) from None
        return answer

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> KirbyError:
        """The error that the server tells, as the class it was there."""
        said = None
        with suppress(ValueError, OSError, http.client.HTTPException, AttributeError):
            said = json.loads(error.read(1 << 16)).get("error")
        if 300 <= error.code < 400:
            return Invalid(f"{self.place} leads elsewhere ({error.code}): give the address itself")
        if error.code == 404 and said == f"there is nothing at {path}":
            return _too_old(self.place)
        if not isinstance(said, str):
            if error.code >= 500:
                return Unavailable(f"{self.place} answers {error.code}")
            return _no_kirby(self.place)
        kind = BY_STATUS.get(error.code, Unavailable)
        return kind(f"{self.place}: {said}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@contextmanager
def _lost(place: str) -> Iterator[None]:
    """Raise what a network does to a connection as Unavailable."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise Unavailable(f"no answer from {place}: {_reason(error)}") from None
    except (http.client.InvalidURL, ValueError) as error:
        raise Invalid(f"{place} is not an address: {error}") from None
    except (http.client.HTTPException, OSError):
        raise Unavailable(f"the connection to {place} broke off") from None


def _reason(error: urllib.error.URLError) -> str:
    cause = error.reason
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


def _position(lines: bytes) -> int:
    """The position of the last of whole lines."""
    try:
        return int(json.loads(lines[lines.rfind(b"\n", 0, -1) + 1 :])["position"])
    except (ValueError, KeyError, TypeError):
        raise Invalid("the answer is no stream of messages") from None


def _header(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise Denied("that is no token: 'kirby token add NAME' makes one there")
    return token


def _too_old(place: str) -> WrongSchema:
    return WrongSchema(f"{place} is an older Kirby, or none that was migrated: upgrade it first")


def _no_kirby(place: str) -> Invalid:
    return Invalid(f"what answers at {place} is no Kirby")

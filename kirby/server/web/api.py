"""The frame of /api/v1: who is calling, what they may do, JSON in, JSON and one-line errors out.

Whatever an endpoint raises as a KirbyError becomes ``{"error": "one line"}`` with its status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kirby.core.errors import Denied, Invalid
from kirby.server import accounts, documents, environments
from kirby.server.environments import Environment

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a person with a session, or a token; ``name`` is what the audit log says."""

    name: str
    role: str
    #: The only environment that this caller may touch; None: all of them.
    environment: str | None = None

    def may(self, role: str) -> bool:
        """Whether this caller has that role, or one above it."""
        return accounts.covers(self.role, role)

    def check_environment(self, name: str) -> None:
        """Raise Denied for an environment that this caller may not touch."""
        if self.environment not in (None, name):
            raise Denied(f"{self.name} is for the environment {self.environment}, not for {name}")


def caller(request: Request) -> Caller:
    """Who is asking; for pages as well."""
    found: Caller = request.state.caller
    return found


def needs(request: Request, role: str) -> Caller:
    """Who is asking, at least of that role; raises Denied. For pages as well."""
    who = caller(request)
    if not who.may(role):
        raise Denied(f"{who.name} is a {who.role}: this needs the role {role}")
    return who


def environment(request: Request, name: str | None = None) -> Environment:
    """The environment of that name; without one that of ``?env=``, of the token, or the usual.

    Raises NotFound, and Denied for one that the caller's token is not for.
    """
    if not name:
        usual: Environment = request.state.environment
        return usual
    caller(request).check_environment(name)
    return environments.pick(request.state.environments, name)


def respond(value: Any, status: int = 200) -> Response:
    """One JSON document: dataclasses, lists, dicts, times."""
    text = documents.text(value) + "\n"
    return Response(text, status_code=status, media_type="application/json")


def document(request: Request) -> dict[str, Any]:
    """The JSON object that was sent, {} if nothing was; for endpoints that are not async.

    Raises Invalid.
    """
    return parsed(anyio.from_thread.run(_body, request))


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise Invalid("the request was cut off") from None


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object, {} for nothing; raises Invalid."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object")
    if "\\u0000" in json.dumps(value):
        raise Invalid("the body holds a NUL character")
    return value


def me(request: Request) -> Response:
    """Who the token belongs to: what CI asks first."""
    return respond(caller(request))

"""/api/v1/rewinds: plan, propose and begin them, look at them, pause, resume and abort them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import rewinds
from kirby.server.environments import Environment
from kirby.server.rewinds import Plan
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text
from kirby.server.web.api_states import moment
from kirby.server.web.rewinds import act_on, look_up, rate_of

SHOWN, MOST = 50, 1000
FIELDS = (
    "env", "topic", "to", "until", "only", "keys",
    "states", "exact", "inexact", "rate", "reason", "do",
)  # fmt: skip


def listing(request: Request) -> Response:
    """Newest first; ?limit=."""
    limit = pages.number(request, "limit") or SHOWN
    if limit > MOST:
        raise Invalid(f"limit is {limit}: at most {MOST}")
    with pages.reading(request) as conn:
        return api.respond(rewinds.listing(conn, pages.environment(request), limit=limit))


def show(request: Request) -> Response:
    """A rewind, and how far each of its subscriptions is."""
    with pages.reading(request) as conn:
        return api.respond(look_up(request, conn, pages.environment(request)))


def make(request: Request) -> Response:
    """{"topic": …, "to": …} and perhaps more of FIELDS.

    do: "plan" answers with what it would do (200), "propose" keeps it for somebody to approve,
    "start" begins it, which is what happens without one (201).
    """
    who, given = api.needs(request, "operator"), api.document(request)
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise Invalid(f"{unknown[0][:40]!r} is no field of a rewind: {', '.join(FIELDS)}")
    what, reason = text(given, "do") or "start", text(given, "reason")
    if what not in ("plan", "propose", "start"):
        raise Invalid("do must be plan, propose or start")
    environment = api.environment(request, text(given, "env"))
    with pages.reading(request, pages.LONG) as conn:
        plan = _plan(request, conn, environment, given)
        if what == "plan":
            return api.respond(plan.document)
        begin = rewinds.propose if what == "propose" else rewinds.begin
        made = begin(conn, plan, actor=who.name, reason=reason)
    return api.respond(made, 201)


def _plan(
    request: Request, conn: Connection, environment: Environment, given: dict[str, Any]
) -> Plan:
    now = request.state.now
    to, topic = moment(given, "to", now), text(given, "topic")
    if to is None or not topic:
        raise Invalid('say which topic, and to where: {"topic": "orders", "to": "2h"}')
    return rewinds.plan(
        conn,
        environment,
        topic,
        to=to,
        until=moment(given, "until", now),
        only=_texts(given, "only"),
        keys=_texts(given, "keys"),
        states=_flag(given, "states"),
        exact=_flag(given, "exact"),
        inexact=_flag(given, "inexact"),
        rate=rate_of(given.get("rate")),
    )


def _flag(given: dict[str, Any], name: str) -> bool:
    found = given.get(name, False)
    if not isinstance(found, bool):
        raise Invalid(f"{name} must be true or false")
    return found


def _texts(given: dict[str, Any], name: str) -> list[str]:
    found = given.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Invalid(f"{name} must be a list of texts")
    return found


def act(request: Request) -> Response:
    """{"reason": …}; approve, pause, resume or abort as the address says."""
    who, given = api.needs(request, "operator"), api.document(request)
    environment = api.environment(request, text(given, "env"))
    with pages.reading(request, pages.LONG) as conn:
        found = look_up(request, conn, environment)
        done = act_on(conn, found, request.path_params["what"], given, who.name)
    return api.respond(done)


REWINDS = f"{api.PREFIX}/rewinds"
ROUTES = [
    Route(REWINDS, listing, name="api_rewinds"),
    Route(REWINDS, make, methods=["POST"]),
    Route(f"{REWINDS}/{{id:int}}", show, name="api_rewind"),
    Route(f"{REWINDS}/{{id:int}}/{{what}}", act, methods=["POST"]),
]

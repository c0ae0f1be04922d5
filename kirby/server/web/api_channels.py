"""/api/v1/channels: where people hear of incidents, what is told there, and what became of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import channels, documents
from kirby.server.channels import Channel
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text
from kirby.server.web.channels import NEEDED

MOST = 200
ADDED = ("env", "name", "url", "description", "everywhere", "route")
EDITED = ("env", "url", "description")
ROUTED = ("env", "job", "tag", "everything", "only_env", "events", "kinds")


def listing(request: Request) -> Response:
    """Those of an environment and those for all, by name."""
    with pages.reading(request) as conn:
        found = channels.listing(conn, pages.environment(request))
    return api.respond([_plain(each) for each in found])


def show(request: Request) -> Response:
    """A channel, its last deliveries, and what could not be delivered yet; ?limit=."""
    limit = pages.number(request, "limit") or channels.SHOWN
    if limit > MOST:
        raise Invalid(f"limit is {limit}: at most {MOST}")
    with pages.reading(request) as conn:
        found = channels.get(conn, pages.environment(request), request.path_params["channel"])
        last = channels.deliveries(conn, found, limit=limit)
        waiting = channels.waiting(conn, found, limit=limit)
    return api.respond({**_plain(found), "deliveries": last, "undelivered": waiting})


def add(request: Request) -> Response:
    """{"name", "url"} and perhaps description, everywhere (for all environments), route (true)."""
    who, given = api.needs(request, NEEDED), _given(request, ADDED)
    where = api.environment(request, text(given, "env"))
    everywhere = _switch(given, "everywhere", False)
    if everywhere:
        who.check_environment("all of them")  # a token of one environment has no say in others
    with pages.reading(request) as conn:
        added = channels.add(
            conn,
            None if everywhere else where,
            text(given, "name"),
            text(given, "url"),
            description=text(given, "description"),
            route=_switch(given, "route", True),
            actor=who.name,
        )
    return api.respond(_plain(added), 201)


def edit(request: Request) -> Response:
    """{"url", "description"}, what of them is to change."""
    who, given = api.needs(request, NEEDED), _given(request, EDITED)
    with pages.reading(request) as conn:
        found = _found(request, conn, given)
        channels.edit(
            conn,
            found,
            url=text(given, "url") or None,
            description=text(given, "description") if "description" in given else None,
            actor=who.name,
        )
        return api.respond(_plain(_found(request, conn, given)))


def remove(request: Request) -> Response:
    """Nothing more is told there."""
    who = api.needs(request, NEEDED)
    with pages.reading(request) as conn:
        channels.remove(conn, _found(request, conn, {}), actor=who.name)
    return api.respond({})


def add_route(request: Request) -> Response:
    """{"job" | "tag" | "everything": true} and perhaps only_env, events, kinds."""
    who, given = api.needs(request, NEEDED), _given(request, ROUTED)
    job, tag = text(given, "job"), text(given, "tag")
    if sum((bool(job), bool(tag), _switch(given, "everything", False))) != 1:
        raise Invalid('say of what: "job", "tag" or "everything": true')
    with pages.reading(request) as conn:
        changed = channels.add_route(
            conn,
            _found(request, conn, given),
            job=job,
            tag=tag,
            environment=text(given, "only_env"),
            events=_texts(given, "events", channels.USUAL),
            kinds=_texts(given, "kinds", ()),
            actor=who.name,
        )
    return api.respond(_plain(changed), 201)


def remove_route(request: Request) -> Response:
    """That is told there no more."""
    who = api.needs(request, NEEDED)
    with pages.reading(request) as conn:
        found = _found(request, conn, {})
        route = request.path_params["id"]
        changed = channels.remove_route(conn, found, route, actor=who.name)
    return api.respond(_plain(changed))


def test(request: Request) -> Response:
    """Have a test sent: {"position"}, which is that of its delivery when it has been sent (202)."""
    who, given = api.needs(request, "operator"), _given(request, ("env",))
    where = api.environment(request, text(given, "env"))
    with pages.reading(request) as conn:
        found = channels.get(conn, where, request.path_params["channel"])
        position = channels.test(conn, found, where, actor=who.name)
    return api.respond({"position": position}, 202)


def resend(request: Request) -> Response:
    """Send now what waits, and what was given up: {"count"}."""
    who, given = api.needs(request, "operator"), _given(request, ("env",))
    with pages.reading(request) as conn:
        count = channels.resend(conn, _found(request, conn, given), actor=who.name)
    return api.respond({"count": count})


def _found(request: Request, conn: Connection, given: dict[str, Any]) -> Channel:
    where = api.environment(request, text(given, "env"))
    found = channels.get(conn, where, request.path_params["channel"])
    if found.environment is None:
        api.caller(request).check_environment("all of them")
    return found


def _plain(found: Channel) -> dict[str, Any]:
    return {**documents.plain(found), "status": found.status}


def _given(request: Request, fields: tuple[str, ...]) -> dict[str, Any]:
    given = api.document(request)
    if unknown := sorted(set(given) - set(fields)):
        raise Invalid(f"{unknown[0][:40]!r} is no field here: {', '.join(fields)}")
    return given


def _switch(given: dict[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise Invalid(f"{name} must be true or false")
    return value


def _texts(given: dict[str, Any], name: str, default: tuple[str, ...]) -> list[str]:
    found = given.get(name, list(default))
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Invalid(f"{name} must be a list of texts")
    return found


CHANNELS = f"{api.PREFIX}/channels"
ROUTES = [
    Route(CHANNELS, listing, name="api_channels"),
    Route(CHANNELS, add, methods=["POST"]),
    Route(f"{CHANNELS}/{{channel}}", show, name="api_channel"),
    Route(f"{CHANNELS}/{{channel}}", edit, methods=["PATCH"]),
    Route(f"{CHANNELS}/{{channel}}", remove, methods=["DELETE"]),
    Route(f"{CHANNELS}/{{channel}}/routes", add_route, methods=["POST"]),
    Route(f"{CHANNELS}/{{channel}}/routes/{{id:int}}", remove_route, methods=["DELETE"]),
    Route(f"{CHANNELS}/{{channel}}/test", test, methods=["POST"]),
    Route(f"{CHANNELS}/{{channel}}/resend", resend, methods=["POST"]),
]

"""/api/v1/incidents: what is wrong, the story of each, and who sees to it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import documents, incidents
from kirby.server.incidents import Incident
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text

SHOWN, MOST = 50, 1000


def listing(request: Request) -> Response:
    """Newest first; ?env=, status=open|resolved|all, kind=, job=, before= (an id), limit=."""
    environment = api.environment(request, pages.word(request, "env"))
    limit = pages.number(request, "limit") or SHOWN
    if limit > MOST:
        raise Invalid(f"limit is {limit}: at most {MOST}")
    with pages.reading(request) as conn:
        found = incidents.listing(
            conn,
            environment,
            status=pages.word(request, "status") or "open",
            kind=pages.word(request, "kind") or None,
            job=pages.word(request, "job") or None,
            before=pages.number(request, "before"),
            limit=limit,
        )
    return api.respond([_told(each) for each in found])


def show(request: Request) -> Response:
    """One incident, what it tells of, its timeline, and the last lines of its run."""
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        told = incidents.told(conn, found)
        timeline = incidents.timeline(conn, found)
        lines = incidents.lines(conn, found)
    more = {"tells_of": [_told(each) for each in told], "timeline": timeline, "log": lines}
    return api.respond({**_told(found), **more})


def acknowledge(request: Request) -> Response:
    """{"reason": …}; 409 for one that is over."""
    who, given = api.needs(request, "operator"), api.document(request)
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        incidents.acknowledge(conn, found.id, actor=who.name, reason=text(given, "reason"))
        return api.respond(_told(incidents.get(conn, found.id)))


def silence(request: Request) -> Response:
    """{"until": "2h" or a time, "reason": …}; {"until": null}: people are told again."""
    who, given = api.needs(request, "operator"), api.document(request)
    if "until" not in given:
        raise Invalid('say how long: "until" is a span like 2h, a time, or null')
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        asked = text(given, "until")
        until = incidents.until(conn, asked) if asked else None
        incidents.silence(conn, found.id, until, actor=who.name, reason=text(given, "reason"))
        return api.respond(_told(incidents.get(conn, found.id)))


def resolve(request: Request) -> Response:
    """{"reason": …}: it is over."""
    who, given = api.needs(request, "operator"), api.document(request)
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        incidents.resolve(conn, found.id, actor=who.name, reason=text(given, "reason"))
        return api.respond(_told(incidents.get(conn, found.id)))


def look_up(request: Request, conn: Connection) -> Incident:
    """The incident of the address; for pages as well.

    Raises NotFound, and Denied if it is of an environment that the caller's token is not for.
    """
    found = incidents.get(conn, request.path_params["id"])
    if found.environment:
        api.environment(request, found.environment)
    return found


def _told(found: Incident) -> dict[str, Any]:
    return {**documents.plain(found), "state": found.state}


ROUTES = [
    Route("/api/v1/incidents", listing),
    Route("/api/v1/incidents/{id:int}", show),
    Route("/api/v1/incidents/{id:int}/ack", acknowledge, methods=["POST"]),
    Route("/api/v1/incidents/{id:int}/silence", silence, methods=["POST"]),
    Route("/api/v1/incidents/{id:int}/resolve", resolve, methods=["POST"]),
]

"""/api/v1/runs and /api/v1/supervisors: see, cancel and repeat runs; drain a supervisor."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Conflict, Invalid
from kirby.server import deployments, documents, runs, supervisors
from kirby.server.supervisors import Supervisor
from kirby.server.web import api, pages

SHOWN, MOST = 50, 1000
LONGEST_REASON = 1000  # characters


def listing(request: Request) -> Response:
    """Newest first; ?env=, job=, status=, before= (a run's id), limit=."""
    environment = api.environment(request, pages.word(request, "env"))
    limit = pages.number(request, "limit") or SHOWN
    if limit > MOST:
        raise Invalid(f"limit is {limit}: at most {MOST}")
    with pages.reading(request) as conn:
        found = runs.listing(
            conn,
            environment,
            job=pages.word(request, "job") or None,
            status=pages.word(request, "status") or None,
            before=pages.number(request, "before"),
            limit=limit,
        )
    return api.respond(found)


def show(request: Request) -> Response:
    """A run and its events."""
    with pages.reading(request) as conn:
        run = _run(request, conn)
        events = runs.events(conn, run.id)
    return api.respond({**documents.plain(run), "events": events})


def cancel(request: Request) -> Response:
    """{"reason": …}; 409 for a run that has ended."""
    who, given = api.needs(request, "operator"), api.document(request)
    reason = text(given, "reason") or f"cancelled by {who.name}"
    with pages.reading(request) as conn:
        run = _run(request, conn)
        if not run.live:
            raise Conflict(f"run {run.id} has ended already: it is {run.status}")
        asked = runs.cancel(conn, run.id, actor=who.name, reason=reason)
        deployments.wake_supervisors(conn)
    return api.respond({"run": run.id, "cancelled": asked}, 202)


def retry(request: Request) -> Response:
    """{"version": N} or {"current": true or false}, and "reason"; the new run."""
    who, given = api.needs(request, "operator"), api.document(request)
    version, current = given.get("version"), given.get("current")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise Invalid("version must be a whole number")
    if current is not None and not isinstance(current, bool):
        raise Invalid("current must be true or false")
    with pages.reading(request) as conn:
        run = _run(request, conn)
        reason = text(given, "reason")
        new = runs.retry(
            conn, run.id, actor=who.name, current=current, version=version, reason=reason
        )
        deployments.wake_supervisors(conn)
        found = runs.get(conn, new)
    return api.respond(found, 201)


def all_supervisors(request: Request) -> Response:
    """Those that are alive, or ended within a day."""
    with pages.reading(request) as conn:
        found = supervisors.listing(conn)
    return api.respond([_told(each) for each in found])


def drain(request: Request) -> Response:
    """{"stop": true or false, "reason": …}; by host, or by id."""
    who, given = api.needs(request, "operator"), api.document(request)
    stop = given.get("stop", False)
    if not isinstance(stop, bool):
        raise Invalid("stop must be true or false")
    with pages.reading(request) as conn:
        found = supervisors.find(conn, request.path_params["which"])
        reason = text(given, "reason")
        supervisors.drain(conn, found, actor=who.name, stop=stop, reason=reason)
        found = supervisors.find(conn, str(found.id))
    return api.respond(_told(found), 202)


def resume(request: Request) -> Response:
    """{"reason": …}; by host, or by id."""
    who, given = api.needs(request, "operator"), api.document(request)
    with pages.reading(request) as conn:
        found = supervisors.find(conn, request.path_params["which"])
        supervisors.resume(conn, found, actor=who.name, reason=text(given, "reason"))
        found = supervisors.find(conn, str(found.id))
    return api.respond(_told(found))


def text(given: dict[str, Any], name: str) -> str:
    """A text of the body, empty if it is not there. Raises Invalid."""
    value = given.get(name) or ""
    if not isinstance(value, str) or len(value) > LONGEST_REASON:
        raise Invalid(f"{name} must be a text of at most {LONGEST_REASON:,} characters")
    return value


def _run(request: Request, conn: Connection) -> runs.Run:
    """The run of the address; raises NotFound, and Denied if the caller's token is not for it."""
    found = runs.get(conn, request.path_params["run_id"])
    api.environment(request, found.environment)
    return found


def _told(each: Supervisor) -> dict[str, Any]:
    return {**documents.plain(each), "status": each.status}


ROUTES = [
    Route("/api/v1/runs", listing, name="api_runs"),
    Route("/api/v1/runs/{run_id:int}", show, name="api_run"),
    Route("/api/v1/runs/{run_id:int}/cancel", cancel, name="api_run_cancel", methods=["POST"]),
    Route("/api/v1/runs/{run_id:int}/retry", retry, name="api_run_retry", methods=["POST"]),
    Route("/api/v1/supervisors", all_supervisors, name="api_supervisors"),
    Route("/api/v1/supervisors/{which}/drain", drain, methods=["POST"]),
    Route("/api/v1/supervisors/{which}/resume", resume, methods=["POST"]),
]

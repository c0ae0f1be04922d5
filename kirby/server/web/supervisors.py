"""Pages about supervisors: what each has under way, and draining one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.server import schema, supervisors
from kirby.server.web import pages


def listing(request: Request) -> Response:
    with pages.reading(request) as conn:
        found = supervisors.listing(conn)
    template = "supervisors/_table.html" if pages.partial(request) else "supervisors/listing.html"
    return pages.render(request, template, supervisors=found, protocol=schema.PROTOCOL)


def drain(request: Request) -> Response:
    stop = pages.form(request).get("stop") == "yes"
    actor = pages.account(request).login
    with pages.reading(request) as conn:
        found = supervisors.find(conn, request.path_params["which"])
        reason = f"drained by {actor} from the supervisors' page"
        supervisors.drain(conn, found, actor=actor, stop=stop, reason=reason)
    return _back(request)


def resume(request: Request) -> Response:
    actor = pages.account(request).login
    with pages.reading(request) as conn:
        found = supervisors.find(conn, request.path_params["which"])
        reason = f"resumed by {actor} from the supervisors' page"
        supervisors.resume(conn, found, actor=actor, reason=reason)
    return _back(request)


def _back(request: Request) -> Response:
    return RedirectResponse(request.app.url_path_for("supervisors"), status_code=303)


ROUTES = [
    Route("/supervisors", listing, name="supervisors"),
    Route("/supervisors/{which}/drain", drain, name="supervisor_drain", methods=["POST"]),
    Route("/supervisors/{which}/resume", resume, name="supervisor_resume", methods=["POST"]),
]

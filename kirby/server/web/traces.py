"""The page of a trace: what a message or a state change was made from, and what was made of it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.core.errors import NotFound
from kirby.server import environments, lineage
from kirby.server.lineage import Step
from kirby.server.web import pages

SHOWN = 10
MOST = 500
DEPTHS = (1, 2, 4, lineage.DEPTH)


def show(request: Request) -> Response:
    depth = min(pages.number(request, "depth") or lineage.DEPTH, 1000)
    limit = min(pages.number(request, "limit") or SHOWN, MOST)
    with pages.reading(request) as conn:
        found = lineage.trace(conn, request.path_params["position"], depth=depth, limit=limit)
    known = request.state.environments
    request.state.environment = environments.pick(known, found.origin.environment or "")
    context: dict[str, Any] = {
        "origin": found.origin,
        "lost": found.lost,
        "ways": [
            ("up", "Made from", "nothing: it is an origin", _shares(found.up or [])),
            ("down", "Made from it", "nothing yet", _shares(found.down or [])),
        ],
        "depth": depth,
        "depths": DEPTHS,
        "limit": limit,
        "more": SHOWN * 10 if limit < MOST else None,
    }
    return pages.render(request, "traces/show.html", **context)


def _shares(steps: list[Step]) -> list[tuple[int, list[Step]]]:
    """The steps by their distance, nearest first."""
    return [
        (depth, [step for step in steps if step.depth == depth])
        for depth in sorted({step.depth for step in steps})
    ]


def of_key(request: Request) -> Response:
    """To the trace of a version of a state's key, of its newest without one."""
    environment = pages.environment(request)
    key, number = pages.word(request, "key"), pages.number(request, "version")
    with pages.reading(request) as conn:
        position = lineage.version(conn, environment, request.path_params["state"], key, number)
    target = request.app.url_path_for("trace", position=position)
    return RedirectResponse(f"{target}?env={environment.name}", status_code=303)


def find(request: Request) -> Response:
    """To the trace of the position that a form asks for."""
    position = pages.number(request, "position")
    if position is None:
        raise NotFound("say which position: that of a message or of a state change")
    target = request.app.url_path_for("trace", position=position)
    return RedirectResponse(target, status_code=303)


ROUTES = [
    Route("/trace", find, name="trace_find"),
    Route("/trace/{position:int}", show, name="trace"),
    Route("/states/{state}/key/trace", of_key, name="trace_key"),
]

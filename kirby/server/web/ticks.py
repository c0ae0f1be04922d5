"""The ticks of a job: what will become of the next ones, and what became of those before."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import jobs, previews, schedules
from kirby.server.previews import Previewed
from kirby.server.web import api, pages

USUAL = 30


def show(request: Request) -> Response:
    """A table of them; ``?since=`` a time for those that were due."""
    name, problem = request.path_params["job"], None
    since = pages.word(request, "since").strip()
    with pages.reading(request) as conn:
        job = jobs.get(conn, pages.environment(request), name)
    found: list[Previewed] = []
    try:
        found = _found(request, since)
    except Invalid as error:
        problem = str(error)
    return pages.render(
        request,
        "jobs/ticks.html",
        400 if problem else 200,
        job=job,
        ticks=found,
        since=since,
        problem=problem,
    )


def listing(request: Request) -> Response:
    """``{"ticks": […]}``: the next ``?n=``, or from ``?since=`` on those that were due."""
    return api.respond({"ticks": _found(request, pages.word(request, "since"))})


def _found(request: Request, since: str) -> list[Previewed]:
    environment, name = pages.environment(request).name, request.path_params["job"]
    count = pages.number(request, "n") or USUAL
    with pages.reading(request) as conn:
        if since:
            begin = schedules.moment(since, "UTC")
            return previews.history(conn, environment, name, begin, n=count)
        return previews.preview(conn, environment, name, n=count)


ROUTES = [
    Route("/jobs/{job}/ticks", show, name="job_ticks"),
    Route(f"{api.PREFIX}/jobs/{{job}}/ticks", listing, name="api_job_ticks"),
]

"""Pages about jobs."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kirby.server import jobs, runs
from kirby.server.web import pages


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = jobs.listing(conn, environment)
    template = "jobs/_table.html" if pages.partial(request) else "jobs/listing.html"
    return pages.render(request, template, jobs=found)


def show(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        context: dict[str, Any] = {
            "job": job,
            "runs": runs.listing(conn, environment, job=job.name, limit=15),
            "replicas": runs.listing(conn, environment, job=job.name, status="live", limit=100),
            "next_ticks": jobs.next_ticks(conn, job),
            "past_ticks": jobs.past_ticks(conn, job, limit=8),
            "versions": jobs.versions(conn, job),
        }
    template = "jobs/_now.html" if pages.partial(request) else "jobs/show.html"
    return pages.render(request, template, **context)


def source(request: Request) -> Response:
    environment = pages.environment(request)
    version = pages.number(request, "version")
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        text = jobs.source(conn, job, version)
    shown = version or job.version
    return pages.render(request, "jobs/source.html", job=job, version=shown, source=text)


def trigger(request: Request) -> Response:
    environment = pages.environment(request)
    actor = pages.account(request).login
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        run_id = jobs.trigger(conn, job, actor=actor, reason="from the job's page")
    return RedirectResponse(request.app.url_path_for("run", run_id=run_id), status_code=303)

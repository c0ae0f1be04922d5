"""Pages about runs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kirby.server import environments, runs
from kirby.server.web import pages, run_logs

SHOWN = 50


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    job, status = pages.word(request, "job") or None, pages.word(request, "status") or None
    before = pages.number(request, "before")
    with pages.reading(request) as conn:
        found = runs.listing(
            conn, environment, job=job, status=status, before=before, limit=SHOWN + 1
        )
    context: dict[str, Any] = {
        "runs": found[:SHOWN],
        "more": len(found) > SHOWN,
        "job": job,
        "status": status,
        "before": before,
    }
    template = "runs/_table.html" if pages.partial(request) else "runs/listing.html"
    return pages.render(request, template, **context)


def show(request: Request) -> Response:
    with pages.reading(request) as conn:
        run = _look_at(request, conn)
        context: dict[str, Any] = {
            "run": run,
            **run_logs.shown(request, conn, run),
            "events": runs.events(conn, run.id),
            "retries": runs.retries(conn, run),
        }
    template = "runs/_now.html" if pages.partial(request) else "runs/show.html"
    return pages.render(request, template, **context)


def _look_at(request: Request, conn: Connection) -> runs.Run:
    """The run of the address; the page is about its environment, whichever was looked at before."""
    run = runs.get(conn, request.path_params["run_id"])
    request.state.environment = environments.pick(request.state.environments, run.environment)
    return run


def cancel(request: Request) -> Response:
    actor = pages.account(request).login
    with pages.reading(request) as conn:
        run = _look_at(request, conn)
        runs.cancel(conn, run.id, actor=actor, reason=f"cancelled by {actor} from the run's page")
    return _to(request, run.id)


def retry(request: Request) -> Response:
    current = pages.form(request).get("release") == "current"
    with pages.reading(request) as conn:
        run = _look_at(request, conn)
        new = runs.retry(conn, run.id, actor=pages.account(request).login, current=current)
    return _to(request, new)


def _to(request: Request, run_id: int) -> Response:
    return RedirectResponse(request.app.url_path_for("run", run_id=run_id), status_code=303)

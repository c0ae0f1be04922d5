"""Pages about runs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kirby.core.errors import Invalid
from kirby.server import deployments, environments, runs
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
            "versions": runs.versions(conn, run),
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
        deployments.wake_supervisors(conn)
    return _to(request, run.id)


def retry(request: Request) -> Response:
    given = pages.form(request).get("version", "")
    if given and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise Invalid(f"version must be a whole number, not {given[:20]!r}")
    with pages.reading(request) as conn:
        run = _look_at(request, conn)
        version = int(given) if given else None
        new = runs.retry(conn, run.id, actor=pages.account(request).login, version=version)
        deployments.wake_supervisors(conn)
    return _to(request, new)


def _to(request: Request, run_id: int) -> Response:
    return RedirectResponse(request.app.url_path_for("run", run_id=run_id), status_code=303)

"""Pages about runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from kirby.server import environments, runs
from kirby.server.web import pages

SHOWN = 50
LINES = 500  # of a log on its page; the rest is earlier pages and the download
DOWNLOADED = 5_000  # lines read at a time


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
    before = pages.number(request, "before")
    with pages.reading(request) as conn:
        run = _look_at(request, conn)
        lines = runs.tail(conn, run.id, before=before, limit=LINES + 1)
        context: dict[str, Any] = {
            "run": run,
            "lines": lines[-LINES:],
            "earlier": len(lines) > LINES,
            "before": before,
            "last": lines[-1].position if lines else 0,
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


def log(request: Request) -> Response:
    """The whole log as text, read piece by piece."""
    run_id = request.path_params["run_id"]
    with pages.reading(request) as conn:
        run = runs.get(conn, run_id)
    name = f"{run.job}-{run.id}.log"
    return StreamingResponse(
        _text(request, run_id),
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _text(request: Request, run_id: int) -> Iterator[str]:
    after = 0
    while True:
        with pages.reading(request) as conn:
            lines = runs.lines(conn, run_id, after=after, limit=DOWNLOADED)
        yield "".join(f"{line.at.isoformat()} {line.stream:6} {line.text}\n" for line in lines)
        if len(lines) < DOWNLOADED:
            return
        after = lines[-1].position


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

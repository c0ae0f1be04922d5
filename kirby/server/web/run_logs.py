"""The log on the page of a run, and as a file: whole, or what is looked for in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import run_logs, runs
from kirby.server.run_logs import Choice
from kirby.server.web import api, live, pages

LINES = 500  # of a log on its page; the rest is earlier pages and the download
FORMS = {
    "text": (run_logs.as_text, "text/plain; charset=utf-8"),
    "jsonl": (run_logs.as_json_lines, "application/jsonl"),
}


def shown(request: Request, conn: Connection, run: runs.Run) -> dict[str, Any]:
    """What the log's part of a page shows: the last lines, or those before a position."""
    chosen, before = live.choice(request), pages.number(request, "before")
    upto = run_logs.last(conn, run.id)
    found = run_logs.tail(
        conn,
        run.id,
        before=upto + 1 if before is None else before,
        limit=LINES + 1,
        choice=chosen,
    )
    return {
        "lines": found[-LINES:],
        "earlier": len(found) > LINES,
        "before": before,
        "last": upto,
        "choice": chosen,
        "chosen": urlencode(_given(chosen)),
        "streams": run_logs.STREAMS,
        "levels": run_logs.LEVELS,
    }


def _given(chosen: Choice) -> dict[str, str]:
    given = {"stream": chosen.stream, "level": chosen.level, "q": chosen.text}
    return {name: value for name, value in given.items() if value}


def as_text(request: Request) -> Response:
    """The log as text, as it is by now."""
    return _download(request, "text")


def as_json_lines(request: Request) -> Response:
    """The log as one JSON object a line, as it is by now."""
    return _download(request, "jsonl")


def _download(request: Request, form: str) -> Response:
    """Read and sent piece by piece; `?after=` begins behind a position, the others choose lines."""
    run_id = request.path_params["run_id"]
    after, chosen = pages.number(request, "after") or 0, live.choice(request)
    with pages.reading(request) as conn:
        run = runs.get(conn, run_id)
    name = f"{run.job}-{run.id}.{'log' if form == 'text' else form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return _sent(_pieces(request, run_id, chosen, after, form), form, headers)


def _pieces(request: Request, run_id: int, chosen: Choice, after: int, form: str) -> Iterator[str]:
    for piece in run_logs.pieces(lambda: pages.reading(request), run_id, after, chosen):
        yield FORMS[form][0](piece)


def _sent(
    text: Iterator[str] | AsyncIterator[str],
    form: str,
    headers: dict[str, str] | None = None,
) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})}
    return StreamingResponse(text, media_type=FORMS[form][1], headers=headers)


def for_programs(request: Request) -> Response:
    """`/api/v1/runs/N/log`: `?format=jsonl|text`, `after`, `stream`, `level`, `q`.

    With `?follow=1` it goes on until the run has ended. Whoever was cut off goes on after the
    position of the last line that came.
    """
    run_id, form = request.path_params["run_id"], pages.word(request, "format") or "jsonl"
    after, chosen = pages.number(request, "after") or 0, live.choice(request)
    if form not in FORMS:
        raise Invalid(f"{form} is not a form of a log: {', '.join(FORMS)}")
    with pages.reading(request) as conn:
        api.environment(request, runs.get(conn, run_id).environment)
    if pages.number(request, "follow"):
        return _sent(live.follow(request, run_id, chosen, after, FORMS[form][0]), form)
    return _sent(_pieces(request, run_id, chosen, after, form), form)


ROUTES = [
    Route("/runs/{run_id:int}/log.txt", as_text, name="run_log"),
    Route("/runs/{run_id:int}/log.jsonl", as_json_lines, name="run_log_jsonl"),
    Route("/api/v1/runs/{run_id:int}/log", for_programs, name="api_run_log"),
]

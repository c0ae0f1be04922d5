"""The log on the page of a run, and as a file: whole, or what is looked for in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kirby.server import run_logs, runs
from kirby.server.run_logs import Choice
from kirby.server.web import pages

LINES = 500  # of a log on its page; the rest is earlier pages and the download
FORMS = {
    "txt": (run_logs.as_text, "text/plain; charset=utf-8"),
    "jsonl": (run_logs.as_json_lines, "application/jsonl"),
}


def choice(request: Request) -> Choice:
    """Which lines the address asks for; raises Invalid."""
    word = pages.word
    return Choice.of(word(request, "stream"), word(request, "level"), word(request, "q").strip())


def shown(request: Request, conn: Connection, run: runs.Run) -> dict[str, Any]:
    """What the log's part of a page shows: the last lines, or those before a position."""
    chosen, before = choice(request), pages.number(request, "before")
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


def download(request: Request) -> Response:
    """The log as text or as JSON lines, as it is by now, read and sent piece by piece.

    `?after=` begins behind a position; `stream`, `level` and `q` choose lines.
    """
    run_id, form = request.path_params["run_id"], request.path_params["form"]
    after, chosen = pages.number(request, "after") or 0, choice(request)
    with pages.reading(request) as conn:
        run = runs.get(conn, run_id)
    write, media_type = FORMS[form]

    def text() -> Iterator[str]:
        for piece in run_logs.pieces(lambda: pages.reading(request), run_id, after, chosen):
            yield write(piece)

    name = f"{run.job}-{run.id}.{'log' if form == 'txt' else form}"
    return StreamingResponse(
        text(),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def as_text(request: Request) -> Response:
    request.path_params["form"] = "txt"
    return download(request)


def as_json_lines(request: Request) -> Response:
    request.path_params["form"] = "jsonl"
    return download(request)


ROUTES = [
    Route("/runs/{run_id:int}/log.txt", as_text, name="run_log"),
    Route("/runs/{run_id:int}/log.jsonl", as_json_lines, name="run_log_jsonl"),
]

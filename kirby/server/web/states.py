"""Pages about states."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kirby.server import states
from kirby.server.web import pages

SHOWN = 50
COLUMNS = 8


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = states.listing(conn, environment)
    template = "states/_table.html" if pages.partial(request) else "states/listing.html"
    return pages.render(request, template, states=found)


def show(request: Request) -> Response:
    environment = pages.environment(request)
    prefix, after = pages.word(request, "prefix"), pages.word(request, "after")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        rows = states.rows(conn, state, prefix=prefix, after=after, limit=SHOWN + 1)
    shown = rows[:SHOWN]
    context: dict[str, Any] = {
        "state": state,
        "rows": shown,
        "more": len(rows) > SHOWN,
        "columns": columns(shown),
        "prefix": prefix,
        "after": after,
    }
    template = "states/_rows.html" if pages.partial(request) else "states/show.html"
    return pages.render(request, template, **context)


def columns(rows: list[states.Entry]) -> list[str]:
    """The members of the values, if all are objects with few enough of them to be columns."""
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row.value, dict):
            return []
        names |= dict.fromkeys(row.value)
    return list(names) if len(names) <= COLUMNS else []


def history(request: Request) -> Response:
    environment = pages.environment(request)
    key, before = pages.word(request, "key"), pages.number(request, "before")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        entry = states.entry(conn, state, key)
        versions = states.history(conn, state, key, before=before, limit=SHOWN + 1)
    context: dict[str, Any] = {
        "state": state,
        "key": key,
        "entry": entry,
        "versions": versions[:SHOWN],
        "more": len(versions) > SHOWN,
        "before": before,
    }
    return pages.render(request, "states/key.html", **context)

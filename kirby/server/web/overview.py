"""The front page: what is wrong, what runs, what went through."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kirby.server import (
    exceptions,
    jobs,
    overview,
    rewinding,
    runs,
    subscriptions,
    supervisors,
    wishes,
)
from kirby.server.web import pages

SHOWN = 8


def show(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        context: dict[str, Any] = {
            "problems": overview.problems(conn, environment),
            "counts": overview.counts(conn, environment),
            "day": overview.last_day(conn, environment),
            "throughput": overview.throughput(conn, environment),
            "recent": runs.listing(conn, environment, limit=SHOWN),
            "jobs": jobs.listing(conn, environment),
            "subscriptions": subscriptions.listing(conn, environment),
            "rewinding": rewinding.now(conn, environment),
            "exceptions": [
                each
                for each in exceptions.listing(conn, environment, limit=SHOWN)
                if each.status == "in force"
            ],
            "clock": wishes.clock,
            "supervisors": [each for each in supervisors.listing(conn) if each.alive],
        }
    template = "overview/_now.html" if pages.partial(request) else "overview/show.html"
    return pages.render(request, template, **context)

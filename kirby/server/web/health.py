"""The health page, and the two answers that machines ask for."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kirby.core.errors import KirbyError
from kirby.server import check, health, schema
from kirby.server.database import unit
from kirby.server.web import pages


def show(request: Request) -> Response:
    with pages.reading(request) as conn:
        report = check.report(conn)
        context: dict[str, Any] = {
            "findings": report.findings,
            "facts": report.facts,
            "kept": {policy.log: policy.kept for policy in report.facts.logs_kept},
            "oldest": {policy.log: policy.oldest_at for policy in report.facts.logs_kept},
            "database": health.database(conn),
            "head": schema.head(),
        }
    template = "health/_now.html" if pages.partial(request) else "health/show.html"
    return pages.render(request, template, **context)


def alive(request: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


def ready(request: Request) -> Response:
    """The database answers too, and has the schema that this Kirby needs."""
    try:
        with unit(request.app.state.engine) as conn:
            found = health.database(conn).schema
    except KirbyError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
    if found != schema.head():
        return PlainTextResponse(
            f"the schema is {found}, this Kirby needs {schema.head()}\n", status_code=503
        )
    return PlainTextResponse("ok\n")

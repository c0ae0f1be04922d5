"""Pages of the catalogue: what topics, states and jobs are, and who answers for them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import catalogue
from kirby.server.web import pages

FORM = {"description": "", "owner": "", "reason": ""}


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = catalogue.listing(conn, environment)
    return pages.render(request, "catalogue/listing.html", entries=found)


def show(request: Request) -> Response:
    """An entry; posted to, it is described anew. A form that is refused comes back as it was."""
    if request.method != "POST":
        return _show(request, 200, None, None)
    form = FORM | pages.form(request)
    kind, name = request.path_params["kind"], request.path_params["entry"]
    environment = pages.environment(request)
    try:
        with pages.reading(request) as conn:
            catalogue.describe(
                conn,
                environment,
                kind,
                name,
                description=form["description"].strip(),
                owner=form["owner"].strip(),
                reason=form["reason"].strip(),
                actor=pages.account(request).login,
            )
    except Invalid as problem:
        return _show(request, 400, form, str(problem))
    target = request.app.url_path_for("catalogue_entry", kind=kind, entry=name)
    return RedirectResponse(f"{target}?env={environment.name}&done=1", status_code=303)


def _show(
    request: Request, status: int, form: dict[str, str] | None, problem: str | None
) -> Response:
    environment = pages.environment(request)
    kind, name = request.path_params["kind"], request.path_params["entry"]
    with pages.reading(request) as conn:
        entry = catalogue.get(conn, environment, kind, name)
        context: dict[str, Any] = {
            "entry": entry,
            "contents": catalogue.contents(conn, environment, kind, name),
            "declarations": catalogue.declarations(conn, environment, name)
            if kind == "job"
            else [],
        }
    own = entry.description if entry.source == "people" else ""
    context |= {
        "form": form or {"description": own, "owner": entry.owner, "reason": ""},
        "problem": problem,
        "done": pages.word(request, "done"),
    }
    return pages.render(request, "catalogue/show.html", status, **context)


ROUTES = [
    Route("/catalogue", listing, name="catalogue"),
    Route("/catalogue/{kind}/{entry:path}", show, name="catalogue_entry", methods=["GET", "POST"]),
]

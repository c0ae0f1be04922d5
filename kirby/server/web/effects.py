"""The page about effects: what handlers did outside, and what is in doubt of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import effects
from kirby.server.web import api, pages

SHOWN = 100


def listing(request: Request) -> Response:
    """The newest ones; ``?show=doubt`` those in doubt, ``?name=`` those of a name."""
    return _page(request)


def resolve(request: Request) -> Response:
    """Say that one in doubt happened, or that it is to be done again."""
    who = api.needs(request, "operator")
    what = pages.form(request).get("do")
    effect_id = request.path_params["id"]
    try:
        if what not in ("done", "again"):
            raise Invalid("say whether it is done, or is to be done again")
        with pages.reading(request) as conn:
            effects.resolve(
                conn, pages.environment(request), effect_id, done=what == "done", actor=who.name
            )
    except KirbyError as error:
        return _page(request, pages.status_of(error), str(error))
    said = f"effect {effect_id} {'was done' if what == 'done' else 'will be done again'}"
    return pages.redirect(request, "effects", {"show": "doubt", "done": said})


def _page(request: Request, status: int = 200, problem: str | None = None) -> Response:
    name, in_doubt = pages.word(request, "name"), pages.word(request, "show") == "doubt"
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = effects.listing(
            conn, environment, in_doubt=in_doubt, name=name or None, limit=SHOWN + 1
        )
    return pages.render(
        request,
        "effects/listing.html" if not pages.partial(request) else "effects/_table.html",
        status,
        effects=found[:SHOWN],
        more=len(found) > SHOWN,
        in_doubt=in_doubt,
        name=name,
        problem=problem,
        done=pages.word(request, "done"),
    )


ROUTES = [
    Route("/effects", listing, name="effects"),
    Route("/effects/{id:int}", resolve, name="effect_resolve", methods=["POST"]),
]

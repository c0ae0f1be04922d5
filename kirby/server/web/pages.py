"""Rendering a page, the unit of work around a request, and the error pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import anyio
from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)

from kirby.core import errors
from kirby.server import packages, tokens
from kirby.server.accounts import Account, TooManyAttempts
from kirby.server.database import unit
from kirby.server.environments import Environment
from kirby.server.paths import UI
from kirby.server.web import charts, formats

STATUS: dict[type[Exception], int] = {
    TooManyAttempts: 429,
    packages.TooLarge: 413,
    tokens.Unknown: 401,
    errors.Invalid: 400,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Fenced: 409,
    errors.Taken: 409,
    errors.WrongTransition: 409,
    errors.Busy: 503,
    errors.Unavailable: 503,
    errors.WrongSchema: 503,
}
TITLES = {
    400: "That cannot be done",
    401: "Please log in",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "Not possible now",
    500: "Something broke",
    503: "Not available",
}
THEMES = ("auto", "light", "dark")
STATEMENT_TIMEOUT = "set local statement_timeout = '{}s'"  # no page may hold the database up
USUAL, LONG = 15, 120  # seconds: of a page, and of what counts or moves very much at once


def templates(app: Starlette) -> Jinja:
    """The template environment: everything escaped, a name that does not exist is an error."""
    jinja = Jinja(
        loader=FileSystemLoader(UI / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals["link"] = link
    jinja.globals["path"] = lambda name, **params: str(app.url_path_for(name, **params))
    jinja.globals |= {"charts": charts, "themes": THEMES}
    jinja.filters |= formats.FILTERS
    return jinja


@pass_context
def link(
    context: Context, name: str, query: dict[str, object] | None = None, **params: object
) -> str:
    """The path of a page in the environment that the page is about, so that it can be shared."""
    chosen = {key: value for key, value in (query or {}).items() if value is not None}
    chosen["env"] = context["environment"].name
    return f"{context['path'](name, **params)}?{urlencode(chosen)}"


@contextmanager
def reading(request: Request, seconds: int = USUAL) -> Iterator[Connection]:
    """The unit of work of a request; what it changed is committed at its end.

    A statement of it may take so many seconds.
    """
    with unit(request.app.state.engine) as conn:
        conn.exec_driver_sql(STATEMENT_TIMEOUT.format(seconds))
        yield conn


def account(request: Request) -> Account:
    """Who is asking."""
    found: Account = request.state.account
    return found


def environment(request: Request) -> Environment:
    """The environment that the page is about."""
    found: Environment = request.state.environment
    return found


def partial(request: Request) -> bool:
    """Whether htmx asks for the changing part of a page alone."""
    return "hx-request" in request.headers


def render(request: Request, template: str, http_status: int = 200, **context: Any) -> Response:
    """The page of a template. Templates see the request, who asks, the environment and the time."""
    return HTMLResponse(text(request, template, **context), status_code=http_status)


def text(request: Request, template: str, **context: Any) -> str:
    """What a template says, for pages and for parts of them that are streamed."""
    state = request.state
    shared = {
        "request": request,
        "account": getattr(state, "account", None),
        "environments": getattr(state, "environments", []),
        "environment": getattr(state, "environment", None),
        "now": getattr(state, "now", None),
        "theme": theme(request),
    }
    page = request.app.state.templates.get_template(template)
    return str(page.render(shared | context))


def theme(request: Request) -> str:
    """auto (as the system), light or dark."""
    chosen = request.cookies.get("kirby_theme", "auto")
    return chosen if chosen in THEMES else "auto"


def form(request: Request) -> dict[str, str]:
    """The texts of a posted form; for pages that are not async."""
    posted = anyio.from_thread.run(_form, request)
    return {name: value for name, value in posted.items() if isinstance(value, str)}


def fields(request: Request) -> FormData:
    """A posted form whose fields may be there several times; for pages that are not async."""
    return anyio.from_thread.run(_form, request)


async def _form(request: Request) -> FormData:
    return await request.form()


def here(address: str) -> str:
    """A path of this site to go back to; anything else becomes the front page."""
    safe = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if safe and address.isprintable() else "/"


def redirect(request: Request, name: str, query: dict[str, str], **params: object) -> Response:
    """To another page of the same environment; what is empty is left out of its address."""
    chosen = {key: value for key, value in query.items() if value}
    address = request.app.url_path_for(name, **params)
    asked = urlencode({**chosen, "env": environment(request).name})
    return RedirectResponse(f"{address}?{asked}", status_code=303)


def number(request: Request, name: str) -> int | None:
    """A whole number of the address, or None; raises Invalid."""
    given = request.query_params.get(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise errors.Invalid(f"{name} must be a whole number, not {given!r}")
    return int(given)


def word(request: Request, name: str) -> str:
    """A text of the address, empty if it is not there."""
    return request.query_params.get(name, "")


def plain(status: int, message: str) -> Response:
    """An answer where no page can be drawn."""
    return PlainTextResponse(message + "\n", status_code=status)


def is_api(path: str) -> bool:
    """Whether programs ask there for JSON."""
    return path.startswith("/api/")


def is_index(path: str) -> bool:
    """Whether installers and publishers ask there: what they show of an error is its text."""
    return path == "/index" or path.startswith("/index/")


def short(path: str, status: int, message: str) -> Response:
    """An answer of one line, as whoever asks for that path reads it."""
    line = " ".join(message.split())
    if is_api(path):
        return JSONResponse({"error": line}, status_code=status)
    return plain(status, line)


def refuse(request: Request, error: Exception) -> Response:
    """The page for an error that Kirby raised on purpose."""
    return _error(request, status_of(error), str(error))


def status_of(error: Exception) -> int:
    """The HTTP status of an error raised on purpose; 503: it is not the caller's fault."""
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)


def refuse_http(request: Request, error: Exception) -> Response:
    """The page for an address or a method that does not exist."""
    status: int = getattr(error, "status_code", 500)
    if status == 404:
        return _error(request, 404, f"there is nothing at {request.url.path}")
    return _error(request, status, "this address does not take that request")


def broken(request: Request, error: Exception) -> Response:
    """The page for an error that nobody expected; the log has it, the page shows none of it."""
    return _error(request, 500, "Kirby met an error it did not expect; its log says more")


def _error(request: Request, status: int, message: str) -> Response:
    path = request.url.path
    if is_api(path) or is_index(path) or partial(request):
        return short(path, status, message)
    title = TITLES.get(status, "That did not work")
    return render(request, "error.html", status, title=title, message=message, code=status)

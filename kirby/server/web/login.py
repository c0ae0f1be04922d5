"""Logging in and out, and the choice of light or dark."""

from __future__ import annotations

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kirby.core.errors import Denied
from kirby.server import accounts
from kirby.server.database import unit
from kirby.server.web import pages

SESSION_COOKIE = "kirby_session"
YEAR = 365 * 24 * 3600


def limiter() -> anyio.CapacityLimiter:
    """Two passwords at a time: each takes 64 MiB and a tenth of a second of a core."""
    return anyio.CapacityLimiter(2)


async def show(request: Request) -> Response:
    """The form; posted, it opens a session.

    Async, so that those who wait for their password to be checked keep no thread from the pages.
    """
    target = pages.here(request.query_params.get("next", "/"))
    if request.method != "POST":
        return pages.render(request, "login.html", next=target, login="", problem=None)
    form = await request.form()
    login, password = str(form.get("login", "")), str(form.get("password", ""))
    target = pages.here(str(form.get("next", target)))
    try:
        secret = await anyio.to_thread.run_sync(
            _log_in, request, login, password, limiter=request.app.state.hashing
        )
    except Denied as denied:
        status = 429 if isinstance(denied, accounts.TooManyAttempts) else 401
        context = {"next": target, "login": login, "problem": str(denied)}
        return pages.render(request, "login.html", status, **context)
    response = RedirectResponse(target, status_code=303)
    _set(request, response, SESSION_COOKIE, secret, accounts.SESSION_HOURS * 3600)
    return response


def _log_in(request: Request, login: str, password: str) -> str:
    engine = request.app.state.engine
    address = request.client.host if request.client else "unknown"
    with unit(engine) as conn:
        begun = accounts.attempt(conn, login, address)
    account = accounts.verify(begun, password)
    with unit(engine) as conn:
        if account is not None:
            return accounts.admit(conn, begun, account, password)
        refusal = accounts.refuse(conn, begun)
    raise refusal


def log_out(request: Request) -> Response:
    """End the session, here and in the database."""
    with pages.reading(request) as conn:
        accounts.log_out(conn, pages.account(request), request.state.secret)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(SESSION_COOKIE)
    return response


def theme(request: Request) -> Response:
    """Remember light, dark or as the system, and go back to the page."""
    form = pages.form(request)
    chosen = form.get("theme", "")
    response = RedirectResponse(pages.here(form.get("next", "/")), status_code=303)
    if chosen in pages.THEMES:
        _set(request, response, "kirby_theme", chosen, YEAR)
    return response


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        httponly=True,
        samesite="lax",
        secure=request.app.state.settings.secure_cookies,
    )

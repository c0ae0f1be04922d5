"""What stands before every page: headers, the same-site rule for changes, and who is asking.

These are ASGI middlewares, async by nature; what they ask the database is asked in a thread.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote, urlsplit

from sqlalchemy import Connection, Engine
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kirby.core.errors import Denied, KirbyError
from kirby.core.payload import MAX_BYTES
from kirby.server import accounts, environments, query, tokens
from kirby.server.database import unit
from kirby.server.web import pages
from kirby.server.web.api import Caller

SESSION_COOKIE = "kirby_session"
ENVIRONMENT_COOKIE = "kirby_env"

COOKIE_RULES = "Path=/; Max-Age=31536000; HttpOnly; SameSite=lax"

SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/login", "/healthz", "/readyz", "/favicon.ico")  # and everything below /static/
MAX_BODY = 3 * MAX_BYTES + 65536  # a payload grows threefold in a form at the worst
MAX_STRANGER_BODY = 65536
# Where files are sent to: there a body may be as large as KIRBY_MAX_UPLOAD, and what is around it.
UPLOADS = ("/index", "/index/", "/packages", "/deploy", "/api/v1/deploy")
AROUND_UPLOAD = 10 << 20
TOKEN_USER = "__token__"  # noqa: S105 - a name
ASK = f"a token is needed here: as the password of the user {TOKEN_USER}, or as a Bearer token"
FOR_VIEWERS = ("/logout", "/theme")  # what somebody may post who may change nothing

POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Headers:
    """Security headers on every answer; what is behind the login is not kept by any cache."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                headers.add_vary_header("HX-Request")
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


class Limits:
    """Refuse what no page of ours sends: large bodies, and NUL, which PostgreSQL cannot compare."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := _beyond(scope)) is not None:
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _beyond(scope: Scope) -> Response | None:
    """uvicorn sees to it that a body is not longer than it says."""
    path = scope["path"]
    if "\x00" in path or b"%00" in scope["query_string"]:
        return pages.short(path, 400, "The address holds a NUL character.")
    headers = RequestHeaders(scope=scope)
    if "transfer-encoding" in headers:
        return pages.short(path, 411, "Send a Content-Length.")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > (limit := _limit(scope)):
        return pages.short(path, 413, f"That is too large: at most {max(limit // 10**6, 1):,} MB.")
    return None


def _limit(scope: Scope) -> int:
    """How many bytes a body may have there."""
    if scope["path"] in OPEN:
        return MAX_STRANGER_BODY
    if scope["path"] in UPLOADS:
        return int(scope["app"].state.settings.max_upload) + AROUND_UPLOAD
    return MAX_BODY


class SameSite:
    """Refuse changes that another site asks for: browsers say where a request comes from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _same_site(scope["method"], RequestHeaders(scope=scope)):
            message = "This request came from another site, so it was refused."
            await pages.short(scope["path"], 403, message)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _same_site(method: str, headers: RequestHeaders) -> bool:
    """Neither header: no browser sent it, so no other site can be behind it."""
    if method in SAFE:
        return True
    if fetch_site := headers.get("sec-fetch-site"):
        return fetch_site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


class Sessions:
    """Who is asking, in which environment, and when: on ``request.state`` of every page.

    Nobody comes past without an account but to OPEN; nobody who is a viewer comes past to change.
    The API and the package index take a token as well; the session of a page has no token's limits.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _open(scope["path"]):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            refusal = await run_in_threadpool(_enter, request, request.app.state.engine)
        except KirbyError as error:
            refusal = await run_in_threadpool(pages.refuse, request, error)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, _remembering(request, send))


def _open(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


def _enter(request: Request, engine: Engine) -> Response | None:
    """Fill ``request.state``; the answer instead of the page, if there is a reason for one."""
    path, state = request.url.path, request.state
    with unit(engine) as conn:
        try:
            caller = _caller(conn, request)
        except tokens.Unknown as error:
            return _ask_for_token(path, str(error))
        if caller is None:
            return _to_login(request)
        state.caller = caller
        state.now = query.value(conn, "select kirby.now()")
        state.environments = environments.listing(conn)
    state.environment = _usual(request, caller)
    if asked := request.query_params.get("env"):
        caller.check_environment(asked)
        state.environment = environments.pick(state.environments, asked)
    changes = request.method not in SAFE and path not in FOR_VIEWERS
    if changes and not caller.may("operator"):
        return pages.refuse(request, Denied(f"{caller.name} is a viewer: ask an operator"))
    return None


def _caller(conn: Connection, request: Request) -> Caller | None:
    """The token of a program, or the session of a browser; raises tokens.Unknown."""
    given, path = request.headers.get("authorization"), request.url.path
    if given and (pages.is_api(path) or pages.is_index(path)):
        bearer = tokens.recognise(conn, _secret(given))
        return Caller(f"token {bearer.name}", bearer.role, bearer.environment)
    secret = request.cookies.get(SESSION_COOKIE)
    account = accounts.recognise(conn, secret) if secret else None
    if account is None:
        return None
    request.state.account, request.state.secret = account, secret
    return Caller(account.login, account.role)


def _secret(authorization: str) -> str:
    """The token of ``Bearer TOKEN`` or of Basic with the user ``__token__``; raises Unknown."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "bearer":
        return given.strip()
    try:
        text = (
            base64.b64decode(given.strip(), validate=True).decode()
            if kind.lower() == "basic"
            else ""
        )
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    user, _, password = text.partition(":")
    if user != TOKEN_USER or not password:
        raise tokens.Unknown(ASK)
    return password.strip()


def _usual(request: Request, caller: Caller) -> environments.Environment:
    """Without ?env= it is that of the token, the one looked at last, or the server's own."""
    known: list[environments.Environment] = request.state.environments
    by_name = {environment.name: environment for environment in known}
    default = by_name.get(request.app.state.settings.environment, known[0])
    last = request.cookies.get(ENVIRONMENT_COOKIE, "")
    return by_name.get(caller.environment or last, default)


def _ask_for_token(path: str, message: str) -> Response:
    response = pages.short(path, 401, message)
    response.headers["WWW-Authenticate"] = 'Basic realm="Kirby"'
    return response


def _to_login(request: Request) -> Response:
    if pages.is_api(request.url.path) or pages.is_index(request.url.path):
        return _ask_for_token(request.url.path, ASK)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = "/login" if request.method not in SAFE else f"/login?next={quote(here)}"
    if "hx-request" in request.headers:
        current = urlsplit(request.headers.get("hx-current-url", ""))
        page = quote(current.path + (f"?{current.query}" if current.query else ""))
        return Response(status_code=401, headers={"HX-Redirect": f"/login?next={page or '/'}"})
    if request.url.path.endswith("/live"):
        return Response(status_code=204)  # what tells an EventSource to stop
    return RedirectResponse(target, status_code=303)


def _remembering(request: Request, send: Send) -> Send:
    """Set the cookie of the environment when the address chose one."""
    if "env" not in request.query_params or request.method not in SAFE:
        return send
    name = request.state.environment.name

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cookie = (
                f"{ENVIRONMENT_COOKIE}={name}; Path=/; Max-Age=31536000; HttpOnly; SameSite=lax"
            )
            MutableHeaders(scope=message).append("Set-Cookie", cookie)
        await send(message)

    return sending

"""The admin UI: every route, every middleware and every error page in one view."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from kirby.core.errors import KirbyError
from kirby.server.paths import UI
from kirby.server.settings import Settings
from kirby.server.web import (
    api,
    api_channels,
    api_exceptions,
    api_exports,
    api_incidents,
    api_jobs,
    api_rewinds,
    api_runs,
    api_schedules,
    api_states,
    catalogue,
    channels,
    deploy,
    effects,
    exceptions,
    flows,
    health,
    incidents,
    index,
    jobs,
    live,
    login,
    overview,
    packages,
    pages,
    rewinds,
    run_logs,
    runs,
    schedules,
    security,
    state_history,
    states,
    statics,
    supervisors,
    ticks,
    topics,
    traces,
)

ROUTES = [
    Route("/", overview.show, name="overview"),
    *jobs.ROUTES,
    *deploy.ROUTES,
    *schedules.ROUTES,
    Route("/runs", runs.listing, name="runs"),
    Route("/runs/{run_id:int}", runs.show, name="run"),
    *run_logs.ROUTES,
    Route("/runs/{run_id:int}/live", live.stream, name="run_live"),
    Route("/runs/{run_id:int}/cancel", runs.cancel, name="run_cancel", methods=["POST"]),
    Route("/runs/{run_id:int}/retry", runs.retry, name="run_retry", methods=["POST"]),
    Route("/topics", topics.listing, name="topics"),
    Route("/topics/{topic}", topics.show, name="topic", methods=["GET", "POST"]),
    Route("/messages/{position:int}", topics.message, name="message"),
    *states.ROUTES,
    *state_history.ROUTES,
    *rewinds.ROUTES,
    *effects.ROUTES,
    *exceptions.ROUTES,
    *api_exceptions.ROUTES,
    *channels.ROUTES,
    *api_channels.ROUTES,
    *traces.ROUTES,
    *flows.ROUTES,
    *catalogue.ROUTES,
    Route("/health", health.show, name="health"),
    *incidents.ROUTES,
    *supervisors.ROUTES,
    *ticks.ROUTES,
    *packages.ROUTES,
    *index.ROUTES,
    *api_jobs.ROUTES,
    Route("/api/v1/me", api.me, name="api_me"),
    *api_runs.ROUTES,
    *api_exports.ROUTES,
    *api_states.ROUTES,
    *api_schedules.ROUTES,
    *api_rewinds.ROUTES,
    *api_incidents.ROUTES,
    Route("/login", login.show, name="login", methods=["GET", "POST"]),
    Route("/logout", login.log_out, name="logout", methods=["POST"]),
    Route("/theme", login.theme, name="theme", methods=["POST"]),
    Route("/favicon.ico", statics.favicon, name="favicon"),
    Route("/healthz", health.alive, name="healthz"),
    Route("/readyz", health.ready, name="readyz"),
    Mount("/static/htmx", statics.Files(statics.htmx()), name="htmx"),
    Mount("/static", statics.Files(UI / "static"), name="static"),
]


def create_app(settings: Settings, engine: Engine) -> Starlette:
    """The app over an engine that logs in as kirby_server; ``app.state`` carries what it uses."""
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(security.Headers),
            Middleware(security.Limits),
            Middleware(security.SameSite),
            Middleware(security.Sessions),
        ],
        exception_handlers={
            KirbyError: pages.refuse,
            HTTPException: pages.refuse_http,
            Exception: pages.broken,
        },
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.engine = engine
    app.state.hub = live.Hub(settings.dsn or "")
    app.state.templates = pages.templates(app)
    app.state.hashing = login.limiter()
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with app.state.hub.listening():
        yield

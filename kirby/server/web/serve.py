"""Serve the web until told to stop."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

from kirby.core.errors import Busy, Invalid
from kirby.server import database, schema
from kirby.server.settings import Settings
from kirby.server.web import create_app

GRACE = 2  # seconds for answers under way; streams are ended at once


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then return; ``ready`` gets the address once all is up.

    Raises Busy if the port is in use, Invalid if it cannot be listened on or there is no DSN,
    Unavailable or WrongSchema if the database is not as it must be.
    """
    if settings.dsn is None:
        raise Invalid("there is no database to serve: set KIRBY_DSN, or run 'kirby dev'")
    schema.check(settings.dsn)
    with listen(settings.host, settings.port) as listener:
        engine = database.engine(settings.dsn, application="kirby web")
        server = Server(create_app(settings, engine), address(settings.host, listener), ready)
        try:
            server.run(sockets=[listener])
        finally:
            engine.dispose()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises Busy or Invalid, one clear line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Busy(f"port {port} is in use: choose another with --port") from None
        raise Invalid(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


def address(host: str, listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


class Server(uvicorn.Server):
    """uvicorn, but it ends open streams when it stops, and returns rather than dies of a signal."""

    def __init__(
        self, app: Starlette, url: str, ready: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.app, self.url, self.ready = app, url, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.ready is not None:
            self.ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.hub.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

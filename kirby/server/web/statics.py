"""Files that are served as they are: the stylesheet, the icons, and htmx from its own package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from kirby.core.errors import KirbyError
from kirby.server.paths import UI


def htmx() -> Path:
    """The folder of htmx's files in its package, which is not imported: it wants Django."""
    found = importlib.util.find_spec("js_lib_htmx")
    if found is None or not found.submodule_search_locations:
        raise KirbyError("django-js-lib-htmx is missing: pip install 'kirby[server]'")
    return Path(found.submodule_search_locations[0]) / "static" / "htmx"


class Files(StaticFiles):
    """Files that a browser asks after each time: an answer of 304 is enough if nothing changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-cache"
            await send(message)

        await super().__call__(scope, receive, sending)


def favicon(request: Request) -> Response:
    """For those that ask for it by its old name."""
    return FileResponse(UI / "static" / "favicon.svg", media_type="image/svg+xml")

"""Where packages come from: what is hosted here, by our own index; all else, by the upstream one.

uv is given two indexes, ours first, and never asks the second for a name that the first one knows.
Ours is served for the time of one resolution on a port of this machine, below a secret path,
straight from the database: only the metadata that uv asks for is read, and no file is unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.server
import logging
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from packaging.utils import canonicalize_name

from kirby.core.errors import KirbyError
from kirby.server import sdk_wheel
from kirby.server.sdk_wheel import SdkWheel

PIECE = 1 << 20

log = logging.getLogger("kirby.sources")


@dataclass(frozen=True, slots=True)
class HostedFile:
    """A file of a package that is published here. `metadata`: a wheel's METADATA as it is."""

    filename: str
    sha256: str
    requires_python: str | None = None
    metadata: bytes | None = None
    yanked: str | None = None  # why; None: it is not


class Hosted(Protocol):
    """The packages that are published here, and every stored file."""

    def names(self) -> Collection[str]:
        """The names, normalised, which no upstream index is asked about."""

    def files(self, name: str) -> Sequence[HostedFile]:
        """What there is of that name, in any order."""

    def stored(self, sha256s: Collection[str]) -> Collection[str]:
        """Those of these files that are stored, published or not."""

    def read(self, sha256: str) -> Iterable[bytes]:
        """The pieces of a stored file."""


class Nothing:
    """Where nothing is hosted, nor stored."""

    def names(self) -> Collection[str]:
        return ()

    def files(self, name: str) -> Sequence[HostedFile]:
        return ()

    def stored(self, sha256s: Collection[str]) -> Collection[str]:
        return ()

    def read(self, sha256: str) -> Iterable[bytes]:
        return ()


class With:
    """Hosted packages, of which one name is settled: it is this wheel and no other."""

    def __init__(self, hosted: Hosted, name: str, wheel: Path, file: HostedFile) -> None:
        self._hosted, self._name, self._wheel, self._file = hosted, name, wheel, file

    def names(self) -> Collection[str]:
        return {*self._hosted.names(), self._name}

    def files(self, name: str) -> Sequence[HostedFile]:
        return [self._file] if name == self._name else self._hosted.files(name)

    def stored(self, sha256s: Collection[str]) -> Collection[str]:
        return self._hosted.stored(sha256s)

    def read(self, sha256: str) -> Iterable[bytes]:
        if sha256 == self._file.sha256:
            return pieces(self._wheel)
        return self._hosted.read(sha256)


@dataclass(frozen=True)
class Sources:
    """What resolving and building needs: this server's SDK, hosted packages, an index, a cache.

    `index_url` is the upstream index (None: uv's own), `cache` uv's cache folder (None: uv's own).
    """

    sdk: SdkWheel
    hosted: Hosted = field(default_factory=Nothing)
    index_url: str | None = None
    cache: Path | None = None

    @contextlib.contextmanager
    def serving(self) -> Iterator[Serving | None]:
        """Our index, while the block runs; None when nothing is hosted."""
        names = set(self.hosted.names()) - {sdk_wheel.NAME}
        if not names:
            yield None
            return
        served = Serving(self.hosted, names)
        thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.shutdown()
            served.server_close()


class Serving(http.server.ThreadingHTTPServer):
    """The index of hosted packages on a free port of 127.0.0.1; `failed` says what went wrong."""

    daemon_threads = True

    def __init__(self, hosted: Hosted, names: Collection[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.hosted, self.hosted_names = hosted, names
        self.failed = ""
        self._secret = f"/{secrets.token_urlsafe(16)}"

    @property
    def url(self) -> str:
        """The simple index."""
        return f"http://127.0.0.1:{self.server_port}{self._secret}/simple"

    def sha256(self, url: str) -> str | None:
        """Which stored file a URL of ours is; None for another's."""
        ours = f"http://127.0.0.1:{self.server_port}{self._secret}/files/"
        return url.removeprefix(ours).partition("/")[0] if url.startswith(ours) else None

    def answer(self, path: str) -> tuple[str, Iterable[bytes]] | None:
        """The type and content of a page or file; None: there is no such thing."""
        kind, _, rest = path.removeprefix(f"{self._secret}/").partition("/")
        if not path.startswith(f"{self._secret}/"):
            return None
        if kind == "simple":
            name = rest.strip("/")
            known = name in self.hosted_names
            return ("text/html", [self._listing(name)]) if known else None
        sha256, _, filename = rest.partition("/")
        if filename.endswith(".metadata"):
            return self._metadata(sha256, unquote(filename.removesuffix(".metadata")))
        return "application/octet-stream", self.hosted.read(sha256)

    def _metadata(self, sha256: str, filename: str) -> tuple[str, Iterable[bytes]] | None:
        name = canonicalize_name(filename.partition("-")[0])
        for file in self.hosted.files(name):
            if file.sha256 == sha256 and file.metadata is not None:
                return "text/plain", [file.metadata]
        return None

    def _listing(self, name: str) -> bytes:
        links = "".join(f"{self._link(file)}\n" for file in self.hosted.files(name))
        return f"<!DOCTYPE html><html><body>\n{links}</body></html>".encode()

    def _link(self, file: HostedFile) -> str:
        href = f"{self._secret}/files/{file.sha256}/{quote(file.filename)}#sha256={file.sha256}"
        said = {"href": href}
        if file.requires_python:
            said["data-requires-python"] = file.requires_python
        if file.metadata is not None:
            digest = hashlib.sha256(file.metadata).hexdigest()
            said["data-core-metadata"] = f"sha256={digest}"
        if file.yanked is not None:
            said["data-yanked"] = file.yanked
        attributes = " ".join(f'{key}="{html.escape(value)}"' for key, value in said.items())
        return f"<a {attributes}>{html.escape(file.filename)}</a>"


class _Page(http.server.BaseHTTPRequestHandler):
    server: Serving
    protocol_version = "HTTP/1.0"  # an answer ends where the connection does

    def do_GET(self) -> None:
        try:
            answer = self.server.answer(self.path.partition("?")[0])
            if answer is None:
                self.send_error(404)
                return
            self._send(*answer)
        except OSError:
            self.close_connection = True  # it is uv that went away
        except Exception as error:  # never "not found": then the name would be asked for upstream
            self.server.failed = str(error).partition("\n")[0] or type(error).__name__
            self.send_error(403)

    do_HEAD = do_GET

    def _send(self, kind: str, content: Iterable[bytes]) -> None:
        pieces = iter(content)
        first = next(pieces, b"")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(first)
            for piece in pieces:
                self.wfile.write(piece)

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug(format, *arguments)


def pieces(path: Path) -> Iterator[bytes]:
    """The content of a file; raises KirbyError."""
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise KirbyError(f"{path} cannot be read: {error.strerror or error}") from error

"""Fetch the files of a lock: from what is stored, or over HTTP, checked against their hash."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from kirby.core.errors import Invalid, KirbyError
from kirby.server import sources, uv
from kirby.server.sources import Sources

if TYPE_CHECKING:
    from kirby.server.locks import LockedFile

TIMEOUT = 60.0  # seconds without a byte
TRIES = 3
PAUSE = 0.5  # seconds before the second


class Downloads:
    """Puts files into `folder`; wheels that are stored already only for `copies`."""

    def __init__(
        self, origin: Sources, folder: Path, files: Iterable[LockedFile], *, copies: bool
    ) -> None:
        self._copies = copies
        self._agent = f"kirby/{origin.sdk.version}"  # some places refuse Python's own
        self._hosted = origin.hosted
        self._stored = set(origin.hosted.stored([file.sha256 for file in files]))
        self._folder = folder
        self._logins = dict(_logins(uv.index_urls(os.environ, origin.index_url)))

    def file(self, file: LockedFile) -> None:
        """Have one file, whole and right. Raises Invalid for wrong bytes, else KirbyError."""
        path = self._folder / file.filename
        is_stored = file.sha256 in self._stored
        if is_stored and file.is_wheel and not self._copies:
            return
        if is_stored or file.hosted:
            return self._save(path, file, self._hosted.read(file.sha256))
        for attempt in range(TRIES):
            try:
                return self._save(path, file, self._download(file))
            except (OSError, http.client.HTTPException) as error:
                if attempt == TRIES - 1 or _is_final(error):
                    raise KirbyError(f"{file.filename} cannot be fetched: {_why(error)}") from None
            time.sleep(PAUSE * 2**attempt)

    def _save(self, path: Path, file: LockedFile, pieces: Iterable[bytes]) -> None:
        hashed = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self._folder) as content:
            for piece in pieces:
                hashed.update(piece)
                content.write(piece)
            content.flush()
            if hashed.hexdigest() != file.sha256:
                raise Invalid(f"{file.filename} is not what was locked: hash mismatch")
            if not path.exists():
                os.link(content.name, path)

    def _download(self, file: LockedFile) -> Iterator[bytes]:
        parts = urlsplit(file.url)
        request = urllib.request.Request(urlunsplit(_bare(parts)))  # noqa: S310 - checked by hash
        request.add_header("User-Agent", self._agent)
        if login := _login(parts) or self._logins.get(_place(parts)):
            request.add_unredirected_header("Authorization", login)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            while piece := answer.read(sources.PIECE):
                yield piece


def _logins(urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """For each place the login that a URL of an index has."""
    for url in urls:
        parts = urlsplit(url)
        if login := _login(parts):
            yield _place(parts), login


def _login(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    name, password = unquote(parts.username), unquote(parts.password or "")
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def _place(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _bare(parts: SplitResult) -> SplitResult:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def _is_final(error: Exception) -> bool:
    """Whether asking again would be in vain."""
    return isinstance(error, urllib.error.HTTPError) and error.code < 500


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the index answers {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)

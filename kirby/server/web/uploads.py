"""Posted forms with large files: to a temporary file as they come, so that memory stays flat."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO

import anyio
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from kirby.core.errors import Invalid, Unavailable

MAX_TEXT = 8 << 20  # bytes of all fields together that are no files


class Parser(MultiPartParser):
    """Starlette's, with one limit for all texts together: each of them is held in memory."""

    max_texts = MAX_TEXT

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.max_texts -= end - start
            if self.max_texts < 0:
                raise MultiPartException(f"The texts of a form may have {MAX_TEXT >> 20} MB.")
        super().on_part_data(data, start, end)


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[FormData]:
    """The posted form; its files are gone when it is left. Raises Invalid or Unavailable."""
    form = await _receive(request)
    try:
        yield form
    finally:
        await form.close()


@contextmanager
def form(request: Request) -> Iterator[FormData]:
    """As ``received``, for endpoints that are not async."""
    found = anyio.from_thread.run(_receive, request)
    try:
        yield found
    finally:
        anyio.from_thread.run(found.close)


async def _receive(request: Request) -> FormData:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Invalid("send a form of the type multipart/form-data")
    parser = Parser(request.headers, request.stream(), max_files=20, max_part_size=MAX_TEXT)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise Invalid(f"the form cannot be read: {error.message}") from None
    except ClientDisconnect:
        raise Invalid("the upload was cut off") from None
    except OSError as error:
        where = f"the upload cannot be kept in {tempfile.gettempdir()}"
        raise Unavailable(f"{where}: {error.strerror or error}") from None


def texts(form: FormData) -> dict[str, str]:
    """The fields of a form that are texts; of several with one name the last."""
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def file(form: FormData, name: str) -> tuple[str, BinaryIO] | None:
    """The file of a form: what it is called and its content; None if none was chosen."""
    found = form.get(name)
    if not isinstance(found, UploadFile) or not found.filename:
        return None
    return found.filename, found.file

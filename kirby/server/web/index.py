"""The package index, as installers and publishers speak: the simple index, files, legacy upload.

Below /index/ a name leads to the same page as below /index/simple/, so either is an index address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC
from html import escape
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from kirby.core.errors import Invalid, NotFound
from kirby.server import documents, files, packages
from kirby.server.archives import Archive
from kirby.server.database import unit
from kirby.server.web import api, pages, uploads

VERSION = "1.1"  # of the simple index's format
JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PLAIN_HTML = "text/html"
OFFERED = (PLAIN_HTML, JSON, HTML)  # the first of those that are wanted equally
LATEST = {"application/vnd.pypi.simple.latest+json": JSON}
LATEST |= {"application/vnd.pypi.simple.latest+html": HTML}
BYTES = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
FOR_EVER = "private, max-age=31536000, immutable"  # the address of a file names its content


def listing(request: Request) -> Response:
    """Every name that is hosted here; a publisher's form that is posted here is a file."""
    api.needs(request, "viewer")
    with pages.reading(request) as conn:
        names = packages.names(conn)
    document = {"meta": {"api-version": VERSION}, "projects": [{"name": name} for name in names]}
    links = [_link(_address(request, "index_simple", name=name), name) for name in names]
    return _answer(request, "Packages", document, links)


def project(request: Request) -> Response:
    """The files of one name, however it is spelt; 404 sends an installer to its next index."""
    api.needs(request, "viewer")
    name = request.path_params["name"]
    if name != packages.normal(name):
        page = str(request.scope["path"]).rstrip("/").rpartition("/")[0]
        return RedirectResponse(f"{page}/{packages.normal(name)}/", status_code=301)
    with pages.reading(request) as conn:
        found = packages.get(conn, name)
    of_all = [file for release in found.releases for file in release.files]
    document = {
        "meta": {"api-version": VERSION},
        "name": found.name,
        "versions": [release.version for release in found.releases],
        "files": [_described(request, file) for file in of_all],
    }
    return _answer(request, found.name, document, [_file_link(request, file) for file in of_all])


def _described(request: Request, file: packages.File) -> dict[str, Any]:
    core = {"sha256": file.metadata_sha256} if file.kind == "wheel" else False
    described = {
        "filename": file.filename,
        "url": _file_address(request, file),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": f"{file.uploaded_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "core-metadata": core,
        "dist-info-metadata": core,  # its name in installers before 2023
        "yanked": (file.yanked_reason or True) if file.yanked_at else False,
    }
    if file.requires_python:
        described["requires-python"] = file.requires_python
    return described


def _file_link(request: Request, file: packages.File) -> str:
    attributes = {}
    if file.requires_python:
        attributes["data-requires-python"] = file.requires_python
    if file.kind == "wheel":
        attributes["data-core-metadata"] = f"sha256={file.metadata_sha256}"
        attributes["data-dist-info-metadata"] = f"sha256={file.metadata_sha256}"
    if file.yanked_at:
        attributes["data-yanked"] = file.yanked_reason or ""
    address = f"{_file_address(request, file)}#sha256={file.sha256}"
    return _link(address, file.filename, attributes)


def _link(address: str, text: str, attributes: dict[str, str] | None = None) -> str:
    said = "".join(f' {name}="{escape(value)}"' for name, value in (attributes or {}).items())
    return f'<a href="{escape(address)}"{said}>{escape(text)}</a><br>'


def _address(request: Request, route: str, **params: str) -> str:
    return str(request.app.url_path_for(route, **params))


def _file_address(request: Request, file: packages.File) -> str:
    return _address(request, "index_file", sha256=file.sha256, filename=file.filename)


def _answer(request: Request, title: str, document: Any, links: list[str]) -> Response:
    """The page in the format that was asked for; 406 if we have none of those."""
    wanted = negotiated(request.headers.get("accept", "*/*"))
    if wanted is None:
        return pages.plain(406, f"this index speaks {', '.join(OFFERED)}")
    response: Response
    if wanted == JSON:
        response = Response(documents.text(document), media_type=JSON)
    else:
        response = HTMLResponse(
            _html(title, links), headers={"Content-Type": f"{wanted}; charset=utf-8"}
        )
    response.headers["Vary"] = "Accept"
    return response


def _html(title: str, links: list[str]) -> str:
    return "\n".join((
        "<!DOCTYPE html>",
        '<html lang="en"><head>',
        f'<meta name="pypi:repository-version" content="{VERSION}">',
        f"<title>{escape(title)}</title>",
        "</head><body>",
        *links,
        "</body></html>",
        "",
    ))  # fmt: skip


def negotiated(accept: str) -> str | None:
    """Which of our formats an Accept header wants most; None: none of them."""
    wanted = dict(_wishes(accept))
    best = max(OFFERED, key=lambda offered: _wish(wanted, offered))
    return best if _wish(wanted, best) > 0 else None


def _wishes(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if found := re.fullmatch(r"q=([01](?:\.\d{0,3})?)", parameter):
                quality = float(found[1])
        yield LATEST.get(kind, kind), quality


def _wish(wanted: dict[str, float], offered: str) -> float:
    """The most exact wish counts."""
    for kind in (offered, offered.partition("/")[0] + "/*", "*/*"):
        if kind in wanted:
            return wanted[kind]
    return 0.0


def file(request: Request) -> Response:
    """A file, or the part of it that was asked for; read piece by piece, a connection for each."""
    api.needs(request, "viewer")
    found = _found(request, request.path_params["filename"])
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": FOR_EVER,
        "Content-Disposition": f'attachment; filename="{found.filename}"',
    }
    first, last = 0, found.size - 1
    status = 200
    if asked := _range(request, found.size):
        (first, last), status = asked, 206
        headers["Content-Range"] = f"bytes {first}-{last}/{found.size}"
        if first > last:
            return _no_such_range(found.size)
    headers["Content-Length"] = str(last - first + 1)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    content = _content(request, found.sha256, first, last)
    return StreamingResponse(content, status, headers, "application/octet-stream")


def _found(request: Request, filename: str) -> packages.File:
    with pages.reading(request) as conn:
        found = packages.file(conn, filename)
    if found.sha256 != request.path_params["sha256"]:
        raise NotFound(f"{filename} has another sha256: {found.sha256}")
    return found


def _range(request: Request, size: int) -> tuple[int, int] | None:
    """First and last byte of a range; the first beyond the last: there is no such part."""
    found = BYTES.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if not found or not any(found.groups()):
        return None  # several ranges, or another unit: the whole file is a right answer too
    first, last = found.groups()
    if not first:
        return max(size - int(last), 0), size - 1 if int(last) else -1
    beyond = int(first) >= size
    return int(first), -1 if beyond else min(int(last or size), size - 1)


def _no_such_range(size: int) -> Response:
    refusal = pages.plain(416, f"the file has {size} bytes")
    refusal.headers["Content-Range"] = f"bytes */{size}"
    return refusal


def _content(request: Request, sha256: str, first: int, last: int) -> Iterator[bytes]:
    for number in range(first // files.PIECE, last // files.PIECE + 1):
        with pages.reading(request) as conn:
            piece = packages.piece(conn, sha256, number)
        begin = number * files.PIECE
        yield piece[max(first - begin, 0) : last - begin + 1]


def metadata(request: Request) -> Response:
    """METADATA of a wheel, so that an installer resolves without fetching the wheel."""
    api.needs(request, "viewer")
    found = _found(request, request.path_params["filename"])
    if found.kind != "wheel":
        raise NotFound(f"{found.filename} is an sdist: what it needs is known when it is built")
    with pages.reading(request) as conn:
        text = packages.metadata(conn, found.filename)
    return Response(text, media_type="text/plain", headers={"Cache-Control": FOR_EVER})


async def upload(request: Request) -> Response:
    """A file as twine and uv send it; the same bytes again are fine.

    Async, so that an upload that comes slowly keeps no thread from the pages.
    """
    api.needs(request, "developer")
    async with uploads.received(request) as form:
        return await run_in_threadpool(_take, request, form)


def _take(request: Request, form: FormData) -> Response:
    fields = uploads.texts(form)
    if fields.get(":action") != "file_upload" or fields.get("protocol_version", "1") != "1":
        raise Invalid("this takes uploads of files: :action must be file_upload, version 1")
    archive, new = publish(request, form, fields)
    said = "is published" if new else "was here already, with this content"
    return pages.plain(200, f"{archive.filename} {said}")


def publish(request: Request, form: FormData, fields: dict[str, str]) -> tuple[Archive, bool]:
    """Take the file of a form, for the page as well: what it is, and whether it is new."""
    who = api.needs(request, "developer")
    found = uploads.file(form, "content")
    if found is None:
        raise Invalid("there is no file in the field 'content'")
    filename, content = found
    limit = request.app.state.settings.max_upload
    archive = packages.check(content, filename, fields, limit=limit)
    with unit(request.app.state.engine) as conn:
        return archive, packages.store(conn, content, archive, actor=who.name)


ROUTES = [
    Route("/index", upload, methods=["POST"]),
    Route("/index/", upload, name="index", methods=["POST"]),
    Route("/index/", listing),
    Route("/index/simple/", listing, name="index_names"),
    Route("/index/simple/{name}/", project, name="index_simple"),
    Route("/index/files/{sha256}/{filename}.metadata", metadata, name="index_metadata"),
    Route("/index/files/{sha256}/{filename}", file, name="index_file"),
    Route("/index/{name}/", project, name="index_project"),
]

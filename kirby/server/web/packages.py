"""Pages and API about packages: what is published here, publishing by form, taking back."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.core.errors import Invalid, Taken
from kirby.server import packages
from kirby.server.web import api, index, pages, uploads


def listing(request: Request, status: int = 200, problem: str | None = None) -> Response:
    with pages.reading(request) as conn:
        found = packages.listing(conn)
    return pages.render(
        request,
        "packages/_table.html" if pages.partial(request) else "packages/listing.html",
        status,
        packages=found,
        problem=problem,
        **_shared(request),
    )


def _shared(request: Request) -> dict[str, Any]:
    base = str(request.base_url).rstrip("/")
    return {
        "may_publish": api.caller(request).may("developer"),
        "limit": request.app.state.settings.max_upload,
        "upload_url": base + str(request.app.url_path_for("index")),
        "simple_url": base + str(request.app.url_path_for("index_names")),
    }


def show(request: Request) -> Response:
    with pages.reading(request) as conn:
        found = packages.get(conn, request.path_params["package"])
    published, said = pages.word(request, "published"), pages.word(request, "new")
    return pages.render(
        request,
        "packages/show.html",
        package=found,
        published=published,
        new=said != "no",
        **_shared(request),
    )


async def upload(request: Request) -> Response:
    """The form of the page; a file that is refused brings the page back with why."""
    api.needs(request, "developer")
    async with uploads.received(request) as form:
        return await run_in_threadpool(_take, request, form)


def _take(request: Request, form: FormData) -> Response:
    try:
        archive, new = index.publish(request, form, {})
    except packages.TooLarge as problem:
        return listing(request, 413, str(problem))
    except Invalid as problem:
        return listing(request, 400, str(problem))
    except Taken as problem:
        return listing(request, 409, str(problem))
    query = f"?published={archive.filename}&new={'yes' if new else 'no'}"
    return _to(request, archive.name, query)


def yank(request: Request) -> Response:
    who = api.needs(request, "developer")
    name, version = request.path_params["package"], request.path_params["version"]
    form = pages.form(request)
    with pages.reading(request) as conn:
        if form.get("again"):
            packages.unyank(conn, name, version, actor=who.name)
        else:
            packages.yank(conn, name, version, reason=form.get("reason", ""), actor=who.name)
    return _to(request, name)


def _to(request: Request, name: str, query: str = "") -> Response:
    target = request.app.url_path_for("package", package=packages.normal(name))
    return RedirectResponse(f"{target}{query}", status_code=303)


def api_listing(request: Request) -> Response:
    api.needs(request, "viewer")
    with pages.reading(request) as conn:
        found = packages.listing(conn)
    return api.respond([_short(package) for package in found])


def _short(package: packages.Package) -> dict[str, object]:
    return {
        "name": package.name,
        "latest": package.latest.version,
        "versions": [release.version for release in package.releases],
    }


def api_show(request: Request) -> Response:
    api.needs(request, "viewer")
    with pages.reading(request) as conn:
        found = packages.get(conn, request.path_params["package"])
    return api.respond(found)


def api_yank(request: Request) -> Response:
    """Take a version back: ``{"reason": "why"}``."""
    who = api.needs(request, "developer")
    reason = api.document(request).get("reason", "")
    if not isinstance(reason, str):
        raise Invalid("reason must be a text")
    name, version = request.path_params["package"], request.path_params["version"]
    with pages.reading(request) as conn:
        return api.respond(packages.yank(conn, name, version, reason=reason, actor=who.name))


def api_unyank(request: Request) -> Response:
    who = api.needs(request, "developer")
    name, version = request.path_params["package"], request.path_params["version"]
    with pages.reading(request) as conn:
        return api.respond(packages.unyank(conn, name, version, actor=who.name))


API = f"{api.PREFIX}/packages"
ROUTES = [
    Route("/packages", listing, name="packages"),
    Route("/packages", upload, name="packages_upload", methods=["POST"]),
    Route("/packages/{package}", show, name="package"),
    Route("/packages/{package}/{version}/yank", yank, name="package_yank", methods=["POST"]),
    Route(API, api_listing, name="api_packages"),
    Route(f"{API}/{{package}}", api_show, name="api_package"),
    Route(f"{API}/{{package}}/{{version}}/yank", api_yank, methods=["POST"]),
    Route(f"{API}/{{package}}/{{version}}/unyank", api_unyank, methods=["POST"]),
]

"""/api/v1/exceptions: make exceptions to schedules, look at them, extend and end them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import exceptions, jobs, query, wishes
from kirby.server.exceptions import ScheduleException
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text


def listing(request: Request) -> Response:
    """In force and coming; ?past=yes the others as well, ?job= those about a job."""
    name = pages.word(request, "job")
    with pages.reading(request) as conn:
        where = pages.environment(request)
        deployment_id = jobs.get(conn, where, name).deployment_id if name else None
        past = pages.word(request, "past") == "yes"
        return api.respond(
            exceptions.listing(conn, where, deployment_id=deployment_id, past=past, limit=500)
        )


def show(request: Request) -> Response:
    """One, and all that was ever said of it."""
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        return api.respond({"exception": found, "history": exceptions.history(conn, found.id)})


def make(request: Request) -> Response:
    """{"job": …, "until": …, "reason": …} and perhaps more of wishes.KEYS; "plan": true only says
    what it would do."""
    who, given = api.needs(request, "operator"), api.document(request)
    unknown = sorted(set(given) - {*wishes.KEYS, "env", "plan"})
    if unknown:
        raise Invalid(f"{unknown[0][:40]!r} is not known here: {', '.join(wishes.KEYS)}")
    where = api.environment(request, text(given, "env"))
    if given.get("everything") and who.environment is not None:
        who.check_environment("*")
    with pages.reading(request) as conn:
        wish = wishes.wish(conn, where, {key: given.get(key) for key in wishes.KEYS})
        place = wishes.place(where, wish)
        view = exceptions.outlook(conn, place, wish)
        if given.get("plan"):
            return api.respond({"does": wishes.sentence(None, wish, view), **_shown(view)})
        id = exceptions.add(conn, place, wish, actor=who.name)
        made = exceptions.get(conn, id)
    document = {"does": wishes.sentence(id, wish, view), "exception": made, **_shown(view)}
    return api.respond(document, 201)


def extend(request: Request) -> Response:
    """{"until": …} or {"for": …}, "reason": it ends at another time, sooner or later."""
    who, given = api.needs(request, "operator"), api.document(request)
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        now: datetime = query.value(conn, "select kirby.now()")
        until = wishes.until(given, text(given, "tz") or found.tz, now, now)
        exceptions.extend(conn, found.id, until, actor=who.name, reason=text(given, "reason"))
        return api.respond(exceptions.get(conn, found.id))


def end(request: Request) -> Response:
    """{"reason": …}: it ends now."""
    who, given = api.needs(request, "operator"), api.document(request)
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        exceptions.end(conn, found.id, actor=who.name, reason=text(given, "reason"))
        return api.respond(exceptions.get(conn, found.id))


def look_up(request: Request, conn: Connection) -> ScheduleException:
    """The exception of the address, if this caller may touch it. For pages as well."""
    found = exceptions.get(conn, request.path_params["id"])
    if found.environment is not None:
        api.caller(request).check_environment(found.environment)
    return found


def _shown(view: exceptions.Outlook) -> dict[str, object]:
    names = [each.name for each in (*view.scheduled, *view.daemons)]
    return {"jobs": names, "ticks": view.ticks, "more": view.is_more}


EXCEPTIONS = f"{api.PREFIX}/exceptions"
ROUTES = [
    Route(EXCEPTIONS, listing, name="api_exceptions"),
    Route(EXCEPTIONS, make, methods=["POST"]),
    Route(f"{EXCEPTIONS}/{{id:int}}", show, name="api_exception"),
    Route(f"{EXCEPTIONS}/{{id:int}}/extend", extend, methods=["POST"]),
    Route(f"{EXCEPTIONS}/{{id:int}}/end", end, methods=["POST"]),
]

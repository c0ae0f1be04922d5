"""/api/v1/schedules and /api/v1/calendars: what runs next, when a schedule would, and when not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import calendars, drafts, plans, schedules, timetable
from kirby.server.drafts import Draft
from kirby.server.environments import Environment
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text

USUAL = 20  # ticks of a preview
MOST = 100  # scheduled jobs, if it is not said how many
MANY = ("line", "exclude")
EVERYWHERE = "*"


def scheduled(request: Request) -> Response:
    """The scheduled jobs that run next: ``?find=`` a part of their names, ``?limit=``."""
    limit, find = pages.number(request, "limit") or MOST, pages.word(request, "find").strip()
    with pages.reading(request) as conn:
        found = timetable.listing(conn, pages.environment(request), find=find, limit=limit)
    return api.respond([each.document for each in found])


def preview(request: Request) -> Response:
    """``?line=30 2 * * *&tz=…&from=…&n=20&exclude=…&jitter=5m&job=…``; line may be repeated."""
    given = request.query_params
    asked: dict[str, Any] = {name: given.getlist(name) for name in MANY}
    asked |= {name: value for name, value in given.items() if name not in MANY}
    with pages.reading(request) as conn:
        return api.respond(drafted(conn, pages.environment(request), asked))


def drafted(conn: Connection, environment: Environment, given: Mapping[str, Any]) -> Draft:
    """What an address or a form asks to see; raises Invalid, and NotFound for a calendar."""
    lines = [each.strip() for each in given.get("line", ()) if each.strip()]
    if not lines:
        raise Invalid("say when: a cron line, 'every 45m' or 'after: JOB'")
    tz, start, job = given.get("tz") or "UTC", given.get("from"), given.get("job")
    names = [each for each in given.get("exclude", ()) if each]
    calendars.check(conn, environment.name, names)
    return drafts.draft(
        lines,
        tz,
        schedules.moment(start, tz) if start else drafts.now(conn),
        _count(given.get("n") or str(USUAL)),
        excluding=calendars.load(conn, environment.id, names),
        jitter=plans.options({"jitter": given.get("jitter")}).get("jitter", 0.0),
        deployment=f"{environment.name}/{job}" if job else "",
    )


def _count(written: str) -> int:
    if not (written.isascii() and written.isdigit() and len(written) < 6):
        raise Invalid(f"n must be a whole number, not {written!r}")
    return int(written)


# Calendars


def listing(request: Request) -> Response:
    with pages.reading(request) as conn:
        return api.respond(calendars.listing(conn, pages.environment(request)))


def show(request: Request) -> Response:
    with pages.reading(request) as conn:
        return api.respond(calendars.get(conn, _place(request), request.path_params["name"]))


def put(request: Request) -> Response:
    """``{"days": ["12-25"], "windows": ["0 1 * * sun for 4h"], "tz": "", "reason": "why"}``.

    It says this and nothing else then; ?everywhere=1: the one for all environments.
    """
    who = api.needs(request, "operator")
    given = api.document(request)
    with pages.reading(request) as conn:
        found = calendars.put(
            conn,
            _place(request),
            request.path_params["name"],
            days=_texts(given, "days"),
            windows=_texts(given, "windows"),
            tz=text(given, "tz"),
            actor=who.name,
            reason=text(given, "reason"),
        )
    return api.respond(found)


def remove(request: Request) -> Response:
    """409 while jobs name it."""
    who = api.needs(request, "operator")
    name, given = request.path_params["name"], api.document(request)
    with pages.reading(request) as conn:
        calendars.remove(conn, _place(request), name, actor=who.name, reason=text(given, "reason"))
    return api.respond({"removed": name})


def _place(request: Request) -> Environment | None:
    """The environment of the address; None: all of them, which a token of one may not touch."""
    if pages.word(request, "everywhere") not in ("1", "true", "yes"):
        return pages.environment(request)
    if request.method != "GET":
        api.caller(request).check_environment(EVERYWHERE)
    return None


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"{name} must be a list of texts")
    return value


CALENDARS = f"{api.PREFIX}/calendars"
ROUTES = [
    Route(f"{api.PREFIX}/schedules", scheduled, name="api_schedules"),
    Route(f"{api.PREFIX}/schedules/preview", preview, name="api_schedule_preview"),
    Route(CALENDARS, listing, name="api_calendars"),
    Route(f"{CALENDARS}/{{name}}", show, name="api_calendar"),
    Route(f"{CALENDARS}/{{name}}", put, methods=["PUT"]),
    Route(f"{CALENDARS}/{{name}}", remove, methods=["DELETE"]),
]

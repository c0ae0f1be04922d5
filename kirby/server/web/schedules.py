"""Pages about when: what runs next, a schedule tried out before it is saved, and calendars."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import calendars, exclusions, timetable, wishes
from kirby.server.calendars import Calendar
from kirby.server.drafts import Draft
from kirby.server.environments import Environment
from kirby.server.web import api, pages
from kirby.server.web.api_schedules import drafted

ASKED = ("line", "tz", "from", "n", "exclude", "jitter", "job")


def show(request: Request) -> Response:
    """What runs next, when the lines of the form would run, and the calendars."""
    if pages.partial(request):
        with pages.reading(request) as conn:
            return pages.render(request, "schedules/_table.html", **_timetable(request, conn))
    return _show(request)


def add(request: Request) -> Response:
    """Add days and windows to a calendar, a new one if need be."""
    who, given = api.needs(request, "operator"), pages.form(request)
    name = given.get("name", "").strip()
    try:
        with pages.reading(request) as conn:
            everywhere = given.get("everywhere") == "yes"
            where = _allowed(request, None if everywhere else pages.environment(request))
            found = _added(conn, where, name, given, who.name)
    except KirbyError as error:
        return _show(request, pages.status_of(error), str(error), given)
    said = {"done": f"{found.name} has {len(found.days)} days and {len(found.windows)} windows"}
    return pages.redirect(request, "calendar", said, calendar=found.name)


def calendar(request: Request) -> Response:
    """One calendar: its days and windows, and who names it."""
    return _calendar(request)


def act(request: Request) -> Response:
    """Do what the form says with a calendar: add, take or remove."""
    who, given = api.needs(request, "operator"), pages.form(request)
    try:
        with pages.reading(request) as conn:
            found = calendars.get(conn, pages.environment(request), request.path_params["calendar"])
            _do(request, conn, found, given, who.name)
    except KirbyError as error:
        return _calendar(request, pages.status_of(error), str(error), given)
    if given.get("do") == "remove":
        return pages.redirect(request, "schedules", {"done": f"{found.name} is removed"})
    return pages.redirect(request, "calendar", {"done": "changed"}, calendar=found.name)


def _do(
    request: Request, conn: Connection, found: Calendar, given: dict[str, str], actor: str
) -> None:
    own = pages.environment(request) if found.environment else None
    where, reason = _allowed(request, own), given.get("reason", "")
    what = given.get("do")
    if what == "add":
        _added(conn, where, found.name, given, actor)
    elif what == "take":
        said = {kind: [given[kind]] for kind in ("days", "windows") if given.get(kind)}
        calendars.take(conn, where, found.name, **said, actor=actor, reason=reason)
    elif what == "remove":
        calendars.remove(conn, where, found.name, actor=actor, reason=reason)
    else:
        raise Invalid("say add, take or remove")


def _added(
    conn: Connection,
    where: Environment | None,
    name: str,
    given: dict[str, str],
    actor: str,
) -> Calendar:
    return calendars.add(
        conn,
        where,
        name,
        days=given.get("days", "").replace(",", " ").split(),
        windows=[line for line in given.get("windows", "").splitlines() if line.strip()],
        tz=given.get("tz", "").strip() or None,
        actor=actor,
        reason=given.get("reason", ""),
    )


def _allowed(request: Request, where: Environment | None) -> Environment | None:
    """What is for all environments is not for the token of one."""
    api.caller(request).check_environment(where.name if where else "*")
    return where


# Drawing


def _show(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    environment, asked = pages.environment(request), _asked(request)
    draft, wrong = None, None
    with pages.reading(request) as conn:
        if asked["line"]:
            draft, wrong = _draft(conn, environment, asked)
        found = calendars.listing(conn, environment)
        planned = _timetable(request, conn)
    return pages.render(
        request,
        "schedules/show.html",
        400 if wrong and status == 200 else status,
        **planned,
        asked=asked,
        draft=draft,
        wrong=wrong,
        calendars=found,
        problem=problem,
        given=given or {},
        done=pages.word(request, "done"),
        may_change=api.caller(request).may("operator"),
    )


def _timetable(request: Request, conn: Connection) -> dict[str, Any]:
    find = pages.word(request, "find").strip()
    return {
        "timetable": timetable.listing(conn, pages.environment(request), find=find),
        "find": find,
        "clock": wishes.clock,
    }


def _asked(request: Request) -> dict[str, Any]:
    """What the form of the address asks for; its lines as a list."""
    query = request.query_params
    asked: dict[str, Any] = {name: query.get(name, "") for name in ASKED}
    asked["line"] = [line for each in query.getlist("line") for line in each.splitlines()]
    asked["exclude"] = query.getlist("exclude")
    return asked


def _draft(
    conn: Connection, environment: Environment, asked: dict[str, Any]
) -> tuple[Draft | None, str | None]:
    try:
        return drafted(conn, environment, asked), None
    except KirbyError as error:
        return None, str(error)


def _calendar(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    with pages.reading(request) as conn:
        found = calendars.get(conn, pages.environment(request), request.path_params["calendar"])
    return pages.render(
        request,
        "schedules/calendar.html",
        status,
        calendar=found,
        windows=[exclusions.said(each) for each in found.windows],
        problem=problem,
        given=given or {},
        done=pages.word(request, "done"),
        may_change=api.caller(request).may("operator"),
    )


ROUTES = [
    Route("/schedules", show, name="schedules"),
    Route("/schedules", add, name="calendar_add", methods=["POST"]),
    Route("/calendars/{calendar}", calendar, name="calendar"),
    Route("/calendars/{calendar}", act, name="calendar_act", methods=["POST"]),
]

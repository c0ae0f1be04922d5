"""Pages about exceptions to schedules: what is in force, what is coming, and making one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import exceptions, jobs, query, wishes
from kirby.server.web import api, pages
from kirby.server.web.api_exceptions import look_up

SHOWN = 200
ABOUT = (
    ("job", "a job"), ("tag", "jobs with a tag"), ("topic", "jobs that read a topic"),
    ("all", "everything in this environment"), ("everything", "everything everywhere"),
)  # fmt: skip
EFFECTS = (
    ("pause", "pause: nothing runs"), ("schedule", "another schedule runs instead"),
    ("rate", "at most so many ticks"), ("skip", "skip the next ticks"),
    ("manual", "only by hand"),
)  # fmt: skip
RETURNS = (
    ("next-tick", "go on with the next tick"),
    ("run-once", "run once at once, if any was missed"),
    ("catch-up", "catch up what was held"),
)


def listing(request: Request) -> Response:
    """In force and coming; ``?past=yes`` the others as well; ``?job=`` fills in the form."""
    return _listing(request)


def add(request: Request) -> Response:
    """Say what it would do (``do=plan``), or make it."""
    who, given = api.needs(request, "operator"), pages.form(request)
    try:
        with pages.reading(request) as conn:
            where = pages.environment(request)
            wish = wishes.wish(conn, where, _said(given))
            place = wishes.place(where, wish)
            view = exceptions.outlook(conn, place, wish)
            if given.get("do") == "plan":
                return _listing(request, given=given, planned=wishes.sentence(None, wish, view))
            id = exceptions.add(conn, place, wish, actor=who.name)
    except KirbyError as error:
        return _listing(request, pages.status_of(error), str(error), given)
    said = wishes.sentence(id, wish, view)
    return pages.redirect(request, "exceptions", {"done": said})


def show(request: Request) -> Response:
    return _show(request)


def act(request: Request) -> Response:
    """Extend it, or end it."""
    who, given = api.needs(request, "operator"), pages.form(request)
    reason = given.get("reason", "").strip()[:1000]
    try:
        with pages.reading(request) as conn:
            found = look_up(request, conn)
            if given.get("do") == "extend":
                now: datetime = query.value(conn, "select kirby.now()")
                until = wishes.until({"until": given.get("until", "").strip()}, found.tz, now, now)
                exceptions.extend(conn, found.id, until, actor=who.name, reason=reason)
            elif given.get("do") == "end":
                exceptions.end(conn, found.id, actor=who.name, reason=reason)
            else:
                raise Invalid("say what to do: extend or end")
    except KirbyError as error:
        return _show(request, pages.status_of(error), str(error))
    return pages.redirect(request, "exception", {}, id=found.id)


def _said(given: dict[str, str]) -> dict[str, Any]:
    """The words of the form as a wish reads them."""
    about, effect = given.get("about", "job"), given.get("effect", "pause")
    if about not in dict(ABOUT) or effect not in dict(EFFECTS):
        raise Invalid("choose what it is about, and what it does")
    detail = given.get("detail", "").strip()
    said = {
        key: given.get(key, "").strip()
        for key in ("until", "from", "recurs", "lasts", "return", "tz", "reason", "ticket")
    }
    if said["return"] == "catch-up" and given.get("most", "").strip():
        said["return"] += f"={given['most'].strip()}"
    said[about] = given.get("target", "").strip() if about in ("job", "tag", "topic") else "yes"
    if not said[about]:
        raise Invalid(f"say which {about}")
    if effect in ("schedule", "rate", "skip") and not detail:
        raise Invalid({"schedule": "say what runs instead, such as every 2h",
                       "rate": "say how many in which time, such as 4/1h",
                       "skip": "say how many ticks are skipped"}[effect])  # fmt: skip
    said[effect] = detail or "yes"
    return said


def _listing(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: dict[str, str] | None = None,
    planned: str | None = None,
) -> Response:
    past = pages.word(request, "past") == "yes"
    where = pages.environment(request)
    with pages.reading(request) as conn:
        context = {
            "exceptions": exceptions.listing(conn, where, past=past, limit=SHOWN),
            "jobs": [each.name for each in jobs.listing(conn, where)],
        }
    partial = pages.partial(request)
    return pages.render(
        request,
        "exceptions/_table.html" if partial else "exceptions/listing.html",
        status,
        past=past,
        problem=problem,
        planned=planned,
        done=pages.word(request, "done"),
        given=given or {"target": pages.word(request, "job") or ""},
        choices={"about": ABOUT, "effect": EFFECTS, "return": RETURNS},
        clock=wishes.clock,
        may=api.caller(request).may("operator"),
        **context,
    )


def _show(request: Request, status: int = 200, problem: str | None = None) -> Response:
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        context = {"exception": found, "history": exceptions.history(conn, found.id),
                   "held": _held(conn, found.id)}  # fmt: skip
    return pages.render(
        request,
        "exceptions/show.html",
        status,
        problem=problem,
        clock=wishes.clock,
        may=api.caller(request).may("operator"),
        **context,
    )


HELD = """
    select j.name, count(*) as ticks, max(t.at) as last
      from kirby.tick t
      join kirby.deployment d on d.id = t.deployment_id
      join kirby.job j on j.id = d.job_id
     where t.held_by @> array[%(id)s::integer]
     group by j.name order by count(*) desc, j.name limit 100
"""


def _held(conn: Connection, id: int) -> list[tuple[str, int, datetime]]:
    """The jobs whose ticks it has held so far, and how many."""
    return query.driver(conn).execute(HELD, {"id": id}).fetchall()


ROUTES = [
    Route("/exceptions", listing, name="exceptions"),
    Route("/exceptions", add, methods=["POST"], name="exception_add"),
    Route("/exceptions/{id:int}", show, name="exception"),
    Route("/exceptions/{id:int}", act, methods=["POST"], name="exception_act"),
]

"""The pages about channels: what is told where, a test, and what became of the last notices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import channels, notices, query
from kirby.server.channels import Channel
from kirby.server.web import api, pages

NEEDED = "developer"  # to change where something is told; an operator tests and sends again
JOBS = """
    select j.name from kirby.job j join kirby.deployment d on d.job_id = j.id
     where d.environment_id = %(environment_id)s and d.version > 0 order by j.name
"""


def listing(request: Request) -> Response:
    """The channels of the environment and those for all, and a form for another."""
    return _listing(request)


def add(request: Request) -> Response:
    """Add a channel, and show it."""
    who, given = api.needs(request, NEEDED), pages.form(request)
    everywhere = given.get("everywhere") == "yes"
    try:
        with pages.reading(request) as conn:
            added = channels.add(
                conn,
                None if everywhere else pages.environment(request),
                given.get("name", "").strip(),
                given.get("url", ""),
                description=given.get("description", ""),
                route=given.get("told", "all") == "all",
                actor=who.name,
            )
    except KirbyError as error:
        return _listing(request, pages.status_of(error), str(error), given)
    return pages.redirect(
        request, "channel", {"done": f"{added.name} is added"}, channel=added.name
    )


def show(request: Request) -> Response:
    """A channel: its routes, what waits, the last deliveries. ``?test=`` follows a test."""
    return _show(request)


def act(request: Request) -> Response:
    """Do what the form says with a channel: test, resend, route, unroute, edit, remove."""
    given = pages.form(request)
    what = given.get("do", "")
    who = api.needs(request, "operator" if what in ("test", "resend") else NEEDED)
    name = request.path_params["channel"]
    try:
        with pages.reading(request) as conn:
            found = channels.get(conn, pages.environment(request), name)
            said = _do(request, conn, found, what, given, who.name)
    except KirbyError as error:
        return _show(request, pages.status_of(error), str(error), given)
    if what == "remove":
        return pages.redirect(request, "channels", said)
    return pages.redirect(request, "channel", said, channel=name)


def _do(
    request: Request, conn: Connection, found: Channel, what: str, given: dict[str, str], actor: str
) -> dict[str, str]:
    """What the next page says of it. Raises Invalid for what cannot be done."""
    if what == "test":
        where = pages.environment(request)
        return {"test": str(channels.test(conn, found, where, actor=actor))}
    if what == "resend":
        count = channels.resend(conn, found, actor=actor)
        return {"done": f"{count} notice{'' if count == 1 else 's'} to send"}
    if what == "route":
        changed = channels.add_route(conn, found, actor=actor, **_route(request, given))
        return {"done": f"{changed.name} is told {changed.told}"}
    if what == "unroute":
        channels.remove_route(conn, found, _number(given, "route"), actor=actor)
        return {"done": "that is told there no more"}
    if what == "edit":
        url, description = given.get("url", ""), given.get("description", "")
        channels.edit(conn, found, url=url, description=description, actor=actor)
        return {"done": f"{found.name} is changed"}
    if what == "remove":
        channels.remove(conn, found, actor=actor)
        return {"done": f"{found.name} is removed"}
    raise Invalid("say what is to be done: test, resend, route, unroute, edit or remove")


def _route(request: Request, given: dict[str, str]) -> dict[str, Any]:
    fields = pages.fields(request)
    of, named = given.get("of", "everything"), given.get("named", "").strip()
    if of not in ("job", "tag", "everything"):
        raise Invalid("a route is of a job, a tag, or everything")
    if of != "everything" and not named:
        raise Invalid(f"say which {of}")
    return {
        "job": named if of == "job" else "",
        "tag": named if of == "tag" else "",
        "environment": given.get("only", ""),
        "events": [str(each) for each in fields.getlist("events")],
        "kinds": [str(each) for each in fields.getlist("kinds")],
    }


def _number(given: dict[str, str], name: str) -> int:
    text = given.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{name} must be a number")
    return int(text)


def _listing(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    with pages.reading(request) as conn:
        found = channels.listing(conn, pages.environment(request))
    return pages.render(
        request,
        "channels/_table.html" if pages.partial(request) else "channels/listing.html",
        status,
        channels=found,
        given=given or {},
        problem=problem,
        done=pages.word(request, "done"),
        may_change=api.caller(request).may(NEEDED),
    )


def _show(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    environment, test = pages.environment(request), pages.number(request, "test")
    with pages.reading(request) as conn:
        found = channels.get(conn, environment, request.path_params["channel"])
        context = {
            "deliveries": channels.deliveries(conn, found),
            "waiting": channels.waiting(conn, found),
            "tested": channels.outcome(conn, found, test) if test else None,
            "jobs": query.column(conn, JOBS, environment_id=environment.id),
        }
    return pages.render(
        request,
        "channels/_now.html" if pages.partial(request) else "channels/show.html",
        status,
        channel=found,
        test=test,
        given=given or {},
        problem=problem,
        done=pages.word(request, "done"),
        events=notices.EVENTS,
        kinds=notices.KINDS,
        may_change=api.caller(request).may(NEEDED),
        **context,
    )


ROUTES = [
    Route("/channels", listing, name="channels"),
    Route("/channels", add, name="channel_add", methods=["POST"]),
    Route("/channels/{channel}", show, name="channel"),
    Route("/channels/{channel}", act, name="channel_act", methods=["POST"]),
]

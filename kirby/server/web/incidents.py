"""Pages about incidents: what is wrong, the story of each, and who sees to it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import incidents
from kirby.server.incidents import Moment
from kirby.server.web import api, pages
from kirby.server.web.api_incidents import look_up

SHOWN = 100
SPANS = (("1h", "1 hour"), ("4h", "4 hours"), ("1d", "1 day"), ("7d", "a week"))


def listing(request: Request) -> Response:
    """Those that are open; ``?status=`` resolved or all, ``?kind=``, ``?job=``, ``?before=``."""
    status = pages.word(request, "status") or "open"
    kind, job = pages.word(request, "kind"), pages.word(request, "job")
    with pages.reading(request) as conn:
        found = incidents.listing(
            conn,
            pages.environment(request),
            status=status,
            kind=kind or None,
            job=job or None,
            top=not (kind or job),
            before=pages.number(request, "before"),
            limit=SHOWN + 1,
        )
    template = "incidents/_table.html" if pages.partial(request) else "incidents/listing.html"
    return pages.render(
        request,
        template,
        incidents=found[:SHOWN],
        more=len(found) > SHOWN,
        status=status,
        kind=kind,
        job=job,
        kinds=incidents.KINDS,
    )


def show(request: Request) -> Response:
    return _page(request)


def act(request: Request) -> Response:
    """Acknowledge it, silence it, or say that it is over."""
    who = api.needs(request, "operator")
    given = pages.form(request)
    what, reason = given.get("do", ""), given.get("reason", "").strip()[:1000]
    try:
        with pages.reading(request) as conn:
            found = look_up(request, conn)
            if what == "ack":
                incidents.acknowledge(conn, found.id, actor=who.name, reason=reason)
            elif what == "silence":
                until = incidents.until(conn, given.get("span", ""))
                incidents.silence(conn, found.id, until, actor=who.name, reason=reason)
            elif what == "tell":
                incidents.silence(conn, found.id, None, actor=who.name, reason=reason)
            elif what == "resolve":
                incidents.resolve(conn, found.id, actor=who.name, reason=reason)
            else:
                raise Invalid("say what to do: ack, silence, tell or resolve")
    except KirbyError as error:
        return _page(request, pages.status_of(error), str(error))
    return pages.redirect(request, "incident", {}, id=found.id)


def _page(request: Request, status: int = 200, problem: str | None = None) -> Response:
    with pages.reading(request) as conn:
        found = look_up(request, conn)
        context = {
            "incident": found,
            "told": incidents.told(conn, found),
            "timeline": _folded(incidents.timeline(conn, found)),
            "lines": incidents.lines(conn, found),
        }
    template = "incidents/_now.html" if pages.partial(request) else "incidents/show.html"
    return pages.render(request, template, status, problem=problem, spans=SPANS, **context)


def _folded(timeline: Iterable[Moment]) -> list[tuple[Moment, int]]:
    """What was seen again and again is one line, that of the last time, with how often it was."""
    alike = (list(each) for _, each in groupby(timeline, _seen))
    return [(each[0], len(each)) for each in alike]


def _seen(moment: Moment) -> tuple[object, ...]:
    again = moment.type == "incident_updated"
    return (moment.data.get("title"),) if again else (moment.position,)


ROUTES = [
    Route("/incidents", listing, name="incidents"),
    Route("/incidents/{id:int}", show, name="incident"),
    Route("/incidents/{id:int}", act, name="incident_act", methods=["POST"]),
]

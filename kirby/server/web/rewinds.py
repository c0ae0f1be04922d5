"""Pages about rewinds: the plan of one, the list of them, and one as it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from starlette.datastructures import FormData, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError, NotFound
from kirby.server import moments, plans, rewinds, subscriptions, topics
from kirby.server.environments import Environment
from kirby.server.moments import Moment
from kirby.server.rewinds import Plan, Rewind
from kirby.server.web import api, pages

WORDS = ("to", "until", "keys", "rate", "point")  # of the fields of a form those that are a word
MOST_KEYS = 500  # of a form: they are in the address of the plan
SECONDS = 2  # between two looks at a rewind that is going on


@dataclass(frozen=True, slots=True)
class Asked:
    """A rewind as the form asks for it: every field as it was typed."""

    to: str
    until: str
    only: list[str]
    keys: str
    states: bool
    rate: str
    point: str  # "exact": from an earlier one if states need it; "inexact": from here all the same
    reason: str = ""

    @classmethod
    def of(cls, given: QueryParams | FormData) -> Asked:
        """The fields of a form; of those that are missing nothing."""
        words = {name: str(given.get(name) or "") for name in WORDS}
        only = [str(each) for each in given.getlist("only") if each]
        states = str(given.get("states") or "") in ("yes", "1", "true", "on")
        return cls(only=only, states=states, reason=str(given.get("reason") or ""), **words)

    def plan(self, conn: Connection, request: Request) -> Plan:
        """What it would do; raises Invalid for a field that says nothing sensible, NotFound."""
        now: datetime = request.state.now
        to = moments.parse(self.to, now)
        if to is None:
            raise Invalid("say to which moment or position it is to go back")
        return rewinds.plan(
            conn, pages.environment(request), request.path_params["topic"],
            to=to, until=moments.parse(self.until, now), only=self.only,
            keys=keys_of(self.keys), states=self.states, rate=rate_of(self.rate),
            exact=self.point == "exact", inexact=self.point == "inexact",
        )  # fmt: skip


def keys_of(text: str) -> list[str]:
    """Keys, a line each; raises Invalid for too many of them."""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if len(keys) > MOST_KEYS:
        raise Invalid(f"{len(keys):,} keys: at most {MOST_KEYS:,}")
    return keys


def rate_of(given: object) -> float | None:
    """Messages a second; None: as fast as it goes. Raises Invalid."""
    if given in (None, ""):
        return None
    try:
        rate = float(str(given))
    except ValueError:
        rate = 0.0
    if isinstance(given, bool) or not 0 < rate < 1e9:
        raise Invalid(f"{str(given)[:30]!r} is no rate: messages a second, such as 500")
    return rate


# The plan


def plan(request: Request) -> Response:
    """The form; and with ``?to=`` what that rewind would do. Nothing moves."""
    asked = Asked.of(request.query_params)
    return _page(request, asked, shown=bool(asked.to))


def start(request: Request) -> Response:
    """Begin the rewind, or propose it; a form that is wrong comes back with why."""
    who = api.needs(request, "operator")
    given = pages.fields(request)
    asked = Asked.of(given)
    begin = rewinds.propose if given.get("do") == "propose" else rewinds.begin
    try:
        plans.check_reason(asked.reason)
        if not asked.reason.strip():
            raise Invalid("say why: the reason is kept with the rewind")
        with pages.reading(request, pages.LONG) as conn:
            made = begin(
                conn, asked.plan(conn, request), actor=who.name, reason=asked.reason.strip()
            )
    except KirbyError as error:
        return _page(request, asked, pages.status_of(error), str(error), shown=True)
    return pages.redirect(request, "rewind", {}, id=made.id)


def _page(
    request: Request,
    asked: Asked,
    status: int = 200,
    problem: str | None = None,
    *,
    shown: bool,
) -> Response:
    environment = pages.environment(request)
    made = None
    with pages.reading(request) as conn:
        topic = topics.get(conn, environment, request.path_params["topic"])
        readers = subscriptions.listing(conn, environment, topic=topic.name)
    if shown:
        try:
            with pages.reading(request, pages.LONG) as conn:
                made = asked.plan(conn, request)
        except KirbyError as error:
            status, problem = max(status, pages.status_of(error)), problem or str(error)
    context: dict[str, Any] = {
        "topic": topic,
        "readers": readers,
        "asked": asked,
        "plan": made,
        "pinned": _pinned(asked, request.state.now) if made else {},
        "problem": problem,
    }
    return pages.render(request, "rewinds/plan.html", status, **context)


def _pinned(asked: Asked, now: datetime) -> dict[str, str]:
    """The moments of a plan as they are now: "2h" is another moment when the form is sent."""
    points: dict[str, Moment | None] = {
        "to": moments.parse(asked.to, now), "until": moments.parse(asked.until, now)
    }  # fmt: skip
    return {name: moments.written(point) for name, point in points.items()}


# Rewinds


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = rewinds.listing(conn, environment)
    template = "rewinds/_table.html" if pages.partial(request) else "rewinds/listing.html"
    return pages.render(request, template, rewinds=found)


def show(request: Request) -> Response:
    return _show(request)


def act(request: Request) -> Response:
    """What the pressed button says: approve, pause, resume or abort; it comes back with why not."""
    who = api.needs(request, "operator")
    given = pages.form(request)
    try:
        with pages.reading(request, pages.LONG) as conn:
            found = look_up(request, conn, pages.environment(request))
            act_on(conn, found, given.get("do", ""), given, who.name)
    except KirbyError as error:
        return _show(request, pages.status_of(error), str(error), given)
    return pages.redirect(request, "rewind", {}, id=found.id)


def look_up(request: Request, conn: Connection, environment: Environment) -> Rewind:
    """The rewind of the address. Raises NotFound."""
    wanted: int = request.path_params["id"]
    if wanted > moments.HIGHEST:
        raise NotFound(f"there is no rewind {wanted}")
    return rewinds.get(conn, environment, wanted)


def act_on(
    conn: Connection, found: Rewind, what: str, given: Mapping[str, Any], actor: str
) -> Rewind:
    """Approve, pause, resume or abort a rewind. Raises Invalid, Conflict."""
    reason = given.get("reason") or ""
    if not isinstance(reason, str):
        raise Invalid("reason must be a text")
    plans.check_reason(reason)
    if what == "approve":
        return rewinds.approve(conn, found.id, actor=actor)
    acts = {"pause": rewinds.pause, "resume": rewinds.resume, "abort": rewinds.abort}
    if what not in acts:
        raise Invalid("say approve, pause, resume or abort")
    return acts[what](conn, found.id, actor=actor, reason=reason)


def _show(
    request: Request,
    status: int = 200,
    problem: str | None = None,
    given: Mapping[str, str] | None = None,
) -> Response:
    with pages.reading(request) as conn:
        found = look_up(request, conn, pages.environment(request))
    context: dict[str, Any] = {
        "rewind": found,
        "plan": rewinds.of_document(found.plan),
        "pace": pace(found, request.state.now),
        "every": SECONDS,
        "problem": problem,
        "given": given or {},
    }
    template = "rewinds/_now.html" if pages.partial(request) else "rewinds/show.html"
    return pages.render(request, template, status, **context)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a rewind has gone, and how many seconds it has left at that; None: not known."""

    per_second: float | None
    left: float | None


def pace(found: Rewind, now: datetime) -> Pace:
    """Over all of the time since it began."""
    if found.started_at is None or not found.done:
        return Pace(None, None)
    seconds = ((found.ended_at or now) - found.started_at).total_seconds()
    if seconds <= 0:
        return Pace(None, None)
    per_second = found.done / seconds
    left = (found.total - found.done) / per_second if found.status == "running" else None
    return Pace(per_second, left)


ROUTES = [
    Route("/topics/{topic}/rewind", plan, name="rewind_plan"),
    Route("/topics/{topic}/rewind", start, name="rewind_start", methods=["POST"]),
    Route("/rewinds", listing, name="rewinds"),
    Route("/rewinds/{id:int}", show, name="rewind"),
    Route("/rewinds/{id:int}", act, name="rewind_act", methods=["POST"]),
]

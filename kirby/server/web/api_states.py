"""/api/v1/states: what they hold now or held at any moment, differences, blame, setting back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import compaction, documents, moments, states
from kirby.server.moments import Moment
from kirby.server.states import Difference, State
from kirby.server.web import api, pages
from kirby.server.web.api_runs import text

SHOWN, MOST = 100, 1000


def listing(request: Request) -> Response:
    with pages.reading(request) as conn:
        return api.respond(states.listing(conn, pages.environment(request)))


def entries(request: Request) -> Response:
    """Entries by key; ?at= a time, a span ago or a position, key=, prefix=, after=, limit=."""
    at = point(request, "at")
    with pages.reading(request) as conn:
        state = _state(request, conn)
        found = states.at(
            conn,
            state,
            position=at if isinstance(at, int) else None,
            when=None if isinstance(at, int) else at,
            key=pages.word(request, "key") or None,
            prefix=pages.word(request, "prefix"),
            after=pages.word(request, "after"),
            limit=_limit(request),
        )
        inexact = _inexact(request, conn, state, at)
    return api.respond({"at": _said(at), "entries": found, "inexact": inexact})


def _inexact(request: Request, conn: Connection, state: State, *points: Moment | None) -> list[str]:
    """Of those keys that are asked for, the ones whose versions around these moments compaction
    removed. Ask it after the entries: what goes meanwhile is then named, and not missed."""
    key, prefix = pages.word(request, "key") or None, pages.word(request, "prefix")
    keys = None if key is None else [key]
    found = [compaction.gaps(conn, state, each, keys=keys, prefix=prefix) for each in points]
    return sorted({gap.key for gaps in found for gap in gaps})


def diff(request: Request) -> Response:
    """Keys that differ between ?from= and ?to= (now without it); prefix=, after=, limit=."""
    first, last = point(request, "from"), point(request, "to")
    if first is None:
        raise Invalid("say from which moment or position: ?from=2h")
    with pages.reading(request) as conn:
        state = _state(request, conn)
        found = states.diff(
            conn,
            state,
            first,
            last,
            prefix=pages.word(request, "prefix"),
            after_key=pages.word(request, "after"),
            limit=_limit(request),
        )
        inexact = _inexact(request, conn, state, first, last)
    told = [_told(each) for each in found]
    return api.respond(
        {"from": _said(first), "to": _said(last), "differences": told, "inexact": inexact}
    )


def _told(each: Difference) -> dict[str, Any]:
    return {**documents.plain(each), "change": each.change}


def history(request: Request) -> Response:
    """The versions of ?key=, newest first; before= (a position), limit=."""
    with pages.reading(request) as conn:
        state, key = _state(request, conn), _key(request)
        states.entry(conn, state, key)
        before = pages.number(request, "before")
        found = states.history(conn, state, key, before=before, limit=_limit(request))
    return api.respond(found)


def blame(request: Request) -> Response:
    """Who made each part of the value of ?key= what it is."""
    with pages.reading(request) as conn:
        return api.respond(states.blame(conn, _state(request, conn), _key(request)))


def restore(request: Request) -> Response:
    """{"to": …, "reason": …} and perhaps "key" or "prefix"; how many keys changed."""
    who, given = api.needs(request, "operator"), api.document(request)
    environment = api.environment(request, text(given, "env"))
    to = moment(given, "to", request.state.now)
    if to is None:
        raise Invalid('say to which moment or position: {"to": "2h"}')
    if not (reason := text(given, "reason").strip()):
        raise Invalid('say why: {"reason": "…"}')
    with pages.reading(request, pages.LONG) as conn:
        restored = states.restore(
            conn,
            environment,
            request.path_params["state"],
            to=to,
            actor=who.name,
            reason=reason,
            key=text(given, "key") or None,
            prefix=text(given, "prefix"),
        )
    return api.respond({"restored": restored, "to": _said(to)})


def moment(given: dict[str, Any], name: str, now: datetime) -> Moment | None:
    """A moment of the body: a text, or a position as a number; None: now. Raises Invalid."""
    value = given.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str | None):
        raise Invalid(f"{name} must be a time, a span such as 2h, or a position")
    return moments.parse(value or "", now)


def point(request: Request, name: str) -> Moment | None:
    """A moment of the address; None: now. Raises Invalid."""
    return moments.parse(pages.word(request, name), request.state.now)


def _said(at: Moment | None) -> int | str | None:
    return at if isinstance(at, int) else moments.written(at) or None


def _state(request: Request, conn: Connection) -> State:
    return states.get(conn, pages.environment(request), request.path_params["state"])


def _key(request: Request) -> str:
    if not (key := pages.word(request, "key")):
        raise Invalid("say which key: ?key=EV")
    return key


def _limit(request: Request) -> int:
    limit = pages.number(request, "limit") or SHOWN
    if limit > MOST:
        raise Invalid(f"limit is {limit}: at most {MOST}")
    return limit


STATES = f"{api.PREFIX}/states"
ROUTES = [
    Route(STATES, listing, name="api_states"),
    Route(f"{STATES}/{{state}}", entries, name="api_state"),
    Route(f"{STATES}/{{state}}/diff", diff, name="api_state_diff"),
    Route(f"{STATES}/{{state}}/history", history, name="api_state_history"),
    Route(f"{STATES}/{{state}}/blame", blame, name="api_state_blame"),
    Route(f"{STATES}/{{state}}/restore", restore, methods=["POST"]),
]

"""Pages that compare two moments of a state, and set it back to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import compaction, moments, plans, states
from kirby.server.moments import Moment
from kirby.server.states import Difference, State
from kirby.server.web import api, formats, pages
from kirby.server.web.states import Change, changes, read_point

SHOWN = 50
MARKS = {"added": "succeeded", "removed": "failed", "changed": "running"}


@dataclass(frozen=True, slots=True)
class Compared:
    """A key that differs, with its members that do if both values are objects."""

    key: str
    change: str
    before: Any
    after: Any
    members: list[Change]
    versions: tuple[int | None, int | None]


def diff(request: Request) -> Response:
    """What differs between ``?from=`` and ``?to=`` (now, if it is not given)."""
    environment = pages.environment(request)
    prefix, after = pages.word(request, "prefix"), pages.word(request, "after")
    problem, found, gaps = None, [], 0
    first, first_problem = read_point(request, "from")
    last, last_problem = read_point(request, "to")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        problem = first_problem or last_problem or _wrong_way(first, last)
        if first is not None and problem is None:
            found = _compared(conn, state, first, last, prefix, after)
            gaps = len({
                gap.key
                for point in (first, last)
                for gap in compaction.gaps(conn, state, point, prefix=prefix)
            })  # fmt: skip
    context: dict[str, Any] = {
        "state": state,
        "first": first,
        "last": last,
        "typed_from": pages.word(request, "from"),
        "typed_to": pages.word(request, "to"),
        "from_": moments.written(first) or None,
        "to": moments.written(last) or None,
        "found": found[:SHOWN],
        "gaps": gaps,
        "more": len(found) > SHOWN,
        "prefix": prefix,
        "after": after,
        "problem": problem,
        "marks": MARKS,
    }
    return pages.render(request, "states/diff.html", 400 if problem else 200, **context)


def _wrong_way(first: Moment | None, last: Moment | None) -> str | None:
    """Why two moments cannot be compared in that order; None if they can, or if it is not known."""
    if first is not None and type(first) is type(last) and first > last:  # type: ignore[operator]
        return "the first moment lies after the second: exchange them"
    return None


def _compared(
    conn: Connection, state: State, first: Moment, last: Moment | None, prefix: str, after: str
) -> list[Compared]:
    found = states.diff(
        conn, state, first, last, prefix=prefix, after_key=after, limit=SHOWN + 1
    )  # fmt: skip
    return [_of(each) for each in found]


def _of(each: Difference) -> Compared:
    members = changes(each.before, each.after) if each.change == "changed" else []
    return Compared(each.key, each.change, each.before, each.after, members, each.versions)


# Setting back


def restore(request: Request) -> Response:
    """What setting back would change, and the form for why."""
    api.needs(request, "operator")
    return _page(request, dict(request.query_params))


def act(request: Request) -> Response:
    """Set a key, or all of them, back; a form that is wrong comes back with why."""
    who = api.needs(request, "operator")
    given = pages.form(request)
    environment, name = pages.environment(request), request.path_params["state"]
    try:
        point = _point(request, given)
        reason = given.get("reason", "").strip()
        plans.check_reason(reason)
        if not reason:
            raise Invalid("say why: the reason is kept in the log")
        with pages.reading(request, pages.LONG) as conn:
            restored = states.restore(
                conn, environment, name, to=point, actor=who.name, reason=reason,
                key=given.get("key") or None, prefix=given.get("prefix", ""),
            )  # fmt: skip
    except KirbyError as error:
        return _page(request, given, pages.status_of(error), str(error))
    return _after(request, given, restored)


def _after(request: Request, given: Mapping[str, str], restored: int) -> Response:
    name, key = request.path_params["state"], given.get("key")
    said = f"{formats.plural(restored, 'key')} set back" if restored else "it was like that already"
    if key:
        return pages.redirect(request, "state_key", {"key": key, "done": said}, state=name)
    return pages.redirect(request, "state", {"done": said}, state=name)


def _point(request: Request, given: Mapping[str, str]) -> Moment:
    point = moments.parse(given.get("to", ""), request.state.now)
    if point is None:
        raise Invalid("say to which moment or position it is to be set back")
    return point


def _page(
    request: Request, given: Mapping[str, str], status: int = 200, problem: str | None = None
) -> Response:
    environment = pages.environment(request)
    key, prefix = given.get("key") or None, given.get("prefix", "")
    point: Moment | None = None
    found: list[Compared] | None = None  # not known
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
    try:
        point = _point(request, given)
        with pages.reading(request) as conn:  # of its own: it ends if the database says no
            back = states.to_restore(
                conn, state, point, key=key, prefix=prefix, limit=SHOWN + 1
            )  # fmt: skip
        found = [_turned(each) for each in back]
    except Invalid as error:
        status, problem = max(status, 400), problem or str(error)
    context: dict[str, Any] = {
        "state": state,
        "key": key,
        "prefix": prefix,
        "point": point,
        "to": moments.written(point),
        "typed": given.get("to", ""),
        "reason": given.get("reason", ""),
        "found": None if found is None else found[:SHOWN],
        "more": len(found or ()) > SHOWN,
        "problem": problem,
        "marks": MARKS,
    }
    return pages.render(request, "states/restore.html", status, **context)


TURNED = {"added": "removed", "removed": "added", "changed": "changed"}


def _turned(each: Difference) -> Compared:
    """If it is set back: then is after, now is before."""
    change = TURNED[each.change]
    members = changes(each.after, each.before) if change == "changed" else []
    before, after = each.versions
    return Compared(each.key, change, each.after, each.before, members, (after, before))


ROUTES = [
    Route("/states/{state}/diff", diff, name="state_diff"),
    Route("/states/{state}/restore", restore, name="state_restore"),
    Route("/states/{state}/restore", act, name="state_restore_act", methods=["POST"]),
]

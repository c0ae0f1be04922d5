"""Pages about states: what they hold now or held at any moment, and the versions of a key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import compaction, moments, states
from kirby.server.moments import Moment
from kirby.server.states import State
from kirby.server.web import formats, pages

SHOWN = 50
COLUMNS = 8
STEPS = 1000  # of the slider
BLAMED = 1000  # versions that are looked at for who is to blame, unless the address asks for all


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = states.listing(conn, environment)
    template = "states/_table.html" if pages.partial(request) else "states/listing.html"
    return pages.render(request, template, states=found)


def show(request: Request) -> Response:
    """A state as it is, or as it was ``?at=`` a time or a position."""
    environment = pages.environment(request)
    prefix, after = pages.word(request, "prefix"), pages.word(request, "after")
    point, problem = read_point(request, "at")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        rows = _rows(conn, state, point, prefix, after)
        typed = states.columns(conn, state)
        kept = compaction.get(conn, state)
        shown = rows[:SHOWN]
        gaps = compaction.gaps(conn, state, point, prefix=prefix) if kept else []
    context: dict[str, Any] = {
        "state": state,
        "rows": shown,
        "more": len(rows) > SHOWN,
        "columns": columns(shown),
        "views": typed,
        "compaction": kept,
        "gaps": {gap.key: gap for gap in gaps},
        "prefix": prefix,
        "after": after,
        "problem": problem,
        "done": pages.word(request, "done"),
        "slider": _slider(state, _when(point, shown), request.state.now),
        **at_context(request, point),
    }
    template = "states/_rows.html" if pages.partial(request) else "states/show.html"
    return pages.render(request, template, 400 if problem else 200, **context)


def at_context(request: Request, point: Moment | None) -> dict[str, Any]:
    """The moment that a page is about, as it is, as its address has it, and as it was typed."""
    at = moments.written(point) or None
    return {"point": point, "at": at, "typed": pages.word(request, "at")}


def _rows(
    conn: Connection, state: State, point: Moment | None, prefix: str, after: str
) -> list[states.Entry]:
    if point is None:
        return states.rows(conn, state, prefix=prefix, after=after, limit=SHOWN + 1)
    position, when = (point, None) if isinstance(point, int) else (None, point)
    return states.at(
        conn, state, position=position, when=when, prefix=prefix, after=after, limit=SHOWN + 1
    )


def read_point(request: Request, name: str) -> tuple[Moment | None, str | None]:
    """The moment that the address names (None: now), and what is wrong with it."""
    try:
        return moments.parse(pages.word(request, name), request.state.now), None
    except Invalid as error:
        return None, str(error)


# The slider


@dataclass(frozen=True, slots=True)
class Slider:
    """Where the slider stands between the first and the last moment of a state."""

    first: datetime
    last: datetime
    step: int


def _when(point: Moment | None, rows: list[states.Entry]) -> datetime | None:
    """About when it was: of a position the last change that is seen; None: now."""
    if not isinstance(point, int):
        return point
    return max((row.updated_at for row in rows), default=datetime.min.replace(tzinfo=UTC))


def _slider(state: State, at: datetime | None, now: datetime) -> Slider:
    first = min(state.created_at, now)
    if at is None or now <= first:
        return Slider(first, now, STEPS)
    share = (at - first) / (now - first)
    return Slider(first, now, round(STEPS * min(max(share, 0), 1)))


def slide(request: Request) -> Response:
    """Go to the moment at which the slider was let go; its ends are those that were shown."""
    step = min(pages.number(request, "step") or 0, STEPS)
    first, last = _end(request, "first"), _end(request, "last")
    at = None if step == STEPS else (first + (last - first) * step / STEPS).replace(microsecond=0)
    query = {"prefix": pages.word(request, "prefix"), "at": moments.written(at)}
    return pages.redirect(request, "state", query, state=request.path_params["state"])


def _end(request: Request, name: str) -> datetime:
    point = moments.parse(pages.word(request, name), request.state.now)
    if not isinstance(point, datetime):
        raise Invalid(f"{name} must be a time")
    return point


# Values side by side


def columns(rows: list[states.Entry]) -> list[str]:
    """The members of the values, if all are objects with few enough of them to be columns.

    Those that hold objects or lists come last.
    """
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row.value, dict):
            return []
        names |= dict.fromkeys(row.value)
    plain = [name for name in names if not any(_nested(row.value.get(name)) for row in rows)]
    return plain + [name for name in names if name not in plain] if len(names) <= COLUMNS else []


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)


@dataclass(frozen=True, slots=True)
class Change:
    """One member of a value that differs from the version before; ``before`` is None if new."""

    name: str
    before: str | None
    after: str | None


def changes(before: object, after: object) -> list[Change]:
    """What differs between two values, member by member, if both are objects.

    Members of objects that both have are named like ``worst.minutes``. None: it is not there.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    found: list[Change] = []
    for name in before | after:
        if name in before and name in after:
            found += _changed(name, before[name], after[name])
        else:
            found.append(Change(name, _shown(before, name), _shown(after, name)))
    return found


def _changed(name: str, before: Any, after: Any) -> list[Change]:
    if before == after and type(before) is type(after):
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before and after:
        return [replace(each, name=f"{name}.{each.name}") for each in changes(before, after)]
    return [Change(name, formats.cell(before, 40), formats.cell(after, 40))]


def _shown(value: dict[str, Any], name: str) -> str | None:
    return formats.cell(value[name], 40) if name in value else None


# A key


def history(request: Request) -> Response:
    environment = pages.environment(request)
    key, before = pages.word(request, "key"), pages.number(request, "before")
    most = states.LOOKED if pages.word(request, "blame") == "all" else BLAMED
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        entry = states.entry(conn, state, key)
        versions = states.history(conn, state, key, before=before, limit=SHOWN + 1)
        kept = compaction.get(conn, state)
        blamed = states.blame(conn, state, key, most=most) if entry.op == "set" else []
    context: dict[str, Any] = {
        "state": state,
        "key": key,
        "entry": entry,
        "blamed": blamed,
        "most": most,
        "versions": versions[:SHOWN],
        "changes": [_since(old, new) for new, old in zip_longest(versions[:SHOWN], versions[1:])],
        "missing": [_between(old, new) for new, old in zip_longest(versions[:SHOWN], versions[1:])],
        "more": len(versions) > SHOWN,
        "before": before,
        "compaction": kept,
        "done": pages.word(request, "done"),
    }
    return pages.render(request, "states/key.html", **context)


def _between(old: states.Mutation | None, new: states.Mutation | None) -> int:
    """How many versions compaction removed between two that follow each other."""
    return new.version - (old.version if old else 0) - 1 if new else 0


def _since(old: states.Mutation | None, new: states.Mutation | None) -> list[Change]:
    return changes(old.value, new.value)[:COLUMNS] if old and new else []


ROUTES = [
    Route("/states", listing, name="states"),
    Route("/states/{state}", show, name="state"),
    Route("/states/{state}/slide", slide, name="state_slide"),
    Route("/states/{state}/key", history, name="state_key"),
]

"""Pages about states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kirby.server import states
from kirby.server.web import formats, pages

SHOWN = 50
COLUMNS = 8


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = states.listing(conn, environment)
    template = "states/_table.html" if pages.partial(request) else "states/listing.html"
    return pages.render(request, template, states=found)


def show(request: Request) -> Response:
    environment = pages.environment(request)
    prefix, after = pages.word(request, "prefix"), pages.word(request, "after")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        rows = states.rows(conn, state, prefix=prefix, after=after, limit=SHOWN + 1)
    shown = rows[:SHOWN]
    context: dict[str, Any] = {
        "state": state,
        "rows": shown,
        "more": len(rows) > SHOWN,
        "columns": columns(shown),
        "prefix": prefix,
        "after": after,
    }
    template = "states/_rows.html" if pages.partial(request) else "states/show.html"
    return pages.render(request, template, **context)


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
    after: str


def changes(new: states.Mutation, old: states.Mutation | None) -> list[Change]:
    """What a version changed, member by member, if both values are objects."""
    if old is None or not isinstance(new.value, dict) or not isinstance(old.value, dict):
        return []
    before, after = old.value, new.value
    names = [name for name in before | after if before.get(name) != after.get(name)]
    return [
        Change(
            name,
            formats.cell(before[name], 40) if name in before else None,
            formats.cell(after[name], 40) if name in after else "removed",
        )
        for name in names[:COLUMNS]
    ]


def history(request: Request) -> Response:
    environment = pages.environment(request)
    key, before = pages.word(request, "key"), pages.number(request, "before")
    with pages.reading(request) as conn:
        state = states.get(conn, environment, request.path_params["state"])
        entry = states.entry(conn, state, key)
        versions = states.history(conn, state, key, before=before, limit=SHOWN + 1)
    context: dict[str, Any] = {
        "state": state,
        "key": key,
        "entry": entry,
        "versions": versions[:SHOWN],
        "changes": [changes(new, old) for new, old in zip_longest(versions[:SHOWN], versions[1:])],
        "more": len(versions) > SHOWN,
        "before": before,
    }
    return pages.render(request, "states/key.html", **context)

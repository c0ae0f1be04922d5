"""The page of the flow graph."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import flows, jobs
from kirby.server.flows import Edge, Point
from kirby.server.web import layers, pages

SPANS = {"1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days"}
FALLBACK = "1d"
DRAWN = 150  # nodes; more of them are a table only
LETTERS = 18  # of a name in a box


@dataclass(frozen=True, slots=True)
class Box:
    """A node where it is drawn."""

    kind: str
    name: str
    short: str
    x: float
    y: float
    deployed: bool


@dataclass(frozen=True, slots=True)
class Line:
    """An edge as it is drawn: ``weight`` grows with what went over it."""

    edge: Edge
    path: str
    weight: float


def show(request: Request) -> Response:
    environment = pages.environment(request)
    span = pages.word(request, "since") or FALLBACK
    if span not in SPANS:
        raise Invalid(f"since must be one of {', '.join(SPANS)}, not {span!r}")
    until = _until(request)
    since = until - {"h": timedelta(hours=1), "d": timedelta(days=1)}[span[-1]] * int(span[:-1])
    with pages.reading(request) as conn:
        found = flows.graph(conn, environment, since, until)
        deployed = {job.name for job in jobs.listing(conn, environment)}
    hidden = len(found.nodes) > DRAWN
    context: dict[str, Any] = {
        "graph": found,
        "span": span,
        "spans": SPANS,
        "until": pages.word(request, "until"),
        "deployed": deployed,
        "outside": flows.OUTSIDE,
        "hidden": hidden,
        "picture": None if hidden or not found.nodes else _picture(found, deployed),
    }
    template = "flow/_now.html" if pages.partial(request) else "flow/show.html"
    return pages.render(request, template, **context)


def _until(request: Request) -> datetime:
    given = pages.word(request, "until")
    if not given:
        return datetime.now(UTC)
    try:
        until = datetime.fromisoformat(given)
    except ValueError:
        raise Invalid(f"{given!r} is not a time: write it like 2027-03-28T14:00") from None
    return until if until.tzinfo else until.replace(tzinfo=UTC)


def _picture(graph: flows.Graph, deployed: set[str]) -> dict[str, Any]:
    ends = [(edge.source, edge.target) for edge in graph.edges]
    drawn = layers.drawing(graph.nodes, ends)
    return {
        "boxes": [_box(node, drawn.places, deployed) for node in graph.nodes],
        "lines": [
            Line(edge, drawn.lines[edge.source, edge.target], _weight(edge)) for edge in graph.edges
        ],
        "width": drawn.width,
        "height": drawn.height,
        "box": (layers.WIDTH, layers.HEIGHT),
    }


def _box(node: Point, places: dict[Hashable, tuple[float, float]], deployed: set[str]) -> Box:
    kind, name = node
    x, y = places[node]
    shown = "outside" if kind == "outside" else name
    short = shown if len(shown) <= LETTERS else shown[: LETTERS - 1] + "…"
    return Box(kind, name, short, x, y, kind == "job" and name in deployed)


def _weight(edge: Edge) -> float:
    """The width of a line: one more for each hundredfold."""
    return 1.4 + min(len(str(edge.made)) - 1, 8) / 2 if edge.made else 1.4


ROUTES = [Route("/flow", show, name="flow")]

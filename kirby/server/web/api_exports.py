"""/api/v1/exports and the streams of messages and entries: what `kirby pull` asks for.

A stream is a line of JSON for each message, page by page out of the database, so neither side ever
has more than a page of it. One that breaks off lacks its last chunk, and goes on after a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kirby.core.db import Connection
from kirby.core.errors import Invalid
from kirby.server import exports, query
from kirby.server.database import driver, unit
from kirby.server.environments import Environment
from kirby.server.exports import Asked
from kirby.server.web import api, pages

LINES = "application/x-ndjson"
SET_ENVIRONMENT = "select set_config('kirby.environment', %(name)s, true)"


def begin(request: Request) -> Response:
    """{"topics", "states", "all_states", "since", "until", "after", "keys", "limit"}; the plan."""
    who, given = api.needs(request, "developer"), api.document(request)
    environment = api.environment(request, pages.word(request, "env"))
    with pages.reading(request) as conn:
        query.execute(conn, SET_ENVIRONMENT, name=environment.name)
        export = exports.begin(driver(conn), _asked(given), actor=who.name)
    return api.respond(export.plan, 201)


def messages(request: Request) -> Response:
    """The messages of a topic: of ?export= after ?after=, or of an export that this begins.

    ?since=, until=, after=, key= (several), limit=.
    """
    topic, after = request.path_params["topic"], pages.number(request, "after") or 0
    limit = pages.number(request, "limit") or None
    source = _source(request, Asked(
        topics=(topic,),
        since=pages.word(request, "since") or None,
        until=pages.word(request, "until") or None,
        after=after or None,
        keys=tuple(request.query_params.getlist("key")),
        limit=limit,
    ))  # fmt: skip
    first = source.page(topic, after, limit)  # what is wrong is said before the stream begins
    return source.stream(_pages(source, topic, first, limit))


def entries(request: Request) -> Response:
    """The entries of a state: of ?export=, or of an export that this begins."""
    state = request.path_params["state"]
    source = _source(request, Asked(states=(state,)))
    first = source.entries(state, None)
    return source.stream(_entries(source, state, first))


def end(request: Request) -> Response:
    """The export is over: its salt is forgotten. How much left."""
    who = api.needs(request, "developer")
    environment = api.environment(request, pages.word(request, "env"))
    with pages.reading(request) as conn:
        query.execute(conn, SET_ENVIRONMENT, name=environment.name)
        sent = exports.end(driver(conn), request.path_params["export"], actor=who.name)
    return api.respond({"sent": sent})


class Source:
    """An export that is under way: a page at a time, in a unit of work and a connection of its own.

    ``alone``: it was begun for this answer, and ends with it.
    """

    def __init__(
        self, request: Request, environment: Environment, export: int, actor: str, *, alone: bool
    ) -> None:
        self.engine = request.app.state.engine
        self.environment = environment
        self.export, self.actor, self.alone = export, actor, alone

    def page(self, topic: str, after: int, limit: int | None) -> exports.Page:
        with unit(self.engine) as conn:
            query.execute(conn, SET_ENVIRONMENT, name=self.environment.name)
            raw: Connection = driver(conn)
            return exports.page(raw, self.export, topic, after=after, limit=limit, actor=self.actor)

    def entries(self, state: str, after: str | None) -> exports.Entries:
        with unit(self.engine) as conn:
            query.execute(conn, SET_ENVIRONMENT, name=self.environment.name)
            return exports.entries(driver(conn), self.export, state, after=after, actor=self.actor)

    def end(self) -> None:
        if self.alone:
            with unit(self.engine) as conn:
                query.execute(conn, SET_ENVIRONMENT, name=self.environment.name)
                exports.end(driver(conn), self.export, actor=self.actor)

    def stream(self, content: Iterator[bytes]) -> Response:
        headers = {"Kirby-Export": str(self.export)}
        return StreamingResponse(content, headers=headers, media_type=LINES)


def _source(request: Request, asked: Asked) -> Source:
    who = api.needs(request, "developer")
    environment = api.environment(request, pages.word(request, "env"))
    if given := pages.number(request, "export"):
        return Source(request, environment, given, who.name, alone=False)
    with pages.reading(request) as conn:
        query.execute(conn, SET_ENVIRONMENT, name=environment.name)
        export = exports.begin(driver(conn), asked, actor=who.name)
    return Source(request, environment, export.id, who.name, alone=True)


def _pages(source: Source, topic: str, page: exports.Page, limit: int | None) -> Iterator[bytes]:
    while True:
        if page.lines:
            yield page.lines.encode()
        limit = None if limit is None else limit - page.messages
        if page.done or limit == 0:
            break
        page = source.page(topic, page.position, limit)
    source.end()


def _entries(source: Source, state: str, page: exports.Entries) -> Iterator[bytes]:
    while True:
        if page.lines:
            yield page.lines.encode()
        if page.after is None:
            break
        page = source.entries(state, page.after)
    source.end()


def _asked(given: dict[str, Any]) -> Asked:
    """What a body asks for. Raises Invalid."""
    unknown = set(given) - set(Asked.__dataclass_fields__)
    if unknown:
        raise Invalid(f"{min(unknown)} is nothing that an export knows")
    for name in ("topics", "states", "keys"):
        value = given.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise Invalid(f"{name} must be a list of texts")
    for name in ("since", "until"):
        if not isinstance(given.get(name, ""), str):
            raise Invalid(f"{name} must be a text")
    for name in ("after", "limit"):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise Invalid(f"{name} must be a whole number")
    if not isinstance(given.get("all_states", False), bool):
        raise Invalid("all_states must be true or false")
    fields: dict[str, Any] = dict(given)
    for name in ("topics", "states", "keys"):
        fields[name] = tuple(given.get(name, ()))
    return Asked(**fields)


ROUTES = [
    Route("/api/v1/exports", begin, name="api_exports", methods=["POST"]),
    Route("/api/v1/exports/{export:int}/end", end, name="api_export_end", methods=["POST"]),
    Route("/api/v1/topics/{topic}/messages", messages, name="api_topic_messages"),
    Route("/api/v1/states/{state}/entries", entries, name="api_state_entries"),
]

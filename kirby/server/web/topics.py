"""Pages about topics and their messages."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kirby.core.errors import Invalid
from kirby.server import environments, rewinding, subscriptions, topics
from kirby.server.web import pages

SHOWN = 30
EMPTY = {"payload": "", "key": "", "headers": ""}


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        context: dict[str, Any] = {
            "topics": topics.listing(conn, environment),
            "subscriptions": subscriptions.listing(conn, environment),
            "rewinding": rewinding.now(conn, environment),
        }
    template = "topics/_table.html" if pages.partial(request) else "topics/listing.html"
    return pages.render(request, template, **context)


def show(request: Request) -> Response:
    """A topic; posted to, it takes a message. A form that is refused comes back as it was."""
    if request.method != "POST":
        return _show(request, 200, EMPTY, None)
    form = EMPTY | pages.form(request)
    try:
        position = _publish(request, form)
    except Invalid as problem:
        return _show(request, 400, form, str(problem))
    name = request.path_params["topic"]
    target = request.app.url_path_for("topic", topic=name)
    environment = pages.environment(request).name
    return RedirectResponse(f"{target}?env={environment}&published={position}", status_code=303)


def _publish(request: Request, form: dict[str, str]) -> int:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        topic = topics.get(conn, environment, request.path_params["topic"])
        return topics.publish(
            conn,
            environment,
            topic.name,
            form["payload"],
            actor=pages.account(request).login,
            key=form["key"],
            headers=form["headers"],
        )


def _show(request: Request, status: int, form: dict[str, str], problem: str | None) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        topic = topics.get(conn, environment, request.path_params["topic"])
        context: dict[str, Any] = {
            "topic": topic,
            "subscriptions": subscriptions.listing(conn, environment, topic=topic.name),
            "rewinding": rewinding.now(conn, environment, topic=topic.name),
            "form": form,
            "problem": problem,
            "published": pages.number(request, "published"),
            **_messages(request, conn, topic),
        }
    template = "topics/_messages.html" if pages.partial(request) else "topics/show.html"
    return pages.render(request, template, status, **context)


def _messages(request: Request, conn: Connection, topic: topics.Topic) -> dict[str, Any]:
    key, before = pages.word(request, "key"), pages.number(request, "before")
    context: dict[str, Any] = {"key": key, "before": before, "found": None}
    if key:
        found = topics.by_key(conn, topic, key, before=before, limit=SHOWN)
        return context | {"found": found, "messages": found.messages, "next_before": found.lowest}
    environment = pages.environment(request)
    messages = topics.last(conn, environment, topic, before=before, limit=SHOWN + 1)
    more = len(messages) > SHOWN
    messages = messages[:SHOWN]
    return context | {"messages": messages, "next_before": messages[-1].position if more else None}


def message(request: Request) -> Response:
    with pages.reading(request) as conn:
        found = topics.message(conn, request.path_params["position"])
    known = request.state.environments
    request.state.environment = environments.pick(known, found.environment)
    return pages.render(request, "topics/message.html", message=found)

"""Masks: what an export makes of the fields of a topic or a state before they leave.

A rule is a path and keep, drop, hash or fake. Kept as a tree (table kirby.mask), applied by SQL
(kirby.mask_part), so that nothing leaves the database without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import query, states, topics
from kirby.server.environments import Environment

RULES = ("keep", "drop", "hash", "fake")
AREAS = ("key", "value", "headers")
PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^".]+)')
MOST_RULES, DEEPEST = 500, 50

FIND_TOPIC = "select rules, deny from kirby.mask where topic_id = %(id)s"
FIND_STATE = "select rules, deny from kirby.mask where state_id = %(id)s"
SET_TOPIC = """
    insert into kirby.mask (topic_id, rules, deny) values (%(id)s, %(rules)s, %(deny)s)
        on conflict (topic_id) do update
       set rules = excluded.rules, deny = excluded.deny, changed_at = clock_timestamp()
"""
SET_STATE = """
    insert into kirby.mask (state_id, rules, deny) values (%(id)s, %(rules)s, %(deny)s)
        on conflict (state_id) do update
       set rules = excluded.rules, deny = excluded.deny, changed_at = clock_timestamp()
"""
AUDIT = """
    select kirby.audit(%(actor)s, 'mask_changed', %(object)s, %(before)s, %(after)s,
                       nullif(%(reason)s, ''))
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """``path`` as people write it: ``customer.email``, ``items.*.price``, ``@key``."""

    path: str
    rule: str


@dataclass(frozen=True, slots=True)
class Mask:
    """The rules of a topic or a state; ``deny``: what none of them names is dropped."""

    place: str
    rules: list[Rule]
    deny: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A topic or a state: what it is called in the audit log, and its statements."""

    id: int
    object: str
    is_state: bool


def of_topic(conn: Connection, environment: Environment, name: str) -> Mask:
    """The mask of a topic. Raises NotFound."""
    return _mask(conn, _topic(conn, environment, name))


def of_state(conn: Connection, environment: Environment, name: str) -> Mask:
    """The mask of a state. Raises NotFound."""
    return _mask(conn, _state(conn, environment, name))


def change_topic(conn: Connection, environment: Environment, name: str, **change: Any) -> Mask:
    """Change the mask of a topic (``_change``); audited. Raises NotFound, Invalid."""
    return _change(conn, _topic(conn, environment, name), **change)


def change_state(conn: Connection, environment: Environment, name: str, **change: Any) -> Mask:
    """Change the mask of a state (``_change``); audited. Raises NotFound, Invalid."""
    return _change(conn, _state(conn, environment, name), **change)


def _topic(conn: Connection, environment: Environment, name: str) -> _Place:
    found = topics.get(conn, environment, name)
    return _Place(found.id, f"topic/{environment.name}/{name}", False)


def _state(conn: Connection, environment: Environment, name: str) -> _Place:
    found = states.get(conn, environment, name)
    return _Place(found.id, f"state/{environment.name}/{name}", True)


def _change(
    conn: Connection,
    place: _Place,
    *,
    actor: str,
    rules: Mapping[str, str] | None = None,
    remove: Sequence[str] = (),
    deny: bool | None = None,
    reason: str = "",
) -> Mask:
    """Add rules by their path, take away some, set whether what is not named is dropped."""
    before = _stored(conn, place)
    tree, denied = before
    for text in remove:
        tree = _without(tree, path(text), text)
    for text, rule in (rules or {}).items():
        parts = path(text)
        if rule not in RULES:
            raise Invalid(f"{rule!r} is no mask for {text}: {', '.join(RULES)}")
        if place.is_state and parts[0] != "value" and (parts[0] != "key" or rule == "drop"):
            raise Invalid(f"{text}={rule}: an entry of a state has its value, and keeps a key")
        tree = _with(tree, parts, rule)
    after = (tree, denied if deny is None else deny)
    if len(list(_rules(tree))) > MOST_RULES:
        raise Invalid(f"{place.object} would have more than {MOST_RULES} rules")
    if after != before:
        statement = SET_STATE if place.is_state else SET_TOPIC
        query.execute(conn, statement, id=place.id, rules=Jsonb(after[0]), deny=after[1])
        query.value(
            conn,
            AUDIT,
            actor=actor,
            object=place.object,
            before=Jsonb(described(*before)),
            after=Jsonb(described(*after)),
            reason=reason,
        )
    return _mask(conn, place)


def _stored(conn: Connection, place: _Place) -> tuple[dict[str, Any], bool]:
    statement = FIND_STATE if place.is_state else FIND_TOPIC
    found = query.driver(conn).execute(statement, {"id": place.id}).fetchone()
    return (found[0], found[1]) if found else ({}, False)


def _mask(conn: Connection, place: _Place) -> Mask:
    tree, deny = _stored(conn, place)
    return Mask(place.object, list(_rules(tree)), deny)


def described(tree: dict[str, Any], deny: bool) -> dict[str, Any]:
    """A mask as the audit log and manifests say it: {"rules": {path: rule}, "deny"}."""
    return {"rules": {each.path: each.rule for each in _rules(tree)}, "deny": deny}


def path(text: str) -> list[str]:
    """The members that a path leads through, from key, value or headers on; raises Invalid.

    ``customer.email`` is within the value; ``@key``, ``@headers.user`` and ``@value`` (all of it)
    are not; ``*`` is any member or element; ``"a.b"`` is a name with a dot in it.
    """
    parts: list[str] = []
    at = 0
    while True:
        found = PART.match(text, at)
        if not found or (found.end() < len(text) and text[found.end()] != "."):
            raise Invalid(f"{text!r} is not a path: write it like customer.email or items.*.price")
        quoted, plain = found.groups()
        parts.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        at = found.end() + 1
        if at > len(text):
            break
    if len(parts) > DEEPEST or "\0" in text:
        raise Invalid(f"{text[:60]!r} is not a path: at most {DEEPEST} names without NUL")
    if text.startswith("@"):
        if parts[0][1:] not in AREAS or (parts[0] == "@key" and len(parts) > 1):
            raise Invalid(f"{text!r} is not a path: @key, @value and @headers.NAME are, or a field")
        return [parts[0][1:], *parts[1:]]
    return ["value", *parts]


def _with(tree: dict[str, Any], parts: list[str], rule: str) -> dict[str, Any]:
    if not parts:
        return {**tree, "rule": rule}
    below = tree.get("in", {})
    return {**tree, "in": {**below, parts[0]: _with(below.get(parts[0], {}), parts[1:], rule)}}


def _without(tree: dict[str, Any], parts: list[str], text: str) -> dict[str, Any]:
    below = dict(tree.get("in", {}))
    if (parts and parts[0] not in below) or (not parts and "rule" not in tree):
        raise NotFound(f"there is no rule for {text}")
    if not parts:
        return {name: value for name, value in tree.items() if name != "rule"}
    below[parts[0]] = _without(below[parts[0]], parts[1:], text)
    if not below[parts[0]]:
        del below[parts[0]]
    kept = {name: value for name, value in tree.items() if name != "in"}
    return {**kept, "in": below} if below else kept


def _rules(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[Rule]:
    if "rule" in tree:
        yield Rule(_written(above), tree["rule"])
    for name, below in sorted(tree.get("in", {}).items()):
        yield from _rules(below, (*above, name))


def _written(parts: tuple[str, ...]) -> str:
    area, *names = parts
    within = [_quoted(name) for name in names]
    return ".".join(within if area == "value" and names else [f"@{area}", *within])


def _quoted(name: str) -> str:
    if name and not re.search(r'["\\.]', name) and not name.startswith("@"):
        return name
    escaped = re.sub(r'(["\\])', r"\\\1", name)
    return f'"{escaped}"'

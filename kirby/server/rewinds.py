"""Rewinds: what comes again if a topic is moved back (the plan), and how far one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.core.payload import dumps
from kirby.server import query, topics
from kirby.server.environments import Environment

Status = Literal["planned", "preparing", "running", "paused", "aborting", "done", "aborted"]
OPEN = ("preparing", "running", "paused", "aborting")  # neither planned nor over

FIRST_SINCE = "select kirby.first_since(%(topic_id)s, %(when)s)"
PLAN = """
    select kirby.plan_rewind(%(topic_id)s, %(after)s, %(until)s, p_keys => %(keys)s,
                             p_only => %(only)s, p_states => %(states)s, p_rate => %(rate)s,
                             p_moment => %(moment)s, p_exact => %(exact)s,
                             p_inexact => %(inexact)s)
"""
PROPOSE = "select kirby.propose_rewind(%(plan)s::jsonb, %(actor)s, %(reason)s)"
BEGIN = "select kirby.begin_rewind(%(id)s, %(actor)s)"
PAUSE = "select kirby.pause_rewind(%(id)s, %(paused)s, %(actor)s, %(reason)s)"
ABORT = "select kirby.abort_rewind(%(id)s, %(actor)s, %(reason)s)"

REWINDS = """
    select w.id, e.name as environment, t.name as topic, w.status, w.after, w.until, w.keys,
           w.subscriptions as only, w.states as with_states, w.rate, w.actor, w.reason,
           w.created_at, w.started_at, w.ended_at, w.plan, w.waits, progress.*
      from kirby.rewind w
      join kirby.environment e on e.id = w.environment_id
      join kirby.topic t on t.id = w.topic_id
     cross join lateral (
           select coalesce(jsonb_agg(to_jsonb(p) order by p.name), '[]') as subscriptions,
                  coalesce(sum(p.total), 0)::bigint as total,
                  coalesce(sum(p.done), 0)::bigint as done,
                  coalesce(sum(p.failed), 0)::bigint as failed
             from kirby.rewind_progress(w.id) p) progress
     where w.environment_id = %(environment_id)s and (%(id)s::bigint is null or w.id = %(id)s)
     order by w.id desc
     limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """A subscription that is moved back: ``messages`` that it settled come again, as replays;
    ``fresh`` ones of the part it has never settled, ``in_hands`` of a worker are some of them."""

    name: str
    mode: str
    on_replay: str
    messages: int
    fresh: int
    in_hands: int
    paused: bool


@dataclass(frozen=True, slots=True)
class Downstream:
    """A topic that was written to from the messages that come again, and by which jobs."""

    name: str
    messages: int
    jobs: list[str]


@dataclass(frozen=True, slots=True)
class Changed:
    """A state that was changed from them: so many versions of so many keys, by which jobs.

    ``others``: versions of these keys since the first of them that come from elsewhere, and
    ``other_jobs`` who wrote those (a person or a script without a job: not named).
    """

    name: str
    mutations: int
    keys: int
    jobs: list[str]
    others: int
    other_jobs: list[str]


@dataclass(frozen=True, slots=True)
class Effect:
    """An outside effect that a job had while it handled these messages."""

    name: str
    times: int


@dataclass(frozen=True, slots=True)
class Inexact:
    """Why figures would not be exact: so many ``versions`` were made from messages that come again
    and from others. They are exact from above ``after`` (at that moment, so many ``messages``
    earlier), or if it is None from nowhere, and ``why`` says what stands against it: keys, until,
    retention, compaction. ``text``: all that in a line."""

    versions: int
    after: int | None
    at: datetime | None
    messages: int
    why: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rewind would do. Counts are exact for the moment at which it was made.

    The part that comes again is above ``after``, up to ``until`` (None: all that was handed out)
    of ``keys`` (None: all). ``seconds``: how long it took the first time, or at the rate given;
    None: not known. ``earliest``: the first position that the topic can be rewound to.
    ``inexact``: states that are set back would not be exact; it begins only if ``accepted``.
    """

    environment: str
    topic: str
    after: int
    until: int | None
    keys: list[str] | None
    only: list[str] | None
    with_states: bool
    inexact: Inexact | None
    accepted: bool
    rate: float | None
    messages: int
    subscriptions: list[Reader]
    topics: list[Downstream]
    states: list[Changed]
    effects: list[Effect]
    jobs: list[str]
    seconds: float | None
    earliest: int
    earliest_at: datetime | None
    warnings: list[str]
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one subscription is: of ``total`` replays ``done`` are settled; ``failed`` ones are
    parked, ``waiting`` ones are to be delivered by themselves."""

    name: str
    total: int
    done: int
    in_hands: int
    waiting: int
    failed: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """A rewind, and how far it is. ``waits``: what it waits for before it begins (or aborts), as
    it sets states back: subscriptions downstream that are not done with what is on its way."""

    id: int
    environment: str
    topic: str
    status: Status
    after: int
    until: int | None
    keys: list[str] | None
    only: list[str] | None
    with_states: bool
    rate: float | None
    actor: str
    reason: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int
    done: int
    failed: int
    subscriptions: list[Progress]
    waits: list[str]
    plan: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether it has begun and is not over."""
        return self.status in OPEN


def plan(
    conn: Connection,
    environment: Environment,
    topic: str,
    *,
    to: datetime | int,
    until: datetime | int | None = None,
    only: Sequence[str] = (),
    keys: Sequence[str] = (),
    states: bool = False,
    rate: float | None = None,
    exact: bool = False,
    inexact: bool = False,
) -> Plan:
    """What would come again from a moment (or the first position) on, up to another; nothing moves.

    ``until``: before that moment, or up to that position. ``only`` these subscriptions, only these
    ``keys``; with ``states`` set back first; at most ``rate`` messages a second. ``exact``: from an
    earlier point if states are not exact from this one; ``inexact``: from this one all the same.
    Raises NotFound, Invalid (retention has passed it; nothing to rewind; no exact point).
    """
    if exact and inexact:
        raise Invalid("either exact or inexact, not both")
    found = topics.get(conn, environment, topic)
    given = {
        "topic_id": found.id,
        "after": _before(conn, found.id, to),
        "until": until if until is None or isinstance(until, int)
                 else _before(conn, found.id, until),
        "keys": sorted(set(keys)) or None,
        "only": sorted(set(only)) or None,
        "states": states,
        "rate": rate,
        "moment": to if isinstance(to, datetime) else None,
        "exact": exact,
        "inexact": inexact,
    }  # fmt: skip
    return of_document(query.value(conn, PLAN, **given))


def _before(conn: Connection, topic_id: int, point: datetime | int) -> int:
    """The position below the first message at a point."""
    if isinstance(point, int):
        return max(point - 1, 0)
    return int(query.value(conn, FIRST_SINCE, topic_id=topic_id, when=point)) - 1


def of_document(document: dict[str, Any]) -> Plan:
    """A plan as it was stored with its rewind."""
    made = dict(document)
    note = made["inexact"]
    if note is not None:
        at = note["at"] and datetime.fromisoformat(note["at"])
        made["inexact"] = Inexact(**{**note, "at": at})
    for name, kind in (
        ("subscriptions", Reader), ("topics", Downstream), ("states", Changed), ("effects", Effect)
    ):  # fmt: skip
        made[name] = [kind(**each) for each in made[name]]
    if made["earliest_at"] is not None:
        made["earliest_at"] = datetime.fromisoformat(made["earliest_at"])
    return Plan(**made, document=document)


def propose(conn: Connection, plan: Plan, *, actor: str, reason: str = "") -> Rewind:
    """Keep a plan until somebody approves it; nothing moves yet. Audited."""
    given = {"plan": dumps(plan.document), "actor": actor, "reason": reason}
    return _get(conn, int(query.value(conn, PROPOSE, **given)))


def begin(conn: Connection, plan: Plan, *, actor: str, reason: str = "") -> Rewind:
    """Rewind as planned, in one transaction; audited.

    Raises Conflict if a subscription cannot be locked, or its last rewind lies apart and is not
    over; Invalid if retention has passed the plan meanwhile.
    """
    proposed = propose(conn, plan, actor=actor, reason=reason)
    return approve(conn, proposed.id, actor=actor)


def approve(conn: Connection, id: int, *, actor: str) -> Rewind:
    """Begin a rewind that was proposed. Raises NotFound, Conflict (it has begun), Invalid."""
    query.value(conn, BEGIN, id=id, actor=actor)
    return _get(conn, id)


def pause(conn: Connection, id: int, *, actor: str, reason: str = "") -> Rewind:
    """Hand out no more replays until it is resumed; what is in hands is settled."""
    query.value(conn, PAUSE, id=id, paused=True, actor=actor, reason=reason)
    return _get(conn, id)


def resume(conn: Connection, id: int, *, actor: str, reason: str = "") -> Rewind:
    """Go on with a paused one."""
    query.value(conn, PAUSE, id=id, paused=False, actor=actor, reason=reason)
    return _get(conn, id)


def abort(conn: Connection, id: int, *, actor: str, reason: str = "") -> Rewind:
    """Go on where the subscriptions were before; states that were set back get what they had, and
    what came since is delivered on top. Raises NotFound, Conflict if it is over."""
    query.value(conn, ABORT, id=id, actor=actor, reason=reason)
    return _get(conn, id)


def listing(conn: Connection, environment: Environment, *, limit: int = 50) -> list[Rewind]:
    """The rewinds of an environment, the newest first."""
    rows = query.rows(conn, Rewind, REWINDS, environment_id=environment.id, id=None, limit=limit)
    return [_made(row) for row in rows]


def get(conn: Connection, environment: Environment, id: int) -> Rewind:
    """One rewind of an environment, and how far it is. Raises NotFound."""
    row = query.row(conn, Rewind, REWINDS, environment_id=environment.id, id=id, limit=1)
    if row is None:
        raise NotFound(f"there is no rewind {id} in {environment.name}")
    return _made(row)


WHERE = "select w.environment_id from kirby.rewind w where w.id = %(id)s"


def _get(conn: Connection, id: int) -> Rewind:
    environment_id = query.value(conn, WHERE, id=id)
    row = query.one(conn, Rewind, REWINDS, environment_id=environment_id, id=id, limit=1)
    return _made(row)


def _made(row: Rewind) -> Rewind:
    """With its progress as it is spoken of: the database gives it as documents."""
    return replace(row, subscriptions=[Progress(**cast(Any, each)) for each in row.subscriptions])

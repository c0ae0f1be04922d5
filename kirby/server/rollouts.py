"""Rollouts: a version goes from one environment to the next, back, or to a share of the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid, NotFound
from kirby.server import contents, deployments, query
from kirby.server.deployments import Deployed, Origin
from kirby.server.needs import Needs
from kirby.server.plans import Order, Plan

PREVIOUS = """
    select max(v.version) from kirby.deployment_version v
     where v.deployment_id = %(deployment_id)s and v.deployed
       and v.version < (select coalesce(c.rolled_back_to, c.version)
                          from kirby.deployment_version c
                         where c.deployment_id = %(deployment_id)s and c.version = %(version)s)
"""
CANARY = "select canary_version from kirby.deployment where id = %(deployment_id)s"
SET_CANARY = """
    select kirby.set_canary(%(deployment_id)s, %(version)s, %(share)s, %(actor)s, %(reason)s)
"""
END_CANARY = "select kirby.end_canary(%(deployment_id)s, %(promote)s, %(actor)s, %(reason)s)"


def rollback(
    conn: Connection, name: str, order: Order, *, actor: str, to: int | None = None
) -> Deployed:
    """Deploy an older version again, as a new one; nothing is resolved or built for it.

    By default the one before the deployed one; again, the one before that. Raises NotFound, Invalid
    (there is none before it, or what it needs is missing by now), Conflict (there is a canary).
    """
    deployment_id, version = _deployed(conn, order.environment, name)
    older = to or query.value(conn, PREVIOUS, deployment_id=deployment_id, version=version)
    if older is None:
        raise Invalid(f"{name} has no version before {version} in {order.environment}")
    found = _content(conn, name, order.environment, deployment_id, older)
    origin = Origin("job_rolled_back", rolled_back_to=older)
    plan = _plan(conn, name, order, found, found["variables"])
    return deployments.deploy(
        conn, plan, found["release_id"], actor=actor, order=order, origin=origin
    )


def promote(
    conn: Connection,
    name: str,
    source: str,
    order: Order,
    *,
    actor: str,
    version: int | None = None,
) -> Deployed:
    """Deploy what `source` has, in the environment of the order: the same release and settings.

    Variables stay each environment's own: what a deploy there was given, over what the script says
    of itself. Raises as ``deployments.deploy``, and NotFound.
    """
    if source == order.environment:
        raise Invalid(f"{name} is to go from {source} to another environment")
    deployment_id, deployed = _deployed(conn, source, name)
    chosen = version or deployed
    found = _content(conn, name, source, deployment_id, chosen)
    origin = Origin("job_promoted", promoted_from=chosen, promoted_env=source)
    own = _variables(conn, name, order.environment, found)
    plan = _plan(conn, name, order, found, own)
    return deployments.deploy(
        conn, plan, found["release_id"], actor=actor, order=order, origin=origin
    )


def resize_canary(
    conn: Connection, name: str, environment: str, share: float, *, actor: str, reason: str = ""
) -> int:
    """Give the canary another share of the keys; its version. Raises NotFound or Invalid."""
    deployment_id, _ = _deployed(conn, environment, name)
    version = query.value(conn, CANARY, deployment_id=deployment_id)
    if version is None:
        raise Invalid(f"{name} has no canary in {environment}: kirby deploy … --canary 10%")
    query.value(conn, SET_CANARY, deployment_id=deployment_id, version=version, share=share,
                actor=actor, reason=reason)  # fmt: skip
    deployments.wake_supervisors(conn)
    return int(version)


def end_canary(
    conn: Connection, name: str, environment: str, *, promote: bool, actor: str, reason: str = ""
) -> int:
    """Make the canary the deployed version, or take it back; what is deployed then.

    Raises NotFound, or WrongTransition if there is no canary.
    """
    deployment_id, _ = _deployed(conn, environment, name)
    version = query.value(
        conn, END_CANARY, deployment_id=deployment_id, promote=promote, actor=actor, reason=reason
    )
    deployments.wake_supervisors(conn)
    return int(version)


def _deployed(conn: Connection, environment: str, name: str) -> tuple[int, int]:
    found = deployments.find(conn, environment, name)
    if found is None:
        raise NotFound(f"there is no job {name} in {environment}")
    return found


def _content(
    conn: Connection, name: str, environment: str, deployment_id: int, version: int
) -> dict[str, Any]:
    try:
        return deployments.version_content(conn, deployment_id, version)
    except NotFound:
        raise NotFound(f"{name} has no version {version} in {environment}") from None


def _variables(
    conn: Connection, name: str, environment: str, found: Mapping[str, Any]
) -> dict[str, str]:
    """What the script says itself, and over it what a deploy in that environment was given."""
    usual = _usual(conn, name, found)
    there = deployments.find(conn, environment, name)
    if there is None:
        return usual
    deployed = deployments.version_content(conn, *there)
    before = _usual(conn, name, deployed)
    given = {key: value for key, value in deployed["variables"].items() if before.get(key) != value}
    return {**usual, **given}


def _usual(conn: Connection, name: str, found: Mapping[str, Any]) -> dict[str, str]:
    """The variables that the job of a version sets itself, without a deploy's own."""
    own = contents.job_of(conn, found["release_id"], name, found["entry"])
    return dict(own.settings.get("variables", {}) if own else found["variables"])


def _plan(
    conn: Connection,
    name: str,
    order: Order,
    found: Mapping[str, Any],
    variables: Mapping[str, str],
) -> Plan:
    """The plan that a stored version is the outcome of, in the environment of the order."""
    same = {key: found[key] for key in SAME}
    needs = {key: tuple(names) for key, names in found["needs"].items()}
    return Plan(
        name=name,
        environment=order.environment,
        command=tuple(found["command"]) if found["command"] else None,
        schedules=tuple(found["schedules"]),
        daemon=deployments.kind(conn, name) == "daemon",
        labels=tuple(found["labels"]),
        tags=tuple(found["tags"]),
        exclude=tuple(found["exclude"]),
        variables=variables,
        needs=Needs(**needs),
        reason=order.reason,
        **same,
    )


SAME = ("entry", "tz", "replicas", "max_attempts", "retry_pause", "timeout", "grace",
        "no_progress_timeout", "priority", "concurrency", "rerun", "catch_up", "catch_up_most",
        "jitter", "start_by", "finish_by", "heartbeat", "expects", "alert_after", "recover_after",
        "pause_after")  # fmt: skip

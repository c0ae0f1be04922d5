"""Proposals: from what somebody wants deployed to the diff, the release and the deployments.

The slow steps (reading a target, resolving, fetching) hold no transaction; what is wrong with the
order is found before them, and nothing is stored until all of it is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from kirby.server import contents, deployments, diffs, environments, plans, releases
from kirby.server.contents import Contents
from kirby.server.deployments import Deployed
from kirby.server.diffs import Diff
from kirby.server.locks import Lock
from kirby.server.plans import Order, Plan
from kirby.server.releases import Unit
from kirby.server.sources import Sources
from kirby.server.targets import Target


@dataclass(frozen=True, slots=True)
class Proposal:
    """A target, a plan for each of its jobs that is asked for, and its one resolution."""

    target: Target
    order: Order
    plans: tuple[Plan, ...]
    lock: Lock

    @property
    def contents(self) -> Contents:
        return contents.of_target(self.target, self.lock)


def check(conn: Connection, order: Order) -> None:
    """What can be seen to be wrong before the target is read; raises NotFound, Invalid."""
    environments.get(conn, order.environment)
    plans.check_reason(order.reason)


def propose(
    unit: Unit, target: Target, order: Order, sources: Sources, python: str | None = None
) -> Proposal:
    """Plan and resolve a target. Raises as ``deployments.check`` and ``releases.resolve``."""
    made = plans.of(order, target.kind, target.jobs)
    with unit() as conn:
        deployments.check_all(conn, made, order)
    lock = releases.resolve(target, sources, python)
    return Proposal(target, order, tuple(made), lock)


def compare(conn: Connection, proposal: Proposal) -> list[Diff]:
    """What it would change, job by job."""
    release = proposal.contents
    return [diffs.of_plan(conn, plan, release) for plan in proposal.plans]


def fetch(proposal: Proposal, folder: Path, sources: Sources) -> Proposal:
    """Have every file of it; slow. `folder` must live until ``deploy``."""
    lock = releases.fetch(proposal.target, proposal.lock, folder, sources)
    return replace(proposal, lock=lock)


def deploy(conn: Connection, proposal: Proposal, sources: Sources, *, actor: str) -> list[Deployed]:
    """Store the release and deploy its jobs, together; raises as ``deployments.deploy``."""
    release_id = releases.make(conn, proposal.target, proposal.lock, sources.sdk, actor=actor)
    return deployments.deploy_all(conn, proposal.plans, release_id, proposal.order, actor=actor)


# Of a release that is stored


def plan_release(conn: Connection, release: Contents, order: Order) -> Sequence[Plan]:
    """The plans of a stored release for an order, checked."""
    made = plans.of(order, release.kind, release.jobs)
    deployments.check_all(conn, made, order)
    return made

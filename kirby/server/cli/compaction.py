"""kirby state compact: what is kept of a state's old versions; notes on what is removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import click
from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import compaction, spans, states
from kirby.server.cli import connection, output
from kirby.server.compaction import Compaction, Plan
from kirby.server.states import Blame, Moment, Mutation, State

NAMED = 5  # keys that a note names


@click.command()
@click.argument("name")
@click.option("--daily-after", metavar="SPAN", help="Of older days keep the last versions alone.")
@click.option("--keep-all", is_flag=True, help="Remove nothing any more.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would go, and stop.")
@click.option("--reason", default="", help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection.env_option
@connection.json_option
def compact(
    name: str,
    daily_after: str | None,
    keep_all: bool,
    only_plan: bool,
    reason: str,
    yes: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Say what of a state's old versions is kept.

    With --daily-after 90d: all versions for 90 days, and of older days (UTC) the last one of each
    key. The others are removed for good, bit by bit, by the supervisor that leads.
    """
    if keep_all and daily_after is not None:
        raise click.UsageError("either --daily-after SPAN or --keep-all")
    if only_plan and daily_after is None:
        raise click.UsageError("a plan of what: --daily-after SPAN")
    if as_json and daily_after is not None and not (only_plan or yes):
        raise click.UsageError("--json goes with --plan or --yes: nobody is asked")
    keep = _span(daily_after)
    if keep is not None:
        with connection.unit_in(environment) as (conn, where):
            plan = compaction.plan(conn, states.get(conn, where, name), keep)
        if only_plan and as_json:
            output.document(plan)
            return
        if not as_json:
            _show_plan(name, plan)
        if only_plan:
            return
        if not yes:
            output.confirm("Remove them, and what gets as old, for good?")
    with connection.unit_in(environment) as (conn, where):
        state = states.get(conn, where, name)
        if keep_all or keep is not None:
            compaction.policy(conn, state, keep, actor=connection.actor(), reason=reason)
        found = compaction.get(conn, state)
    if as_json:
        output.document(found)
    else:
        click.echo(f"{name} {found.policy if found else 'keeps all versions'}")


def _span(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if (span := spans.parse(text)) is None:
        raise Invalid("to keep all versions for ever, say --keep-all")
    return span


def _show_plan(name: str, plan: Plan) -> None:
    if not plan.versions:
        held = f": rewind {plan.held_by} needs what is there" if plan.held_by else ""
        click.echo(f"nothing of {name} would go by now{held}")
        return
    output.facts((
        ("versions", f"{plan.versions:,} of {plan.of:,} would go"),
        ("keys", f"{plan.keys:,}"),
        ("days", f"{plan.days:,}"),
        ("from", f"{plan.first_at:%Y-%m-%d %H:%M:%S} (position {plan.first})"),
        ("to", f"{plan.last_at:%Y-%m-%d %H:%M:%S} (position {plan.last})"),
        ("stops at", f"what rewind {plan.held_by} needs" if plan.held_by else None),
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A state as ``kirby state show`` has it."""

    state: State
    columns: list[states.Column]
    compaction: Compaction | None


@click.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def show(name: str, environment: str, as_json: bool) -> None:
    """Show a state: its size, columns and compaction."""
    with connection.unit_in(environment) as (conn, where):
        state = states.get(conn, where, name)
        shown = Shown(state, states.columns(conn, state), compaction.get(conn, state))
    if as_json:
        output.document(shown)
        return
    output.facts((
        ("state", state.name),
        ("keys", f"{state.keys:,}" + ("+" if state.more else "")),
        ("made", state.created_at),
        ("last change", state.updated_at),
        ("view", f"state_{environment}.{state.name}"),
        ("columns", [each.name for each in shown.columns]),
        *_facts(shown.compaction),
    ))  # fmt: skip


def _facts(found: Compaction | None) -> Iterable[tuple[str, object]]:
    if found is None:
        return [("history", "keeps all versions")]
    facts: list[tuple[str, object]] = [
        ("history", f"{found.policy} (by {found.actor})"),
        ("reason", found.reason),
    ]
    if found.removed:
        facts += [
            ("compacted", f"daily up to {found.last_day}, last at {found.at:%Y-%m-%d %H:%M:%S}"),
            ("removed", f"{found.removed:,} versions of {found.days:,} days from {found.first_day}"
                        f" on, positions {found.first} to {found.last}"),
            ("all is there", f"from position {found.exact_from} on"),
        ]  # fmt: skip
    if found.held_by:
        facts.append(("waits for", f"rewind {found.held_by}"))
    return facts


# Notes, beside what is printed


def tell_gaps(
    conn: Connection,
    state: State,
    points: Sequence[Moment | None],
    *,
    keys: Sequence[str] | None = None,
    prefix: str = "",
) -> set[str]:
    """Say of which keys it is not known what they were at these moments; the keys."""
    found = {
        gap.key
        for point in points
        for gap in compaction.gaps(conn, state, point, keys=keys, prefix=prefix)
    }
    if found and (known := compaction.get(conn, state)):
        few = ", ".join(sorted(found)[:NAMED]) + (", …" if len(found) > NAMED else "")
        click.echo(
            f"{known.note}; the last version that is left, perhaps not the last one then,"
            f" is shown of {len(found):,} {'key' if len(found) == 1 else 'keys'}: {few}",
            err=True,
        )
    return found


def tell_blame(conn: Connection, state: State, blamed: Sequence[Blame]) -> None:
    """Say which parts a version may have made so that is removed."""
    known = compaction.get(conn, state)
    if known is None or not known.removed:
        return
    parts = [each.path for each in blamed if known.may_hide(each)]
    if parts:
        few = ", ".join(parts[:NAMED]) + (", …" if len(parts) > NAMED else "")
        click.echo(f"{known.note}; a version that is removed may have set {few}", err=True)


def tell_history(conn: Connection, state: State, versions: Sequence[Mutation], whole: bool) -> None:
    """Say how many versions are missing between those that are shown (and before, if ``whole``)."""
    numbers = [each.version for each in versions] + ([0] if whole else [])
    missing = sum(newer - older - 1 for newer, older in pairwise(numbers))
    if missing and (known := compaction.get(conn, state)):
        click.echo(f"{known.note}; {missing:,} of these versions are removed", err=True)

"""kirby trace: where data comes from, and what it touched."""

from __future__ import annotations

import click

from kirby.server import lineage
from kirby.server.cli import connection, output
from kirby.server.documents import text
from kirby.server.lineage import Node, Step


@click.command()
@click.argument("position", type=connection.POSITION, required=False)
@click.option("--state", help="Instead of a position: the newest version of a key of this state.")
@click.option("--key", help="The key.")
@click.option("--version", type=click.IntRange(1), help="An older version of the key.")
@click.option("--up", "only", flag_value="up", help="Only what it was made from.")
@click.option("--down", "only", flag_value="down", help="Only what was made from it.")
@click.option(
    "--depth",
    type=click.IntRange(1, 1000),
    default=lineage.DEPTH,
    show_default=True,
    help="How many steps.",
)
@connection.limit_option(lineage.SHOWN, "How many of each topic and state to name.")
@connection.env_option
@connection.json_option
def trace(
    position: int | None,
    state: str | None,
    key: str | None,
    version: int | None,
    only: str | None,
    depth: int,
    limit: int,
    environment: str,
    as_json: bool,
) -> None:
    """Show what a message or change was made from and led to.

    Totals are exact. A figure of a state: --state carrier_delay --key UA.
    """
    if (position is None) == (state is None) or (state is None) != (key is None):
        raise click.UsageError("give a POSITION, or --state NAME with --key KEY")
    with connection.unit_in(environment) as (conn, where):
        if position is None:
            position = lineage.version(conn, where, state or "", key or "", version)
        found = lineage.trace(
            conn, position, up=only != "down", down=only != "up", depth=depth, limit=limit
        )
    if as_json:
        output.document(found)
        return
    click.echo(_line(found.origin))
    for heading, steps in (("made from", found.up), ("made from it", found.down)):
        if steps is not None:
            _print(heading, steps)
    if found.lost is not None:
        click.echo(
            f"\nstate {found.lost.name} was compacted up to {found.lost.upto}:"
            " versions that were made from it may be removed"
        )


def _print(heading: str, steps: list[Step]) -> None:
    click.echo(f"\n{heading}:" + ("" if steps else " nothing"))
    for step in steps:
        named = f", the newest {len(step.nodes)}" if step.total > len(step.nodes) else ""
        click.echo(f"  step {step.depth}: {_place(step.kind, step.place)}: {step.total:,}{named}")
        for node in step.nodes:
            click.echo(f"    {_line(node)}")


def _line(node: Node) -> str:
    """A node in one line: where, what, when, by whom, and what is special about it."""
    if node.recorded_at is None:
        return f"{node.position}  {_place(node.kind, node.place)}"
    what = _place(node.kind, node.place)
    if node.key is not None:
        what += f"[{text(node.key)}]"
    if node.version is not None:
        what += f" version {node.version}" + (" (deleted)" if node.op == "delete" else "")
    parts = [str(node.position), what, node.recorded_at.strftime("%Y-%m-%d %H:%M:%S.%f%z")[:26]]
    if node.job:
        parts.append(f"by {node.job}" + (f" ({node.release})" if node.release else ""))
    if node.run_id:
        parts.append(f"run {node.run_id}")
    if node.seconds is not None:
        parts.append(f"after {node.seconds:.3f} s")
    if node.replay:
        parts.append("replay")
    if node.restored is not None:
        parts.append(f"restored from version {node.restored}")
    return "  ".join(parts)


def _place(kind: str, name: str | None) -> str:
    if kind == "gone":
        return f"removed by compaction of state {name}" if name else "removed by retention"
    if kind == "compacted":
        return f"removed by compaction: what was before, of state {name}"
    return f"state {name}" if kind == "mutation" else f"topic {name}"

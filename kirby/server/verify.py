"""Verify: every projection rebuilt beside the real one, and compared row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

from sqlalchemy import Connection

from kirby.server import query

# The function of each yields the rows that differ; its header says what is expected.
PROJECTIONS: dict[str, LiteralString] = {
    "state_entry": "select * from kirby.verify_state_entries()",
    "state_mutation": "select * from kirby.verify_state_versions()",
    "state_snapshot": "select * from kirby.verify_state_snapshots()",
    "state_index": "select * from kirby.verify_state_indexes()",
    "run": "select * from kirby.verify_runs()",
    "tick": "select * from kirby.verify_ticks()",
    "incident": "select * from kirby.verify_incidents()",
    "topic_count": "select * from kirby.verify_topic_counts()",
    "time_index": "select * from kirby.verify_time_index()",
    "cursor": "select * from kirby.verify_cursors()",
    "claim": "select * from kirby.verify_claims()",
    "due": "select * from kirby.verify_due()",
    "produced": "select * from kirby.verify_references()",
    "flow": "select * from kirby.verify_flow()",
    "parent_index": "select * from kirby.verify_parent_index()",
}
FIRST: LiteralString = """
    select key, expected, found, count(*) over () as total
      from ({}) d order by key collate "C" limit %(limit)s
"""

SNAPSHOT = "set transaction isolation level repeatable read, read only"
ROOM = "set local work_mem = '64MB'"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what the log says; None: it should not be there, or is missing."""

    table: str
    key: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.table}: {self.key}: {_apart(self.expected, self.found)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One projection: how many rows differ, and the first of them."""

    table: str
    different: int
    rows: list[Difference]


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    expected: Any
    found: Any
    total: int


def verdicts(conn: Connection, *, limit: int = 10) -> Iterator[Verdict]:
    """Compare each projection, all in one snapshot; at most ``limit`` rows of each are named.

    ``conn`` is at the beginning of its transaction.
    """
    query.execute(conn, SNAPSHOT)
    query.execute(conn, ROOM)
    for table, differing in PROJECTIONS.items():
        found = query.rows(conn, _Row, FIRST.format(differing), limit=limit)
        rows = [Difference(table, each.key, each.expected, each.found) for each in found]
        yield Verdict(table, found[0].total if found else 0, rows)


def _apart(expected: Any, found: Any) -> str:
    """In which fields two rows differ."""
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return f"expected {_shown(expected)}, found {_shown(found)}"
    fields = [name for name in expected if expected[name] != found.get(name)]
    wanted = ", ".join(f"{name} {_shown(expected[name])}" for name in fields)
    there = ", ".join(f"{name} {_shown(found.get(name))}" for name in fields)
    return f"expected {wanted}, found {there}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"

"""How commands answer: a table for people, one JSON document for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as objects, times as ISO 8601, the rest as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def document(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, default=plain, indent=2, ensure_ascii=False))


def listing(rows: Sequence[Any], columns: Mapping[str, str], *, as_json: bool, empty: str) -> None:
    """Print rows: all their fields as JSON, or the ``columns`` (field: heading) as a table."""
    if as_json:
        document(list(rows))
    elif not rows:
        click.echo(empty)
    else:
        _table(rows, columns)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print what is known of one thing, a line each."""
    known = [(name, _cell(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{name:<{width}}  {value}")


def _table(rows: Sequence[Any], columns: Mapping[str, str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(getattr(row, name))) for name in columns))
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)

"""How commands answer: a table for people, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from rich.cells import cell_len

from kirby.core.errors import Invalid
from kirby.server import documents, spans
from kirby.server.documents import plain as plain


def document(value: Any) -> None:
    """Print one JSON document."""
    click.echo(documents.text(value, indent=2))


def listing(rows: Sequence[Any], columns: Mapping[str, str], *, as_json: bool, empty: str) -> None:
    """Print rows: all their fields as JSON, or the ``columns`` (field: heading) as a table."""
    if as_json:
        document(list(rows))
    elif not rows:
        click.echo(empty)
    else:
        table([[getattr(row, name) for name in columns] for row in rows], list(columns.values()))


def confirm(question: str) -> None:
    """Ask; no ends the command. Raises Invalid where nobody can answer."""
    try:
        click.confirm(f"\n{question}", abort=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            click.echo()
            raise Invalid("nobody is here to answer: say --yes") from None
        raise


def table(rows: Sequence[Sequence[Any]], headings: Sequence[str]) -> None:
    """Print columns as wide as their widest cell; nothing is ever cut or folded."""
    cells = [list(headings), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        padded = (
            text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)
        )
        line = "  ".join(padded).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print what is known of one thing, a line each."""
    known = [(name, _cell(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{name:<{width}}  {value}")


def _cell(value: Any) -> str:
    """One line of text, whatever the value: a line break or an escape in it is spelt out."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in _text(value)
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, timedelta):
        return spans.text(value)
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)

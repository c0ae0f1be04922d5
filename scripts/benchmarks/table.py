"""The rows as text: a table for people, one line while measuring, and Markdown."""

import itertools
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.rows import shown, shown_ratio, shown_target, verdict

COLOURS = {"met": "green", "missed": "red", "-": "dim"}
QUIET = 0.5  # processes that wanted to run in the minute before
WIDE = 150  # columns where there is no terminal to ask


def cells(row):
    """What a row says: Kirby, the peer and its figure, ratio, target, verdict."""
    return (
        row.name,
        shown(row.kirby.median, row.unit),
        row.peer or "-",
        shown(row.against.median, row.unit),
        shown_ratio(row.ratio),
        shown_target(row),
        verdict(row),
    )


def line(row):
    name, kirby, peer, against, ratio, target, said = cells(row)
    beside = f" · {peer} {against} · {ratio}" if row.peer else ""
    return f"{name}: {kirby}{beside} · target {target}: {said}"


def groups(rows):
    return itertools.groupby(rows, key=lambda row: row.group)


def notes(rows):
    """What is to be known of single rows: why one is missing, what is compared."""
    told = {}
    for row in rows:
        for text in (row.kirby.missing, row.against.missing, row.note):
            if text:
                told.setdefault(text, []).append(row)
    return [f"{each[0].name}: {text}" for text, each in told.items()]


def show(rows, facts, file=None):
    console = Console(file=file or sys.stdout)
    if not console.is_terminal:
        console.width = WIDE
    made = Table(title="Kirby's scoreboard", title_justify="left", box=None, pad_edge=False)
    for title, side in (
        ("what", "left"), ("Kirby", "right"), ("beside", "left"), ("", "right"),
        ("ratio", "right"), ("target", "right"), ("", "left"),
    ):  # fmt: skip
        made.add_column(title, justify=side)
    for group, members in groups(rows):
        made.add_row(f"[bold]{group}")
        for row in members:
            *most, said = cells(row)
            made.add_row(f"  {most[0]}", *most[1:], f"[{COLOURS[said]}]{said}")
    console.print(made)
    for note in notes(rows):
        console.print(f"* {note}", highlight=False, markup=False)
    console.print(summary(rows, facts), highlight=False, markup=False)


def summary(rows, facts):
    said = [verdict(row) for row in rows]
    return (
        f"{said.count('met')} targets met, {said.count('missed')} missed; {facts['mode']} run,"
        f" medians of {facts['rounds']} rounds, {facts['seconds']} s{busy(facts)}"
    )


def busy(facts):
    load = facts["load_before"]
    return f"; the machine was busy (load {load:.1f}), so these figures are off" * (load > QUIET)


def markdown(rows):
    """A table for each group."""
    parts = []
    for group, members in groups(rows):
        parts += [
            f"### {group}\n",
            "| what | Kirby | beside | its figure | ratio | target | |",
            "|---|--:|---|--:|--:|--:|---|",
            *("| " + " | ".join(cells(row)) + " |" for row in members),
            "",
        ]
    return "\n".join(parts)

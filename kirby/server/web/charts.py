"""The geometry of the small charts that pages draw as SVG: numbers in, coordinates out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    value: float


@dataclass(frozen=True, slots=True)
class RunBar:
    """A run in the row of its job's last ones."""

    x: float
    y: float
    height: float
    id: int
    status: str
    seconds: float | None


def ceiling(values: Iterable[float]) -> float:
    """The round number at the top of the axis: 1, 2 or 5 times a power of ten."""
    top = max([*values, 1])
    power = 10.0 ** math.floor(math.log10(top))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= top)


def bars(values: Sequence[float], width: float, height: float, gap: float = 2) -> list[Bar]:
    """One bar for each value, side by side; a value that is not zero is never invisible."""
    top = ceiling(values)
    step = width / max(len(values), 1)
    drawn = []
    for i, value in enumerate(values):
        tall = max(value / top * height, 1.5) if value else 0
        drawn.append(
            Bar(
                round(i * step, 2),
                round(height - tall, 2),
                round(step - gap, 2),
                round(tall, 2),
                value,
            )
        )
    return drawn


def run_bars(recent: Sequence[dict[str, Any]], slots: int, height: float = 28) -> list[RunBar]:
    """The last runs, oldest first and right-aligned; how tall: how long, on a root scale."""
    shown = list(reversed(recent[:slots]))
    longest = max((float(run["seconds"] or 0) for run in shown), default=0) or 1
    drawn = []
    for i, run in enumerate(shown):
        share = math.sqrt(float(run["seconds"] or 0) / longest)
        tall = round(6 + (height - 6) * share, 1)
        x = (slots - len(shown) + i) * 8
        drawn.append(
            RunBar(x, round(height - tall, 1), tall, run["id"], run["status"], run["seconds"])
        )
    return drawn

"""The chart: how far above or below its target each row is, as SVG for light and dark pages."""

import math
from html import escape

from benchmarks.rows import shown, shown_ratio, shown_target, verdict
from benchmarks.table import groups

WIDTH, LINE, TOP, BOTTOM = 1000, 22, 58, 34
LEFT, RIGHT = 460, 800  # the plot; names stand left of it, figures right
MOST = 8  # times the target, at the edge of the plot
TICKS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .page { fill: #ffffff } .quiet { fill: #59636e } .group { font-weight: 600 }
  .grid { stroke: #d1d9e0 } .target { stroke: #1f2328; stroke-width: 1.5 }
  .met { fill: #2a78c8 } .missed { fill: #d9660a }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .page { fill: #0d1117 } .quiet { fill: #9198a1 }
    .grid { stroke: #3d444d } .target { stroke: #f0f6fc }
    .met { fill: #58a6ff } .missed { fill: #f0883e }
  }
"""


def draw(rows):
    """An SVG document with a bar for every row that has a target and a figure."""
    rows = [row for row in rows if row.target and row.judged]
    lines = [part for group, members in groups(rows) for part in (group, *members)]
    height = TOP + LINE * len(lines) + BOTTOM
    drawn = "".join(
        group_line(line, top) if isinstance(line, str) else bar(line, top)
        for line, top in zip(lines, range(TOP, height, LINE), strict=False)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="Kirby\'s figures beside their targets"><style>{STYLE}</style>'
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>'
        '<text class="group" x="16" y="24">How each figure stands to its target</text>'
        '<text class="quiet" x="16" y="42">right of the line: met; the scale is logarithmic</text>'
        f"{axis(height)}{drawn}</svg>\n"
    )


def times_target(row):
    """1 is on target, 2 twice as good, whichever way is better."""
    return row.judged / row.target if row.better == "higher" else row.target / row.judged


def at(times):
    """Where so many times the target lies; what is off the plot lies at its edge."""
    share = math.log(min(MOST, max(1 / MOST, times))) / math.log(MOST)
    return round((LEFT + RIGHT) / 2 + share * (RIGHT - LEFT) / 2, 1)


def axis(height):
    bottom, parts = height - BOTTOM + 6, []
    for tick in TICKS:
        kind, label = ("target", "target") if tick == 1 else ("grid", f"{_tick(tick)}x")
        parts.append(
            f'<line class="{kind}" x1="{at(tick)}" x2="{at(tick)}" y1="{TOP - 6}" y2="{bottom}"/>'
            f'<text class="quiet" x="{at(tick)}" y="{bottom + 18}"'
            f' text-anchor="middle">{label}</text>'
        )
    return "".join(parts)


def _tick(value):
    return f"{value:g}" if value > 1 else f"1/{1 / value:g}"


def group_line(name, top):
    return f'<text class="group" x="16" y="{top + 15}">{escape(name)}</text>'


def bar(row, top):
    """The name of a row, its bar from the target line, and what it says in words."""
    here, line = at(times_target(row)), at(1)
    beside = f" · {row.peer}" if row.peer else ""
    figure = shown_ratio(row.ratio) if row.peer else shown(row.kirby.median, row.unit)
    return (
        f'<text x="28" y="{top + 15}">{escape(row.name)}'
        f'<tspan class="quiet">{escape(_cut(beside, 64 - len(row.name)))}</tspan></text>'
        f'<rect class="{verdict(row)}" x="{min(here, line)}" y="{top + 4}"'
        f' width="{max(1.5, round(abs(here - line), 1))}" height="{LINE - 8}" rx="2"/>'
        f'<text x="{RIGHT + 14}" y="{top + 15}">{escape(figure)}'
        f'<tspan class="quiet"> {escape(shown_target(row))}, {verdict(row)}</tspan></text>'
    )


def _cut(text, most):
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"

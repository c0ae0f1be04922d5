"""A layered drawing of a graph, from left to right: where each node and each line lies.

The method of Sugiyama: lines that close a circle are turned round; each node goes into the layer
behind all that lead to it; within the layers the order with the fewest crossings of some sweeps is
kept; then each node moves to the middle of its neighbours as far as there is room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)
Key = Hashable  # a node, or a place that a long line passes

WIDTH, HEIGHT = 164.0, 40.0  # of a node
ACROSS, BETWEEN = 52.0, 22.0  # from layer to layer, from node to node
PASSED = 14.0  # the height of a place that a line passes
SWEEPS, MOVES = 16, 16


@dataclass(frozen=True, slots=True)
class Drawing:
    """``places``: the upper left corner of each node; ``lines``: the path of each line, for SVG."""

    places: dict[Hashable, tuple[float, float]]
    lines: dict[tuple[Hashable, Hashable], str]
    width: float
    height: float


def drawing(nodes: Iterable[Node], edges: Iterable[tuple[Node, Node]]) -> Drawing:
    """Lay out a graph; lines of a node to itself, and both ways between two, are drawn as well."""
    known = list(dict.fromkeys(nodes))
    lines = list(dict.fromkeys(edges))
    if not known:
        return Drawing({}, {}, 0, 0)
    forward = _forward(known, [line for line in lines if line[0] != line[1]])
    layers, chains = _passed(_layers(known, forward.values()), forward.values())
    above, below = _neighbours(chains.values())
    layers = _ordered(layers, above, below)
    y = _heights(layers, above, below)
    x = {key: number * (WIDTH + ACROSS) for number, layer in enumerate(layers) for key in layer}
    top = min(y[key] - _tall(key) / 2 for key in y)
    middle: dict[Hashable, tuple[float, float]] = {key: (x[key], y[key] - top) for key in y}
    paths: dict[tuple[Hashable, Hashable], str] = {
        line: _path(line, forward.get(line), chains, middle) for line in lines
    }
    return Drawing(
        {node: (middle[node][0], middle[node][1] - HEIGHT / 2) for node in known},
        paths,
        len(layers) * (WIDTH + ACROSS) - ACROSS,
        max(middle[key][1] + _tall(key) / 2 for key in middle),
    )


@dataclass(frozen=True, slots=True)
class _Passed:
    """Where a line passes a layer."""

    line: tuple[Hashable, Hashable]
    layer: int


def _tall(key: Key) -> float:
    return PASSED if isinstance(key, _Passed) else HEIGHT


def _forward(
    nodes: Sequence[Node], lines: Sequence[tuple[Node, Node]]
) -> dict[tuple[Node, Node], tuple[Node, Node]]:
    """Each line as it is laid out: turned round if it closes a circle (found depth first)."""
    out: dict[Node, list[Node]] = defaultdict(list)
    for source, target in lines:
        out[source].append(target)
    closing: set[tuple[Node, Node]] = set()
    done: set[Node] = set()
    for root in nodes:
        _walk(root, out, done, closing)
    return {line: line[::-1] if line in closing else line for line in lines}


def _walk(
    root: Node, out: dict[Node, list[Node]], done: set[Node], closing: set[tuple[Node, Node]]
) -> None:
    if root in done:
        return
    path = {root: iter(out[root])}
    while path:
        node = next(reversed(path))
        for target in path[node]:
            if target in path:
                closing.add((node, target))
            elif target not in done:
                path[target] = iter(out[target])
                break
        else:
            done.add(node)
            del path[node]


def _layers(nodes: Sequence[Node], lines: Iterable[tuple[Node, Node]]) -> dict[Node, int]:
    """The layer of each node: behind all that lead to it, and near what it leads to."""
    before: dict[Node, set[Node]] = {node: set() for node in nodes}
    after: dict[Node, set[Node]] = {node: set() for node in nodes}
    for source, target in lines:
        before[target].add(source)
        after[source].add(target)
    order: list[Node] = []
    missing = {node: len(before[node]) for node in nodes}
    ready = [node for node in nodes if not missing[node]]
    while ready:
        node = ready.pop(0)
        order.append(node)
        for target in sorted(after[node], key=nodes.index):
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    layer: dict[Node, int] = {}
    for node in order:
        layer[node] = max((layer[source] + 1 for source in before[node]), default=0)
    for node in reversed(order):
        if after[node] and len(after[node]) >= len(before[node]):
            layer[node] = max(layer[node], min(layer[target] for target in after[node]) - 1)
    return layer


def _passed(
    layer: dict[Node, int], lines: Iterable[tuple[Node, Node]]
) -> tuple[list[list[Key]], dict[tuple[Hashable, Hashable], list[Key]]]:
    """The layers with the places that long lines pass, and each line as a chain of them."""
    layers: list[list[Key]] = [[] for _ in range(max(layer.values()) + 1)]
    for node, number in layer.items():
        layers[number].append(node)
    chains: dict[tuple[Hashable, Hashable], list[Key]] = {}
    for line in dict.fromkeys(lines):
        source, target = line
        between = [_Passed(line, n) for n in range(layer[source] + 1, layer[target])]
        for place in between:
            layers[place.layer].append(place)
        chains[line] = [source, *between, target]
    return layers, chains


def _neighbours(
    chains: Iterable[list[Key]],
) -> tuple[dict[Key, list[Key]], dict[Key, list[Key]]]:
    above: dict[Key, list[Key]] = defaultdict(list)
    below: dict[Key, list[Key]] = defaultdict(list)
    for chain in chains:
        for source, target in pairwise(chain):
            below[source].append(target)
            above[target].append(source)
    return above, below


def _ordered(
    layers: list[list[Key]], above: dict[Key, list[Key]], below: dict[Key, list[Key]]
) -> list[list[Key]]:
    """The order with the fewest crossings among those that sweeps to and fro come by."""
    best = [list(layer) for layer in layers]
    fewest = crossings(best, below)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        numbers = range(1, len(layers)) if forth else range(len(layers) - 2, -1, -1)
        for number in numbers:
            fixed = layers[number - 1 if forth else number + 1]
            _sort(layers[number], fixed, above if forth else below)
        if (crossed := crossings(layers, below)) < fewest:
            best, fewest = [list(layer) for layer in layers], crossed
    return best


def _sort(layer: list[Key], fixed: list[Key], neighbours: dict[Key, list[Key]]) -> None:
    """By the mean place of each one's neighbours in the layer beside it."""
    at = {key: place for place, key in enumerate(fixed)}
    now = {key: place for place, key in enumerate(layer)}

    def mean(key: Key) -> tuple[float, int]:
        near = [at[each] for each in neighbours[key]]
        return (sum(near) / len(near) if near else float(now[key])), now[key]

    layer.sort(key=mean)


def crossings(layers: Sequence[Sequence[Key]], below: dict[Key, list[Key]]) -> int:
    """How many pairs of lines cross between neighbouring layers."""
    total = 0
    for upper, lower in pairwise(layers):
        at = {key: place for place, key in enumerate(lower)}
        ends = [at[target] for key in upper for target in sorted(below[key], key=at.__getitem__)]
        total += sum(1 for i, end in enumerate(ends) for other in ends[i + 1 :] if end > other)
    return total


def _heights(
    layers: list[list[Key]], above: dict[Key, list[Key]], below: dict[Key, list[Key]]
) -> dict[Key, float]:
    """The middle of each node from top to bottom: as near its neighbours as its layer allows."""
    y: dict[Key, float] = {}
    for layer in layers:
        for key, offset in zip(layer, _offsets(layer), strict=True):
            y[key] = offset
    sides: list[Callable[[Key], list[Key]]] = [
        lambda key: above[key],
        lambda key: below[key],
        lambda key: above[key] + below[key],
    ]
    for move in range(MOVES):
        side = sides[2] if move >= MOVES - 4 else sides[move % 2]
        for layer in layers if move % 2 == 0 else layers[::-1]:
            wanted = []
            for key in layer:
                near = [y[each] for each in side(key)]
                wanted.append(sum(near) / len(near) if near else y[key])
            for key, placed in zip(layer, _placed(layer, wanted), strict=True):
                y[key] = placed
    return y


def _offsets(layer: list[Key]) -> list[float]:
    """Each one's least distance from the first of its layer."""
    offsets, at = [], 0.0
    for number, key in enumerate(layer):
        if number:
            at += (_tall(layer[number - 1]) + _tall(key)) / 2 + BETWEEN
        offsets.append(at)
    return offsets


def _placed(layer: list[Key], wanted: list[float]) -> list[float]:
    """As near what is wanted as the order and the distances allow (pool adjacent violators)."""
    offsets = _offsets(layer)
    blocks: list[tuple[float, float, int]] = []  # sum, weight, how many
    for key, want, offset in zip(layer, wanted, offsets, strict=True):
        weight = 3.0 if isinstance(key, _Passed) else 1.0
        blocks.append(((want - offset) * weight, weight, 1))
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    starts = [_mean(block) for block in blocks for _ in range(block[2])]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _mean(block: tuple[float, float, int]) -> float:
    return block[0] / block[1]


def _path(
    line: tuple[Hashable, Hashable],
    laid: tuple[Hashable, Hashable] | None,
    chains: dict[tuple[Hashable, Hashable], list[Key]],
    middle: dict[Hashable, tuple[float, float]],
) -> str:
    """The curve of a line; one that goes back leaves and enters a little lower than the others."""
    if laid is None:
        x, y = middle[line[0]]
        return f"M{x + WIDTH * 0.6:.1f},{y - HEIGHT / 2:.1f} c8,-26 40,-26 32,0"
    back = laid != line
    lower = HEIGHT / 4 if back else 0.0
    points: list[tuple[float, float]] = []
    for key in chains[laid]:
        x, y = middle[key]
        points += [(x, y + lower), (x + WIDTH, y + lower)]
    points = points[1:-1]
    if back:
        points.reverse()
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (x0 + x1) / 2
        path += f" C{half:.1f},{y0:.1f} {half:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    return path

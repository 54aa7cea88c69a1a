"""Irregularly wired networks as Graphs of activations, one op per kernel (norm and ReLU fused into the convolution).

* cells found by architecture search, by their published genotypes: DARTS (Liu et al. 2019), NASNet-A (Zoph et al. 2018),
  AmoebaNet-A (Real et al. 2019); two cells in a row, ImageNet sizes of the first cells (28 x 28 x 48, float32);
* RandWire (Xie et al. 2019): a stage of Watts-Strogatz WS(32, 4, 0.75): every node adds its inputs, then a separable
  convolution. All activations have one size, so ratios do not depend on it.

``rewritten``: a 1 x 1 convolution over a concatenation becomes one per part that adds into the same result (the rewrite of
SERENITY, Ahn et al. 2020), so that the parts need not live at once.
"""

from __future__ import annotations

import random

from memfit.ir.graph import Graph
from memfit.testing.strategies import GraphBuilder

# (operation, input) pairs, two per node; inputs 0 and 1 are the cell's own; then the nodes that make the output.
CELLS = {
    "DARTS": ("s0 s1 s0 s1 s1 i0 i0 d2", (2, 3, 4, 5)),
    "NASNet-A": ("S1 s0 S0 s0 p1 i0 p0 p0 s1 i1", (2, 3, 4, 5, 6)),
    "AmoebaNet-A": ("p0 p1 s0 S2 s0 p3 s1 i1 i0 p1", (4, 5, 6)),
}


def cells(name: str, count: int = 2, channels: int = 48, side: int = 28, *, rewritten: bool = False) -> Graph:
    """``count`` normal cells in a row, in the order in which the published programs run them."""
    text, joined = CELLS[name]
    b = GraphBuilder()
    plane = 4 * side * side
    part = channels * plane
    # What comes in: two results of earlier cells, whole.
    before: list[list[int]] = [b.op(f"input {i}", [], len(joined) * part) for i in range(2)]
    for cell in range(count):
        states = []
        for source in before:
            result = b.op(f"cell {cell} reduce", [source[0]], part)[0]
            for more in source[1:]:
                result = b.op(f"cell {cell} reduce and add", [result, more], part, reuse=result)[0]
            states.append(result)
        steps = text.split()
        for first, second in zip(steps[::2], steps[1::2], strict=True):
            results = []
            for kind, place in (first, second):
                value = states[int(place)]
                if kind in "sS":  # two separable convolutions, 3 x 3 or 5 x 5
                    for stage in ("depthwise", "pointwise", "depthwise", "pointwise"):
                        value = b.op(stage, [value], part)[0]
                elif kind == "d":
                    for stage in ("dilated depthwise", "pointwise"):
                        value = b.op(stage, [value], part)[0]
                elif kind == "p":
                    value = b.op("pool", [value], part)[0]
                results.append(value)
            states.append(b.op("add", results, part)[0])
        parts = [states[index] for index in joined]
        whole = parts if rewritten and cell + 1 < count else b.op("concat", parts, len(parts) * part)
        before = [before[1], whole]
    last = before[1][-1]
    b.storages[last] = type(b.storages[last])(b.storages[last].nbytes, output=True)
    return b.graph()


def randwire(seed: int, nodes: int = 32, neighbours: int = 4, rewire: float = 0.75, nbytes: int = 1 << 18) -> Graph:
    """One stage of a randomly wired network, its nodes in the order of their numbers."""
    draw = random.Random(seed)
    edges: set[tuple[int, int]] = set()
    for step in range(1, neighbours // 2 + 1):
        for node in range(nodes):
            other = (node + step) % nodes
            if draw.random() < rewire:
                free = [v for v in range(nodes) if v != node and (min(v, node), max(v, node)) not in edges]
                other = draw.choice(free)
            edges.add((min(node, other), max(node, other)))
    b = GraphBuilder()
    entry = b.op("input", [], nbytes)[0]
    made: list[int] = []
    for node in range(nodes):
        reads = [made[a] for a, z in sorted(edges) if z == node] or [entry]
        value = b.op("weighted sum", reads, nbytes)[0] if len(reads) > 1 else reads[0]
        value = b.op("depthwise", [value], nbytes)[0]
        made.append(b.op("pointwise", [value], nbytes)[0])
    b.op("mean", [made[node] for node in range(nodes) if all(a != node for a, _ in edges)], nbytes, output=True)
    return b.graph()


def breadth_first(graph: Graph) -> list[int]:
    """Kahn's order: what became ready first runs first."""
    needs = [{graph.producer[s] for s in op.reads if graph.producer[s] >= 0} for op in graph.ops]
    ready = [index for index, before in enumerate(needs) if not before]
    for index in ready:
        for later, before in enumerate(needs):
            if index in before:
                before.discard(index)
                if not before:
                    ready.append(later)
    return ready

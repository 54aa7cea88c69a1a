"""The least peak over all orders of a small Graph's ops, by the rules of ``ir.graph`` alone: the twin of ``passes.order``.

Plain dynamic programming over the sets of ops that ran, layer by layer (Ahn et al. 2020 without their pruning): nothing
is skipped, no property of the bytes is used. Cost: O(2^ops x ops x storages) at worst; for tests, up to about 16 ops.
"""

from __future__ import annotations

from collections.abc import Iterator

from memfit.ir.graph import Graph
from memfit.passes.reorder import requirements


def bytes_while(graph: Graph, done: frozenset[int], op: int) -> int:
    """Total bytes while ``op`` runs right after exactly ``done``, each once."""
    running, after = graph.ops[op], done | {op}
    nbytes = graph.base_bytes + running.workspace
    waited = {
        s for index, other in enumerate(graph.ops) if index not in after for s in other.reads
    } | {s for s, storage in enumerate(graph.storages) if storage.output}  # fmt: skip
    for storage, producer in enumerate(graph.producer):
        if producer == op or (producer in done and (storage in waited or storage in running.reads)):
            nbytes += graph.storages[storage].nbytes
    reuse = running.reuse
    if reuse in running.reads and running.writes and not graph.storages[reuse].constant and reuse not in waited:
        same = graph.storages[running.writes[0]].nbytes == graph.storages[reuse].nbytes
        nbytes -= graph.storages[reuse].nbytes if same else 0
    return nbytes


def states(graph: Graph) -> Iterator[frozenset[int]]:
    """Every set of ops that some order runs first, small ones first."""
    needs = requirements(graph)
    layer = {frozenset[int]()}
    while layer:
        yield from layer
        layer = {done | {op} for done in layer for op in range(len(needs)) if op not in done and needs[op] <= done}


def least_peak(graph: Graph) -> int:
    """The smallest peak of any order, in total bytes."""
    needs = requirements(graph)
    peaks: dict[frozenset[int], int] = {frozenset(): graph.base_bytes}
    for done in states(graph):
        for op in range(len(needs)):
            if op not in done and needs[op] <= done:
                peak = max(peaks[done], bytes_while(graph, done, op))
                after = done | {op}
                peaks[after] = min(peak, peaks.get(after, peak))
    return peaks[frozenset(range(len(needs)))]


def least_bytes_while(graph: Graph, op: int) -> int:
    """The smallest total bytes that any order has while ``op`` runs: the twin of the minimum cut."""
    needs = requirements(graph)
    return min(bytes_while(graph, done, op) for done in states(graph) if op not in done and needs[op] <= done)

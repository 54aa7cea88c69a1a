"""Bytes and seconds that no schedule of a Graph can go below, and which op stands in the way.

Bytes: while an op runs, its inputs, outputs and workspace live (its first output on top of a dying input where
``reuse`` allows). At an op's first run, so does every storage that was made once and for all before it and is still to
be read or kept. The last useful run of a schedule makes an output or is read by nobody; with it all outputs live.
Seconds: every op runs at least once. Neither bound is tight in general. Cost: O(reads x ops / 64), more where many ops
run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memfit.ir.graph import Graph


@dataclass(frozen=True)
class PeakBound:
    """``nbytes``: total bytes with constants; ``op``: the op that needs them; ``storages``: what must live with it."""

    nbytes: int
    op: int
    storages: tuple[int, ...]


def peak_lower_bound(graph: Graph) -> PeakBound:
    """The largest of the bounds in the module text."""
    best = PeakBound(graph.base_bytes, -1, ())
    outputs = {index for index, storage in enumerate(graph.storages) if storage.output and not storage.constant}
    kept = _kept_at_first_run(graph, outputs)
    needed = {graph.producer[storage] for op in graph.ops for storage in op.reads}
    all_outputs = sum(graph.storages[s].nbytes for s in outputs)
    ends: list[tuple[int, int]] = []
    for index, op in enumerate(graph.ops):
        own = {s for s in (*op.reads, *op.writes) if not graph.storages[s].constant}
        extra = graph.base_bytes + op.workspace - _taken_over(graph, index)
        alive = own | kept[index]
        nbytes = extra + sum(graph.storages[s].nbytes for s in alive)
        if nbytes > best.nbytes:
            best = PeakBound(nbytes, index, tuple(sorted(alive)))
        if index not in needed or any(s in outputs for s in op.writes):
            ends.append((extra + all_outputs + sum(graph.storages[s].nbytes for s in own - outputs), index))
    if ends and min(ends)[0] > best.nbytes:
        nbytes, index = min(ends)
        op = graph.ops[index]
        alive = outputs | {s for s in (*op.reads, *op.writes) if not graph.storages[s].constant}
        best = PeakBound(nbytes, index, tuple(sorted(alive)))
    return best


def seconds_lower_bound(graph: Graph) -> float:
    """Every op once."""
    return sum(op.seconds for op in graph.ops)


def _taken_over(graph: Graph, index: int) -> int:
    op = graph.ops[index]
    if op.reuse not in op.reads or not op.writes or graph.storages[op.reuse].constant:
        return 0
    same = graph.storages[op.writes[0]].nbytes == graph.storages[op.reuse].nbytes
    return graph.storages[op.reuse].nbytes if same else 0


def _kept_at_first_run(graph: Graph, outputs: set[int]) -> list[set[int]]:
    """For each op, storages of non-repeatable ancestors that are outputs or that a descendant of the op reads."""
    kept: list[set[int]] = [set() for _ in graph.ops]
    once = [p >= 0 and not graph.ops[p].repeatable for p in graph.producer]
    fixed = [s for s, storage in enumerate(graph.storages) if once[s] and storage.nbytes]
    if not fixed:
        return kept
    bit = {storage: 1 << rank for rank, storage in enumerate(fixed)}
    readable: list[int] = []  # op -> fixed storages made by its ancestors
    for op in graph.ops:
        mask = 0
        for storage in op.reads:
            producer = graph.producer[storage]
            if producer >= 0:
                mask |= readable[producer]
                for made in graph.ops[producer].writes:
                    mask |= bit.get(made, 0)
        readable.append(mask)
    wanted = [0] * len(graph.ops)  # op -> fixed storages that its descendants read
    for index in reversed(range(len(graph.ops))):
        own = 0
        for storage in graph.ops[index].reads:
            own |= bit.get(storage, 0)
        for storage in graph.ops[index].reads:
            producer = graph.producer[storage]
            if producer >= 0:
                wanted[producer] |= wanted[index] | own
    output_mask = sum(bit[s] for s in fixed if s in outputs)
    for index in range(len(graph.ops)):
        kept[index] = {fixed[rank] for rank in _bits(readable[index] & (wanted[index] | output_mask))}
    return kept


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low

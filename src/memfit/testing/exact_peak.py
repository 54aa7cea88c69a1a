"""The smallest peak of any schedule of a tiny Graph, exactly: the yardstick of ``passes.rematerialize.smallest_peak``.

A state is the set of ops that ran and the set of storages that live; a move runs one op, for the first time or again,
after dropping any of the live storages that it does not read. The value of a path is the largest number of bytes on it,
and the least such value is found in order of that value (Dijkstra 1959, with the maximum in the place of the sum).
Storages may be dropped at will: a schedule's own rule, to drop right after the last read, is never worse.

It knows nothing of the planner's code or of its bounds. Cost: up to 2^(ops + storages) states; for about 10 ops.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from memfit.ir.graph import Graph


def exact_smallest_peak(graph: Graph) -> int:
    """Bytes, constants included, below which no valid schedule's peak goes."""
    ops, storages = graph.ops, graph.storages
    size = [0 if storage.constant else storage.nbytes for storage in storages]
    reads = [_bits(s for s in op.reads if not storages[s].constant) for op in ops]
    writes = [_bits(op.writes) for op in ops]
    before = [_bits(a for a, b in graph.order if b == index) for index in range(len(ops))]
    after = [_bits(b for a, b in graph.order if a == index) for index in range(len(ops))]
    for a, b in zip(graph.chain, graph.chain[1:], strict=False):
        before[b] |= 1 << a
    outputs = _bits(s for s, storage in enumerate(storages) if storage.output)
    everything = (1 << len(ops)) - 1
    held = {0: 0}

    def total(live: int) -> int:
        if live not in held:
            low = live & -live
            held[live] = total(live ^ low) + size[low.bit_length() - 1]
        return held[live]

    queue, best = [(0, 0, 0)], {(0, 0): 0}
    while queue:
        peak, done, live = heapq.heappop(queue)
        if best[done, live] < peak:
            continue
        if done == everything and live & outputs == outputs:
            return graph.base_bytes + peak
        moves = [(0, done, live & ~(1 << s)) for s in range(len(storages)) if live >> s & 1]
        for index, op in enumerate(ops):
            first = not done >> index & 1
            allowed = before[index] & ~done == 0 if first else op.repeatable and after[index] & done == 0
            if not allowed or reads[index] & ~live:
                continue
            during = total(live | writes[index]) + op.workspace
            following = live | writes[index]
            moves.append((during, done | 1 << index, following))
            source = op.reuse
            dies = source in op.reads and not storages[source].constant and source not in op.writes
            if dies and op.writes and size[op.writes[0]] == size[source]:
                moves.append((during - size[source], done | 1 << index, following & ~(1 << source)))
        for during, ran, now in moves:
            value = max(peak, during)
            if value < best.get((ran, now), 1 << 62):
                best[ran, now] = value
                heapq.heappush(queue, (value, ran, now))
    raise ValueError("the graph has no valid schedule")


def _bits(indices: Iterable[int]) -> int:
    made = 0
    for index in indices:
        made |= 1 << index
    return made

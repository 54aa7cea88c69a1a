"""Graph -> Graph: storages that wait between forward and backward go to slow memory and come back.

Before and after, for a storage ``s`` that forward makes and backward reads::

    forward: a -> s ... last read of s ............... backward: first read of s ...
    forward: a -> s ... last read of s, save s ....... backward: load -> s', first read of s' ...

``save`` runs once; ``load`` reads nothing and may run again, so the planner treats ``s'`` like any storage that is cheap to
compute anew. Ops that forward runs again still read ``s``. Bit-exact: bytes go out and come back.

Which storages: most bytes x idle time first, until a share of the idle bytes is chosen. A greedy rule, not optimal; the
planner judges what comes of it. Cost: O(ops).
"""

from __future__ import annotations

from dataclasses import replace

from memfit.ir.graph import Graph, Op, Storage

SAVE, LOAD = "memfit.save", "memfit.load"
_SMALLEST = 64 * 1024


def idle_storages(graph: Graph) -> list[int]:
    """Storages made in forward that backward reads, at least 64 KiB, the most byte-seconds of idleness first."""
    clock, times = 0.0, []
    for op in graph.ops:
        times.append(clock)
        clock += op.seconds
    last_forward: dict[int, int] = {}
    first_backward: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        for storage in (*op.reads, *op.writes):
            if op.phase == "forward":
                last_forward[storage] = index
            else:
                first_backward.setdefault(storage, index)
    found = []
    for storage, begin in last_forward.items():
        row = graph.storages[storage]
        end = first_backward.get(storage)
        if end is not None and not row.constant and not row.output and row.nbytes >= _SMALLEST:
            found.append((row.nbytes * (times[end] - times[begin]), storage))
    return [storage for _, storage in sorted(found, key=lambda pair: (-pair[0], pair[1]))]


def offload(graph: Graph, storages: list[int], bytes_per_second: float) -> Graph:
    """``graph`` with ``storages`` saved after their last forward read and loaded before their first backward read.

    The same object where ``storages`` is empty. New ops carry the label ``<storage>`` they move.
    """
    if not storages:
        return graph
    moved = {storage: len(graph.storages) + i for i, storage in enumerate(storages)}
    added = [Storage(graph.storages[s].nbytes, label=f"loaded {graph.storages[s].label or s}") for s in storages]
    last: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        if op.phase == "forward":
            for storage in (*op.reads, *op.writes):
                if storage in moved:
                    last[storage] = index
    ops: list[Op] = []
    place: dict[int, int] = {}
    saves: dict[int, int] = {}
    loads: dict[int, int] = {}
    for index, op in enumerate(graph.ops):
        if op.phase != "forward":
            for storage in op.reads:
                if storage in moved and storage not in loads:
                    loads[storage] = len(ops)
                    ops.append(_move(LOAD, graph, storage, (), (moved[storage],), op.phase, bytes_per_second))
            op = replace(op, reads=tuple(moved.get(s, s) for s in op.reads), reuse=moved.get(op.reuse, op.reuse))
        place[index] = len(ops)
        ops.append(op)
        for storage in [s for s in last if last[s] == index]:
            saves[storage] = len(ops)
            ops.append(_move(SAVE, graph, storage, (storage,), (), "forward", bytes_per_second))
    order = [(place[a], place[b]) for a, b in graph.order] + [(saves[s], loads[s]) for s in storages if s in loads]
    return replace(
        graph, ops=tuple(ops), storages=(*graph.storages, *added), order=tuple(sorted(order)),
        chain=tuple(place[index] for index in graph.chain),
        meta={**graph.meta, "place": [place[i] for i in range(len(graph.ops))]},
    )  # fmt: skip


def _move(
    name: str, graph: Graph, storage: int, reads: tuple[int, ...], writes: tuple[int, ...], phase: str, speed: float
) -> Op:
    seconds = graph.storages[storage].nbytes / speed
    return Op(name, reads, writes, seconds=seconds, phase=phase, repeatable=name == LOAD, label=str(storage))

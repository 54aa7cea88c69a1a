"""Liveness of a schedule: the bytes alive while each op runs, when each storage dies, where bytes are taken over.

The rules are those of ``memfit.ir.graph``. Three forms, one meaning:

* ``simulate``: native, a few microseconds per thousand runs; the judge of every plan;
* ``simulate_slowly``: the Python twin, written for clarity from the rules alone; a property test runs both;
* ``lifetimes``: who dies where, per position, for the executor's code. It comes from the twin's facts, so what the
  executor frees is what the judge counted.

Cost: O(runs x fan-in) each.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit import _core
from memfit.ir.graph import Graph

_CONSTANT, _OUTPUT = 1, 2


@dataclass(frozen=True)
class Liveness:
    """What a schedule needs. Bytes are totals with the graph's constants; ``during``: per position."""

    peak: int
    peak_position: int
    seconds: float
    during: np.ndarray[Any, np.dtype[np.int64]]
    reused: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Lifetimes:
    """Per position of a schedule: storages that die right after that run, and whether its first output took over bytes.

    ``freed[i]`` names every instance that dies at position ``i``: inputs at their last read, outputs that nobody reads.
    Where ``reused[i]``, the input ``ops[schedule[i]].reuse`` stands in ``freed[i]`` too: its name is gone, its bytes
    live on as the first output. ``stored`` storages (constants, and outputs after their last creation) never appear.
    """

    freed: tuple[tuple[int, ...], ...]
    reused: tuple[bool, ...]


def _rows(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    start = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=start[1:])
    items = np.fromiter((item for row in rows for item in row), dtype=np.int32, count=int(start[-1]))
    return start, items


class GraphArrays:
    """The NumPy form of one Graph that the native code reads. Build it through ``arrays_of``."""

    def __init__(self, graph: Graph) -> None:
        ops, storages = graph.ops, graph.storages
        self.reads_start, self.reads = _rows([sorted(set(op.reads)) for op in ops])
        self.writes_start, self.writes = _rows([op.writes for op in ops])
        self.workspace = np.array([op.workspace for op in ops], dtype=np.int64)
        self.seconds = np.array([op.seconds for op in ops], dtype=np.float64)
        self.reuse = np.array([op.reuse for op in ops], dtype=np.int32)
        self.nbytes = np.array([storage.nbytes for storage in storages], dtype=np.int64)
        self.pinned = np.array(
            [_CONSTANT if storage.constant else _OUTPUT if storage.output else 0 for storage in storages],
            dtype=np.uint8,
        )
        self.repeatable = np.array([op.repeatable for op in ops], dtype=np.uint8)
        self.edge_before = np.array([before for before, _ in graph.order], dtype=np.int32)
        self.edge_after = np.array([after for _, after in graph.order], dtype=np.int32)
        self.chain = np.array(graph.chain, dtype=np.int32)
        self.base = graph.base_bytes

    def liveness_arguments(self) -> tuple[Any, ...]:
        """The leading arguments of the native ``simulate``."""
        return (
            self.reads_start, self.reads, self.writes_start, self.writes, self.workspace, self.seconds, self.reuse,
            self.nbytes, self.pinned,
        )  # fmt: skip


_KNOWN: dict[int, tuple[weakref.ref[Graph], GraphArrays]] = {}


def arrays_of(graph: Graph) -> GraphArrays:
    """The arrays of a Graph, built once while that Graph object lives. Cost of the first call: O(ops + storages)."""
    key = id(graph)
    known = _KNOWN.get(key)
    if known is not None and known[0]() is graph:
        return known[1]
    arrays = GraphArrays(graph)
    _KNOWN[key] = (weakref.ref(graph, lambda _, key=key: _KNOWN.pop(key, None)), arrays)  # type: ignore[misc]
    return arrays


def simulate(graph: Graph, schedule: Sequence[int]) -> Liveness:
    """Live bytes of a valid ``schedule`` (see ``memfit.ir.graph.why_invalid``). Cost: O(runs x fan-in), native."""
    arrays = arrays_of(graph)
    sequence = np.asarray(schedule, dtype=np.int32)
    peak, position, seconds, during, reused = _core.simulate(*arrays.liveness_arguments(), sequence, arrays.base)
    return Liveness(peak, position, seconds, during, reused)


def lifetimes(graph: Graph, schedule: Sequence[int]) -> Lifetimes:
    """Which storages die after each run, and where bytes are taken over. Cost: O(runs x fan-in)."""
    storages, ops = graph.storages, graph.ops
    freed: list[list[int]] = [[] for _ in schedule]
    last: dict[int, int] = {}  # storage -> position of the last event of its newest instance
    for position, index in enumerate(schedule):
        op = ops[index]
        for storage in op.reads:
            last[storage] = position
        for storage in op.writes:
            if storage in last:
                freed[last[storage]].append(storage)
            last[storage] = position
    for storage, position in last.items():
        if not storages[storage].output and not storages[storage].constant:
            freed[position].append(storage)
    reused = [
        ops[index].reuse in freed[position]
        and ops[index].reuse in ops[index].reads
        and bool(ops[index].writes)
        and storages[ops[index].writes[0]].nbytes == storages[ops[index].reuse].nbytes
        for position, index in enumerate(schedule)
    ]
    return Lifetimes(tuple(tuple(sorted(set(row))) for row in freed), tuple(reused))


def simulate_slowly(graph: Graph, schedule: Sequence[int]) -> Liveness:
    """The Python twin of ``simulate``: asks at every position, for every storage, whether a later read wants it.

    Cost: O(runs x storages x runs); for tests.
    """
    runs = [graph.ops[index] for index in schedule]

    def wanted_after(storage: int, position: int) -> bool:
        for later in runs[position + 1 :]:
            if storage in later.reads:
                return True
            if storage in later.writes:
                return False
        return graph.storages[storage].output

    held: set[int] = set()
    during, reused = [], []
    for position, op in enumerate(runs):
        present = held | set(op.writes) | {s for s in op.reads if not graph.storages[s].constant}
        nbytes = graph.base_bytes + op.workspace + sum(graph.storages[s].nbytes for s in present)
        held = {storage for storage in present if wanted_after(storage, position)}
        takes_over = (
            op.reuse in op.reads
            and not graph.storages[op.reuse].constant
            and op.reuse not in held
            and bool(op.writes)
            and graph.storages[op.writes[0]].nbytes == graph.storages[op.reuse].nbytes
        )
        during.append(nbytes - (graph.storages[op.reuse].nbytes if takes_over else 0))
        reused.append(int(takes_over))
    peak = max(during, default=0)
    return Liveness(
        peak, during.index(peak) if during else -1, sum(op.seconds for op in runs),
        np.array(during, dtype=np.int64), np.array(reused, dtype=np.uint8),
    )  # fmt: skip

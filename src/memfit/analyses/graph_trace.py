"""A Graph that runs once, as a Trace: what ``predict`` shows of a model file.

    constants, inputs   allocated before the first op (phase build, then forward)
    op i                its outputs and what it needs inside are allocated, the inside freed, then what dies here

Where an op takes over the bytes of an input (``Op.reuse``) the input's end and the output's begin are one moment: the input
is freed first. Cost: O(reads + writes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from memfit.analyses.liveness import lifetimes
from memfit.ir.graph import Graph, Op
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage


def trace_of_graph(graph: Graph, shapes: Mapping[str, tuple[tuple[int, ...], str]] | None = None) -> Trace:
    """The projected Trace of one run in program order.

    Args:
        graph: ``meta["inputs"]`` names the storages that are inputs; other constants are parameters.
        shapes: storage label -> (shape, dtype), for reports.
    """
    inputs = frozenset(graph.meta.get("inputs", ()))
    described = shapes or {}
    ops = [TraceOp("load", -1, "build"), *(_trace_op(op) for op in graph.ops)]
    storages: list[TraceStorage] = []
    events: list[tuple[int, int, int]] = []
    producer = graph.producer
    for index, row in enumerate(graph.storages):
        category = Category.ACTIVATIONS
        if row.constant:
            category = Category.INPUTS if index in inputs else Category.PARAMETERS
        shape, dtype = described.get(row.label, ((), "uint8"))
        storages.append(TraceStorage(row.nbytes, category, producer[index] + 1, shape, dtype, row.label))
        if row.constant and row.nbytes:
            events.append((index, row.nbytes, 0))
    life = lifetimes(graph, range(len(graph.ops)))
    for position, op in enumerate(graph.ops):
        at = position + 1
        if life.reused[position]:
            events.append((op.reuse, -graph.storages[op.reuse].nbytes, at))
        for storage in op.writes:
            events.append((storage, graph.storages[storage].nbytes, at))
        if op.workspace:
            storages.append(TraceStorage(op.workspace, Category.TEMPORARIES, at, (), "uint8", ""))
            events += [(len(storages) - 1, op.workspace, at), (len(storages) - 1, -op.workspace, at)]
        for storage in life.freed[position]:
            if not (life.reused[position] and storage == op.reuse):
                events.append((storage, -graph.storages[storage].nbytes, at))
    kept = [event for event in events if event[1]]
    columns: Any = np.array(kept, dtype=np.int64).reshape(-1, 3)
    return Trace("projected", tuple(ops), tuple(storages), columns[:, 0], columns[:, 1], columns[:, 2])


def _trace_op(op: Op) -> TraceOp:
    """``label`` is the module, and behind `` @ `` the line, where the front end knows one."""
    module, _, line = op.label.partition(" @ ")
    return TraceOp(op.name, 0, op.phase, module, line)

"""From what will run, or what did run, to the buffers that a planner places: a Graph or a Trace -> a Problem.

One buffer a storage, since views share one; it lives from the op (of a Trace: the event) that makes it to the first one
that no longer needs it::

    Graph    op       0    1    2    3              Trace    event   0    1    2    3
             writes   a    b    c                            delta  +a   +b   -a   -b
             reads         a    b    c
    buffers  a [0, 2)   b [1, 3)   c [2, 4)         buffers  a [0, 2)   b [1, 3)

A storage that the program computes again, or frees and allocates again, is a buffer each time. Bytes that an op needs
inside are a buffer for that instant. Where an op may write its result over an input that dies there (``Op.reuse``), the
two are an in-place pair. Parameters, model buffers, inputs and optimizer state exist before the step and keep memory of
their own, unless ``constants`` asks for them too; they then live throughout. Sizes are rounded up to the alignment, as
an allocator would, so that offsets stay aligned.

``meta`` of the Problem: ``ops``, and ``op_at``, the op of each instant; ``category`` of each buffer. Cost: O(events).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memfit.analyses.liveness import lifetimes
from memfit.errors import ProblemError
from memfit.ir.graph import Graph
from memfit.ir.trace import Category, Trace, TraceOp
from memfit.planners.problem import ANY_MEMORY, FREE_OFFSET, Problem

ALIGNMENT = 64
"""Bytes to which tensors are aligned where nothing else is said: a cache line, what frameworks' CPU kernels ask for."""

CONSTANT = frozenset({Category.PARAMETERS, Category.BUFFERS, Category.INPUTS, Category.OPTIMIZER_STATE})
"""Categories of storages that exist before a step."""


def problem_of_graph(
    graph: Graph, schedule: Sequence[int] | None = None, *, alignment: int = ALIGNMENT, constants: bool = False
) -> Problem:
    """The buffers of a Graph that runs ``schedule`` (default: the program's own order); instants are its positions.

    Args:
        graph: what will run.
        schedule: op indices, with repetitions; see ``memfit.ir.graph``.
        alignment: bytes, >= 1.
        constants: also the storages that exist before the step.

    Raises:
        ProblemError: nothing is left to place.
    """
    order = list(range(len(graph.ops))) if schedule is None else list(schedule)
    stepped = frozenset(storage for op in graph.ops if op.phase == "optimizer" for storage in op.reads)
    life = lifetimes(graph, order)
    buffers = _Buffers(alignment)
    begun: dict[int, int] = {}
    row_of: dict[tuple[int, int], int] = {}  # (storage, position that made this instance) -> buffer
    taken: list[tuple[int, tuple[int, int]]] = []  # buffer whose bytes the instance takes over

    def close(storage: int, end: int) -> int:
        begin = begun.pop(storage)
        row, maker = graph.storages[storage], graph.ops[order[begin]]
        label = row.label or maker.label or _short(maker.name)
        category = _graph_category(graph, storage, maker.phase, stepped)
        row_of[storage, begin] = buffers.add(str(storage), begin, end, row.nbytes, category, label)
        return row_of[storage, begin]

    for position, index in enumerate(order):
        op = graph.ops[index]
        begun.update(dict.fromkeys(op.writes, position))
        if op.workspace:
            label = f"inside {_short(op.name)}"
            buffers.add(f"inside {position}", position, position + 1, op.workspace, Category.TEMPORARIES, label)
        for storage in life.freed[position]:
            if storage in begun:
                died = close(storage, position + 1)
                if life.reused[position] and storage == op.reuse:
                    taken.append((died, (op.writes[0], position)))
    for storage in list(begun):
        close(storage, len(order))
    if constants:
        for index, row in enumerate(graph.storages):
            if row.constant:
                buffers.add(str(index), 0, max(len(order), 1), row.nbytes, Category.PARAMETERS, row.label)
    pairs = tuple((died, row_of[made]) for died, made in taken if died >= 0 and row_of[made] >= 0)
    ops = tuple(TraceOp(op.name, 0, op.phase, op.label) for op in graph.ops)
    problem = buffers.problem({"source": "graph", "ops": ops, "op_at": np.array(order, dtype=np.int64)})
    return replace(problem, in_place=pairs) if pairs else problem


def _graph_category(graph: Graph, storage: int, phase: str, stepped: frozenset[int]) -> Category:
    """What a storage of a Graph is for, as far as the Graph tells; ``stepped``: what an optimizer reads."""
    if phase == "forward":
        return Category.ACTIVATIONS
    return Category.GRADIENTS if storage in stepped or graph.storages[storage].output else Category.TEMPORARIES


def _short(op: str) -> str:
    """``aten.mm.default`` -> ``mm``."""
    return op.removeprefix("aten.").removesuffix(".default")


def problem_of_trace(trace: Trace, *, alignment: int = ALIGNMENT, constants: bool = False) -> Problem:
    """The buffers of a Trace, projected or measured; instants are its events.

    Args:
        trace: allocations and frees.
        alignment: bytes, >= 1.
        constants: also what exists before the steps: parameters, buffers, inputs, optimizer state, and what building the
            model took.

    Raises:
        ProblemError: nothing is left to place.
    """
    buffers = _Buffers(alignment)
    held: dict[int, tuple[int, int]] = {}
    times: dict[int, int] = {}
    planned = [constants or (s.category not in CONSTANT and _in_a_step(trace, s.op)) for s in trace.storages]
    planned = [keep and s.category is not Category.OUTSIDE for keep, s in zip(planned, trace.storages, strict=True)]

    def close(storage: int, end: int) -> None:
        begun, nbytes = held.pop(storage)
        if not planned[storage] or end <= begun:
            return
        row = trace.storages[storage]
        times[storage] = times.get(storage, 0) + 1
        name = str(storage) if times[storage] == 1 else f"{storage}#{times[storage]}"
        op = trace.ops[row.op] if 0 <= row.op < len(trace.ops) else TraceOp("")
        name_of_op = _short(op.name)
        made = name_of_op if row.dtype or row.label else f"inside {name_of_op}"
        label = row.label or (f"{op.module} {made}" if op.module else made)
        buffers.add(name, begun, end, nbytes, row.category, label)

    for event, (storage, delta) in enumerate(zip(trace.storage.tolist(), trace.delta.tolist(), strict=True)):
        before = held[storage][1] if storage in held else 0
        if before:
            close(storage, event)
        if before + delta > 0:  # allocated, or an allocation that grew or shrank: a buffer of the new size from here
            held[storage] = (event, before + delta)
    for storage in list(held):
        close(storage, len(trace))
    return buffers.problem({"source": f"{trace.kind} trace", "ops": trace.ops, "op_at": trace.op})


def _in_a_step(trace: Trace, op: int) -> bool:
    return not 0 <= op < len(trace.ops) or trace.ops[op].step >= 0


class _Buffers:
    """Buffers as they are found, and the Problem of them all. Buffers of no bytes take no place and are left out."""

    def __init__(self, alignment: int) -> None:
        if alignment < 1:
            raise ProblemError("these lifetimes", f"{alignment} is no alignment", "write 1 or more bytes")
        self.alignment = alignment
        self.rows: list[tuple[str, int, int, int, str, str]] = []

    def add(self, name: str, lower: int, upper: int, nbytes: int, category: Category, label: str) -> int:
        """The buffer's index, or -1 where it has no bytes."""
        if nbytes <= 0:
            return -1
        size = -(-nbytes // self.alignment) * self.alignment
        self.rows.append((name, lower, upper, size, category.value, label))
        return len(self.rows) - 1

    def problem(self, meta: dict[str, Any]) -> Problem:
        """The Problem of the buffers found; ids that came twice get a number."""
        if not self.rows:
            raise ProblemError("this program", "it makes no tensor that a plan could place", "is it an empty step?")
        names, lower, upper, size, category, labels = zip(*self.rows, strict=True)
        seen: dict[str, int] = {}
        ids = []
        for name in names:
            seen[name] = seen.get(name, 0) + 1
            ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        count = len(ids)
        return Problem(
            tuple(ids), np.array(lower, dtype=np.int64), np.array(upper, dtype=np.int64), np.array(size, dtype=np.int64),
            np.full(count, self.alignment, np.int64), np.full(count, FREE_OFFSET, np.int64),
            np.full(count, ANY_MEMORY, np.int64), labels=labels, meta={**meta, "category": category},
        )  # fmt: skip

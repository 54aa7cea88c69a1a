"""Plans made up for the tests of the drawings: placed by stacking, so that no planner is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from memfit.planners.load import load_of
from memfit.planners.plan_file import memory_peaks
from memfit.planners.problem import Memory, Piece, Placement, Problem
from memfit.report.plan_summary import AliveBuffer, PlanReport
from memfit.report.summary import Moment

MIB = 1024**2


def made_up_problem(**changes: Any) -> Problem:
    """Four buffers of 1 to 8 MiB, one of them with a gap."""
    columns: dict[str, Any] = {
        "ids": ("w0", "act1", "act2", "tmp"), "lower": np.array([0, 1, 2, 3]), "upper": np.array([10, 6, 5, 4]),
        "size": np.array([8, 4, 2, 1]) * MIB, "alignment": np.full(4, 64), "offset": np.full(4, -1),
        "memory": np.full(4, -1), "pieces": {1: (Piece(1, 3, 0, 4 * MIB), Piece(4, 6, 0, 2 * MIB))},
        "labels": ("transformer.wte", "transformer.h.0.mlp addmm", "", "softmax"),
    }  # fmt: skip
    return Problem(**{**columns, **changes})


def made_up_plan(problem: Problem | None = None, **changes: Any) -> PlanReport:
    """The buffers one on top of the other, beside a better bound."""
    problem = problem or made_up_problem()
    offset = np.concatenate([[0], np.cumsum(problem.size)[:-1]]).astype(np.int64)
    memory = np.zeros(len(problem), dtype=np.int64)
    load = load_of(problem)
    peak = int(problem.size.sum())
    best = Placement("exact", offset, memory, peak, load.peak, 0.0123)
    worse = Placement("size/best", offset, memory, peak + MIB, load.peak, 0.00042)
    alive = tuple(
        AliveBuffer(problem.ids[i], problem.labels[i], int(problem.size[i]), "", 0, 10, int(offset[i]), "memory")
        for i in range(2)
    )
    fields: dict[str, Any] = {
        "target": "net.py:step", "problem": problem, "placements": (best, worse), "bound": load.peak,
        "bound_reason": "the load: 3 buffers alive at instant 2", "load": load, "instant": 2,
        "at": Moment(0, "aten.addmm.default", "transformer.h.0.mlp", "model.py:12", "forward"), "alive": alive,
        "memory_peaks": memory_peaks(problem, best), "seconds": 0.0155,
    }  # fmt: skip
    return PlanReport(**{**fields, **changes})


def two_memories() -> PlanReport:
    """The same buffers in a small and a large memory."""
    problem = made_up_problem(memories=(Memory("sram", 8 * MIB), Memory("dram", None)))
    memory = np.array([0, 1, 1, 1])
    offset = np.array([0, 0, 4 * MIB, 6 * MIB])
    best = Placement("search", offset, memory, 15 * MIB, 14 * MIB, 0.5)
    return made_up_plan(
        problem, placements=(best,), memory_peaks=(8 * MIB, 7 * MIB), capacity=8 * MIB, fits=True, bound=14 * MIB
    )


def many_buffers(count: int, seed: int = 0) -> PlanReport:
    """Short-lived buffers of all sizes, stacked in columns: nothing overlaps."""
    draw = np.random.default_rng(seed)
    columns = max(count // 200, 1)
    lower = np.repeat(np.arange(columns) * 100, -(-count // columns))[:count]
    upper = lower + draw.integers(1, 100, count)
    size = (np.exp(draw.normal(8, 2.5, count))).astype(np.int64) // 64 * 64 + 64
    ends = np.cumsum(size)
    first = np.searchsorted(lower, lower, side="left")
    offset = ends - size - (ends - size)[first]
    problem = Problem(
        tuple(f"tensor_{i}" for i in range(count)), lower, upper, size, np.full(count, 64), np.full(count, -1),
        np.full(count, -1), labels=tuple(f"model.layers.{i % 80}.self_attn.q_proj mul_{i}" for i in range(count)),
    )  # fmt: skip
    load = load_of(problem)
    best = Placement("stacked", offset, np.zeros(count, np.int64), int((offset + size).max()), load.peak, 0.1)
    return made_up_plan(problem, placements=(best,), bound=load.peak, load=load, memory_peaks=(best.peak,), alive=())

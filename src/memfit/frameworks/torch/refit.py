"""A step made to run as a recipe says, in whatever process and whichever of the two ways it was fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.module_plan import ModulePlan
from memfit.ir.recipe import Recipe
from memfit.ir.step import Step


def step_from_recipe(step: Step, path: str) -> Callable[[], Any]:
    """The fitted form of ``step``: call it once per step.

    Raises:
        TraceError: the file is no recipe, or its schedule does not run this program.
        BudgetError: the program changed and the budget can no longer be kept.
    """
    recipe = Recipe.load(path)
    if recipe.mode == "modules":
        return ModulePlan.from_json(recipe.modules).apply(step)
    schedules = {bucket.fingerprint: bucket.schedule for bucket in recipe.buckets}
    return FittedStep(step, recipe.budget, held=recipe.held, options=recipe.options, schedules=schedules)

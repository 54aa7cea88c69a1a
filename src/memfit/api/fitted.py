"""`fit`: a step that keeps a byte budget, with the same results, at the least extra time, proved by running.

``fit`` takes a live Step, in two lines of a user's script; ``fit_target`` is the command: it writes a recipe, runs
baseline and fitted step in fresh processes and reports what was measured.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from memfit.api.prediction import predict
from memfit.api.programs import step_of_other
from memfit.errors import BudgetError, MissingFrameworkError, SizeError, VerifyError, target_named
from memfit.frameworks.which import framework_of
from memfit.ir.recipe import Recipe
from memfit.ir.step import Step, as_step
from memfit.report.summary import FitReport, StepFigures
from memfit.units import parse_bytes

Progress = Callable[[str, int | None, int | None], None]
_TRIES = 4


def fit(
    step: Step | tuple[Any, ...] | Mapping[str, Any], budget: int | str, *, recipe: str | None = None,
    allow_reassociation: bool = False, allow_inexact: bool = False, progress: Progress | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """A callable that runs ``step`` within ``budget``, bit for bit as eager PyTorch would.

    >>> run = memfit.fit(memfit.Step(model, batch, optimizer=optimizer), budget="2GiB")   # doctest: +SKIP
    >>> for batch in data: loss = run(batch)                                             # doctest: +SKIP

    Args:
        step: a Step, or the tuple or dict forms of one.
        budget: peak bytes of all the step's tensors (parameters, inputs, gradients, optimizer state included), or a
            text size.
        recipe: a recipe file that ``memfit fit`` wrote for this step; saves planning.
        allow_reassociation, allow_inexact: also levers that sum in another order; that change results.

    Returns:
        a callable of one argument, the batch (default: the step's own): returns the loss, or the inference output.

    Raises:
        BudgetError: the budget cannot be kept; SizeError: it is no size.
    Cost: seconds to capture, measure ops once and plan; again for each new shape of the batch.
    """
    whole = as_step(step, "fit")
    if framework_of(whole) == "jax":
        from memfit.api.fitted_jax import fit_jax

        return fit_jax(whole, parse_bytes(budget), progress=progress)
    _need_torch()
    from memfit.fitting.search import search
    from memfit.frameworks.torch.refit import step_from_recipe

    if recipe is not None:
        return step_from_recipe(whole, recipe)
    return search(
        whole,
        parse_bytes(budget),
        allow_reassociation=allow_reassociation,
        allow_inexact=allow_inexact,
        progress=progress,
    ).run


def fit_target(
    target: str, budget: int | str, *, settings: Mapping[str, Any] | None = None, allow_reassociation: bool = False,
    allow_inexact: bool = False, levers: tuple[str, ...] | None = None, verify: bool = True, recipe: str | None = None,
    steps: int = 3, progress: Progress | None = None,
) -> FitReport:  # fmt: skip
    """Fit the step that ``target`` names; write the recipe; verify by running both sides in fresh processes.

    Args:
        budget: bytes, a text size, or a percentage of the baseline's measured peak (``33%``).
        recipe: where to write the recipe; left out, ``<function>.recipe.json`` here.
        steps: how many steps each side of the verification runs.

    Raises:
        BudgetError: the budget cannot be kept; VerifyError: the fitted step did not do what was promised.
    """
    other = _step_of_jax(target, settings)
    if other is not None:
        from memfit.api.fitted_jax import fit_jax_target

        return fit_jax_target(
            target, other, lambda before: _budget_bytes(budget, before), settings=settings or {}, verify=verify,
            needs_baseline=_is_percentage(budget), recipe=recipe, steps=steps, progress=progress,
        )  # fmt: skip
    _need_torch()
    from memfit.fitting import verify as verification
    from memfit.fitting.search import search
    from memfit.frameworks.target import build_step
    from memfit.frameworks.torch.held import held_beside, hook_on

    say = progress or (lambda description, done, total: None)
    settings = dict(settings or {})
    notes: list[str] = []
    with hook_on() as live:
        step = build_step(target, settings)
        held = held_beside(step, live())
    baseline = None
    if verify or _is_percentage(budget):
        say("running the step as it is, in a fresh process", None, None)
        try:
            baseline = verification.run_side(
                {"target": target, "settings": settings, "steps": steps, "seed": 0, "mode": "baseline"}
            )
        except VerifyError as error:
            notes.append(f"the step as it is did not run here ({error.found})")
    memory = predict(target, settings=settings)
    projected = memory.peak.live
    allowed = _budget_bytes(budget, baseline.peak if baseline else projected)
    path = recipe or f"{target.rpartition(':')[2]}.recipe.json"
    limit, modules_only = allowed, False
    checked = None
    for attempt in range(_TRIES):
        with target_named(target):
            choice = search(
                step, limit, held=held, allow_reassociation=allow_reassociation, allow_inexact=allow_inexact,
                levers=levers, modules_only=modules_only, progress=progress,
            )  # fmt: skip
        _recipe_of(choice, target, settings, allowed, held).save(path)
        if not verify:
            break
        say("verifying: the fitted step in a fresh process", None, None)
        try:
            checked = verification.verify(
                target, settings, str(Path(path).resolve()), steps=steps, inexact=choice.numerics != "bit-exact",
                baseline=baseline if choice.numerics == "bit-exact" else None,
            )  # fmt: skip
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        over = checked.fitted.peak - allowed
        differs = [kind for kind, check in checked.checks.items() if not check["ok"]]
        if over <= 0 and (not differs or choice.numerics != "bit-exact"):
            break
        if differs and choice.mode == "graph":
            notes.append(f"as one graph the step's {', '.join(differs)} differed, so it is fitted by modules")
            modules_only = True
        elif over > 0 and attempt < _TRIES - 1:
            limit -= over
        else:
            Path(path).unlink(missing_ok=True)
            if differs:
                raise VerifyError(f"{differs[0]} ({checked.checks[differs[0]]['differs']})", "equal bits", "other bits")
            raise BudgetError(checked.fitted.peak, allowed, "what the fitted step measured")
    fitted_side = checked.fitted if checked else None
    overhead = (
        fitted_side.step_seconds / baseline.step_seconds if fitted_side and baseline and baseline.step_seconds else None
    )
    return FitReport(
        target=target, feasible=True, budget=allowed, smallest_feasible=choice.smallest_feasible,
        baseline=StepFigures(projected or choice.baseline_peak, baseline.peak if baseline else None,
                             baseline.step_seconds if baseline else choice.baseline_seconds, choice.baseline_timeline),
        fitted=StepFigures(choice.peak, fitted_side.peak if fitted_side else None,
                           fitted_side.step_seconds if fitted_side else choice.seconds, choice.timeline),
        overhead=overhead, exact=checked.exact if checked else choice.numerics == "bit-exact", levers=choice.levers,
        plan_seconds=choice.plan_seconds, recipe=path, lower_bound=choice.lower_bound,
        verified={} if checked is None else {
            **checked.checks, "budget": {"ok": checked.fitted.peak <= allowed, "measured": checked.fitted.peak},
            **({} if checked.exact else {"largest relative error": checked.max_error}),
        },
        notes=(*notes, *choice.notes, *(checked.notes if checked else ())), memory=memory,
    )  # fmt: skip


def _recipe_of(choice: Any, target: str, settings: dict[str, Any], budget: int, held: int) -> Recipe:
    return Recipe(
        target, settings, budget, choice.mode, held, choice.buckets, choice.modules, [row.name for row in choice.levers],
        choice.options, {"torch": version("torch"), "python": platform.python_version()},
    )  # fmt: skip


def _is_percentage(budget: int | str) -> bool:
    return isinstance(budget, str) and budget.strip().endswith("%")


def _budget_bytes(budget: int | str, baseline_peak: int) -> int:
    if not _is_percentage(budget):
        return parse_bytes(budget)
    text = str(budget).strip()[:-1]
    try:
        share = float(text)
    except ValueError:
        raise SizeError(str(budget)) from None
    if not 0 < share <= 1000:
        raise SizeError(str(budget))
    return int(baseline_peak * share / 100)


def _step_of_jax(target: str, settings: Mapping[str, Any] | None) -> Step | None:
    """The target's step where it is one of JAX, else None; built only where its module imports JAX."""
    found = step_of_other(target, settings)
    return found[1] if found is not None and found[2] == "jax" else None


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingFrameworkError("torch", "torch")

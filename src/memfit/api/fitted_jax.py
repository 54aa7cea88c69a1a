"""`fit` of a JAX step: the choice of the compiler's schedule and of what is computed again, verified by running both."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.errors import BudgetError, VerifyError
from memfit.fitting import verify as verification
from memfit.ir.lever import LeverUse
from memfit.ir.recipe import Recipe
from memfit.ir.step import Step
from memfit.report.summary import FitReport, StepFigures

if TYPE_CHECKING:
    from memfit.frameworks.jax.fitting import JaxChoice

Progress = Callable[[str, int | None, int | None], None]
_WORKER = "memfit.frameworks.jax.worker"
_TOLERANCE = 1e-3  # of the largest value: what another fusion of the same sums may do to float32
_TRIES = 3


def fit_jax(step: Step, budget: int, *, progress: Progress | None = None) -> Callable[..., Any]:
    """The compiled step within ``budget``, called with new inputs of the same shapes (default: the step's own)."""
    from memfit.frameworks.jax.fitting import fit_step
    from memfit.frameworks.jax.steps import jax_step

    whole = jax_step(step)
    choice = fit_step(whole, budget, progress)

    def run(*arguments: Any) -> Any:
        return choice.compiled.call(*(arguments or whole.arguments()))

    return run


def fit_jax_target(
    target: str, step: Step, budget_of: Callable[[int], int], *, settings: Mapping[str, Any], verify: bool,
    needs_baseline: bool, recipe: str | None, steps: int, progress: Progress | None,
) -> FitReport:  # fmt: skip
    """As ``api.fitted.fit_target``, of a target whose step is JAX's.

    Args:
        budget_of: bytes, from the baseline's measured peak.
        needs_baseline: whether it looks at that; the baseline runs for it, or to verify.

    Raises:
        BudgetError: nothing keeps the budget, projected or measured; VerifyError: results differ beyond rounding.
    """
    from memfit.frameworks.jax.fitting import fit_step
    from memfit.frameworks.jax.steps import jax_step

    say = progress or (lambda text, done, total: None)
    whole = jax_step(step, target)
    settings = dict(settings)
    request = {"target": target, "settings": settings, "steps": steps, "mode": "baseline"}
    path = recipe or f"{target.rpartition(':')[2]}.recipe.json"
    baseline, checked, planning = None, None, 0.0
    with tempfile.TemporaryDirectory(prefix="memfit-values-") as folder:
        if verify or needs_baseline:
            say("running the step as it is, in a fresh process", None, None)
            request["dump"] = str(Path(folder) / "baseline.npz")
            baseline = verification.run_side(request, worker=_WORKER)
        allowed = limit = budget_of(baseline.peak if baseline else 0)
        compiled: dict[Any, Any] = {}
        for attempt in range(_TRIES):
            begun = time.perf_counter()
            choice = fit_step(whole, limit, progress, compiled)
            planning += time.perf_counter() - begun
            versions = {"jax": version("jax"), "python": platform.python_version()}
            Recipe(target, settings, allowed, "jax", options=choice.to_json(), versions=versions).save(path)
            if not verify:
                break
            say("verifying: the fitted step in a fresh process", None, None)
            try:
                checked = verification.verify(
                    target, settings, str(Path(path).resolve()), steps=steps, inexact=True, baseline=baseline,
                    worker=_WORKER,
                )  # fmt: skip
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
            over = checked.fitted.peak - allowed
            if over <= 0:
                break
            if attempt == _TRIES - 1:
                Path(path).unlink(missing_ok=True)
                raise BudgetError(checked.fitted.peak, allowed, "what the fitted step measured")
            limit -= over
    if checked and not checked.exact and checked.max_error > _TOLERANCE:
        Path(path).unlink(missing_ok=True)
        raise VerifyError("results", f"a difference of at most {_TOLERANCE}", f"{checked.max_error:.2g}")
    fitted = checked.fitted if checked else None
    return FitReport(
        target=target, feasible=True, budget=allowed, smallest_feasible=min(nbytes for _, nbytes in choice.tried),
        baseline=StepFigures(choice.default, baseline.peak if baseline else None, baseline.step_seconds if baseline else None),
        fitted=StepFigures(choice.compiled.peak, fitted.peak if fitted else None, fitted.step_seconds if fitted else None),
        overhead=fitted.step_seconds / baseline.step_seconds if fitted and baseline and baseline.step_seconds else None,
        exact=checked.exact if checked else not (choice.recompute.count or choice.recompute.loops),
        levers=_levers(choice), plan_seconds=planning, recipe=path,
        verified={} if checked is None else {
            **checked.checks, "budget": {"ok": checked.fitted.peak <= allowed, "measured": checked.fitted.peak},
            **({} if checked.exact else {"largest relative error": checked.max_error}),
        },
        notes=(*_notes(choice), *(checked.notes if checked else ())),
    )  # fmt: skip


def _levers(choice: JaxChoice) -> tuple[LeverUse, ...]:
    rows = []
    if choice.lean:
        rows.append(LeverUse("schedule", "bit-exact", choice.default - choice.plain, 0.0, _option()))
    recompute = choice.recompute
    if recompute.count or recompute.loops:
        detail = f"{recompute.count} of {recompute.parts} parts keep {recompute.policy}" + ", loops" * recompute.loops
        rows.append(LeverUse("recompute", "reassociating", choice.plain - choice.compiled.peak, 0.0, detail))
    return tuple(rows)


def _notes(choice: JaxChoice) -> tuple[str, ...]:
    if not choice.lean or not (choice.recompute.count or choice.recompute.loops):
        return ()
    return (
        f"XLA's default CPU scheduler undoes recomputation; the fitted step is compiled with {_option()}, which "
        "jax.jit takes as compiler_options",
    )


def _option() -> str:
    from memfit.frameworks.jax.compiled import LEAN

    return ", ".join(f"{key}={value}" for key, value in LEAN.items())

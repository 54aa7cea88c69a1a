"""Find a ``ModulePlan`` by projecting, running and correcting; see ``modulewise`` for what may be combined.

Every candidate runs once from the same state. It counts only if it leaves the same bits as the plain step; a candidate
that does not is taken apart to find the modules to blame. Where the plain step itself leaves other bits each time,
there is nothing to hold a candidate against: recomputation is then checked by what its second run saves, and noted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from memfit.errors import BudgetError
from memfit.frameworks.torch.checkpointing import ReplayError
from memfit.frameworks.torch.early_optimizer import may_step_early
from memfit.frameworks.torch.microbatch import compared, rows_of, why_not
from memfit.frameworks.torch.module_profile import ProfiledModules, profile_modules
from memfit.frameworks.torch.modulewise import ModulePlan
from memfit.frameworks.torch.step_meter import Run, StepState, measure
from memfit.frameworks.torch.steps import is_training, run_step
from memfit.ir.step import Step
from memfit.passes.recompute_modules import choose_modules
from memfit.units import format_bytes

_Kind = tuple[tuple[str, ...], bool, int]
_ROUNDS = 8
_CLOSE = 0.01


class Search:
    """One search; ``run`` gives the plan."""

    def __init__(
        self,
        step: Step,
        budget: int,
        reassociation: bool,
        inexact: bool,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self.step, self.budget, self.reassociation, self.inexact = step, budget, reassociation, inexact
        self.progress, self.ran = progress, 0
        self.refused: dict[str, str] = {}
        self.smallest = 0
        self.notes: list[str] = []
        self.deterministic = True
        self.tried: dict[_Kind, tuple[ModulePlan, Run | None]] = {}

    def run(self) -> ModulePlan:
        """The plan.

        Raises:
            BudgetError: none keeps the budget.
        """
        self.say("running the step as it is")
        self.state = StepState(self.step)
        try:
            run_step(self.step)  # optimizer state appears
            if self.step.optimizer is None and self.step.run is None:
                self.state.restore()  # gradients that are left behind are the caller's to clear
            self.warm = StepState(self.step)
            try:
                return self.searched()
            finally:
                self.warm.restore()
        finally:
            self.state.restore()

    def say(self, what: str) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(what, min(self.ran, 2 * _ROUNDS), 2 * _ROUNDS)
        self.ran += 1

    def searched(self) -> ModulePlan:
        """The plan, from the warm state."""
        self.plain = measure(self.step, lambda: run_step(self.step))
        self.warm.restore()
        again = measure(self.step, lambda: run_step(self.step))
        self.warm.restore()
        self.deterministic = again.digest == self.plain.digest
        if not self.deterministic:
            self.notes.append("the plain step does not repeat its own bits, so no bit-exact comparison is possible")
        seconds = min(self.plain.seconds, again.seconds)
        self.plain = replace(self.plain, peak=max(self.plain.peak, again.peak), seconds=seconds)
        self.smallest = self.plain.peak
        empty = ModulePlan(budget=self.budget)
        if self.plain.peak <= self.budget:
            return self.finished(empty, self.plain)
        if not isinstance(self.step.model, nn.Module):
            raise self.infeasible("a model that is no torch.nn.Module has no modules to recompute")
        if not is_training(self.step) and self.step.run is None:
            raise self.infeasible("an inference step keeps nothing for backward that could be recomputed")
        found = self.with_parts(empty)
        if found is not None:
            return found
        parts = 2
        why = "" if self.reassociation else "micro-batches are not allowed"
        while self.reassociation and parts <= rows_of(self.step.inputs):
            comparison = compared(self.step, parts, other_random_numbers=self.inexact)
            self.warm.restore()
            if comparison.refused:
                why = f"micro-batches are refused: {comparison.refused}"
                break
            base = replace(empty, micro_batches=parts, weights=comparison.weights, error=comparison.error, exact=False)
            found = self.with_parts(base)
            if found is not None:
                return found
            parts *= 2
        raise self.infeasible(why or why_not(self.step))

    def with_parts(self, base: ModulePlan) -> ModulePlan | None:
        """The cheapest plan on top of ``base``, or None."""
        if base.micro_batches == 1 and may_step_early(self.step):
            early = replace(base, early_optimizer=True)
            run = self.measured(early)
            if run is not None:
                base = early
        run = self.measured(base)
        if run is not None and run.peak <= self.budget:
            return self.finished(base, run)
        self.say("measuring what each module saves")
        profiled = profile_modules(self.step, base.apply(self.step), self.warm.restore)
        return self.recomputing(base, profiled)

    def recomputing(self, base: ModulePlan, profiled: ProfiledModules) -> ModulePlan | None:
        """Choose, run, and move the target by what the projection missed, until it is met closely."""
        works, fails, target = 0, -1, self.budget
        seen: set[frozenset[int]] = set()
        for _ in range(_ROUNDS):
            choice = choose_modules(profiled.profile, target, self.refused_in(profiled))
            if choice.modules in seen:
                break
            seen.add(choice.modules)
            plan = _recomputing(base, profiled, choice.modules)
            run = self.measured(plan)
            if run is None:
                if not self.blamed(plan):
                    break
                seen.discard(choice.modules)
                continue
            if run.peak <= self.budget:
                works = max(works, target)
                if self.budget - run.peak <= _CLOSE * self.budget or not choice.modules:
                    break
                target = (target + fails) // 2 if fails >= 0 else target + self.budget - run.peak
            else:
                if not choice.kept:
                    break
                fails = target if fails < 0 else min(fails, target)
                target = (works + target) // 2 if works else target - (run.peak - self.budget)
            if fails >= 0 and works and fails - works < _CLOSE * self.budget:
                break
        return self.cheapest(base, profiled) or self.lowest(base, profiled)

    def refused_in(self, profiled: ProfiledModules) -> frozenset[int]:
        """Numbers of the refused modules."""
        return frozenset(i for i, name in enumerate(profiled.profile.modules) if name in self.refused)

    def cheapest(self, base: ModulePlan, profiled: ProfiledModules) -> ModulePlan | None:
        """Of all plans on ``base`` that were run and keep the budget, the one with the least recomputation."""
        number = {name: i for i, name in enumerate(profiled.profile.modules)}
        kept: list[tuple[float, ModulePlan, Run]] = []
        for plan, run in self.tried.values():
            if run is not None and run.peak <= self.budget and _kind(plan)[1:] == _kind(base)[1:]:
                kept.append((profiled.profile.seconds_of(number[name] for name in plan.recompute), plan, run))
        if not kept:
            return None
        _, plan, run = min(kept, key=lambda row: row[0])
        return self.finished(plan, run)

    def lowest(self, base: ModulePlan, profiled: ProfiledModules) -> ModulePlan | None:
        """Run the smallest there is: the lowest projections, and the classes of modules with the lowest curves."""
        profile, refused = profiled.profile, self.refused_in(profiled)
        options = [
            frozenset(i for i, other in enumerate(profile.kinds) if other == kind) - refused
            for kind in sorted(set(profile.kinds))
        ]
        options = sorted((o for o in options if o), key=lambda members: int(profile.curve(members).max()))[:3]
        for members in (choose_modules(profile, 0, refused).modules, *options):
            if members:
                self.measured(_recomputing(base, profiled, members))
        return self.cheapest(base, profiled)

    def measured(self, plan: ModulePlan) -> Run | None:
        """Run a plan once from the warm state; None where it refuses or leaves other bits than the plain step."""
        key = _kind(plan)
        if key in self.tried:
            return self.tried[key][1]
        self.say(f"running with {len(plan.recompute)} modules recomputed" if plan.recompute else "running a plan")
        run: Run | None
        try:
            run = measure(self.step, plan.apply(self.step))
            if not run.peak or (plan.exact and self.deterministic and run.digest != self.plain.digest):
                run = None
        except ReplayError as error:
            self.refused[error.name] = error.why
            run = None
        except Exception as error:
            self.notes.append(f"a plan was dropped, it raised {type(error).__name__}: {str(error)[:200]}")
            run = None
        self.warm.restore()
        if run is not None:
            self.smallest = min(self.smallest, run.peak)
        self.tried[key] = (plan, run)
        return run

    def blamed(self, plan: ModulePlan) -> bool:
        """Find the modules because of which ``plan`` failed and refuse them; False where none is found."""
        if any(name in self.refused for name in plan.recompute):
            return True
        suspects = list(plan.recompute)
        if len(suspects) == 1:
            self.refused[suspects[0]] = "the results differ when it is recomputed"
            return True
        halves = [suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]]
        found = False
        for half in halves:
            if half and self.measured(replace(plan, recompute=tuple(half))) is None:
                found = self.blamed(replace(plan, recompute=tuple(half))) or found
        if not found and suspects:  # only together
            self.refused.update(dict.fromkeys(halves[0], "the results differ when it is recomputed with others"))
            found = True
        return found

    def saved_by(self, kind: _Kind) -> int:
        """Bytes by which a plan without recomputation that was run lowered the peak."""
        _, run = self.tried.get(kind, (None, None))
        return self.plain.peak - run.peak if run is not None else 0

    def infeasible(self, why: str) -> BudgetError:
        """The error for a budget below every plan."""
        hint = "" if self.reassociation else "micro-batches may go lower: allow reassociation"
        return BudgetError(self.smallest, self.budget, why or "what the step must keep at once", hint)

    def finished(self, plan: ModulePlan, run: Run) -> ModulePlan:
        """The plan with its figures and lever rows."""
        if self.refused:
            self.notes.append(
                "not recomputed: " + "; ".join(f"{name}: {why}" for name, why in sorted(self.refused.items()))
            )
        extra = max(0.0, run.seconds - self.plain.seconds)
        saved = self.plain.peak - run.peak
        levers = []
        if plan.early_optimizer:
            part = self.saved_by(((), True, 1))
            saved -= part
            levers.append(
                _row("early optimizer", "bit-exact", part, 0.0, "each parameter is stepped when its gradient is final")
            )
        if plan.micro_batches > 1:
            part = saved if not plan.recompute else self.saved_by(((), False, plan.micro_batches))
            saved -= part
            detail = f"{plan.micro_batches} parts of the batch; gradients within {plan.error:.2g}"
            levers.append(_row("micro-batches", "reassociating", part, 0.0 if plan.recompute else extra, detail))
        if plan.recompute:
            detail = f"{len(plan.recompute)} modules run again in backward: {', '.join(plan.recompute[:6])}"
            detail += ", ..." if len(plan.recompute) > 6 else ""
            levers.append(_row("recompute modules", "bit-exact", saved, extra, detail))
        return replace(
            plan, baseline_peak=self.plain.peak, measured_peak=run.peak, projected_peak=plan.projected_peak or run.peak,
            baseline_seconds=self.plain.seconds, seconds=run.seconds, levers=tuple(levers), notes=tuple(self.notes),
            exact=plan.exact and self.deterministic,
        )  # fmt: skip


def _kind(plan: ModulePlan) -> _Kind:
    return plan.recompute, plan.early_optimizer, plan.micro_batches


def _recomputing(base: ModulePlan, profiled: ProfiledModules, modules: frozenset[int]) -> ModulePlan:
    names, numbers = profiled.profile.modules, sorted(modules)
    return replace(
        base,
        recompute=tuple(names[i] for i in numbers),
        footprints={names[i]: profiled.footprints[i] for i in numbers},
        projected_peak=int(profiled.profile.curve(modules).max()),
    )


def _row(name: str, numerics: str, saved: int, seconds: float, detail: str) -> dict[str, Any]:
    return {
        "name": name,
        "numerics": numerics,
        "saved": saved,
        "cost_seconds": seconds,
        "detail": f"{detail} ({format_bytes(saved)})",
    }

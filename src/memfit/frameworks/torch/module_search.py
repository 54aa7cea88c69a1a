"""Find a ``ModulePlan`` by projecting, running and correcting; see ``modulewise`` for what may be combined.

Every candidate runs once from the same state. It counts only if it leaves the same bits as the plain step; a candidate
that does not is taken apart to find the modules to blame. Where the plain step itself leaves other bits each time,
there is nothing to hold a candidate against: recomputation is then checked by what its second run saves, and noted.
Where the plain step's peak depends on its random numbers (a branch on a value), a candidate keeps the budget only if
runs under other random numbers keep it too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from memfit.errors import BudgetError, MemfitError
from memfit.frameworks.torch.checkpointing import ReplayError
from memfit.frameworks.torch.chunked_loss import chunked_heads, find_heads
from memfit.frameworks.torch.early_optimizer import may_step_early
from memfit.frameworks.torch.lowbit import LADDER, LowBit, measure_error
from memfit.frameworks.torch.microbatch import compared, difference_under, rows_of, tolerance
from memfit.frameworks.torch.module_plan import ModulePlan
from memfit.frameworks.torch.module_profile import ProfiledModules, profile_modules
from memfit.frameworks.torch.step_meter import Run, StepState, measure
from memfit.frameworks.torch.steps import is_training, run_step
from memfit.ir.step import Step
from memfit.passes.recompute_modules import choose_modules

_Kind = tuple[tuple[str, ...], bool, int, tuple[str, ...], LowBit]
_ROUNDS = 8
_CLOSE = 0.01
_FURTHER_PLAIN = 2
_FURTHER_FITTED = 6


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
        self.why_not_smaller: list[str] = []
        self.notes: list[str] = []
        self.deterministic = True
        self.varies = False
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
        further = self.peak_under_other_draws(self.step, lambda: run_step(self.step), _FURTHER_PLAIN)
        self.varies = not self.plain.peak == again.peak == further
        self.deterministic = again.digest == self.plain.digest
        if not self.deterministic:
            self.notes.append("the plain step does not repeat its own bits, so no bit-exact comparison is possible")
        seconds = min(self.plain.seconds, again.seconds)
        self.plain = replace(self.plain, peak=max(self.plain.peak, again.peak, further), seconds=seconds)
        self.smallest = self.plain.peak
        empty = ModulePlan(budget=self.budget)
        if self.plain.peak <= self.budget:
            return self.finished(empty, self.plain)
        if not isinstance(self.step.model, nn.Module):
            raise self.infeasible("a model that is no torch.nn.Module has no modules to recompute")
        if not is_training(self.step) and self.step.run is None:
            raise self.infeasible("an inference step keeps nothing for backward that could be recomputed")
        for base in self.bases(empty):
            found = self.on(base)
            if found is not None:
                return found
        raise self.infeasible()

    def bases(self, empty: ModulePlan) -> Iterator[ModulePlan]:
        """What to recompute on top of, in the order of numerics: bit-exact, reassociating, lossy."""
        yield empty
        chunked = empty
        if self.reassociation:
            heads = find_heads(self.step)
            self.warm.restore()
            if heads:
                error = difference_under(self.step, lambda: chunked_heads(self.step.model, heads))
                self.warm.restore()
                if error <= tolerance(self.step):
                    chunked = replace(empty, chunked_heads=heads, error=error, exact=False)
                    yield chunked
            parts = 2
            while parts <= rows_of(self.step.inputs):
                comparison = compared(self.step, parts, other_random_numbers=self.inexact)
                self.warm.restore()
                if comparison.refused:
                    self.why_not_smaller.append(f"micro-batches are refused: {comparison.refused}")
                    break
                error = max(comparison.error, chunked.error)
                yield replace(chunked, micro_batches=parts, weights=comparison.weights, error=error, exact=False)
                parts *= 2
        if self.inexact and self.step.run is None:
            for low_bit in LADDER:
                try:
                    error = measure_error(self.step, low_bit, self.warm.restore).update
                except MemfitError as refused:
                    self.why_not_smaller.append(str(refused))
                    continue
                yield replace(chunked, low_bit=low_bit, error=error, exact=False)

    def on(self, base: ModulePlan) -> ModulePlan | None:
        """The cheapest plan on top of ``base``, or None."""
        if base.micro_batches == 1 and base.low_bit.optimizer_bits == 32 and may_step_early(self.step):
            early = replace(base, early_optimizer=True)
            run = self.measured(early)
            if run is not None:
                base = early
        run = self.measured(base)
        if run is not None and run.peak <= self.budget:
            return self.finished(base, run)
        self.say("measuring what each module saves")
        runner = replace(base, low_bit=replace(base.low_bit, activation_bits=32)).apply(self.step)
        return self.recomputing(base, profile_modules(runner.step, runner, self.warm.restore))

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
            runner = plan.apply(self.step)
            run = measure(runner.step, runner)
            if not run.peak or (plan.exact and self.deterministic and run.digest != self.plain.digest):
                run = None
            elif self.varies and run.peak <= self.budget:
                peak = self.peak_under_other_draws(runner.step, runner, _FURTHER_FITTED)
                run = replace(run, peak=max(run.peak, peak))
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

    def peak_under_other_draws(self, step: Step, run: Callable[[], Any], runs: int) -> int:
        """The highest peak of so many runs from the warm state, each under other random numbers; the state is put back."""
        peaks = []
        for seed in range(runs):
            self.warm.restore()
            torch.manual_seed(seed)
            random.seed(seed)
            peaks.append(measure(step, run).peak)
        self.warm.restore()
        return max(peaks)

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

    def infeasible(self, why: str = "") -> BudgetError:
        """The error for a budget below every plan."""
        hints = []
        if not self.reassociation:
            hints.append("allow reassociation (micro-batches, chunked loss)")
        if not self.inexact:
            hints.append("allow inexact levers (low bits)")
        reasons = [why or "what a step must keep at once even with every module recomputed", *self.why_not_smaller]
        return BudgetError(
            self.smallest, self.budget, "; ".join(reasons), f"to go lower: {', '.join(hints)}" if hints else ""
        )

    def finished(self, plan: ModulePlan, run: Run) -> ModulePlan:
        """The plan with its figures and lever rows."""
        if self.refused:
            refused = sorted(self.refused.items())
            self.notes.append("not recomputed: " + "; ".join(f"{name}: {why}" for name, why in refused))
        return replace(
            plan, baseline_peak=self.plain.peak, measured_peak=run.peak, projected_peak=plan.projected_peak or run.peak,
            baseline_seconds=self.plain.seconds, seconds=run.seconds, levers=tuple(self.rows(plan, run)),
            notes=tuple(self.notes), exact=plan.exact and self.deterministic,
        )  # fmt: skip

    def rows(self, plan: ModulePlan, run: Run) -> list[dict[str, Any]]:
        """One row per lever; the peak that each saves is the difference to the plan with only those before it."""
        extra = max(0.0, run.seconds - self.plain.seconds)
        within = f"gradients within {plan.error:.2g} of the plain step's"
        steps: list[tuple[ModulePlan, str, str, str]] = []
        partial = ModulePlan()
        if plan.early_optimizer:
            partial = replace(partial, early_optimizer=True)
            steps.append(
                (partial, "early optimizer", "bit-exact", "each parameter is stepped when its gradient is final")
            )
        if plan.chunked_heads:
            partial = replace(partial, chunked_heads=plan.chunked_heads)
            detail = f"cross entropy of {', '.join(plan.chunked_heads)} in chunks; {within}"
            steps.append((partial, "chunked loss", "reassociating", detail))
        if plan.micro_batches > 1:
            partial = replace(partial, micro_batches=plan.micro_batches)
            detail = f"{plan.micro_batches} parts of the batch; {within}"
            steps.append((partial, "micro-batches", "reassociating", detail))
        if plan.low_bit != LowBit():
            partial = replace(partial, low_bit=plan.low_bit)
            steps.append(
                (partial, f"low bits: {plan.low_bit}", "lossy", f"update within {plan.error:.2g} of the exact one")
            )
        if plan.recompute:
            names = ", ".join(plan.recompute[:6]) + (", ..." if len(plan.recompute) > 6 else "")
            steps.append(
                (plan, "recompute modules", "bit-exact", f"{len(plan.recompute)} run again in backward: {names}")
            )
        rows, before = [], self.plain.peak
        for number, (part, name, numerics, detail) in enumerate(steps):
            last = number == len(steps) - 1
            _, known = self.tried.get(_kind(part), (None, None))
            after = run.peak if last else known.peak if known is not None else before
            rows.append(
                {
                    "name": name,
                    "numerics": numerics,
                    "saved": before - after,
                    "cost_seconds": extra if last else 0.0,
                    "detail": detail,
                }
            )
            before = after
        return rows


def _kind(plan: ModulePlan) -> _Kind:
    return plan.recompute, plan.early_optimizer, plan.micro_batches, plan.chunked_heads, plan.low_bit


def _recomputing(base: ModulePlan, profiled: ProfiledModules, modules: frozenset[int]) -> ModulePlan:
    names, numbers = profiled.profile.modules, sorted(modules)
    return replace(
        base,
        recompute=tuple(names[i] for i in numbers),
        footprints={names[i]: profiled.footprints[i] for i in numbers},
        projected_peak=int(profiled.profile.curve(modules).max()),
    )

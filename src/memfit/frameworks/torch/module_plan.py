"""ModulePlan: what to do to a step at module level, as plain data, and the callable that does it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memfit.frameworks.torch.checkpointing import Footprint, Recomputation
from memfit.frameworks.torch.chunked_loss import chunked_heads
from memfit.frameworks.torch.early_optimizer import stepping_early
from memfit.frameworks.torch.lowbit import LowBit, follow_settings
from memfit.frameworks.torch.microbatch import run_micro_batches, split_of
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step


@dataclass(frozen=True)
class ModulePlan:
    """What to do at module level, with the figures it was chosen by.

    Attributes:
        recompute: names of the submodules that run again in backward.
        footprints: by name, what each changes in place.
        early_optimizer: step each parameter as soon as its gradient is final.
        micro_batches: equal parts of the batch, one after another.
        weights: how the parts' losses are weighted (``microbatch.WEIGHTS``).
        chunked_heads: names of the linear layers whose cross entropy is computed in chunks.
        low_bit: lossy levers.
        budget: bytes that the plan was made for.
        baseline_peak, projected_peak, measured_peak: bytes of all tensors of the step.
        baseline_seconds, seconds: of one step, CPU time of the process (wall time on a device).
        exact: the run was compared with the plain one and left the same bits.
        error: relative difference of gradients (of the update, for lossy levers) where it is not exact.
        levers: rows with the fields of ``report.summary.LeverUse``.
        notes: what the user should know.
    """

    recompute: tuple[str, ...] = ()
    footprints: dict[str, Footprint] = field(default_factory=dict)
    early_optimizer: bool = False
    micro_batches: int = 1
    weights: str = "rows"
    chunked_heads: tuple[str, ...] = ()
    low_bit: LowBit = field(default_factory=LowBit)
    budget: int = 0
    baseline_peak: int = 0
    projected_peak: int = 0
    measured_peak: int = 0
    baseline_seconds: float = 0.0
    seconds: float = 0.0
    exact: bool = True
    error: float = 0.0
    levers: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def apply(self, step: Step) -> ModuleStep:
        """The step under this plan, as a callable.

        Raises:
            AttributeError: the model has no submodule of a name in the plan.
        """
        return ModuleStep(step, self)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the recipe; ``from_json`` gives an equal plan back."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ModulePlan:
        """The plan that ``to_json`` wrote."""
        footprints = {
            name: Footprint(tuple(row["arguments"]), tuple((int(n), str(key)) for n, key in row["tensors"]))
            for name, row in data["footprints"].items()
        }
        return ModulePlan(
            **{
                **data, "recompute": tuple(data["recompute"]), "footprints": footprints,
                "chunked_heads": tuple(data["chunked_heads"]), "low_bit": LowBit(**data["low_bit"]),
                "levers": tuple(data["levers"]), "notes": tuple(data["notes"]),
            }
        )  # fmt: skip


class ModuleStep:
    """Runs a step under a plan: returns and leaves what ``run_step`` would. Between steps the model is as it was."""

    def __init__(self, step: Step, plan: ModulePlan) -> None:
        self.plan, self.step = plan, plan.low_bit.lowered(step)
        self.original = step.optimizer  # the user's own: schedulers reach this one
        self.recomputation = Recomputation(step.model, plan.recompute, plan.footprints) if plan.recompute else None

    def __call__(self, inputs: Any = None) -> Any:
        """Run one step on ``inputs`` (default: the step's own example batch)."""
        step = self.step if inputs is None else replace(self.step, inputs=inputs)
        if step.optimizer is not self.original:
            follow_settings(step.optimizer, self.original)
            self.original.__dict__["_opt_called"] = True  # what schedulers ask
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.plan.low_bit.saving(step))
            if self.plan.chunked_heads:
                stack.enter_context(chunked_heads(step.model, self.plan.chunked_heads))
            if self.recomputation is not None:
                stack.enter_context(self.recomputation.applied())
            return self._run(step)

    def _run(self, step: Step) -> Any:
        if self.plan.micro_batches > 1:
            return run_micro_batches(step, split_of(step, self.plan.micro_batches, self.plan.weights))
        if self.plan.early_optimizer:
            return stepping_early(step)
        return run_step(step)

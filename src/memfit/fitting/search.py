"""The search of `fit`: over levers by class of numerics, and over the two ways to apply them.

One graph first: it plans every tensor. Where the step cannot be captured, its modules: recomputation by module, the
optimizer in backward. Bit-exact levers come first; reassociating ones only where allowed and needed; lossy ones last.
Within a class the cheapest feasible plan wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from memfit.errors import BudgetError, CaptureError, LeverError
from memfit.fitting.ablation import curve, levers_used, plain_peak
from memfit.frameworks.torch.capture import Capture, capture
from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.modulewise import fit_modules
from memfit.ir.graph import Graph
from memfit.ir.lever import BIT_EXACT, LOSSY, REASSOCIATING, LeverUse
from memfit.ir.recipe import BucketPlan
from memfit.ir.step import Step
from memfit.passes.offload import LOAD, SAVE

BASIC = ("recompute", "reorder", "in-place", "optimizer-early")
FURTHER = {"offload": BIT_EXACT, "optimizer-state": BIT_EXACT, "chunked-loss": REASSOCIATING, "modules": REASSOCIATING}

# Micro-batches and low-bit levers rewrite the eager step: they are fitted by modules.
MODULES: dict[str, Any] = {"by": "modules"}

Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Choice:
    """What the search settled on. Bytes projected. ``run``: the fitted step; ``timeline``: (seconds, bytes) of the
    schedule; ``plan_seconds``: CPU seconds of planning alone."""

    run: Callable[..., Any]
    mode: str
    peak: int
    seconds: float
    baseline_peak: int
    baseline_seconds: float
    smallest_feasible: int
    lower_bound: int
    levers: tuple[LeverUse, ...]
    options: dict[str, Any] = field(default_factory=dict)
    buckets: list[BucketPlan] = field(default_factory=list)
    modules: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    numerics: str = BIT_EXACT
    plan_seconds: float = 0.0
    baseline_timeline: tuple[tuple[float, int], ...] = ()
    timeline: tuple[tuple[float, int], ...] = ()


def search(
    step: Step, budget: int, *, held: int = 0, allow_reassociation: bool = False, allow_inexact: bool = False,
    levers: tuple[str, ...] | None = None, modules_only: bool = False, progress: Progress | None = None,
) -> Choice:  # fmt: skip
    """The cheapest way found to run ``step`` within ``budget`` bytes of tensors.

    Raises:
        BudgetError: no allowed lever keeps the budget; ``needed`` is the smallest feasible one found.
    """
    refusal: BudgetError | None = None
    notes: list[str] = []
    known = _Captured(step)
    for numerics, stage in stages(step, allow_reassociation, allow_inexact, levers):
        best: Choice | None = None
        for options in stage:
            try:
                by_modules = modules_only or options is MODULES
                found = _one(known, budget, held, options, numerics, by_modules, notes, progress)
            except BudgetError as error:
                refusal = error if refusal is None or error.needed < refusal.needed else refusal
                continue
            if best is None or found.seconds < best.seconds:
                best = found
        if best is not None:
            return best
    assert refusal is not None
    raise refusal


def stages(
    step: Step, reassociation: bool, inexact: bool, levers: tuple[str, ...] | None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Lever options in the order in which they are tried; the cheapest of the first feasible stage wins.

    ``levers`` names the only ones to use, from the start; those of the schedule itself (``BASIC``) always take part.

    Raises:
        LeverError: a name that is no lever, or one whose class is not allowed.
    """
    allowed = {BIT_EXACT: True, REASSOCIATING: reassociation or inexact, LOSSY: inexact}
    for name in levers or ():
        if name not in BASIC and not allowed.get(FURTHER.get(name, ""), False):
            raise LeverError(name, (*BASIC, *FURTHER), FURTHER.get(name, ""))

    def on(name: str) -> bool:
        return levers is None or name in levers

    offloads: list[dict[str, Any]] = [{"offload": share} for share in (0.25, 0.5, 1.0)] if on("offload") else []
    file_state: list[dict[str, Any]] = [{"optimizer_state": "file"}] if step.optimizer and on("optimizer-state") else []
    moved = [*offloads, *({**a, **b} for a in file_state for b in ({}, *offloads))]
    if levers is None:
        yield BIT_EXACT, [{}]
        yield BIT_EXACT, offloads
        yield BIT_EXACT, moved[len(offloads) :]
    elif not {"chunked-loss", "modules"} & set(levers):
        yield BIT_EXACT, moved or [{}]
    if allowed[REASSOCIATING] and on("chunked-loss"):
        yield REASSOCIATING, [{"chunked_loss": True}]
        yield REASSOCIATING, [{"chunked_loss": True, **options} for options in moved]
    if on("modules"):
        for numerics in (REASSOCIATING, LOSSY):
            if allowed[numerics]:
                yield numerics, [MODULES]


class _Captured:
    """A step and its capture, made once for all levers; where there is none, why."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._capture: Capture | None = None
        self._refusal: CaptureError | None = None

    def capture(self) -> Capture:
        """The capture."""
        if self._refusal is not None:
            raise self._refusal
        if self._capture is None:
            try:
                self._capture = capture(self.step)
            except CaptureError as error:
                self._refusal = error
                raise
        return self._capture


def _one(
    known: _Captured, budget: int, held: int, options: dict[str, Any], numerics: str, modules_only: bool, notes: list[str],
    progress: Progress | None,
) -> Choice:  # fmt: skip
    if not modules_only:
        try:
            return _graph(known, budget, held, options, numerics, tuple(notes), progress)
        except CaptureError as error:
            note = f"fitted by modules, because memfit {error}"
            notes += [] if note in notes else [note]
    return _modules(known.step, budget, options, numerics, tuple(notes), progress)


def _graph(
    known: _Captured, budget: int, held: int, options: dict[str, Any], numerics: str, notes: tuple[str, ...],
    progress: Progress | None,
) -> Choice:  # fmt: skip
    captured = None if options.get("chunked_loss") else known.capture()
    fitted = FittedStep(known.step, budget, held=held, options=options, progress=progress, captured=captured)
    bucket = fitted.first
    plan, graph = bucket.plan, bucket.program.graph
    rows = levers_used(graph, plan)
    bucket_plan = BucketPlan(
        [[list(shape), dtype] for shape, dtype in bucket.shapes],
        bucket.fingerprint,
        list(plan.schedule),
        plan.peak,
        plan.seconds,
    )
    return Choice(
        fitted, "graph", plan.peak, plan.seconds, plain_peak(graph), plan.baseline_seconds, plan.smallest_feasible,
        plan.lower_bound, (*rows, *_option_rows(options, numerics, graph)), options, [bucket_plan],
        notes=notes, numerics=numerics,
        plan_seconds=bucket.plan_seconds, baseline_timeline=curve(graph, range(len(graph.ops))),
        timeline=curve(graph, plan.schedule),
    )  # fmt: skip


def _modules(
    step: Step, budget: int, options: dict[str, Any], numerics: str, notes: tuple[str, ...], progress: Progress | None
) -> Choice:
    plan = fit_modules(
        step, budget, allow_reassociation=numerics != BIT_EXACT, allow_inexact=numerics == LOSSY, progress=progress
    )
    rows = tuple(
        LeverUse(row["name"], row.get("numerics", BIT_EXACT), row["saved"], row["cost_seconds"], row.get("detail", ""))
        for row in plan.levers
    )
    return Choice(
        plan.apply(step), "modules", plan.projected_peak or plan.measured_peak, plan.seconds, plan.baseline_peak,
        plan.baseline_seconds, plan.measured_peak, 0, rows, options, modules=plan.to_json(),
        notes=(*notes, *plan.notes), numerics=numerics,
    )  # fmt: skip


def _option_rows(options: dict[str, Any], numerics: str, graph: Graph) -> tuple[LeverUse, ...]:
    rows = []
    if options.get("offload"):
        moved = sum(storage.nbytes for storage in graph.storages if storage.label.startswith("loaded "))
        seconds = sum(op.seconds for op in graph.ops if op.name in (SAVE, LOAD))
        rows.append(
            LeverUse("offload", BIT_EXACT, moved, seconds, "activations that wait in a file, a GPU's in host memory")
        )
    if options.get("optimizer_state"):
        state = int(graph.meta.get("optimizer_state_in_file", 0))
        rows.append(LeverUse("optimizer-state", BIT_EXACT, state, 0.0, "optimizer state in file-mapped memory"))
    if options.get("chunked_loss"):
        rows.append(LeverUse("chunked-loss", numerics, 0, 0.0, "head and loss chunk by chunk"))
    return tuple(rows)

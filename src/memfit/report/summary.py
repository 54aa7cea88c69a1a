"""Results as plain data: what each verb returns, with the JSON keys that other programs rely on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from memfit.analyses.timeline import Timeline
from memfit.ir.lever import LeverUse


@dataclass(frozen=True)
class Peak:
    """Peak bytes of a step, each of a named kind, and intervals (low, high) where a figure is uncertain."""

    live: int
    allocated: int
    reserved: int
    resident: int
    intervals: dict[str, tuple[int, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and ``intervals``."""
        return {
            "live": self.live, "allocated": self.allocated, "reserved": self.reserved, "resident": self.resident,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """Where the peak stands."""

    step: int
    op: str
    module: str
    line: str
    phase: str = ""

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and ``phase``."""
        return {"step": self.step, "op": self.op, "module": self.module, "line": self.line, "phase": self.phase}


@dataclass(frozen=True)
class AliveTensor:
    """A storage alive at the peak."""

    nbytes: int
    category: str
    shape: tuple[int, ...]
    dtype: str
    label: str
    module: str
    line: str
    op: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "nbytes": self.nbytes, "category": self.category, "shape": list(self.shape), "dtype": self.dtype,
            "label": self.label, "module": self.module, "line": self.line, "op": self.op,
        }  # fmt: skip


@dataclass(frozen=True)
class MemoryReport:
    """What ``predict`` (kind projected) and ``profile`` (kind measured) return.

    ``projected``: of a measured report, the Timeline of the projection it was held against (``compare``).
    ``extra`` holds further JSON keys; these are drawn where they are there, bytes as integers:

    * ``compare``: ``{"peak": {"projected": n, "measured": n}, "categories": {name: {"projected": n, "measured": n}},
      "first_divergence": {"op", "module", "line", "projected", "measured"} or None}``
    * ``reconciliation``: ``{"tape": n, "allocator": n, "resident": n (its growth), band: n ..., "unexplained": n}``
    * ``growth``: ``{"bytes_per_step": n, "growing": bool or None (too few steps)}``;
      ``first_step_peak``, ``steady_peak``: n
    """

    kind: str
    target: str
    device: str
    peak: Peak
    categories: dict[str, int]
    at: Moment
    alive: tuple[AliveTensor, ...]
    seconds: float
    timeline: Timeline | None = None
    fits: bool | None = None
    capacity: int | None = None
    largest_batch: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    projected: Timeline | None = None

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and more."""
        result: dict[str, Any] = {
            "kind": self.kind, "target": self.target, "device": self.device,
            "peak": self.peak.to_json(), "categories": self.categories, "at": self.at.to_json(),
            "alive": [tensor.to_json() for tensor in self.alive],
            "seconds": self.seconds, "notes": list(self.notes), **self.extra,
        }  # fmt: skip
        if self.fits is not None:
            result["fits"] = self.fits
            result["capacity"] = self.capacity
        if self.largest_batch is not None:
            result["largest_batch"] = self.largest_batch
        return result


@dataclass(frozen=True)
class StepFigures:
    """One side of a fit, before or after. Bytes are None where nothing was measured."""

    projected_peak: int
    measured_peak: int | None
    step_seconds: float | None
    timeline: tuple[tuple[float, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The promised keys."""
        return {
            "projected_peak": self.projected_peak,
            "measured_peak": self.measured_peak,
            "step_seconds": self.step_seconds,
        }


@dataclass(frozen=True)
class FitReport:
    """What ``fit`` returns. ``overhead``: fitted over baseline step time, 1.0 = none. ``exact``: bit-identical.

    ``verified``: name of a check -> what it found: True / False, or a dict with ``ok`` and whatever explains it.
    ``memory``: what ``predict`` or ``profile`` says of the program before the fit, for the report's chart.
    """

    target: str
    feasible: bool
    budget: int
    smallest_feasible: int
    baseline: StepFigures
    fitted: StepFigures
    overhead: float | None
    exact: bool
    levers: tuple[LeverUse, ...]
    plan_seconds: float
    recipe: str | None
    lower_bound: int = 0
    verified: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    memory: MemoryReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and more."""
        return {
            "target": self.target, "feasible": self.feasible, "budget": self.budget,
            "smallest_feasible": self.smallest_feasible, "lower_bound": self.lower_bound,
            "baseline": self.baseline.to_json(), "fitted": self.fitted.to_json(), "overhead": self.overhead,
            "exact": self.exact, "levers": [lever.to_json() for lever in self.levers],
            "plan_seconds": self.plan_seconds, "recipe": self.recipe, "verified": self.verified,
            "notes": list(self.notes),
        }  # fmt: skip

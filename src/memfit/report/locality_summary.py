"""What a locality analysis found, as plain data: levels, reasons, curve, bound, advice with projected and measured speedups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memfit.units import format_seconds


@dataclass(frozen=True)
class LevelRow:
    """One level: accesses that reached it, misses, misses by array, dirty lines written back."""

    name: str
    accesses: int
    misses: int
    by_array: Mapping[str, int]
    write_backs: int


@dataclass(frozen=True)
class ReasonRow:
    """Why an array's lines miss in a level; ``word`` is the main reason."""

    array: str
    level: str
    misses: int
    cold: int
    capacity: int
    conflict: int
    word: str
    sets: int


@dataclass(frozen=True)
class AdviceRow:
    """A change. ``misses`` by level; speedups over the program as written; ``measured_speedup`` None: not timed, or spreads
    overlap (``measured`` says which); times in seconds as (low, median, high).

    Attributes:
        by_array: {level: {array: misses}} under the change, empty where not simulated.
        curve: (lines, miss ratio) under the change, of the best one only.
        whole: it changes the whole program; False: one kernel of several, whose misses and times the row has.
    """

    kernel: str
    change: str
    misses: Mapping[str, int]
    projected_speedup: float
    measured_speedup: float | None = None
    measured: str = "not timed"
    numerics: str = "bit-exact"
    before_seconds: tuple[float, float, float] | None = None
    after_seconds: tuple[float, float, float] | None = None
    over_bound: float | None = None
    stake_seconds: float | None = None
    by_array: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    whole: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data, the curve as the report writes its own."""
        curve = [{"lines": lines, "miss_ratio": ratio} for lines, ratio in self.curve]
        by_array = {level: dict(counts) for level, counts in self.by_array.items()}
        return {**vars(self), "misses": dict(self.misses), "by_array": by_array, "curve": curve}


@dataclass(frozen=True)
class OpRow:
    """Operations of one name under one limit ("memory", "compute" or "call") in a model's step.

    Attributes:
        seconds: measured, of all ``calls``; ``floor_seconds``: the least by the roofline; bytes and flops in all.
        line: where the longest of them was called.
    """

    name: str
    bound: str
    calls: int
    seconds: float
    floor_seconds: float
    bytes: int
    flops: float
    line: str


@dataclass(frozen=True)
class LocalityReport:
    """The analysis of one pattern, or of a model.

    Attributes:
        ops: of a model, its operations by time; ``step_seconds``: of all of them.
        limits: (float operations, bytes of memory) a second.
    """

    target: str
    machine: str
    accesses: int
    levels: tuple[LevelRow, ...]
    reasons: tuple[ReasonRow, ...]
    curve: tuple[tuple[int, float], ...]
    lower_bound_lines: int | None
    line: int
    advice: tuple[AdviceRow, ...]
    seconds: float
    sizes: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = field(default=())
    ops: tuple[OpRow, ...] = ()
    limits: tuple[float, float] | None = None
    step_seconds: float | None = None

    @property
    def over_bound(self) -> float | None:
        """First-level misses of the program as written over the lower bound."""
        return self.levels[0].misses / self.lower_bound_lines if self.lower_bound_lines else None

    def to_json(self) -> dict[str, Any]:
        """The promised keys and the rest."""
        model: dict[str, Any] = {}
        if self.limits is not None:
            model = {
                "ops": [vars(r) for r in self.ops], "step_seconds": self.step_seconds,
                "roofline": {"flops": self.limits[0], "bandwidth": self.limits[1]},
            }  # fmt: skip
        return {
            "target": self.target, "machine": self.machine, "accesses": self.accesses, "line": self.line,
            "levels": [
                {"name": r.name, "accesses": r.accesses, "misses": r.misses, "by_array": dict(r.by_array),
                 "write_backs": r.write_backs} for r in self.levels
            ],
            "reasons": [vars(r) for r in self.reasons],
            "curve": [{"lines": lines, "miss_ratio": ratio} for lines, ratio in self.curve],
            "lower_bound_lines": self.lower_bound_lines, "over_bound": self.over_bound,
            "advice": [r.to_json() for r in self.advice],
            "seconds": self.seconds, "notes": list(self.notes), **model,
        }  # fmt: skip


def locality_headline(report: LocalityReport) -> str:
    """The answer in a sentence."""
    if report.limits is not None:
        return _model_headline(report)
    first = report.levels[0]
    share = 100 * first.misses / max(report.accesses, 1)
    text = f"{first.misses:,} of {report.accesses:,} accesses miss {first.name} ({share:.1f} %)"
    if report.over_bound:
        text += f", {report.over_bound:.1f} times the least any order needs"
    proved = [row for row in report.advice if row.measured_speedup is not None]
    if proved:
        best = max(proved, key=lambda row: (row.kernel == "all", row.measured_speedup or 0.0))
        part = (
            f"{best.kernel}: "
            if len({row.kernel for row in report.advice} - {"all"}) > 1 and best.kernel != "all"
            else ""
        )
        return f"{text}; {best.measured_speedup:.1f} times faster, measured, with {part}{best.change}"
    if any(row.before_seconds for row in report.advice):
        return text + "; nothing faster was proved here"
    if report.advice:
        best = report.advice[0]
        return f"{text}; projected {best.projected_speedup:.1f} times faster with {best.change}"
    return text + "; nothing better was found"


def _model_headline(report: LocalityReport) -> str:
    total = report.step_seconds or 0.0
    bound = sum(row.seconds for row in report.ops if row.bound == "memory")
    text = f"memory limits {100 * bound / max(total, 1e-12):.0f} % of the step's {format_seconds(total)}"
    if not report.advice:
        return text + "; no change of layout saves time here"
    best = report.advice[0]
    if best.measured_speedup is not None:
        return f"{text}; {best.measured_speedup:.2f} times faster, measured, with {best.change}"
    return f"{text}; projected {best.projected_speedup:.2f} times faster with {best.change}"

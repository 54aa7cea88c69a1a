"""What a locality analysis found, as plain data: levels, reasons, curve, bound, advice with projected and measured speedups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    overlap (``measured`` says which); times in seconds as (low, median, high)."""

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


@dataclass(frozen=True)
class LocalityReport:
    """The analysis of one pattern. ``over_bound``: first-level misses over ``lower_bound_lines``."""

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

    @property
    def over_bound(self) -> float | None:
        """First-level misses of the program as written over the lower bound."""
        return self.levels[0].misses / self.lower_bound_lines if self.lower_bound_lines else None

    def to_json(self) -> dict[str, Any]:
        """The promised keys and the rest."""
        return {
            "target": self.target, "machine": self.machine, "accesses": self.accesses, "line": self.line,
            "levels": [
                {"name": r.name, "accesses": r.accesses, "misses": r.misses, "by_array": dict(r.by_array),
                 "write_backs": r.write_backs} for r in self.levels
            ],
            "reasons": [vars(r) for r in self.reasons],
            "curve": [{"lines": lines, "miss_ratio": ratio} for lines, ratio in self.curve],
            "lower_bound_lines": self.lower_bound_lines, "over_bound": self.over_bound,
            "advice": [{**vars(r), "misses": dict(r.misses)} for r in self.advice],
            "seconds": self.seconds, "notes": list(self.notes),
        }  # fmt: skip


def locality_headline(report: LocalityReport) -> str:
    """The answer in a sentence."""
    first = report.levels[0]
    share = 100 * first.misses / max(report.accesses, 1)
    text = f"{first.misses:,} of {report.accesses:,} accesses miss {first.name} ({share:.1f} %)"
    if report.over_bound:
        text += f", {report.over_bound:.1f} times the least any order needs"
    proved = [row for row in report.advice if row.measured_speedup is not None]
    if proved:
        best = max(proved, key=lambda row: row.measured_speedup or 0.0)
        return f"{text}; {best.measured_speedup:.1f} times faster, measured, with {best.change}"
    if any(row.before_seconds for row in report.advice):
        return text + "; nothing faster was proved here"
    if report.advice:
        best = report.advice[0]
        return f"{text}; projected {best.projected_speedup:.1f} times faster with {best.change}"
    return text + "; nothing better was found"

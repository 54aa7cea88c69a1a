"""What ``optimize`` returns: a model before and after, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelFigures:
    """One side. ``constants``: bytes of weights. ``peak``: constants + live peak in stored order, projected at ``sizes``.

    ``resident``: peak of a fresh process that runs it over that process when empty, measured; None where it was not run.
    """

    nodes: int
    file_bytes: int
    constants: int
    peak: int
    resident: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and ``resident``."""
        return {
            "nodes": self.nodes, "file_bytes": self.file_bytes, "constants": self.constants, "peak": self.peak,
            "resident": self.resident,
        }  # fmt: skip


@dataclass(frozen=True)
class OptimizeReport:
    """``max_error``: None where outputs were not compared; 0 with ``exact`` where all bits are equal.

    ``runtime``: {"settings": session options to run it with, "default_resident", "settings_resident": measured bytes or None,
    "undone": whether the runtime's defaults take back what the plan saved}. ``passes``: [(name, nodes before, after)].
    """

    target: str
    before: ModelFigures
    after: ModelFigures
    output: str | None
    max_error: float | None
    exact: bool | None
    sizes: dict[str, int]
    passes: tuple[tuple[str, int, int], ...]
    runtime: dict[str, Any]
    seconds: float
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and more."""
        return {
            "target": self.target, "before": self.before.to_json(), "after": self.after.to_json(), "output": self.output,
            "max_error": self.max_error, "exact": self.exact, "sizes": self.sizes,
            "passes": [{"name": name, "before": a, "after": b} for name, a, b in self.passes], "runtime": self.runtime,
            "seconds": self.seconds, "notes": list(self.notes), **self.extra,
        }  # fmt: skip


def held_against(report: OptimizeReport, device: str, capacity: int) -> dict[str, Any]:
    """Keys of ``extra``: whether constants + live peak fit in ``capacity`` bytes of a device, before and after."""
    return {
        "device": device, "capacity": capacity, "fits": report.after.peak <= capacity,
        "fitted_before": report.before.peak <= capacity,
    }  # fmt: skip

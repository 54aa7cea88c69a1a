"""What a sweep found: plain data for the table and for ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SweepPoint:
    """One combination. Bytes, projected; ``error``: why there are none."""

    values: Mapping[str, Any]
    live: int = 0
    allocated: int = 0
    reserved: int = 0
    resident: int = 0
    fits: bool = False
    capacity: int = 0
    error: str = ""


@dataclass(frozen=True)
class SweepReport:
    """``points`` in the order of the grid, the last name changing first. ``capacity``: bytes that it was held against."""

    target: str
    device: str
    capacity: int
    swept: Mapping[str, tuple[Any, ...]]
    points: tuple[SweepPoint, ...]

    @property
    def fits(self) -> bool:
        """Whether every combination fits."""
        return all(point.fits for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "kind": "projected", "target": self.target, "device": self.device, "capacity": self.capacity, "fits": self.fits,
            "swept": {name: list(row) for name, row in self.swept.items()}, "points": [asdict(point) for point in self.points],
        }  # fmt: skip

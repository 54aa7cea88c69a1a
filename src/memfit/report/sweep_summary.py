"""What a sweep found: plain data for the table, the page, the picture and ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from memfit.units import format_bytes


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
    """``points`` in the order of the grid, the last name changing first.

    ``capacity``: bytes that each was held against; ``held``: which of a point's peaks it was.
    """

    target: str
    device: str
    capacity: int
    swept: Mapping[str, tuple[Any, ...]]
    points: tuple[SweepPoint, ...]
    held: str = "allocated"

    def need(self, point: SweepPoint) -> int:
        """Bytes of a point that were held against the capacity."""
        return int(getattr(point, self.held))

    def lines(self) -> list[tuple[tuple[Any, ...], tuple[SweepPoint, ...]]]:
        """The grid line by line: the values of all names but the last, and a point for each value of the last one."""
        width = len(list(self.swept.values())[-1])
        rows = [self.points[start : start + width] for start in range(0, len(self.points), width)]
        return [(tuple(row[0].values.values())[:-1], row) for row in rows]

    @property
    def fits(self) -> bool:
        """Whether every combination fits."""
        return all(point.fits for point in self.points)

    def failures(self) -> list[tuple[str, int, Mapping[str, Any]]]:
        """(error, how many combinations raise it, the first of them), each error once."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for point in self.points:
            if point.error:
                found.setdefault(point.error, []).append(point.values)
        return [(error, len(rows), rows[0]) for error, rows in found.items()]

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        fitting = sum(point.fits for point in self.points)
        return (
            f"{fitting} of {len(self.points)} combinations fit in {format_bytes(self.capacity)} on {self.device}; "
            f"peak {self.held}, projected"
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "kind": "projected", "target": self.target, "device": self.device, "capacity": self.capacity, "fits": self.fits,
            "held": self.held,
            "swept": {name: list(row) for name, row in self.swept.items()}, "points": [asdict(point) for point in self.points],
        }  # fmt: skip

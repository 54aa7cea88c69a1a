"""What ``plan`` returns, as plain data, with the JSON keys that other programs rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memfit.passes.order import Ordered
from memfit.planners.load import Load
from memfit.planners.problem import Placement, Problem
from memfit.report.summary import Moment


@dataclass(frozen=True)
class AliveBuffer:
    """A buffer alive at the largest load. ``offset``: where the best placement puts it."""

    name: str
    label: str
    nbytes: int
    category: str
    lower: int
    upper: int
    offset: int
    memory: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "id": self.name, "label": self.label, "nbytes": self.nbytes, "category": self.category,
            "lower": self.lower, "upper": self.upper, "offset": self.offset, "memory": self.memory,
        }  # fmt: skip


@dataclass(frozen=True)
class PlanReport:
    """Where every buffer lies, by each strategy, and what is proved. Bytes are projected.

    ``placements``: one a strategy, best first. ``bound``: bytes that no placement stays below, ``bound_reason``: why.
    ``instant``, ``at``, ``alive``: the largest load: when, what runs then where the source says, and what is alive,
    largest first. ``memory_peaks``: highest byte in use of each memory. ``capacity``: bytes asked for, summed over
    memories, or None. ``fits``: True; False: proved that nothing fits; None: none found, none excluded, or not asked.
    ``infeasible``: buffers that alone cannot fit. ``seconds``: CPU time of planning; ``reading_seconds``: of all before it.
    ``ordered``: the order that the ops were put in first, where that was asked for.
    """

    target: str
    problem: Problem
    placements: tuple[Placement, ...]
    bound: int
    bound_reason: str
    load: Load
    instant: int
    at: Moment | None
    alive: tuple[AliveBuffer, ...]
    memory_peaks: tuple[int, ...]
    capacity: int | None = None
    fits: bool | None = None
    infeasible: tuple[str, ...] = ()
    seconds: float = 0.0
    reading_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    ordered: Ordered | None = None

    @property
    def best(self) -> Placement:
        """The placement with the lowest peak."""
        return self.placements[0]

    @property
    def unkept(self) -> bool:
        """Whether a capacity was asked for and no placement keeps it."""
        return self.capacity is not None and self.fits is not True

    def to_json(self, offsets: bool = False) -> dict[str, Any]:
        """The promised keys, and more; ``offsets``: also where every buffer lies."""
        best, problem = self.best, self.problem
        result: dict[str, Any] = {
            "target": self.target, "buffers": len(problem), "lower_bound": self.bound, "bound_reason": self.bound_reason,
            "best": _strategy(best), "strategies": [_strategy(placement) for placement in self.placements],
            "instant": self.instant, "at": None if self.at is None else self.at.to_json(),
            "load": self.load.peak, "total": int(problem.size.sum()),
            "alive": [buffer.to_json() for buffer in self.alive],
            "memories": [
                {"name": memory.name, "capacity": memory.capacity, "peak": peak}
                for memory, peak in zip(problem.memories, self.memory_peaks, strict=True)
            ],
            "seconds": self.seconds, "reading_seconds": self.reading_seconds, "notes": list(self.notes),
        }  # fmt: skip
        if problem.expected is not None:
            result["expected_total"] = int(problem.expected.sum())
        if self.capacity is not None:
            result |= {"capacity": self.capacity, "fits": self.fits, "infeasible": list(self.infeasible)}
        if self.ordered is not None:
            order = self.ordered
            result["order"] = {
                "peak": order.peak, "given_peak": order.given_peak, "lower_bound": order.bound, "optimal": order.optimal,
                "strategy": order.strategy, "seconds": order.seconds,
            }  # fmt: skip
            if offsets:
                result["order"]["schedule"] = list(order.schedule)
        if offsets:
            result["placement"] = [[name, at] for name, at in zip(problem.ids, best.offset.tolist(), strict=True)]
            if len(problem.memories) > 1:
                result["placement_memory"] = [problem.memories[m].name for m in best.memory.tolist()]
        return result


def _strategy(placement: Placement) -> dict[str, Any]:
    return {
        "strategy": placement.strategy, "peak": int(placement.peak), "optimal": placement.optimal,
        "gap": placement.gap, "seconds": placement.seconds,
    }  # fmt: skip

"""What ``replay`` returns, as plain data with the JSON keys that other programs rely on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.allocators.policy import Stranded

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """Bytes over the events, thinned out for drawing: at ``event``, the most since the point before it."""

    event: Ints
    live: Ints
    allocated: Ints
    reserved: Ints


@dataclass(frozen=True)
class PolicyRow:
    """One policy. Bytes without a limit unless said otherwise; ``smallest_capacity``: the least bytes it ran on.

    ``at_peak``: live, allocated and reserved bytes when most is live while reserved is at its peak, ``internal`` and
    ``external`` fragmentation then; ``mean_external``: over all events.

    ``fits``, ``failed``, ``calls_at_capacity``: under the capacity asked about, None without one.
    """

    key: str
    name: str
    peak_allocated: int
    peak_reserved: int
    fragmentation: float
    internal: float
    external: float
    mean_external: float
    driver_calls: int
    smallest_capacity: int
    calls_at_smallest: int
    seconds_per_event: float
    at_peak: tuple[int, int, int]
    curve: Curve
    stranded: tuple[Stranded, ...] = ()
    fits: bool | None = None
    failed: int | None = None
    calls_at_capacity: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and more."""
        result: dict[str, Any] = {
            "name": self.key, "title": self.name, "peak_allocated": self.peak_allocated,
            "peak_reserved": self.peak_reserved, "fragmentation": self.fragmentation, "internal": self.internal,
            "external": self.external, "mean_external": self.mean_external, "driver_calls": self.driver_calls,
            "smallest_capacity": self.smallest_capacity, "driver_calls_at_smallest": self.calls_at_smallest,
            "seconds_per_event": self.seconds_per_event,
            "stranded": [
                {"segment": s.segment, "segment_bytes": s.segment_bytes, "free_bytes": s.free_bytes,
                 "largest_hole": s.largest_hole, "why": s.why} for s in self.stranded
            ],
        }  # fmt: skip
        if self.fits is not None:
            result |= {
                "fits": self.fits,
                "failed_at_event": self.failed,
                "driver_calls_at_capacity": self.calls_at_capacity,
            }
        return result


@dataclass(frozen=True)
class AdviceRow:
    """One setting of torch's allocator that was tried; bytes, driver calls at the smallest capacity."""

    string: str
    smallest_capacity: int
    driver_calls: int
    peak_reserved: int
    fits: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "string": self.string, "smallest_capacity": self.smallest_capacity, "driver_calls": self.driver_calls,
            "peak_reserved": self.peak_reserved, "fits": self.fits,
        }  # fmt: skip


@dataclass(frozen=True)
class AddressCheck:
    """A snapshot's addresses against those of the replay: ``differing`` of ``checked``, and the first in words."""

    checked: int
    differing: int
    first: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {"checked": self.checked, "differing": self.differing, "first": self.first}


@dataclass(frozen=True)
class Contender:
    """One side of static against dynamic. ``peak``: bytes reserved; ``static_bytes``: of them by plan, 0 for dynamic ones.

    ``seconds_per_event``: CPU time, measured. ``static_share``: of the allocations served from the plan.
    """

    name: str
    peak: int
    fragmentation: float
    seconds_per_event: float
    static_share: float = 0.0
    static_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "name": self.name, "peak": self.peak, "fragmentation": self.fragmentation,
            "seconds_per_event": self.seconds_per_event, "static_share": self.static_share,
            "static_bytes": self.static_bytes,
        }  # fmt: skip


@dataclass(frozen=True)
class StaticAgainstDynamic:
    """The same program under both; ``bound``: bytes that no placement stays below; ``period``: events that repeat, or 0."""

    contenders: tuple[Contender, ...]
    bound: int
    optimal: bool
    period: int
    repeats: int
    recommendation: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "contenders": [contender.to_json() for contender in self.contenders], "lower_bound": self.bound,
            "plan_optimal": self.optimal, "period": self.period, "repeats": self.repeats,
            "recommendation": self.recommendation,
        }  # fmt: skip


@dataclass(frozen=True)
class ReplayReport:
    """What ``replay`` returns. ``kind``: projected, measured or recorded requests; ``policies``: smallest capacity first."""

    target: str
    kind: str
    device: str
    events: int
    blocks: int
    peak_live: int
    largest: int
    policies: tuple[PolicyRow, ...]
    capacity: int | None = None
    advice: tuple[AdviceRow, ...] = ()
    check: AddressCheck | None = None
    static: StaticAgainstDynamic | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fits(self) -> bool | None:
        """Whether any policy runs under the capacity; None without one."""
        return None if self.capacity is None else any(row.fits for row in self.policies)

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and more."""
        result: dict[str, Any] = {
            "target": self.target, "kind": self.kind, "device": self.device, "events": self.events, "blocks": self.blocks,
            "peak_live": self.peak_live, "largest_request": self.largest,
            "policies": [row.to_json() for row in self.policies], "seconds": self.seconds, "notes": list(self.notes),
            **self.extra,
        }  # fmt: skip
        if self.capacity is not None:
            result |= {"capacity": self.capacity, "fits": self.fits}
        if self.advice:
            result |= {"advice": self.advice[0].string, "settings": [row.to_json() for row in self.advice]}
        if self.check is not None:
            result |= {"mismatches": self.check.differing, "addresses": self.check.to_json()}
        if self.static is not None:
            result["static"] = self.static.to_json()
        return result

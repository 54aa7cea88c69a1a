"""First, best, worst and next fit over one growing arena: the textbook policies, with a range of addresses and nothing else.

The free ranges (*holes*) are kept in address order, no two of them touching. A request, rounded up to ``alignment``,
takes the front of one of them::

    first fit   the lowest                          holes  [--8--]   [-4-]      [----16----]   top
    best fit    the smallest that fits, the lowest among equals
    worst fit   the largest, the lowest among equals
    next fit    the first one that ends after the place where the last search ended, else the lowest

Where none fits, the arena grows at its top to a multiple of ``granule``, or to its capacity; growing is one driver call.
The arena shrinks only when told to (EMPTY_CACHE): its free top goes back. Knuth, The Art of Computer Programming 1,
section 2.5, with address order and immediate coalescing. Twin: O(holes) an event; kernel: see ``holes.h``, ``ranges.h``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from memfit import _core
from memfit.allocators.policy import Replay
from memfit.allocators.serving import Outcome, check_requests, replay_of, serve
from memfit.ir.requests import Requests
from memfit.units import align, format_bytes

KINDS = ("first", "best", "worst", "next")
ALIGNMENT = 512
GRANULE = 2 << 20


class Arena:
    """The twin: holes as [start, end] in one list. ``kind``: which of KINDS; the rest in bytes."""

    def __init__(self, kind: str, alignment: int, granule: int, capacity: int | None) -> None:
        self.kind, self.alignment, self.granule, self.capacity = kind, alignment, granule, capacity
        self.holes: list[list[int]] = []
        self.reserved = self.driver_allocations = self.driver_frees = self.rover = 0

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """The front of the chosen hole."""
        size = align(nbytes, self.alignment)
        fitting = [hole for hole in self.holes if hole[1] - hole[0] >= size]
        hole = self._choose(fitting) if fitting else self._grow(size)
        if hole is None:
            return None
        start = hole[0]
        hole[0] += size
        self.holes = [hole for hole in self.holes if hole[0] < hole[1]]
        self.rover = start + size
        return start, size

    def free(self, address: int, taken: int) -> None:
        """Join the range with the holes that it touches."""
        joined = [address, address + taken]
        apart = []
        for hole in self.holes:
            if hole[1] == joined[0]:
                joined[0] = hole[0]
            elif hole[0] == joined[1]:
                joined[1] = hole[1]
            else:
                apart.append(hole)
        self.holes = sorted([*apart, joined])

    def empty_cache(self) -> None:
        """Give the free top back, in whole granules."""
        if self.holes and self.holes[-1][1] == self.reserved:
            top = min(self.reserved, align(self.holes[-1][0], self.granule))
            if top < self.reserved:
                self.driver_frees += 1
                self.reserved = self.holes[-1][1] = top
                self.holes = [hole for hole in self.holes if hole[0] < hole[1]]

    def segments(self) -> list[tuple[int, int]]:
        """The arena."""
        return [(0, self.reserved)]

    def _choose(self, fitting: list[list[int]]) -> list[int]:
        if self.kind == "best":
            return min(fitting, key=lambda hole: (hole[1] - hole[0], hole[0]))
        if self.kind == "worst":
            return min(fitting, key=lambda hole: (hole[0] - hole[1], hole[0]))
        if self.kind == "next":
            return next((hole for hole in fitting if hole[1] > self.rover), fitting[0])
        return fitting[0]

    def _grow(self, size: int) -> list[int] | None:
        last = self.holes[-1] if self.holes and self.holes[-1][1] == self.reserved else [self.reserved, self.reserved]
        needed = last[0] + size
        top = align(needed, self.granule)
        if self.capacity is not None and top > self.capacity:
            top = self.capacity // self.alignment * self.alignment
            if top < needed:
                return None
        if last[0] == last[1]:
            self.holes.append(last)
        last[1] = self.reserved = top
        self.driver_allocations += 1
        return last


@dataclass(frozen=True)
class FitPolicy:
    """One of KINDS. ``alignment``: bytes that requests are rounded up to; ``granule``: bytes the arena grows by."""

    kind: str = "first"
    alignment: int = ALIGNMENT
    granule: int = GRANULE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no {self.kind!r} fit; known: {', '.join(KINDS)}")
        if self.alignment < 1 or self.granule < 1 or self.granule % self.alignment:
            raise ValueError("granule must be a multiple of alignment, both positive")

    @property
    def name(self) -> str:
        """``first fit``."""
        changed = [] if self.alignment == ALIGNMENT else [f"alignment {format_bytes(self.alignment)}"]
        changed += [] if self.granule == GRANULE else [f"granule {format_bytes(self.granule)}"]
        return f"{self.kind} fit" + (f" ({', '.join(changed)})" if changed else "")

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``. Raises TraceError for requests that no program can have made."""
        blocks = check_requests(requests)
        begun = time.process_time()
        if twin:
            outcome = serve(Arena(self.kind, self.alignment, self.granule, capacity), requests, series)
        else:
            outcome = Outcome(*_core.replay_fit(
                requests.action, requests.block, requests.nbytes, blocks, -1 if capacity is None else capacity, series,
                KINDS.index(self.kind), self.alignment, self.granule,
            ))  # fmt: skip
        return replay_of(self.name, requests, outcome, begun, series, "arena")

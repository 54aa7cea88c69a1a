"""A static plan as a policy: offsets known before the run, so that an allocation is a look into a table.

The whole arena is reserved at the first allocation, one driver call, and nothing is searched, split or joined. Blocks are
numbered in order of allocation, and so are the offsets. This is what a planned arena does at run time, and how its time
an event is measured beside the dynamic policies'. Whether the offsets are valid is for the planner's validator to say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from memfit import _core
from memfit.allocators.policy import Ints, Replay
from memfit.allocators.serving import Outcome, check_requests, replay_of, serve
from memfit.ir.requests import Requests


class PlanHeap:
    """The twin."""

    def __init__(self, offset: list[int], nbytes: int, capacity: int | None) -> None:
        self.offset, self.nbytes, self.capacity = iter(offset), nbytes, capacity
        self.reserved = self.driver_allocations = self.driver_frees = 0

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """The next offset."""
        if not self.reserved:
            if self.capacity is not None and self.nbytes > self.capacity:
                return None
            self.reserved = self.nbytes
            self.driver_allocations = 1
        return next(self.offset), nbytes

    def free(self, address: int, taken: int) -> None:
        """Nothing: the plan knows."""

    def empty_cache(self) -> None:
        """Nothing: the arena stays."""

    def segments(self) -> list[tuple[int, int]]:
        """The arena."""
        return [(0, self.reserved)]


@dataclass(frozen=True)
class PlannedPolicy:
    """``offset``: bytes of each block, in order of allocation; ``nbytes``: of the arena that holds them all."""

    offset: Ints = field(repr=False)
    nbytes: int

    @property
    def name(self) -> str:
        """``static plan``."""
        return "static plan"

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``. Raises ValueError where there are fewer offsets than blocks."""
        blocks = check_requests(requests)
        if len(self.offset) < blocks:
            raise ValueError(f"{len(self.offset)} offsets for {blocks} blocks")
        begun = time.process_time()
        if twin:
            outcome = serve(PlanHeap(self.offset.tolist(), self.nbytes, capacity), requests, series)
        else:
            outcome = Outcome(*_core.replay_plan(
                requests.action, requests.block, requests.nbytes, blocks, -1 if capacity is None else capacity, series,
                np.ascontiguousarray(self.offset, np.int64), self.nbytes,
            ))  # fmt: skip
        return replay_of(self.name, requests, outcome, begun, series, "arena")

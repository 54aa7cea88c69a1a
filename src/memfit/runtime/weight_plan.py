"""How a budget is divided before a run: frames for weights, everything else, and what is proved about both.

    budget  =  frames x chunk  +  everything else that lives (activations, inputs, buffers; projected)  +  the reader's buffer

The frames are a number that the pager cannot exceed, whatever the program does; everything else comes from one dry pass.
So the projected peak holds for every pass whose tensors are no larger than the dry pass's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfit.errors import BudgetError
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_layout import WeightLayout, chunk_bytes_for, lay_out
from memfit.runtime.weight_schedule import WeightSchedule, fewest_reads, schedule_weights, smallest_capacity

SHARE_OF_LIBRARIES = 32
"""One part in so many of the budget is left to the allocator and to the libraries' own buffers, at most ``MOST``."""
MOST_OF_LIBRARIES = 16 << 20


@dataclass(frozen=True)
class WeightPlan:
    """Bytes, projected. ``weights``: of all weights; ``live``: everything else at its peak; ``buffer``: the reader's."""

    budget: int
    layout: WeightLayout
    frames: int
    weights: int
    live: int
    buffer: int
    schedule: WeightSchedule
    bound: int

    @property
    def resident_weights(self) -> int:
        """Bytes of weights in memory, at most."""
        return self.frames * self.layout.chunk_bytes

    @property
    def peak(self) -> int:
        """Bytes of weights and everything else, at most."""
        return self.resident_weights + self.live + self.buffer

    @property
    def hit_rate(self) -> float:
        """Share of the bytes that a steady pass asks for and finds."""
        touched = int(self.schedule.fresh.sum())
        return 1.0 - self.schedule.reads / touched if touched else 1.0

    @property
    def hit_bound(self) -> float:
        """The largest such share that any schedule with these frames reaches (Belady, no reading ahead)."""
        touched = int(self.schedule.fresh.sum())
        return 1.0 - self.bound / touched if touched else 1.0


def plan_weights(
    names: Sequence[str], nbytes: Sequence[int], sources: Sequence[tuple[int, int]],
    order: Sequence[tuple[int, ...]], live: int, budget: int, files: WeightFiles, where: str,
) -> WeightPlan:  # fmt: skip
    """Divide ``budget``; weights in the order given, ``order``: the weights of each access of one pass.

    Raises:
        BudgetError: an operation's weights and everything else exceed the budget; it names the smallest that works.
    """
    total = sum(nbytes)
    chunk, smallest = chunk_bytes_for(budget, total), chunk_bytes_for(0, total)
    libraries = min(MOST_OF_LIBRARIES, budget // SHARE_OF_LIBRARIES)
    while True:
        layout = lay_out(names, nbytes, sources, chunk)
        accesses = [layout.access(weights) for weights in order]
        buffer = files.buffer_bytes(chunk)
        needed = smallest_capacity(accesses)
        frames = min((budget - libraries - live - buffer) // chunk, layout.chunks)
        if frames >= needed:
            break
        if chunk <= smallest:
            raise BudgetError(
                with_libraries(needed * chunk + live + buffer), budget, where,
                "give the budget named, or split that operation",
            )  # fmt: skip
        chunk //= 2
    schedule = schedule_weights(accesses, frames)
    return WeightPlan(budget, layout, frames, total, live, buffer, schedule, fewest_reads(schedule))


def with_libraries(nbytes: int) -> int:
    """The smallest budget that leaves ``nbytes`` after the libraries' share."""
    budget = nbytes + min(MOST_OF_LIBRARIES, nbytes // (SHARE_OF_LIBRARIES - 1))
    while budget - min(MOST_OF_LIBRARIES, budget // SHARE_OF_LIBRARIES) < nbytes:
        budget += 1
    return budget

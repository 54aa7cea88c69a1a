"""Placement of large problems (thousands to millions of buffers): greedy starts, then search by ejection.

Where the exact search cannot go, three things do nearly all the work:

1. *Who first.* Buffers alive at the largest load are placed first, of equals the longest-lived (``load``)::

       bytes   |#########|          what lives through the peak is stacked there without holes, long below short,
               |   ###########|     and all other instants have room to spare for the fragments that this leaves
               | ################ |

   This is TFLite's greedy by breadth (Pisarchyk and Lee, 2020) with lifetimes in place of sizes inside one breadth;
   orders by lifetime, area and size follow, each by best fit, below the wanted ceiling where there is room.
2. *Ejection.* The few buffers that the start left above the ceiling throw out what lies where they cost least (the sum
   of areas, grown with every eviction), and those look for a place in turn: iterated forward search (Mueller, 2005),
   negotiated rip-up and reroute (McMurchie and Ebeling, 1995). See ``native/core/large_placement_search.h``.
3. *Ceilings.* The wanted peak first; then halfway between it and the best peak so far; every start by turns, with twice
   the work in every round.

Not optimal, and no certificate but ``peak == load``. Memory: linear in the pieces. A placement costs O(neighbours in
time) for each buffer. The result depends on the seed and on how much of the work the time limit let it do, on nothing
else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.planners.problem import FREE_OFFSET, Instance, Ints

FIRST_FIT, BEST_FIT = 0, 1
SLICE = 2_000_000
FIRST_ROUND = 4_000_000
Progress = Callable[[int, float], None]


def native_problem(instance: Instance) -> _core.LargeProblem:
    """The kernels' form of an Instance. Cost: O(pieces log pieces)."""
    columns = (instance.size, instance.alignment, instance.fixed, instance.start, instance.piece_lower,
               instance.piece_upper, instance.piece_low, instance.piece_high)  # fmt: skip
    return _core.LargeProblem(*(np.ascontiguousarray(column, dtype=np.int64) for column in columns))


def peak_of(instance: Instance, offset: Ints) -> int:
    """The highest byte that a piece of the placement reaches; 0 without pieces. Cost: O(pieces)."""
    count = np.diff(instance.start)
    used = instance.piece_lower < instance.piece_upper
    top = (np.repeat(offset, count) + instance.piece_high)[used]
    return int(top.max()) if len(top) else 0


def orders(lifetime: Ints, largest_load: Ints, size: Ints) -> dict[str, npt.NDArray[np.int32]]:
    """The orders in which the greedy starts take the buffers, the most promising first."""
    area = size.astype(np.float64) * lifetime
    broad = largest_load * 64 // max(1, int(largest_load.max(initial=0)))
    sorts = {
        "load": (-size, -lifetime, -largest_load),
        "lifetime": (-size, -lifetime),
        "broad": (-size, -lifetime, -broad),
        "size": (-lifetime, -size),
        "area": (-size, -area),
    }
    return {name: np.lexsort(keys).astype(np.int32) for name, keys in sorts.items()}


def place(
    instance: Instance, *, time_limit: float, seed: int = 0, target: int | None = None,
    progress: Progress | None = None,
) -> Ints:  # fmt: skip
    """Offsets of every buffer, in bytes of the instance, with a small peak.

    ``time_limit``: CPU seconds of this thread; the first start is finished even if it takes longer. ``target``: stop at
    this peak (default, and never below: the load). ``progress(peak, seconds)`` is called at every better placement and
    may raise to stop. Pinned buffers must not overlap. Cost: see the module text; a few seconds for 60,000 buffers.
    """
    search = _LargeSearch(instance, time_limit, seed, target, progress)
    return search.run()


def improve(
    instance: Instance, offset: Ints, *, target: int | None = None, time_limit: float, seed: int = 0,
    progress: Progress | None = None,
) -> Ints:  # fmt: skip
    """Offsets with a peak no higher than that of the valid placement ``offset``; else as ``place``."""
    search = _LargeSearch(instance, time_limit, seed, target, progress)
    search.offer(np.asarray(offset, dtype=np.int64))
    return search.run()


@dataclass
class _Start:
    """A greedy start: an order, and for the ceiling it was filled below, what came out."""

    order: npt.NDArray[np.int32]
    ceiling: int = -1
    offset: Ints | None = None


class _LargeSearch:
    """One run of ``place`` or ``improve``: the starts, the best placement so far, and the clock."""

    def __init__(
        self, instance: Instance, time_limit: float, seed: int, target: int | None, progress: Progress | None
    ) -> None:
        self.instance, self.seed, self.progress = instance, seed, progress
        self.began = time.thread_time()
        self.time_limit = time_limit
        self.problem = native_problem(instance)
        pinned = instance.fixed >= 0
        floor = peak_of(instance, np.where(pinned, instance.fixed, -instance.size))
        self.target = max(self.problem.bound, floor, target or 0)
        self.peak = -1
        self.best = np.where(pinned, instance.fixed, FREE_OFFSET)

    def spent(self) -> float:
        """CPU seconds of this thread since the beginning."""
        return time.thread_time() - self.began

    def over(self) -> bool:
        """Whether to stop: a placement is there, and it is good enough or the time is up."""
        return self.peak >= 0 and (self.peak <= self.target or self.spent() >= self.time_limit)

    def offer(self, offset: Ints) -> None:
        """Keep a whole placement if it is better than the best so far."""
        peak = peak_of(self.instance, offset)
        if self.peak < 0 or peak < self.peak:
            self.best, self.peak = offset, peak
            if self.progress is not None:
                self.progress(peak, self.spent())

    def ceilings(self, turn: int) -> int:
        """The wanted peak in even rounds, halfway to the best in odd ones."""
        return self.target if turn % 2 == 0 else (self.target + self.peak) // 2

    def run(self) -> Ints:
        """Starts and ejections by turns until the time is up or the target reached."""
        size, given = self.instance.size, self.best if self.peak >= 0 else None
        ranked = orders(self.problem.lifetime(), self.problem.largest_load(), size)
        starts = [_Start(order) for order in ranked.values()]
        turn = 0
        while not self.over():
            if given is not None:
                self.eject(given, self.ceilings(turn), FIRST_ROUND << turn, turn)
            for start in starts:
                if self.over():
                    break
                ceiling = self.ceilings(turn)
                if ceiling != start.ceiling:
                    self.fill(start, ceiling)
                if start.offset is not None and not self.over():
                    self.eject(start.offset, ceiling, FIRST_ROUND << turn, turn)
            turn += 1
        return self.best

    def fill(self, start: _Start, ceiling: int) -> None:
        """Places in the start's order below a ceiling; what does not fit goes on top."""
        filling = _core.Filling(self.problem, start.order, BEST_FIT, ceiling)
        while not filling.run(SLICE):
            if self.over():
                return
        start.offset, start.ceiling = filling.offset(), ceiling
        self.offer(filling.whole())

    def eject(self, offset: Ints, ceiling: int, work: int, turn: int) -> None:
        """Searches by ejection below a ceiling for so much work."""
        search = _core.EjectionSearch(self.problem, offset, ceiling, self.seed + turn)
        fewest = search.out
        while search.work < work and not self.over():
            done = search.run(min(SLICE, work - search.work))
            if done or search.out < fewest:
                fewest = search.out
                self.offer(search.whole())
            if done:
                return

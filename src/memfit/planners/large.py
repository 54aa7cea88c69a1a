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
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.planners.problem import FREE_OFFSET, Instance, Ints

FIRST_FIT, BEST_FIT = 0, 1
SLICE = 500_000
FIRST_ROUND = 1_000_000
SLACKS = (0.03, 0.01, 0.003, 0.001, 0.0)
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


def orders(problem: _core.LargeProblem, lower: Ints, upper: Ints, size: Ints) -> dict[str, _Start]:
    """The greedy starts, the most promising first: the order in which to take the buffers, and the rule to fit them."""
    lifetime, largest_load = problem.lifetime(), problem.largest_load()
    area = size.astype(np.float64) * lifetime
    life_class = np.floor(np.log2(np.maximum(1, lifetime)))
    size_class = np.floor(np.log2(np.maximum(1, size)))
    sorts: dict[str, tuple[int, tuple[npt.NDArray[Any], ...]]] = {
        "load": (BEST_FIT, (-size, -lifetime, -largest_load)),
        "lifetime class, start": (BEST_FIT, (lower, -life_class)),
        "start": (FIRST_FIT, (-size, -lifetime, lower)),
        "size class, lifetime": (FIRST_FIT, (-lifetime, -size_class)),
        "lifetime": (BEST_FIT, (-size, -lifetime)),
        "end": (BEST_FIT, (-size, -lifetime, -upper)),
        "size class, start": (FIRST_FIT, (lower, -size_class)),
        "size": (BEST_FIT, (-lifetime, -size)),
        "area": (BEST_FIT, (-size, -area)),
        "lifetime class, size": (FIRST_FIT, (-size, -life_class)),
    }
    return {name: _Start(np.lexsort(keys).astype(np.int32), fit) for name, (fit, keys) in sorts.items()}


def place(
    instance: Instance, *, time_limit: float, seed: int = 0, target: int | None = None,
    progress: Progress | None = None,
) -> Ints:  # fmt: skip
    """Offsets of every buffer, in bytes of the instance, with a small peak.

    ``time_limit``: CPU seconds of this thread (a start that it cuts short is finished in no time, badly). ``target``: stop at
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
    """A greedy start: the order in which to take the buffers, and the rule to fit each."""

    order: npt.NDArray[np.int32]
    fit: int


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
        """Whether to stop: the placement is good enough, or the time is up."""
        return 0 <= self.peak <= self.target or self.spent() >= self.time_limit

    def offer(self, offset: Ints) -> None:
        """Keep a whole placement if it is better than the best so far."""
        peak = peak_of(self.instance, offset)
        if self.peak < 0 or peak < self.peak:
            self.best, self.peak = offset, peak
            if self.progress is not None:
                self.progress(peak, self.spent())

    def run(self) -> Ints:
        """Starts and ejections by turns until the time is up or the target reached."""
        instance = self.instance
        starts = orders(self.problem, instance.lower, instance.upper, instance.size)
        effort = FIRST_ROUND + 100 * len(instance)
        few = 64 + len(instance) // 4096
        filled: list[tuple[int, int, Ints]] = []
        pool: list[Ints] = []
        for number, start in enumerate(starts.values()):
            if self.over():
                return self.best
            peak, out = self.fill(start)
            if out is not None and np.count_nonzero(out < 0) <= few:
                self.descend(out, effort)
                pool.append(out)
            elif out is not None:
                filled = sorted([*filled, (peak, number, out)], key=lambda one: one[:2])[:2]
        for _, _, out in filled:
            self.descend(out, effort)
        turn, share, work = 1, 0.5, effort
        while not self.over():  # by turns from the best and from what each start placed below the target
            ceiling = self.target + int(share * (self.peak - self.target))
            begin = [self.best, *pool][turn % (1 + len(pool))]
            if self.eject(begin, min(ceiling, self.peak - 1), work, turn):
                share *= 0.7
            else:
                share = 1 - (1 - share) * 0.7
                work = work * 5 // 4
            turn += 1
        return self.best

    def descend(self, out: Ints, effort: int) -> None:
        """Ejection from a partial placement below one ceiling after another, until one is too low."""
        for slack in SLACKS:
            ceiling = self.target + int(slack * self.target)
            if self.over() or (ceiling < self.peak and not self.eject(out, ceiling, effort, 0)):
                return

    def fill(self, start: _Start) -> tuple[int, Ints | None]:
        """Places in the start's order below the target, the rest on top: its peak, and the offsets below the target.

        Where the time was up before its end: 0 and None.
        """
        filling = _core.Filling(self.problem, start.order, start.fit, self.target)
        done = False
        while not done and not self.over():
            done = filling.run(SLICE)
        if not done and self.peak >= 0:
            return 0, None
        whole = filling.whole()
        self.offer(whole)
        return (peak_of(self.instance, whole), np.asarray(filling.offset())) if done else (0, None)

    def eject(self, offset: Ints, ceiling: int, work: int, turn: int) -> bool:
        """Searches by ejection below a ceiling for so much work; whether every buffer came to lie there."""
        search = _core.EjectionSearch(self.problem, offset, ceiling, turn % 3, self.seed * 1000 + turn)
        begun = fewest = search.out
        while search.work < work and not self.over():
            before = search.work
            done = search.run(min(SLICE, work))
            if done or search.out < fewest:
                fewest = search.out
                self.offer(search.whole())
            if done:
                return True
            stuck = search.work == before
            if stuck or search.out > 4 * begun + 256 + len(self.instance) // 8:
                return False
        return False

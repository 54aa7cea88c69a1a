"""Exact placement: offsets under a limit or a proof that there are none; the least peak with a proved bound.

``place`` answers for one limit. ``minimise`` starts at the lower bound (placement times have heavy tails: the tightest
limit is often no harder than a loose one) and works on two limits at once, in slices of searches that stop and go
on, until the peak meets the bound or the time is up::

    bound ...... goal .. peak           bound rises only by proof: a search at that limit was exhausted
      |            |      |
      load     chased  incumbent        the goal lies 1/2, 1/4, 1/8 ... of the way below the incumbent, nearer when it
                                        is not reached in time; what was learned at one goal serves at the next

The search itself is native (``native/core/placement_search.h``: the idea, the paper it comes from, where it differs);
:mod:`memfit.planners.exact_twin` is its slow twin. A time limit that ran out is "unknown", never "infeasible".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from memfit import _core
from memfit.planners.problem import Instance, Ints

FOUND, EXHAUSTED, PAUSED = 0, 1, 2
_SLICE_SECONDS = 0.03
_PARTS_TURN = 40  # of minimise: by then easy problems are solved, and a part may show why this one is not


class Switch(IntFlag):
    """Inferences of the search; each can be off, the answer stays the same.

    DECOMPOSE: parts that share no unplaced buffer are solved one by one. HATLESS: a buffer with nothing left to lie on
    it is placed once. RESTS: a buffer not placed where it could be must wait for what it will rest on. STACKS: of two
    buffers of equal lifetime on each other, the higher ranked lies below. TWINS: equal buffers in the order of their
    number. FEWEST: branch where fewest choices are (in the lanes that ask for it). HEADS (off: it saves a tenth of the
    nodes and costs three times the time of one): sections bounded by every floor of their buffers.
    """

    DECOMPOSE = 1
    HATLESS = 2
    RESTS = 4
    STACKS = 8
    TWINS = 16
    HEADS = 32
    FEWEST = 64


DEFAULT = Switch.DECOMPOSE | Switch.HATLESS | Switch.RESTS | Switch.STACKS | Switch.TWINS | Switch.FEWEST
ALL = DEFAULT | Switch.HEADS


@dataclass(frozen=True)
class Outcome:
    """What a search for one limit ended with.

    ``status``: "placed", "infeasible" (proved) or "unknown" (time ran out). ``offset``: bytes of every buffer, or None.
    ``nodes``: opened. ``seconds``: CPU time of this process.
    """

    status: str
    offset: Ints | None
    nodes: int
    seconds: float


@dataclass(frozen=True)
class Minimum:
    """The least peak found. ``offset`` in bytes, or None where no placement was found; ``peak``; ``bound``: proved."""

    offset: Ints | None
    peak: int
    bound: int
    nodes: int
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether nothing lower exists."""
        return self.offset is not None and self.peak == self.bound


def _shape(instance: Instance) -> _core.PlacementShape:
    columns = (
        instance.lower, instance.upper, instance.size, instance.alignment, instance.fixed, instance.start,
        instance.piece_lower, instance.piece_upper, instance.piece_low, instance.piece_high,
    )  # fmt: skip
    return _core.PlacementShape(*(np.ascontiguousarray(column, dtype=np.int64) for column in columns))


class _Slices:
    """How many nodes fill a slice of time, so that the caller stays interruptible."""

    def __init__(self) -> None:
        self.nodes = 512

    def run(self, portfolio: _core.PlacementPortfolio, seconds: float = _SLICE_SECONDS) -> int:
        began = time.perf_counter()
        status: int = portfolio.run(self.nodes)
        took = time.perf_counter() - began
        factor = min(max(seconds / took if took > 0 else 2.0, 0.25), 2.0)
        self.nodes = int(min(max(self.nodes * factor, 256), 10_000_000))
        return status


def peak_of(instance: Instance, offset: Ints) -> int:
    """Highest byte in use of a placement, in bytes."""
    tops = [
        int(offset[i]) + int(instance.piece_high[p])
        for i in range(len(instance))
        for p in range(int(instance.start[i]), int(instance.start[i + 1]))
    ]
    return max(tops, default=0)


def place(
    instance: Instance, limit: int, *, time_limit: float = 60.0, seed: int = 0, threads: int = 1,
    switches: Switch = DEFAULT,
) -> Outcome:  # fmt: skip
    """Offsets such that no byte at or above ``limit`` is used, or a proof that there are none.

    ``limit`` in bytes; ``time_limit`` in seconds of wall time; ``seed`` 0 is the portfolio without disturbance;
    ``threads`` share its lanes. Exponential time in the worst case, memory O(overlapping pairs) a lane.
    """
    began, cpu = time.perf_counter(), time.process_time()
    if len(instance) == 0:
        return Outcome("placed", np.zeros(0, np.int64), 0, 0.0)
    shape = _shape(instance)
    if limit < shape.load:
        return Outcome("infeasible", None, 0, time.process_time() - cpu)
    lanes = [_core.PlacementPortfolio(shape, limit, int(switches), seed, k, threads) for k in range(threads)]
    ended: list[tuple[int, _core.PlacementPortfolio]] = []
    over = threading.Event()

    def work(portfolio: _core.PlacementPortfolio) -> None:
        slices = _Slices()
        while not over.is_set() and time.perf_counter() - began < time_limit:
            status = slices.run(portfolio)
            if status != PAUSED:
                ended.append((status, portfolio))
                over.set()

    helpers = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes[1:]]
    for helper in helpers:
        helper.start()
    try:
        work(lanes[0])
    finally:
        if ended or time.perf_counter() - began >= time_limit:
            over.set()
        for helper in helpers:
            over.set()
            helper.join()
    nodes = sum(lane.nodes for lane in lanes)
    seconds = time.process_time() - cpu
    for status, portfolio in sorted(ended, key=lambda pair: pair[0]):
        if status == FOUND:
            return Outcome("placed", portfolio.offsets(shape), nodes, seconds)
        return Outcome("infeasible", None, nodes, seconds)
    return Outcome("unknown", None, nodes, seconds)


def minimise(
    instance: Instance, *, time_limit: float = 60.0, incumbent: Ints | None = None, seed: int = 0,
    switches: Switch = DEFAULT, progress: Callable[[int, int], None] | None = None,
) -> Minimum:  # fmt: skip
    """The placement of least peak that ``time_limit`` seconds of wall time find, with a proved lower bound.

    ``incumbent``: offsets in bytes to start from. ``progress(peak, bound)`` is called where either improves.
    Anytime: whatever was found when the time is up is returned.
    """
    began, cpu = time.perf_counter(), time.process_time()
    if len(instance) == 0:
        return Minimum(np.zeros(0, np.int64), 0, 0, 0, 0.0)
    shape = _shape(instance)
    unit: int = shape.divisor
    bound: int = shape.load
    best = incumbent
    peak = peak_of(instance, incumbent) if incumbent is not None else -1
    nodes = 0
    slices = _Slices()
    if best is None:
        # No limit at all: the first descent of the first lane.
        pins = int((instance.fixed.clip(0) + instance.size).max())
        roof = pins + int((instance.size + instance.alignment).sum())
        free = _core.PlacementPortfolio(shape, roof, int(switches), seed, 0, 1)
        while (status := slices.run(free)) == PAUSED and time.perf_counter() - began < time_limit:
            pass
        nodes += free.nodes
        if status == FOUND:
            best = free.offsets(shape)
            peak = peak_of(instance, best)
        if best is None:
            return Minimum(None, roof, bound, nodes, time.process_time() - cpu)
    if progress is not None:
        progress(peak, bound)
    at_bound = _core.PlacementPortfolio(shape, bound, int(switches), seed, 0, 1)
    chaser = _core.PlacementPortfolio(shape, bound, int(switches), seed, 0, 1)
    goal, depth, patience, spent, turn = bound, 1, 4_000, 0, 0
    aimed = False
    while peak > bound and time.perf_counter() - began < time_limit:
        turn += 1
        if turn == _PARTS_TURN:
            from memfit.planners import part_bounds  # it searches parts with this module

            left = began + time_limit - time.perf_counter()
            bound = part_bounds.raise_bound(instance, bound, unit=unit, time_limit=min(max(left, 0.0) / 10, 2.0))
        if at_bound.limit < bound:
            at_bound.aim(shape, bound)
        # Every other turn at the bound, later every eighth; the rest below the incumbent, a part of the way down.
        chase = turn % (2 if turn < 60 else 8) != 0 and peak - bound > unit
        if chase and (not aimed or not bound <= goal < peak or spent > patience):
            if aimed and spent > patience:
                depth = depth + 1 if peak - (max((peak - bound) >> depth, unit) // unit * unit) < peak - unit else 1
                patience = int(patience * 1.25)
            goal = max(peak - max((peak - bound) >> depth, unit), bound) // unit * unit
            chaser.aim(shape, goal)
            aimed, spent = True, 0
        portfolio = chaser if chase else at_bound
        before = portfolio.nodes
        status = slices.run(portfolio, min(_SLICE_SECONDS, 0.002 * turn))
        nodes += portfolio.nodes - before
        spent += portfolio.nodes - before if chase else 0
        if status == FOUND:
            best = portfolio.offsets(shape)
            peak = peak_of(instance, best)
            depth = max(depth - 1, 1)
        elif status == EXHAUSTED:
            bound = portfolio.limit + unit
        if status != PAUSED and progress is not None:
            progress(peak, bound)
    return Minimum(best, peak, bound, nodes, time.process_time() - cpu)


def subset(instance: Instance, kept: list[int]) -> Instance:
    """The instance of some of the buffers, in the order given."""
    rows = [p for i in kept for p in range(int(instance.start[i]), int(instance.start[i + 1]))]
    start = np.cumsum([0] + [int(instance.start[i + 1] - instance.start[i]) for i in kept]).astype(np.int64)
    return Instance(
        instance.lower[kept], instance.upper[kept], instance.size[kept], instance.alignment[kept],
        instance.fixed[kept], start, instance.piece_lower[rows], instance.piece_upper[rows],
        instance.piece_low[rows], instance.piece_high[rows], instance.limit,
    )  # fmt: skip


def _fewest_overload(instance: Instance, limit: int) -> list[int] | None:
    """The fewest buffers alive at one instant whose bytes in use exceed the limit, or None where no instant does."""
    owner = np.repeat(np.arange(len(instance)), np.diff(instance.start))
    used = instance.piece_high - instance.piece_low
    best: list[int] | None = None
    for instant in np.unique(instance.piece_lower):
        alive = np.flatnonzero((instance.piece_lower <= instant) & (instant < instance.piece_upper))
        if int(used[alive].sum()) <= limit:
            continue
        order = alive[np.argsort(-used[alive], kind="stable")]
        needed = int(np.searchsorted(np.cumsum(used[order]), limit, side="right")) + 1
        if best is None or needed < len(best):
            best = sorted(int(i) for i in owner[order[:needed]])
    return best


def explain(instance: Instance, limit: int, *, time_limit: float = 10.0) -> list[int]:
    """Buffers that alone cannot lie below ``limit`` bytes, ascending; [] where all fit or no proof was found in time.

    Where one instant is overloaded: the fewest buffers of one instant that exceed the limit. Else an irreducible set,
    without any one of which the rest fits (not always the smallest), by leaving out ever smaller groups for as long as
    what remains is proved impossible. When ``time_limit`` (seconds) ends first the set is a proof but may be larger.
    """
    overload = _fewest_overload(instance, limit)
    # Whole, free buffers of one instant fit exactly when their sum does; pins, alignment and windows say more.
    loose = (instance.fixed < 0).all() and (instance.alignment == 1).all() and (instance.piece_low == 0).all()
    if (
        overload is not None
        and loose
        and (instance.piece_high == np.repeat(instance.size, np.diff(instance.start))).all()
    ):
        return overload
    until = time.perf_counter() + time_limit
    kept = overload if overload is not None else list(range(len(instance)))
    first = place(subset(instance, kept), limit, time_limit=time_limit)
    if first.status != "infeasible":
        return []
    # A proof without a group takes no longer than the first one did, more or less; a rest that fits may take forever.
    patience = max(20 * first.seconds, 0.05)
    group = max(len(kept) // 2, 1)
    while True:
        begin = 0
        while begin < len(kept) and time.perf_counter() < until:
            rest = kept[:begin] + kept[begin + group :]
            left = until - time.perf_counter()
            if rest and place(subset(instance, rest), limit, time_limit=min(patience, left)).status == "infeasible":
                kept = rest
            else:
                begin += group
        if group == 1 or time.perf_counter() >= until:
            return kept
        group = max(group // 2, 1)

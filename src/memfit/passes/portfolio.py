"""The searches that ``rematerialize`` runs on one Graph, and every plan they found.

The same work whatever is asked, and in whatever order: ``prepare`` depends on the Graph and the seed alone, and the
search at a budget starts from what ``prepare`` found, not from the searches at other budgets. Effort is counted in
simulated runs. Each plan is judged by the native simulation, whose slow twin judges it again in the tests; the search
kernels have no twin of their own but that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit import _core
from memfit.analyses.bounds import PeakBound, peak_lower_bound, seconds_lower_bound
from memfit.analyses.liveness import arrays_of
from memfit.ir.graph import Graph
from memfit.passes.checkpointing import seeds
from memfit.passes.reorder import optimizer_early

Progress = Callable[[str, float], None]
_RUNGS, _STEP = 13, 0.8  # budgets of the ladder: what is left above the lower bound shrinks by this factor
_RESTARTS = (2.5, 10.0, 40.0)
_HOT, _WARM, _COOL = 10.0, 2.5, 0.5  # first temperatures of annealing, in seconds of an average op
_TINY = 60  # ops up to which every search is repeated from other seeds and temperatures, and beams are tried
_FEW = 32  # ops up to which beams look for the smallest peak
_SMALL = 400  # ops up to which covering and neighbourhood search join in
_POLISHED = 9  # walks from the best plan of a tiny graph, over and over while one of them finds a better one
_WIDTHS = (200, 1000, 5000)  # of beams
_GOOD = 0.0005  # share of the step's seconds that no search tries to save
_HARDER = 600_000_000  # simulated runs spent at most before a budget is refused, less on small graphs
_HARDER_SECONDS = 60.0  # of CPU time; no new round of them starts after these
_PATIENCE = 3  # rounds in a row that change nothing, after which the smallest peak is taken to be found


@dataclass(frozen=True)
class Found:
    """A plan: ``sequence`` of ops, total ``peak`` bytes, ``seconds``, and the search that found it."""

    sequence: np.ndarray[Any, np.dtype[np.int32]]
    peak: int
    seconds: float
    strategy: str


class Front:
    """The plans that no other is better than in both bytes and seconds."""

    def __init__(self, rows: Iterable[Found] = ()) -> None:
        self.rows = list(rows)

    def add(self, row: Found) -> None:
        """Keeps ``row`` if it is best at some budget."""
        if any(other.peak <= row.peak and other.seconds <= row.seconds * (1 + 1e-12) for other in self.rows):
            return
        self.rows = [o for o in self.rows if not (row.peak <= o.peak and row.seconds <= o.seconds)] + [row]

    def cheapest(self, budget: int) -> Found | None:
        """The plan with the least seconds that keeps the budget."""
        return min((r for r in self.rows if r.peak <= budget), key=lambda r: (r.seconds, r.peak), default=None)

    def nearest_above(self, budget: int) -> Found | None:
        """The plan with the smallest peak above the budget."""
        return min((r for r in self.rows if r.peak > budget), key=lambda r: (r.peak, r.seconds), default=None)

    def smallest(self) -> Found:
        """The plan with the smallest peak."""
        return min(self.rows, key=lambda r: (r.peak, r.seconds))


@dataclass
class _WayDown:
    """Where the search for the smallest peak stands: simulated runs of the next round and left, rounds without a gain."""

    front: Front
    effort: int
    left: int
    idle: int = 0
    turn: int = 3
    ended: bool = False


class Portfolio:
    """Every plan found for one Graph and seed; grows, never forgets a plan that is best at some budget."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.seed = graph, seed
        arrays = arrays_of(graph)
        self.search = _core.Search(
            *arrays.liveness_arguments(), arrays.repeatable, arrays.edge_before, arrays.edge_after, arrays.chain,
            arrays.base,
        )  # fmt: skip
        self.size = max(1, len(graph.ops))
        self.program = np.arange(len(graph.ops), dtype=np.int32)
        self.found = Front()
        self.prepared = Front()
        self.searched: set[int] = set()
        self.ready = False
        self.way_down: _WayDown | None = None
        self.deadline: float | None = None
        self.baseline = self._add(self.found, self.search.figures(self.program), "program order")
        self.bound: PeakBound = peak_lower_bound(graph)
        self.seconds_bound = seconds_lower_bound(graph)

    def at(self, budget: int, seconds_limit: float | None, progress: Progress | None) -> Found | None:
        """The cheapest plan found at the budget; None when even a harder search finds none."""
        self.deadline = None if seconds_limit is None else time.monotonic() + seconds_limit
        if self.baseline.peak <= budget:
            return self.baseline
        self.prepare(progress)
        if budget not in self.searched:
            self.searched.add(budget)
            self._search(budget, progress)
            if self.found.cheapest(budget) is None:
                self._search_harder(budget)
        return self.found.cheapest(budget)

    def prepare(self, progress: Progress | None) -> None:
        """Orders, known methods, a ladder of budgets and the smallest peak: a plan for every reachable budget."""
        if self.ready:
            return
        self.ready = True
        front = self.prepared
        front.add(self.baseline)
        base = self.graph.base_bytes
        orders = [("program order", self.program)]
        early = optimizer_early(self.graph)
        if early != tuple(range(self.size)):
            orders.append(("optimizer early", np.array(early, dtype=np.int32)))
        starts: list[Found] = []
        for name, order in orders:
            start = self._add(front, self.search.figures(order), name)
            for method, schedule in seeds(self.graph, order.tolist()):
                self._add(front, self.search.figures(np.array(schedule, dtype=np.int32)), f"{method}, {name}")
            target = base + int(0.5 * (start.peak - base))
            moved = self.search.reorder(order, target, self.seed, min(400 * self.size, 4_000_000))
            starts += [start, self._add(front, moved, f"{name}, reordered")]
        if self.size <= _SMALL:
            for start in starts:
                room = start.peak - self.bound.nbytes
                rungs = sorted({self.bound.nbytes + int(room * _STEP**rung) for rung in range(_RUNGS)}, reverse=True)
                effort = 1000 * self.size + 200_000
                for plan in self.search.ladder(start.sequence, np.array(rungs, dtype=np.int64), self.seed, effort):
                    self._add(front, plan, f"covering from {start.strategy}")
        self._descend(front, progress)
        self._shrink(front)

    def _add(self, front: Front, plan: tuple[Any, int, float], strategy: str) -> Found:
        row = Found(*plan, strategy)
        if len(row.sequence):
            front.add(row)
            self.found.add(row)
        return row

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _anneal(self, front: Front, budget: int, effort: int, heat: float, *, below: bool, turn: int = 0) -> bool:
        """Anneal at ``budget`` from the cheapest plan that keeps it (``below``) or from the nearest one above it."""
        start = front.cheapest(budget) if below else front.nearest_above(budget)
        if start is None:
            return False
        plan = self.search.anneal(start.sequence, budget, self.seed + 1 + turn, effort, heat)
        return len(self._add(front, plan, "annealing").sequence) > 0

    def _good_enough(self, row: Found | None) -> bool:
        return row is not None and row.seconds <= self.seconds_bound * (1 + _GOOD)

    def _effort(self) -> int:
        if self.size <= _SMALL:
            return 600_000 + 1_200 * self.size
        return 600_000 + 100 * self.size + self.size * self.size // 8  # edits cost more in longer sequences

    def _descend(self, front: Front, progress: Progress | None) -> None:
        """Anneal at falling budgets, each from the plan of the one above."""
        effort = self._effort()
        room = self.baseline.peak - self.bound.nbytes
        for rung in range(1, _RUNGS):
            if self._late():
                return
            budget = self.bound.nbytes + int(room * _STEP**rung)
            if self._good_enough(front.cheapest(budget)):
                continue
            above = self._anneal(front, budget, effort, _WARM, below=False)
            below = self._anneal(front, budget, effort // 2, _COOL, below=True)
            if progress is not None:
                progress("curve", rung / _RUNGS)
            if not above and not below:
                break

    def _shrink(self, front: Front) -> None:
        """Go below the smallest peak until that no longer helps."""
        for turn, share in enumerate((10, 5)):
            if self._late() or not self._lower(front, share * self._effort(), turn):
                break
        self._beams_below(front, _WIDTHS[0])

    def _lower(self, front: Front, effort: int, turn: int) -> bool:
        smallest = front.smallest()
        if smallest.peak <= self.bound.nbytes:
            return False
        plan = self.search.lower(smallest.sequence, self.bound.nbytes, self.seed + turn, effort)
        self._add(front, plan, "annealing of the peak")
        return front.smallest().peak < smallest.peak - 0.01 * (smallest.peak - self.bound.nbytes)

    def _beams_below(self, front: Front, width: int) -> bool:
        """Beams at budgets below the smallest peak of a graph of few ops, by halving; whether the peak fell.

        They reach plans that repeat long runs of ops, which a walk meets only over higher peaks.
        """
        if self.size > _FEW:
            return False
        before = front.smallest().peak
        low, budget = self.bound.nbytes, before - 1  # nearly always the first one fails: then no other is tried
        while low <= budget and not self._late():
            *plan, _ = self.search.beam(budget, 1e300, width)
            if len(plan[0]) and plan[1] <= budget:
                self._add(front, (plan[0], plan[1], plan[2]), "beam search")
            elif budget == front.smallest().peak - 1:
                break
            else:
                low = budget + 1
            budget = (low + front.smallest().peak - 1) // 2
        return front.smallest().peak < before

    def _search(self, budget: int, progress: Progress | None) -> None:
        front = Front(self.prepared.rows)
        if self._good_enough(front.cheapest(budget)):
            return
        effort = min(1_000_000 + 100_000 * self.size, 15_000_000 + 4_000 * self.size) // 3
        if self.size <= _TINY:
            for turn in range(6):
                heat = _RESTARTS[turn % len(_RESTARTS)]
                plan = self.search.anneal(self.program, budget, self.seed + turn, 400_000, heat)
                self._add(front, plan, "annealing from program order")
        turns = [(_WARM, False), (_WARM, True), (_COOL, True)]
        for turn, (heat, below) in enumerate(turns):
            if self._late():
                return
            self._anneal(front, budget, effort, heat, below=below, turn=turn)
            if progress is not None:
                progress("search", (turn + 1) / (len(turns) + 1))
        best = front.cheapest(budget)
        if best is not None and self.size <= _SMALL:
            self._add(front, self.search.improve(best.sequence, budget, self.seed, effort), "neighbourhood search")
        if self.size <= _TINY:
            self._beams(front, budget)
            self._polish(front, budget)

    def _polish(self, front: Front, budget: int) -> None:
        """Anneal from the best plan, whatever found it (a beam's lies where no walk has been), while that helps."""
        improved = True
        while improved and not self._late() and not self._good_enough(front.cheapest(budget)):
            start = front.cheapest(budget)
            if start is None:
                return
            for turn in range(_POLISHED):
                heat = (_COOL, _WARM, _HOT)[turn % 3]
                plan = self.search.anneal(start.sequence, budget, self.seed + 100 + turn, 500_000, heat)
                self._add(front, plan, "annealing from the best plan")
            best = front.cheapest(budget)
            improved = best is not None and best.seconds < start.seconds * (1 - 1e-9)

    def _beams(self, front: Front, budget: int) -> None:
        for width in _WIDTHS:
            best = front.cheapest(budget)
            below = 1e300 if best is None else best.seconds * (1 - 1e-9)
            *plan, complete = self.search.beam(budget, below, width)
            if len(plan[0]) and plan[1] <= budget:
                self._add(front, (plan[0], plan[1], plan[2]), "beam search")
            if complete or self._late():
                return

    def smallest(self, progress: Progress | None) -> Found:
        """The smallest peak that a long search finds; later calls cost nothing."""
        self.prepare(progress)
        self._search_harder(0)
        return self.reachable()

    def reachable(self) -> Found:
        """The smallest peak on the way that every call for less goes again, whatever was asked before.

        A search at some budget may have found a smaller one by chance; nobody who asks for that anew is sure to get it.
        """
        return (self.prepared if self.way_down is None else self.way_down.front).smallest()

    def _search_harder(self, budget: int) -> None:
        """Before a refusal: go down from the smallest peak until the budget is kept or it goes no further.

        Rounds differ in seed; one that changes nothing is followed by a longer one, one that does by one of the same
        length, because a step down opens others. Every call goes on along one path that begins at what ``prepare`` found,
        so that the smallest peak of a refusal is reached again by whoever asks for it.
        """
        way = self.way_down
        if way is None:
            efforts = 1_250_000 + 25_000 * self.size, min(_HARDER, 10_000_000 + 1_000_000 * self.size)
            way = self.way_down = _WayDown(Front(self.prepared.rows), *efforts)
        front, end = way.front, time.thread_time() + _HARDER_SECONDS
        while self.found.cheapest(budget) is None and not way.ended:
            before = front.smallest().peak
            way.ended = way.idle == _PATIENCE or way.left <= 0 or before <= self.bound.nbytes
            if way.ended and before > self.bound.nbytes and self._beams_below(front, _WIDTHS[1]):
                way.ended, way.idle = False, 0
                continue
            if way.ended or self._late() or time.thread_time() > end:
                return
            self._lower(front, min(way.effort, way.left), way.turn)
            way.left, way.turn = way.left - way.effort, way.turn + 1
            way.idle = 0 if front.smallest().peak < before else way.idle + 1
            way.effort = way.effort if way.idle == 0 else min(2 * way.effort, way.left)

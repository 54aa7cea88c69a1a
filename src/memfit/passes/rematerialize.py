"""Which ops to run again so that the step's peak keeps a byte budget at the least extra seconds.

A portfolio, every member judged by the native liveness simulation, best one wins, so that the plan is never worse than
any member:

1. *orders*: the program's own, optimizer updates as early as possible, and both with single ops moved (``reorder``);
2. *annealing* (native ``anneal``) down a ladder of budgets, each from the one above; then below the smallest peak as
   long as that succeeds; then at the asked budget from both of its neighbours;
3. on small graphs, greedy *covering* of the bytes over a falling budget (native ``ladder``) and large-neighbourhood
   search at the asked budget (native ``improve``).

The plans of one Graph object are remembered: a plan found for a smaller budget is a candidate for every larger one. So
seconds never rise with the budget in ``curve``, nor over calls that go from small budgets to large ones; a call for a
smaller budget after a larger one may find a cheaper plan than the larger one got, which asking again then returns too.

The same seed gives the same plan: effort is counted in simulated runs, not in time, unless ``seconds_limit`` cuts it
short. Not optimal in general; ``benchmarks/planner.py`` measures the distance to the exact optimum on small graphs.
Cost: O(effort), about 50 million simulated runs per second of one core.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memfit import _core
from memfit.analyses.bounds import PeakBound, peak_lower_bound, seconds_lower_bound
from memfit.analyses.liveness import arrays_of, simulate
from memfit.errors import BudgetError
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.reorder import optimizer_early
from memfit.units import format_bytes

Progress = Callable[[str, float], None]
_RUNGS, _STEP = 17, 0.85  # budgets of the ladder: what is left above the lower bound shrinks by this factor
_RESTARTS = (2.5, 10.0, 40.0)
_HOT, _WARM, _COOL = 10.0, 2.5, 0.5  # first temperatures of annealing, in seconds of an average op
_SHRINKS = 12  # attempts to go below the smallest peak
_TINY = 60  # ops up to which every search is repeated from other seeds and temperatures
_SMALL = 400  # ops up to which covering and neighbourhood search join in


@dataclass(frozen=True)
class SchedulePlan:
    """A schedule and what it needs. Bytes are totals with the graph's constants, seconds those of the op costs.

    ``lower_bound``: bytes no schedule goes below; ``seconds_bound``: seconds no schedule goes below;
    ``smallest_feasible``: the smallest peak that was found; ``strategy``: which member of the portfolio won.
    """

    schedule: tuple[int, ...]
    peak: int
    seconds: float
    baseline_peak: int
    baseline_seconds: float
    lower_bound: int
    seconds_bound: float
    smallest_feasible: int
    strategy: str


def rematerialize(
    graph: Graph, budget: int, *, seconds_limit: float | None = None, seed: int = 0, progress: Progress | None = None
) -> SchedulePlan:
    """The cheapest schedule found whose peak is at most ``budget`` bytes (constants included).

    ``seconds_limit``: planning seconds after which no new search starts (plans then depend on the machine);
    ``progress``: called with a word and a fraction from 0 to 1.

    Raises:
        BudgetError: no schedule found keeps the budget; names the op and storages that stand in the way.
    """
    return _archive(graph, seed).plan(budget, seconds_limit, progress)


def smallest_peak(graph: Graph, *, seed: int = 0, progress: Progress | None = None) -> SchedulePlan:
    """The schedule with the smallest peak that was found, whatever its seconds."""
    archive = _archive(graph, seed)
    archive.prepare(None, progress)
    return archive.as_plan(min(archive.found, key=lambda row: (row.peak, row.seconds)))


def curve(
    graph: Graph, budgets: Sequence[int], *, seed: int = 0, progress: Progress | None = None
) -> list[SchedulePlan]:
    """One plan per budget, in the order given; seconds never rise with the budget.

    Raises:
        BudgetError: the smallest of the budgets cannot be kept.
    """
    archive = _archive(graph, seed)
    for step, budget in enumerate(sorted(budgets)):
        archive.plan(budget, None, None)
        if progress is not None:
            progress("search", (step + 1) / len(budgets))
    return [archive.best(budget) for budget in budgets]


@dataclass(frozen=True)
class _Found:
    sequence: np.ndarray[Any, np.dtype[np.int32]]
    peak: int
    seconds: float
    strategy: str


@dataclass
class _Archive:
    """Every plan found for one Graph and seed; grows, never forgets a plan that is best at some budget."""

    graph: Graph
    seed: int
    found: list[_Found] = field(default_factory=list)
    searched: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        arrays = arrays_of(self.graph)
        self.search = _core.Search(
            *arrays.liveness_arguments(), arrays.repeatable, arrays.edge_before, arrays.edge_after, arrays.chain,
            arrays.base,
        )  # fmt: skip
        self.program = np.arange(len(self.graph.ops), dtype=np.int32)
        self.baseline = self._add(self.search.figures(self.program), "program order")
        self.bound: PeakBound = peak_lower_bound(self.graph)
        self.seconds_bound = seconds_lower_bound(self.graph)
        self.ready = False

    def _add(self, plan: tuple[Any, int, float], strategy: str) -> _Found:
        row = _Found(plan[0], plan[1], plan[2], strategy)
        if len(row.sequence) and not any(
            other.peak <= row.peak and other.seconds <= row.seconds * (1 + 1e-12) for other in self.found
        ):
            self.found = [o for o in self.found if not (row.peak <= o.peak and row.seconds <= o.seconds)] + [row]
        return row

    def prepare(self, deadline: float | None, progress: Progress | None) -> None:
        """Orders and ladders: a plan for every reachable budget."""
        if self.ready:
            return
        self.ready = True
        size = max(1, len(self.graph.ops))
        base = self.graph.base_bytes
        starts = [(self.baseline, "program order")]
        early = optimizer_early(self.graph)
        if early != tuple(range(size)):
            figures = self.search.figures(np.array(early, dtype=np.int32))
            starts.append((self._add(figures, "optimizer early"), "optimizer early"))
        for start, name in list(starts):
            target = base + int(0.5 * (start.peak - base))
            moved = self.search.reorder(start.sequence, target, self.seed, min(400 * size, 4_000_000))
            self._add(moved, f"{name}, reordered")
            starts.append((_Found(moved[0], moved[1], moved[2], name), f"{name}, reordered"))
        if size <= _SMALL:
            for start, name in starts:
                room = start.peak - self.bound.nbytes
                rungs = sorted({self.bound.nbytes + int(room * _STEP**rung) for rung in range(_RUNGS)}, reverse=True)
                for plan in self.search.ladder(
                    start.sequence, np.array(rungs, dtype=np.int64), self.seed, 1000 * size + 200_000
                ):
                    self._add(plan, f"covering from {name}")
        self._descend(deadline, progress)

    def _anneal(self, budget: int, effort: int, heat: float, *, below: bool, turn: int = 0) -> _Found | None:
        """Anneal at ``budget`` from the cheapest plan that keeps it (``below``) or from the nearest one above it."""
        rows = [row for row in self.found if (row.peak <= budget) == below]
        if not rows:
            return None
        start = min(rows, key=lambda row: (row.seconds, row.peak) if below else (row.peak, row.seconds))
        plan = self.search.anneal(start.sequence, budget, self.seed + 1 + turn, effort, heat)
        return self._add(plan, "annealing") if len(plan[0]) else None

    def _descend(self, deadline: float | None, progress: Progress | None) -> None:
        """Anneal at falling budgets, then below the smallest peak until that fails three times."""
        size = len(self.graph.ops)
        effort = 300_000 + 600 * size + size * size // 11  # edits cost more in longer sequences
        effort *= 2 if size <= _SMALL else 1
        effort = max(effort, 1_000_000) if size <= _TINY else effort
        room = self.baseline.peak - self.bound.nbytes
        for rung in range(1, _RUNGS):
            if deadline is not None and time.monotonic() > deadline:
                return
            budget = self.bound.nbytes + int(room * _STEP**rung)
            above = self._anneal(budget, effort, _WARM, below=False)
            below = self._anneal(budget, effort // 2, _COOL, below=True)
            if progress is not None:
                progress("curve", rung / _RUNGS)
            if above is None and below is None:
                break
        self._shrink(effort, deadline)

    def _shrink(self, effort: int, deadline: float | None) -> None:
        """Go below the smallest peak, by larger steps where that succeeds and smaller ones where it fails.

        Annealing first; on small graphs then covering, which reaches deeper at a higher price in seconds.
        """
        most = 4 * effort if len(self.graph.ops) <= _SMALL else 2 * effort
        for covering in (False, True) if len(self.graph.ops) <= _SMALL else (False,):
            step = 0.1
            for turn in range(_SHRINKS if len(self.graph.ops) <= _SMALL else _SHRINKS // 2):
                if deadline is not None and time.monotonic() > deadline:
                    return
                smallest = min(self.found, key=lambda row: (row.peak, row.seconds))
                budget = smallest.peak - max(1, int(step * (smallest.peak - self.bound.nbytes)))
                if budget < self.bound.nbytes:
                    return
                if covering:
                    plan = self.search.fit(smallest.sequence, budget, self.seed, 0.0)
                    found = self._add(plan, "covering") if len(plan[0]) else None
                else:
                    found = self._anneal(budget, effort, (_WARM, _HOT)[turn % 2], below=False, turn=turn)
                step = step / 3 if found is None else min(0.3, step * 1.5)
                effort = min(2 * effort, most) if found is None else effort

    def plan(self, budget: int, seconds_limit: float | None, progress: Progress | None) -> SchedulePlan:
        """See ``rematerialize``."""
        deadline = None if seconds_limit is None else time.monotonic() + seconds_limit
        if self.baseline.peak <= budget:
            return self.as_plan(self.baseline)
        self.prepare(deadline, progress)
        if budget not in self.searched:
            self.searched.add(budget)
            self._search(budget, deadline, progress)
        return self.best(budget)

    def _search(self, budget: int, deadline: float | None, progress: Progress | None) -> None:
        size = len(self.graph.ops)
        effort = min(1_000_000 + 100_000 * size, 15_000_000 + 4_000 * size) // 3
        if size <= _TINY:
            for turn in range(24):
                heat = _RESTARTS[turn % len(_RESTARTS)]
                plan = self.search.anneal(self.program, budget, self.seed + turn, 400_000, heat)
                self._add(plan, "annealing from program order")
        turns = [(_WARM, False), (_WARM, True), (_COOL, True)]
        if size <= _TINY:
            turns += [(_HOT, True), (_HOT, False), (_HOT, True), (_WARM, False), (_HOT, True)]
        for turn, (heat, below) in enumerate(turns):
            if deadline is not None and time.monotonic() > deadline:
                return
            self._anneal(budget, effort, heat, below=below, turn=turn)
            if progress is not None:
                progress("search", (turn + 1) / (len(turns) + 1))
        rows = [row for row in self.found if row.peak <= budget]
        if rows and size <= _SMALL:
            start = min(rows, key=lambda row: (row.seconds, row.peak))
            self._add(self.search.improve(start.sequence, budget, self.seed, effort), "neighbourhood search")

    def best(self, budget: int) -> SchedulePlan:
        """The cheapest plan found that keeps the budget."""
        rows = [row for row in self.found if row.peak <= budget]
        if not rows:
            raise self.refusal(budget)
        return self.as_plan(min(rows, key=lambda row: (row.seconds, row.peak)))

    def as_plan(self, row: _Found) -> SchedulePlan:
        """The public form, checked against the rules once more."""
        schedule = tuple(int(index) for index in row.sequence)
        reason = why_invalid(self.graph, schedule)
        if reason:  # a defect of the search, never of the caller's budget
            raise AssertionError(f"planner made an invalid schedule: {reason}")
        return SchedulePlan(
            schedule, row.peak, row.seconds, self.baseline.peak, self.baseline.seconds, self.bound.nbytes,
            self.seconds_bound, min(other.peak for other in self.found), row.strategy,
        )  # fmt: skip

    def refusal(self, budget: int) -> BudgetError:
        """The error that names what stands in the way."""
        smallest = min(self.found, key=lambda row: (row.peak, row.seconds))
        return BudgetError(smallest.peak, budget, where=self._where(smallest))

    def _where(self, row: _Found) -> str:
        graph = self.graph
        position = simulate(graph, row.sequence.tolist()).peak_position
        index = int(row.sequence[position])
        op = graph.ops[index]
        alive = _alive_at(graph, row.sequence, position)
        largest = sorted(alive, key=lambda s: (-graph.storages[s].nbytes, s))[:4]
        parts = [
            f"{graph.storages[s].label or f'storage {s}'} {format_bytes(graph.storages[s].nbytes)}" for s in largest
        ]
        if op.workspace:
            parts.append(f"its workspace {format_bytes(op.workspace)}")
        if graph.base_bytes:
            parts.append(f"parameters, inputs and state {format_bytes(graph.base_bytes)}")
        return f"op {index} ({op.label or op.name}, {op.phase}) with " + ", ".join(parts)


def _alive_at(graph: Graph, sequence: np.ndarray[Any, Any], position: int) -> set[int]:
    """Storages, constants left out, alive while the run at ``position`` runs."""
    before: set[int] = set()
    for index in sequence[: position + 1]:
        before.update(graph.ops[int(index)].writes)
    op = graph.ops[int(sequence[position])]
    alive = (set(op.reads) | set(op.writes)) & before
    undecided = before - alive
    for index in sequence[position + 1 :]:
        later = graph.ops[int(index)]
        alive.update(undecided.intersection(later.reads))
        undecided -= set(later.reads) | set(later.writes)
    return alive | {s for s in undecided if graph.storages[s].output}


_ARCHIVES: dict[tuple[int, int], tuple[weakref.ref[Graph], _Archive]] = {}


def _archive(graph: Graph, seed: int) -> _Archive:
    key = (id(graph), seed)
    known = _ARCHIVES.get(key)
    if known is not None and known[0]() is graph:
        return known[1]
    archive = _Archive(replace(graph), seed)
    _ARCHIVES[key] = (weakref.ref(graph, lambda _, key=key: _ARCHIVES.pop(key, None)), archive)  # type: ignore[misc]
    return archive

"""Which ops to run again so that the step's peak keeps a byte budget at the least extra seconds.

A portfolio (``portfolio``), every member judged by the native liveness simulation, best one wins, so that the plan is
never worse than any member:

1. *orders*: the program's own, optimizer updates as early as possible, and both with single ops moved (``reorder``);
2. *known methods*: segment checkpointing and a knapsack of saved storages (``checkpointing``);
3. *annealing* (native ``anneal``) down a ladder of budgets, each from the one above, and at the asked budget from both
   of its neighbours; annealing of the peak itself (native ``lower``) for the smallest one, longer before a refusal;
4. on small graphs, greedy *covering* of the bytes over a falling budget (native ``ladder``) and large-neighbourhood
   search (native ``improve``); on tiny ones a *beam* over live storages (native ``beam``) that is often complete.

The plans of one Graph object are remembered, and a plan found for a smaller budget is a candidate for every larger one:
seconds never rise with the budget in ``curve``, nor over calls that go from small budgets to large ones. What is
searched does not depend on what was asked before, but a call for a smaller budget after a larger one may find a cheaper
plan than the larger one got, which asking again then returns too.

The same seed gives the same plan: effort is counted in simulated runs, not in time, unless ``seconds_limit`` cuts it
short. Not optimal in general; ``benchmarks/planner.py`` measures the distance to the exact optimum on small graphs.
Cost: O(effort), about 50 million simulated runs per second of one core.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memfit.analyses.liveness import simulate
from memfit.errors import BudgetError
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.portfolio import Found, Portfolio, Progress
from memfit.units import format_bytes


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
    archive = _archive(graph, seed)
    archive.portfolio.at(budget, seconds_limit, progress)
    return archive.best(budget)


def smallest_peak(graph: Graph, *, seed: int = 0, progress: Progress | None = None) -> SchedulePlan:
    """The schedule with the smallest peak that was found, whatever its seconds: what a refusal would name.

    Cost: seconds where the bound is not reached (at most 60, 600 million simulated runs).
    """
    archive = _archive(graph, seed)
    return archive.as_plan(archive.portfolio.smallest(progress))


def curve(
    graph: Graph, budgets: Sequence[int], *, seed: int = 0, progress: Progress | None = None
) -> list[SchedulePlan]:
    """One plan per budget, in the order given; seconds never rise with the budget.

    Raises:
        BudgetError: the smallest of the budgets cannot be kept.
    """
    archive = _archive(graph, seed)
    for step, budget in enumerate(sorted(budgets)):
        archive.portfolio.at(budget, None, None)
        if progress is not None:
            progress("search", (step + 1) / len(budgets))
    return [archive.best(budget) for budget in budgets]


@dataclass
class _Archive:
    """The public forms of what a portfolio found."""

    portfolio: Portfolio

    def best(self, budget: int) -> SchedulePlan:
        """The cheapest plan found so far that keeps the budget."""
        row = self.portfolio.found.cheapest(budget)
        if row is None:
            smallest = self.portfolio.reachable()
            raise BudgetError(smallest.peak, budget, where=self._where(smallest))
        return self.as_plan(row)

    def as_plan(self, row: Found) -> SchedulePlan:
        """The public form, checked against the rules once more."""
        schedule = tuple(int(index) for index in row.sequence)
        found = self.portfolio
        reason = why_invalid(found.graph, schedule)
        if reason:  # a defect of the search, never of the caller's budget
            raise AssertionError(f"planner made an invalid schedule: {reason}")
        return SchedulePlan(
            schedule, row.peak, row.seconds, found.baseline.peak, found.baseline.seconds, found.bound.nbytes,
            found.seconds_bound, min(row.peak, found.found.smallest().peak), row.strategy,
        )  # fmt: skip

    def _where(self, row: Found) -> str:
        graph = self.portfolio.graph
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
    archive = _Archive(Portfolio(replace(graph), seed))
    _ARCHIVES[key] = (weakref.ref(graph, lambda _, key=key: _ARCHIVES.pop(key, None)), archive)  # type: ignore[misc]
    return archive

"""The order of a Graph's ops, each run once, with the least peak of live bytes; where bytes lie comes after it.

    order      conv_a  conv_b  join      a state: which ops ran        while an op runs: its inputs, outputs, workspace,
    states   {}     {a}     {a,b}   ...  its level: live bytes         and all that is made and still to be read

Only independent ops change places, so results are the same bits; the answer is never above the program's own order.
Strategy, each step given what the ones before it found (native/core/order_*):

1. bound: the most bytes that some op needs whatever the order, by minimum cuts over states (``order_cut.h``);
2. cheap orders: the program's, early optimizer updates, narrow beams from the front and the back, each rearranged
   through the least states of its worst ops; stop where one meets the bound;
3. modules: parts whose best order does not depend on the rest become chains (``order_modules``): a series-parallel
   graph is then done;
4. exact: between states that every order passes, a search over states under a rising peak with three exact reductions
   (``order_state.h``, ``order_exact.h``); every rise is a proved bound, so an answer that meets it is optimal;
5. what is left: wider beams, windows around the worst step searched exactly, until time is over.

Sources: dynamic programming over states, Ahn et al. 2020 (SERENITY); that a valley may be taken for good, Liu 1987 for
trees and Kayaaslan et al. 2018 for series-parallel graphs: here it follows from the level being submodular over states,
for any graph, and from both ends. Optimal with proof: series-parallel graphs of any size, graphs of some forty ops of any
shape, and others wherever the answer meets the bound. Not optimal: a wide hill whose parts share results across it.
Cost: milliseconds for hundreds of ops, seconds for ten thousand; the exact part is exponential in the width of a hill and
capped. Figures: benchmarks/results/order.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from memfit.analyses.liveness import simulate
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.order_modules import chained, problem_of
from memfit.passes.reorder import optimizer_early, requirements

Progress = Callable[[str, float], None]
_WIDTHS = (1, 8, 64, 512)  # of beams
_STATES = (10_000, 200_000, 5_000_000)  # of exact searches between forced states, per attempt
_WINDOW, _WINDOW_STATES = 96, 20_000  # ops and states of windows


@dataclass(frozen=True)
class Ordered:
    """An order and its proof. Bytes are totals with the graph's constants.

    ``bound``: no order is below it; ``optimal``: ``peak`` meets it. ``given_peak``: of the program's own order.
    """

    schedule: tuple[int, ...]
    peak: int
    bound: int
    optimal: bool
    given_peak: int
    seconds: float
    strategy: str = "program order"


def order_for_peak(graph: Graph, *, time_limit: float = 30.0, progress: Progress | None = None) -> Ordered:
    """The order of ``graph``'s ops with the least peak found, never above the program's own.

    Args:
        graph: each op runs once; order edges, the chain of random ops, reuse, workspace and outputs are respected.
        time_limit: seconds; the bound and the best order so far come back when they are over.
        progress: called with a phase and a share of the time.
    """
    began = time.monotonic()
    given = tuple(range(len(graph.ops)))
    if not given or _made_twice(graph):
        peak = simulate(graph, given).peak if given else graph.base_bytes
        bound = peak if not given else graph.base_bytes
        return Ordered(given, peak, bound, peak == bound, peak, time.monotonic() - began)
    start = np.array(given, dtype=np.int32)
    search = _Search(graph, native_problem(graph), start, began + time_limit, progress)
    search.run()
    schedule = tuple(int(op) for op in search.best)
    given_peak, peak = simulate(graph, given).peak, simulate(graph, schedule).peak
    if peak >= given_peak or why_invalid(graph, schedule):
        schedule, peak, search.strategy = given, given_peak, "program order"
    bound = min(peak, graph.base_bytes + search.bound)
    return Ordered(schedule, peak, bound, peak == bound, given_peak, time.monotonic() - began, search.strategy)


def native_problem(graph: Graph) -> Any:
    """The native form of ``graph`` under its own rules alone. Cost: O(reads + order edges)."""
    return problem_of(graph, needs_of(graph))


def needs_of(graph: Graph) -> list[set[int]]:
    """For each op, the ops that run before it in every order. Cost: O(reads + order edges)."""
    return [before - {index} for index, before in enumerate(requirements(graph))]


def _made_twice(graph: Graph) -> bool:
    """Whether a storage has several producers: then a state is more than the set of ops that ran."""
    made = [s for op in graph.ops for s in op.writes]
    return len(made) != len(set(made)) or any(graph.storages[s].constant for s in made)


class _Search:
    """The best order so far, the bound so far, and the steps that bring them together. Bytes without constants.

    ``ceiling``: a peak known from elsewhere; exact searches prove that there is nothing below it, or find it.
    """

    def __init__(self, graph: Graph, problem: Any, start: Any, deadline: float, progress: Progress | None) -> None:
        self.graph, self.problem, self.deadline, self.progress = graph, problem, deadline, progress
        self.began = time.monotonic()
        self.best: Any = start
        self.peak = int(problem.during(start).max())
        self.ceiling = self.peak
        self.strategy = "program order"
        self.bound = 0

    def run(self) -> None:
        """Cheap orders, then the same graph with its modules as chains, searched in depth."""
        self.bound = max(0, int(self.problem.bound(self.best, self._left(0.2))[0]))
        orders = [("program order", self.best)]
        early = optimizer_early(self.graph)
        if early != tuple(range(len(early))):
            orders.append(("optimizer early", np.array(early, dtype=np.int32)))
        for name, order in orders:
            self._offer(order, name)
            self._offer(self.problem.uncross(order, self.bound, self._left(0.2)), f"{name}, least states")
        self._beams(_WIDTHS[0])
        if self._done():
            return
        self._say("modules")
        needs = chained(self.graph, needs_of(self.graph), self._left(0.2))
        start = _in_order(needs, self.best.tolist())
        deep = _Search(self.graph, problem_of(self.graph, needs), start, self.deadline, self.progress)
        deep.bound, deep.ceiling = self.bound, self.peak
        deep.in_depth()
        self.bound = min(deep.bound, deep.peak, self.peak)
        self._offer(deep.best, deep.strategy)
        if not self._done():
            self._windows(_STATES[-1])

    def in_depth(self) -> None:
        """Exact searches and beams in turn, each round with more effort."""
        for width, states in zip(_WIDTHS[1:], _STATES, strict=True):
            self._exact(states)
            self._beams(width)
            if self._done():
                return
            self._windows(states)
        self._exact(_STATES[-1])

    def _done(self) -> bool:
        return min(self.peak, self.ceiling) <= self.bound or time.monotonic() >= self.deadline

    def _left(self, share: float = 1.0) -> float:
        return max(0.0, (self.deadline - time.monotonic()) * share)

    def _say(self, phase: str) -> None:
        if self.progress is not None:
            whole = max(1e-9, self.deadline - self.began)
            self.progress(phase, min(1.0, (time.monotonic() - self.began) / whole))

    def _offer(self, order: Any, strategy: str) -> None:
        if len(order) != len(self.best):
            return
        peak = int(self.problem.during(order).max())
        if peak < self.peak:
            self.best, self.peak, self.strategy = order, peak, strategy

    def _beams(self, width: int) -> None:
        for forward in (True, False):
            if self._done():
                return
            self._say("beam")
            high = min(self.peak, self.ceiling)
            order = self.problem.beam(self.best, forward, width, self.bound, high, self._left(0.25))
            name = f"beam of {width} from the {'front' if forward else 'back'}"
            self._offer(order, name)
            if len(order) and self.peak > self.bound:
                self._offer(self.problem.uncross(order, self.bound, self._left(0.25)), f"{name}, least states")

    def _exact(self, states: int) -> None:
        """Each range between forced states on its own; the bound of one is a bound of the whole."""
        ends = self.problem.forced(self.best).tolist()
        during = self.problem.during(self.best)
        worst = [int(during[a:b].max()) for a, b in pairwise(ends)]
        for index in sorted(range(len(worst)), key=lambda i: -worst[i]):
            if worst[index] <= self.bound or self._done():
                break
            self._say("exact")
            first, last = ends[index], ends[index + 1]
            order, bound, _ = self.problem.exact(
                self.best[:first], self.best[first:last], self.bound, worst[index], states, self._left(0.5)
            )
            self.bound = max(self.bound, int(bound))
            if len(order):
                self.best = np.concatenate([self.best[:first], order, self.best[last:]])
                peak = int(self.problem.during(self.best).max())
                self.strategy = "exact" if peak < self.peak else self.strategy
                self.peak = peak

    def _windows(self, states: int) -> None:
        if not self._done():
            self._say("windows")
            limit = min(states, _WINDOW_STATES)
            self._offer(self.problem.windows(self.best, self.bound, _WINDOW, limit, self._left(0.5)), "windows")


def _in_order(needs: Sequence[set[int]], order: Sequence[int]) -> Any:
    """An order that keeps ``needs``, as near to ``order`` as depth-first allows."""
    out: list[int] = []
    done = [False] * len(needs)
    place = {index: rank for rank, index in enumerate(order)}
    for index in order:
        stack = [index]
        while stack:
            top = stack[-1]
            missing = sorted((p for p in needs[top] if not done[p]), key=place.__getitem__, reverse=True)
            if missing:
                stack += missing
                continue
            stack.pop()
            if not done[top]:
                done[top] = True
                out.append(top)
    return np.array(out, dtype=np.int32)

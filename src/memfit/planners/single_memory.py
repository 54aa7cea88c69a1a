"""One Problem in one memory: every planner, the best Placement, and what is proved about it.

    lower bound --> sets of in-place pairs --> greedy orders --> local and exact search --> validate

Each step starts from the best so far, and stops where the peak is the proved bound, or below the capacity where one is
given. Every Placement that leaves has passed ``validate``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from memfit.errors import ProblemError
from memfit.planners import bounds, greedy, reduce
from memfit.planners.components import Clock, Components, Progress
from memfit.planners.in_place import choices
from memfit.planners.problem import Instance, Ints, Placement, Problem
from memfit.planners.validate import why_invalid

STRATEGIES = (*greedy.STRATEGIES, "search", "exact")
_QUICK = ("size/best", "conflicts/best", "lifetime/best", "size/first", "breadth/best", "area/best")
_GREEDY_SHARE = 0.25  # of the time limit, after which no further greedy order is begun unless it was asked for
_VARIANTS = 4  # sets of in-place pairs that are planned to the end, the most promising by a quick look


@dataclass(frozen=True)
class PlanResult:
    """The ``best`` Placement, ``all`` that were made (one a strategy, best first), and the proved ``bound``.

    ``bound``: bytes that no Placement stays below; ``bound_reason`` says why. ``fits``: whether the capacity is kept;
    None where none was given, or where the time ran out before a placement or a proof was found. ``infeasible``: ids
    of buffers that cannot fit the capacity together (proved), where ``fits`` is False; taking any one away makes them
    fit, or no proof of that was found in time.
    """

    best: Placement
    all: tuple[Placement, ...]
    bound: int
    bound_reason: str
    infeasible: tuple[str, ...] = ()
    fits: bool | None = None


@dataclass
class _Variant:
    """One set of in-place pairs: its groups and Instance, the placements found (a row a group), the proved bound."""

    groups: reduce.Groups
    whole: Instance
    starts: list[Ints] = field(default_factory=list)
    bound: int = 0
    infeasible: tuple[int, ...] = ()


class SingleMemory:
    """The planning of a Problem in one memory."""

    def __init__(self, problem: Problem, clock: Clock, strategies: Sequence[str] | None, threads: int = 1,
                 progress: Progress | None = None) -> None:  # fmt: skip
        self.problem, self.clock, self.strategies = problem, clock, strategies
        self.threads, self.progress = threads, progress
        self.limit = problem.capacity
        self.load = bounds.load(problem)
        self.bound = self.load.nbytes
        self.high = reduce.highest(problem)
        self.found: dict[str, tuple[Ints, int, float]] = {}
        self.complete = True

    @property
    def peak(self) -> int:
        """The smallest peak so far."""
        return min((peak for _, peak, _ in self.found.values()), default=2**62)

    @property
    def goal(self) -> int:
        """The peak at which nothing further is tried."""
        return self.bound if self.limit is None else max(self.bound, self.limit)

    def run(self) -> PlanResult:
        """Plans; see the module text."""
        if not len(self.problem):
            self._offer(next(iter(self.strategies or _QUICK)), np.zeros(0, dtype=np.int64), 0.0)
            return self._result([])
        variants = self._variants()
        if self.limit is None or self.bound <= self.limit:
            self._greedy(variants)
            self._search(variants)
        else:
            self._greedy(variants[:1])
        return self._result(variants)

    def _variants(self) -> list[_Variant]:
        """The sets of in-place pairs that are worth planning, the most promising first."""
        chosen = choices(self.problem)
        out = []
        for pairs in chosen.sets:
            groups = reduce.groups_of(self.problem, pairs)
            whole = reduce.whole_instance(self.problem, groups)
            out.append(_Variant(groups, whole, bound=bounds.load_of(whole)))
        if len(out) > 1:
            peaks = {}
            for variant in out:
                variant.starts.append(greedy.place(variant.whole, _QUICK[0]))
                peaks[id(variant)] = reduce.peak_of(variant.whole, variant.starts[0])
            none = out[0]
            out.sort(key=lambda v: (v.bound, peaks[id(v)]))
            self.complete = chosen.complete
            self.left_out = [v.bound for v in out[_VARIANTS:] if v is not none]
            out = [v for i, v in enumerate(out) if i < _VARIANTS or v is none]
        else:
            self.left_out = []
        return out

    def _greedy(self, variants: list[_Variant]) -> None:
        """The greedy orders; each keeps the best over the variants."""
        names = [n for n in self.strategies if n in greedy.STRATEGIES] if self.strategies else list(_QUICK)
        if self.strategies is None and self.limit is None:
            names += [n for n in greedy.STRATEGIES if n not in _QUICK]
        for index, name in enumerate(names or _QUICK[:1]):
            if self.progress is not None:
                self.progress(f"greedy {name}", index / len(names or _QUICK))
            begin = time.process_time()
            best = None
            for variant in variants:
                offset = greedy.place(variant.whole, name)
                variant.starts.append(offset)
                peak = reduce.peak_of(variant.whole, offset)
                if best is None or peak < best[0]:
                    best = (peak, offset[variant.groups.group])
            assert best is not None
            if names:
                self._offer(name, best[1], time.process_time() - begin)
            late = self.clock.spent > _GREEDY_SHARE * self.clock.limit
            if self.strategies is None and (self.peak <= self.goal or late):
                return

    def _search(self, variants: list[_Variant]) -> None:
        """The local and the exact search, variant by variant."""
        names = [n for n in self.strategies or ("search", "exact") if n in ("search", "exact")]
        for index, variant in enumerate(variants):
            if not names or (self.peak <= self.goal and self.strategies is None) or self.clock.left <= 0:
                return
            if variant.bound >= self.peak and index:
                continue
            clock = Clock(self.clock.left / (1 if index == len(variants) - 1 else 1.5))
            parts = Components(variant.whole, variant.starts, clock, threads=self.threads, progress=self.progress)
            steps = parts.plan(names)
            for name in steps:
                if parts.infeasible or (parts.peak <= max(self.goal, parts.bound) and self.strategies is None):
                    break
                begin = time.process_time()
                parts.run(name, self.bound, self.limit, last=name == steps[-1])
                self._offer(name, parts.offset[variant.groups.group], time.process_time() - begin)
            variant.bound = max(variant.bound, parts.bound)
            variant.infeasible = parts.infeasible
            if self.complete:
                self.bound = max(self.bound, min([*self.left_out, *(v.bound for v in variants)]))

    def _offer(self, name: str, offset: Ints, seconds: float) -> None:
        """Remembers the best placement of a strategy."""
        peak = int((offset + self.high).max(initial=0))
        known = self.found.get(name)
        spent = seconds + (known[2] if known else 0.0)
        self.found[name] = (offset, peak, spent) if known is None or peak < known[1] else (known[0], known[1], spent)

    def _result(self, variants: list[_Variant]) -> PlanResult:
        """The placements, validated, with what is proved."""
        unlimited = replace(self.problem, memories=(replace(self.problem.memories[0], capacity=None),))
        home = np.zeros(len(self.problem), dtype=np.int64)
        made = []
        for name, (offset, peak, seconds) in self.found.items():
            placement = Placement(name, offset, home, peak, self.bound, seconds)
            refuse_invalid(unlimited, placement)
            made.append(placement)
        made.sort(key=lambda p: (p.peak, p.seconds))
        reason = self.load.reason if self.bound == self.load.nbytes else "the exact search, which left nothing out"
        fits: bool | None = None
        infeasible: tuple[str, ...] = ()
        if self.limit is not None:
            fits = True if made[0].peak <= self.limit else False if self.bound > self.limit else None
        if fits is False and self.limit is not None:
            infeasible = self._infeasible(variants)
        return PlanResult(made[0], tuple(made), self.bound, reason, infeasible, fits)

    def _infeasible(self, variants: list[_Variant]) -> tuple[str, ...]:
        """Ids of buffers that cannot fit together."""
        assert self.limit is not None
        if self.load.nbytes > self.limit:
            rows = bounds.irreducible(self.problem, self.load, self.limit)
        else:
            proved = [(v, v.infeasible or bounds.overfull_rows(v.whole, self.limit)) for v in variants]
            rows = tuple(sorted({m for v, found in proved for row in found for m in v.groups.members[row]}))
        return tuple(self.problem.ids[b] for b in rows)


def refuse_invalid(problem: Problem, placement: Placement) -> None:
    """Stops a Placement that the validator refuses: an error in a planner, never in the Problem."""
    why = why_invalid(problem, placement)
    if why:
        raise ProblemError(f"with {placement.strategy}", f"a planner made an invalid placement ({why})",
                           "report this with the problem; another strategy may do")  # fmt: skip

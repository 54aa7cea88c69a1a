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
_QUICK = ("size/best", "breadth/first", "size/first", "lifetime/best", "conflicts/best")
_GREEDY_SECONDS = 5e-5  # CPU seconds a buffer that a greedy order of a large Problem may take
_LARGE = 3_000  # rows above which the local search comes first, and the greedy orders get what time it leaves
_EXACT_SHARE = 0.8  # of the time for the searches, for the exact one where both can run
_LOCAL_SHARE = 0.85  # of the time for the local search of a large Problem
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
        self.left_out: list[int] = []

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
        names = list(self.strategies or STRATEGIES)
        orders = [n for n in names if n in greedy.STRATEGIES]
        searches = [n for n in names if n not in greedy.STRATEGIES]
        if self.limit is not None and self.bound > self.limit:
            self._greedy(variants[:1], _QUICK if self.strategies is None else orders or names[:1])
        elif self.strategies is None and self.large:
            self._search(variants, ["search"], _LOCAL_SHARE)
            self._greedy(variants[:1], [*_QUICK])
            self._search(variants, ["exact"], 1.0)
        else:
            rest = [n for n in orders if n not in _QUICK and self.strategies is None]
            self._greedy(variants, orders if self.strategies is not None else _QUICK)
            self._search(variants, sorted(searches), _EXACT_SHARE)
            if self.limit is None:  # what the searches did not settle: never worse than any greedy order
                self._greedy(variants, rest)
        return self._result(variants)

    @property
    def large(self) -> bool:
        """Whether the Problem is one for the local search first."""
        return len(self.problem) > _LARGE

    def _variants(self) -> list[_Variant]:
        """The sets of in-place pairs that are worth planning, the most promising first."""
        chosen = choices(self.problem)
        out = []
        for pairs in chosen.sets:
            groups = reduce.groups_of(self.problem, pairs)
            whole = reduce.whole_instance(self.problem, groups)
            out.append(_Variant(groups, whole, bound=bounds.load_of(whole)))
        if len(out) > 1:
            none, peaks = out[0], {id(v): 0 for v in out}
            for variant in out if not self.large else ():
                variant.starts.append(greedy.place(variant.whole, _QUICK[0]))
                peaks[id(variant)] = reduce.peak_of(variant.whole, variant.starts[0])
            out.sort(key=lambda v: (v.bound, peaks[id(v)]))
            self.complete = chosen.complete
            self.left_out = [v.bound for v in out[_VARIANTS:] if v is not none]
            out = [v for i, v in enumerate(out) if i < _VARIANTS or v is none]
        return out

    def _done(self) -> bool:
        """Whether nothing further need be tried."""
        return self.strategies is None and bool(self.found) and self.peak <= self.goal

    def _greedy(self, variants: list[_Variant], names: Sequence[str]) -> None:
        """The greedy orders; each keeps the best over the variants."""
        longest = len(self.problem) * _GREEDY_SECONDS
        for index, name in enumerate(names):
            late = self.large and self.clock.left <= longest
            if self.strategies is None and self.found and (late or self._done()):
                return
            if self.progress is not None:
                self.progress(f"greedy {name}", index / len(names))
            begin = time.process_time()
            best = None
            for variant in variants:
                offset = greedy.place(variant.whole, name if name in greedy.STRATEGIES else _QUICK[0])
                variant.starts.append(offset)
                peak = reduce.peak_of(variant.whole, offset)
                if best is None or peak < best[0]:
                    best = (peak, offset[variant.groups.group])
            if best is not None:
                self._offer(name, best[1], time.process_time() - begin)
            longest = max(longest, time.process_time() - begin)

    def _search(self, variants: list[_Variant], names: Sequence[str], share: float) -> None:
        """The searches, variant by variant; ``share`` of the time left for the first of ``names`` where there are two."""
        for index, variant in enumerate(variants):
            if not names or self._done() or (index and (self.clock.left <= 0 or variant.bound >= self.peak)):
                return
            clock = Clock(self.clock.left / (1 if index == len(variants) - 1 else 1.5))
            if self.strategies is not None and not variant.starts:
                variant.starts.append(greedy.place(variant.whole, _QUICK[0]))
            parts = Components(variant.whole, variant.starts, clock, threads=self.threads, progress=self.progress)
            for name in names:
                if self.strategies is None and (self._done() or (name == "exact" and not parts.exact_is_able())):
                    continue
                begin, last = time.process_time(), name == names[-1] and len(names) > 1
                parts.run(name, self.bound, self.limit, 1.0 if last else share)
                self._offer(name, parts.offset[variant.groups.group], time.process_time() - begin)
                variant.starts.append(parts.offset)
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

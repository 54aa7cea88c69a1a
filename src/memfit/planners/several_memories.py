"""One Problem over several memories: who lies where, then each memory planned by itself.

A choice of memories (:mod:`memfit.planners.assignment`) is only as good as the placements it leads to: where the planner of one
memory finds none within its capacity, a buffer is **spilled** to the next memory: of those that lie above the capacity
in the best placement found, the one with the fewest bytes x instants. Small Problems are decided exactly: choices are
tried from the best on, until one is placed; the ones before it were proved impossible, or ran out of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memfit.planners import bounds, reduce
from memfit.planners.assignment import Assignment
from memfit.planners.components import Clock, Progress
from memfit.planners.problem import Ints, Placement, Problem
from memfit.planners.single_memory import PlanResult, SingleMemory, refuse_invalid
from memfit.planners.validate import check_problem

_CHOICES = 1024  # ways to choose up to which all of them are tried in turn
_SPILL_SHARE = 0.25  # of the time that is left, for one try to place one memory


class SeveralMemories:
    """The planning of a Problem over its memories."""

    def __init__(self, problem: Problem, clock: Clock, strategies: Sequence[str] | None, threads: int = 1,
                 progress: Progress | None = None) -> None:  # fmt: skip
        self.problem, self.clock, self.strategies = problem, clock, strategies
        self.threads, self.progress = threads, progress
        self.assignment = Assignment(problem)
        self.high = reduce.highest(problem)
        self.impossible = True  # whether every choice tried was proved impossible, and all were tried

    def run(self) -> PlanResult:
        """Plans; see the module text."""
        load = bounds.load(self.problem)
        excess = self._proved_excess()
        if excess is not None:
            home = self.assignment.best()
            return self._result(home, self._place_all(home, limited=False), load, False, excess)
        home, results = self._exactly() if self.assignment.choices() <= _CHOICES else self._spilling()
        if results is not None:
            rooms = [m.capacity for m in self.problem.memories]
            return self._result(home, results, load, True if any(r is not None for r in rooms) else None, ())
        fits = False if self.impossible else None
        ids = self.problem.ids if self.impossible else ()
        return self._result(home, self._place_all(home, limited=False), load, fits, ids)

    def _proved_excess(self) -> tuple[str, ...] | None:
        """Ids of buffers whose load alone is above what the memories hold, where there are such."""
        rooms = [m.capacity for m in self.problem.memories]
        for memory, room in enumerate(rooms):
            found = bounds.load_in(self.problem, memory)
            if room is not None and found.nbytes > room:
                rows = bounds.irreducible(self._in(np.array(found.buffers), memory), _renumbered(found), room)
                return tuple(self.problem.ids[found.buffers[r]] for r in rows)
        everything = bounds.load_of_all(self.problem)
        known = [room for room in rooms if room is not None]
        if len(known) == len(rooms) and everything.nbytes > sum(known):
            rows = bounds.irreducible(self._in(np.array(everything.buffers), 0), _renumbered(everything), sum(known))
            return tuple(self.problem.ids[everything.buffers[r]] for r in rows)
        return None

    def _in(self, buffers: Ints, memory: int) -> Problem:
        return reduce.restrict(self.problem, np.sort(buffers).astype(np.int64), memory)

    def _exactly(self) -> tuple[Ints, list[PlanResult] | None]:
        """The best choice that can be placed, by trying all of them from the best on."""
        for home in self.assignment.ranked():
            if self.assignment.overfull(home) and not self.problem.in_place:
                continue
            results = self._place_all(home, limited=True)
            if all(r.fits is not False and self._kept(r, m) for m, r in enumerate(results)):
                return home, results
            if not any(r.fits is False for r in results):
                self.impossible = False
        return self.assignment.best(), None

    def _kept(self, result: PlanResult, memory: int) -> bool:
        room = self.problem.memories[memory].capacity
        return room is None or result.best.peak <= room

    def _spilling(self) -> tuple[Ints, list[PlanResult] | None]:
        """A choice that can be placed, by spilling from one that the loads allow."""
        self.impossible = False
        home = self.assignment.best()
        loads = self.assignment.loads(home)
        results: list[PlanResult] = []
        for memory in range(len(self.problem.memories)):
            result = self._place_one(home, memory, limited=True)
            while not self._kept(result, memory):
                row = self._victim(home, memory, result)
                target = self.assignment.next_memory(row, memory, loads) if row >= 0 else -1
                if target < 0:
                    return home, None
                self.assignment.move(row, home, target, loads)
                result = self._place_one(home, memory, limited=True)
            results.append(result)
        return home, results

    def _victim(self, home: Ints, memory: int, result: PlanResult) -> int:
        """The group to spill from a memory whose best placement is above its capacity; -1 if none can go."""
        room, members = self.problem.memories[memory].capacity or 0, self._members(home, memory)
        above = members[result.best.offset + self.high[members] > room]
        rows = set(self.assignment.groups.group[above].tolist())
        later = range(memory + 1, len(self.problem.memories))
        free = [r for r in rows if any(self.assignment.allows(r, m) for m in later)]
        if not free:
            rows = set(self.assignment.groups.group[members].tolist())
            free = [r for r in rows if any(self.assignment.allows(r, m) for m in later)]
        return min(free, key=lambda r: (self.assignment.area[r], r), default=-1)

    def _members(self, home: Ints, memory: int) -> Ints:
        """Buffers that lie in a memory."""
        return np.flatnonzero(home[self.assignment.groups.group] == memory).astype(np.int64)

    def _place_all(self, home: Ints, *, limited: bool) -> list[PlanResult]:
        """Each memory's plan; stops at the first that is proved impossible."""
        results = []
        for memory in range(len(self.problem.memories)):
            results.append(self._place_one(home, memory, limited=limited))
            if limited and results[-1].fits is False:
                break
        return results

    def _place_one(self, home: Ints, memory: int, *, limited: bool) -> PlanResult:
        """The plan of one memory, within its capacity if ``limited``."""
        part = self._in(self._members(home, memory), memory)
        if not limited:
            part = replace(part, memories=(replace(part.memories[0], capacity=None),))
        check_problem(part)
        clock = Clock(self.clock.left * _SPILL_SHARE)
        return SingleMemory(part, clock, self.strategies, self.threads, self.progress).run()

    def _result(
        self, home: Ints, results: list[PlanResult], load: bounds.Load, fits: bool | None, infeasible: tuple[str, ...]
    ) -> PlanResult:
        """The memories' placements put together: each strategy that fits everywhere, and the best of each memory."""
        memory = home[self.assignment.groups.group]
        free = tuple(replace(m, capacity=None) for m in self.problem.memories)
        judged = self.problem if fits else replace(self.problem, memories=free)
        names = [p.strategy for p in results[0].all if all(p.strategy in {q.strategy for q in r.all} for r in results)]
        made: list[Placement] = []
        for name in ["", *names]:
            chosen = [r.best if not name else next(p for p in r.all if p.strategy == name) for r in results]
            if fits and any(
                m.capacity is not None and p.peak > m.capacity
                for p, m in zip(chosen, self.problem.memories, strict=True)
            ):
                continue
            offset = np.zeros(len(self.problem), dtype=np.int64)
            for index, placement in enumerate(chosen):
                offset[memory == index] = placement.offset
            title = name or " + ".join(dict.fromkeys(p.strategy for p in chosen if len(p.offset)))
            peak, seconds = sum(p.peak for p in chosen), sum(p.seconds for p in chosen)
            if title in {p.strategy for p in made}:
                continue
            placement = Placement(title or "none", offset, memory, peak, load.nbytes, seconds)
            refuse_invalid(judged, placement)
            made.append(placement)
        best = made[0]
        made.sort(key=lambda p: (p.peak, p.seconds))
        return PlanResult(best, tuple(made), load.nbytes, load.reason, infeasible, fits)


def _renumbered(found: bounds.Load) -> bounds.Load:
    """The bound with its buffers numbered as in the Problem of them alone."""
    return replace(found, buffers=tuple(range(len(found.buffers))))

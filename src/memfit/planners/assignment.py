"""Which memory each buffer lies in: as many bytes x instants as go in the earlier ones, no memory above its capacity.

Judged by loads alone: a memory is full where the sum of what is alive in it reaches its capacity; whether a placement
exists is for the planners of one memory to say, and :mod:`memfit.planners.several_memories` asks them. Two ways, the
better of which is kept:

    evict    everything in the first memory that allows it; where a memory is overfull, the buffer goes on to the next
             that costs the fewest bytes x instants for the overload it takes away; at last whoever fits returns
    fill     largest bytes x instants first, each into the first memory that has room all its life

The choice is a knapsack over time (hard), so neither is optimal. ``ranked`` lists every choice of a small Problem, best
first. Cost: evictions x (groups + instants).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from memfit.planners import reduce
from memfit.planners.bounds import profile
from memfit.planners.problem import ANY_MEMORY, Ints, Problem

_UNBOUNDED = 2**62


class Assignment:
    """Groups (buffers that share an offset) of one Problem, and the choice of a memory for each."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.groups = reduce.groups_of(problem)
        self.whole = reduce.whole_instance(problem, self.groups)
        self.lower, self.upper, self.full = reduce.sections(self.whole.piece_lower, self.whole.piece_upper)
        self.height = self.whole.piece_high - self.whole.piece_low
        self.row = np.repeat(np.arange(len(self.whole)), np.diff(self.whole.start))
        length = self.whole.piece_upper - self.whole.piece_lower
        exact = [h * t for h, t in zip(self.height.tolist(), length.tolist(), strict=True)]
        self.area = [0] * len(self.whole)
        for row, value in zip(self.row.tolist(), exact, strict=True):
            self.area[row] += value
        self.room = [_UNBOUNDED if m.capacity is None else m.capacity for m in problem.memories]
        self.end = self.whole.size + np.maximum(self.whole.fixed, 0)

    def allows(self, row: int, memory: int) -> bool:
        """Whether a group may lie in a memory: told so or free, and small enough."""
        forced = int(self.groups.memory[row])
        return forced in (ANY_MEMORY, memory) and int(self.end[row]) <= self.room[memory]

    def score(self, home: Ints) -> tuple[int, ...]:
        """Bytes x instants in each memory; larger is better, the first memory counts most."""
        out = [0] * len(self.room)
        for row, memory in enumerate(home.tolist()):
            out[memory] += self.area[row]
        return tuple(out)

    def loads(self, home: Ints) -> Ints:
        """Bytes alive in each memory (rows) in each section (columns)."""
        change = np.zeros((len(self.room), len(self.full) + 1), dtype=np.int64)
        np.add.at(change, (home[self.row], self.lower), self.height)
        np.add.at(change, (home[self.row], self.upper), -self.height)
        loads: Ints = np.cumsum(change, axis=1)[:, :-1]
        return loads

    def overfull(self, home: Ints) -> bool:
        """Whether some memory's load is above its capacity."""
        return any(int(load.max(initial=0)) > room for load, room in zip(self.loads(home), self.room, strict=True))

    def clash(self, home: Ints) -> bool:
        """Whether pinned groups that need not share a memory overlap in one."""
        pinned = np.flatnonzero(self.whole.fixed >= 0).tolist()
        return any(home[a] == home[b] and self.pins_overlap(a, b) for i, a in enumerate(pinned) for b in pinned[:i])

    def pins_overlap(self, first: int, second: int) -> bool:
        """Whether two pinned groups use one byte at one instant (in-place pairs at one offset may)."""
        at, other = int(self.whole.fixed[first]), int(self.whole.fixed[second])
        pairs = {frozenset(pair) for pair in self.problem.in_place} if at == other else set()
        return any(
            p.lower < q.upper and q.lower < p.upper and at + p.low < other + q.high and other + q.low < at + p.high
            and frozenset((a, b)) not in pairs
            for a in self.groups.members[first] for b in self.groups.members[second]
            for p in self.problem.pieces_of(a) for q in self.problem.pieces_of(b)
        )  # fmt: skip

    def choices(self) -> int:
        """How many ways there are to choose, ignoring capacities."""
        return prod(sum(self.allows(r, m) for m in range(len(self.room))) for r in range(len(self.whole)))

    def ranked(self) -> Iterator[Ints]:
        """Every choice, best score first; overfull ones as well. Exponential."""
        allowed = [[m for m in range(len(self.room)) if self.allows(r, m)] for r in range(len(self.whole))]
        homes = [np.array(choice, dtype=np.int64).reshape(-1) for choice in product(*allowed)]
        homes.sort(key=lambda home: (tuple(-s for s in self.score(home)), home.tolist()))
        yield from (home for home in homes if not self.clash(home))

    def best(self) -> Ints:
        """The better of the two ways of the module text; may be overfull where both fail."""
        found = [self._evict(), self._fill()]
        return min(found, key=lambda home: (self.overfull(home), self.clash(home), [-s for s in self.score(home)]))

    def next_memory(self, row: int, memory: int, loads: Ints) -> int:
        """The first memory after ``memory`` with room for a group all its life, else the last it allows, else -1."""
        later = [m for m in range(memory + 1, len(self.room)) if self.allows(row, m)]
        with_room = [m for m in later if self._has_room(row, m, loads)]
        return with_room[0] if with_room else later[-1] if later else -1

    def _spans(self, row: int) -> Iterator[tuple[int, int, int]]:
        for piece in range(int(self.whole.start[row]), int(self.whole.start[row + 1])):
            yield int(self.lower[piece]), int(self.upper[piece]), int(self.height[piece])

    def _has_room(self, row: int, memory: int, loads: Ints) -> bool:
        return all(
            int(loads[memory, first:end].max()) + height <= self.room[memory] for first, end, height in self._spans(row)
        )

    def move(self, row: int, home: Ints, target: int, loads: Ints) -> None:
        """Moves a group, and its bytes in ``loads``."""
        for first, end, height in self._spans(row):
            loads[home[row], first:end] -= height
            loads[target, first:end] += height
        home[row] = target

    def _pinned_first(self) -> Ints:
        """The first memory that each group allows; pinned ones do not overlap where that can be helped."""
        memories = range(len(self.room))
        home = np.array(
            [next((m for m in memories if self.allows(r, m)), 0) for r in range(len(self.whole))], dtype=np.int64
        )
        pinned = np.flatnonzero(self.whole.fixed >= 0).tolist()
        for index, row in enumerate(pinned):
            for memory in memories:
                others = [r for r in pinned[:index] if home[r] == memory]
                if self.allows(row, memory) and not any(self.pins_overlap(row, other) for other in others):
                    home[row] = memory
                    break
        return home

    def _evict(self) -> Ints:
        home = self._pinned_first()
        loads = self.loads(home)
        for memory, room in enumerate(self.room):
            while len(self.full) and int(loads[memory].max()) > room:
                row = self._cheapest(home, memory, loads[memory] - room)
                target = self.next_memory(row, memory, loads) if row >= 0 else -1
                if target < 0:
                    break
                self.move(row, home, target, loads)
        self._return(home, loads)
        return home

    def _return(self, home: Ints, loads: Ints) -> None:
        """Moves groups back to earlier memories that have room for them, largest bytes x instants first, while any do."""
        free = np.flatnonzero((self.groups.memory == ANY_MEMORY) & (self.whole.fixed < 0) & (home > 0)).tolist()
        moved = True
        while moved:
            moved = False
            for row in sorted(free, key=lambda r: (-self.area[r], r)):
                for memory in range(int(home[row])):
                    if self.allows(row, memory) and self._has_room(row, memory, loads):
                        self.move(row, home, memory, loads)
                        moved = True
                        break

    def _cheapest(self, home: Ints, memory: int, overload: Ints) -> int:
        """The group whose eviction costs least for what it takes away from the largest overload; -1 if none can go."""
        at = int(np.argmax(overload))
        over = np.concatenate([[0], np.cumsum(overload > 0)])
        alive = np.flatnonzero((self.lower <= at) & (at < self.upper) & (home[self.row] == memory))
        best, chosen = 0.0, -1
        for piece in alive.tolist():
            row = int(self.row[piece])
            if self.whole.fixed[row] >= 0 or not any(self.allows(row, m) for m in range(memory + 1, len(self.room))):
                continue
            spans = over[self.upper[piece]] - over[self.lower[piece]]
            cost = self.area[row] / (min(int(self.height[piece]), int(overload[at])) * int(spans))
            if chosen < 0 or cost < best:
                best, chosen = cost, row
        return chosen

    def _fill(self) -> Ints:
        home = self._pinned_first()
        free = [r for r in range(len(self.whole)) if self.groups.memory[r] == ANY_MEMORY and self.whole.fixed[r] < 0]
        loads = self.loads(home)
        for row in free:
            for first, end, height in self._spans(row):
                loads[home[row], first:end] -= height
        for row in sorted(free, key=lambda r: (-self.area[r], r)):
            allowed = [m for m in range(len(self.room)) if self.allows(row, m)] or [int(home[row])]
            home[row] = next((m for m in allowed if self._has_room(row, m, loads)), allowed[-1])
            for first, end, height in self._spans(row):
                loads[home[row], first:end] += height
        return home

    def fullest(self) -> int:
        """Largest sum of bytes alive at one instant, over all memories."""
        return int(profile(self.whole)[0].max(initial=0))

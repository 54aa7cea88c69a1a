"""The smallest peak of a tiny Problem, by trying every offset of every buffer. The oracle of all planners.

Shares no code with them and knows no theory: a buffer at an offset is a set of (instant, byte) cells in one integer.
The peak is raised from the largest buffer on until a search over all offsets succeeds. Meant for up to seven buffers
of a few bytes and instants; exponential in the number of buffers.
"""

from __future__ import annotations

from itertools import product

from memfit.planners.problem import Problem


class ExactPlacement:
    """Every offset of every buffer of ``problem``, each buffer in ``memory[i]`` (default: the only memory)."""

    def __init__(self, problem: Problem, memory: tuple[int, ...] | None = None) -> None:
        self.problem = problem
        self.memory = memory if memory is not None else (0,) * len(problem)
        times = sorted({t for b in range(len(problem)) for p in problem.pieces_of(b) for t in (p.lower, p.upper)})
        self.instants = {t: i for i, t in enumerate(times)}
        self.high = [max(p.high for p in problem.pieces_of(b)) for b in range(len(problem))]
        self.width = sum(self.high) + sum(int(a) for a in problem.alignment) + int(problem.offset.max(initial=0)) + 1
        self.cells = [self._cells(b) for b in range(len(problem))]
        self.same = {frozenset(pair) for pair in problem.same}
        self.in_place = {frozenset(pair) for pair in problem.in_place}
        for _ in range(len(problem)):  # must-alias is transitive
            self.same |= {a ^ b for a in self.same for b in self.same if len(a ^ b) == 2}
        self.order = sorted(range(len(problem)), key=lambda b: (problem.offset[b] < 0, -self.high[b]))

    def _cells(self, buffer: int) -> int:
        """The cells of a buffer at offset 0."""
        mask = 0
        for piece in self.problem.pieces_of(buffer):
            row = ((1 << piece.high) - 1) ^ ((1 << piece.low) - 1)
            for instant in range(self.instants[piece.lower], self.instants[piece.upper]):
                mask |= row << instant * self.width
        return mask

    def smallest(self) -> tuple[int, tuple[int, ...]] | None:
        """The smallest sum of the memories' peaks and offsets that reach it; None where the capacities forbid any."""
        caps = [self.width if m.capacity is None else m.capacity for m in self.problem.memories]
        for peak in range(max(self.high, default=0), sum(min(c, self.width) for c in caps) + 1):
            found = self._search({}, [0] * len(caps), caps, peak)
            if found is not None:
                return peak, tuple(found[b] for b in range(len(self.problem)))
        return None

    def fits(self, peak: int) -> bool:
        """Whether any placement has a peak of at most ``peak`` bytes."""
        best = self.smallest()
        return best is not None and best[0] <= peak

    def _search(self, placed: dict[int, int], tops: list[int], caps: list[int], peak: int) -> dict[int, int] | None:
        """Offsets of all buffers that extend ``placed`` with the memories' peaks summing to at most ``peak``."""
        if len(placed) == len(self.problem):
            return placed
        buffer = self.order[len(placed)]
        home, pin, step = self.memory[buffer], int(self.problem.offset[buffer]), int(self.problem.alignment[buffer])
        room = min(caps[home], peak - sum(tops) + tops[home]) - self.high[buffer]
        for offset in [pin] if pin >= 0 else range(0, room + 1, step):
            if offset > room or not self._allowed(buffer, offset, placed):
                continue
            then = list(tops)
            then[home] = max(then[home], offset + self.high[buffer])
            found = self._search({**placed, buffer: offset}, then, caps, peak)
            if found is not None:
                return found
        return None

    def _allowed(self, buffer: int, offset: int, placed: dict[int, int]) -> bool:
        mine = self.cells[buffer] << offset
        for other, at in placed.items():
            pair = frozenset((buffer, other))
            if pair in self.same:
                if at != offset or self.memory[buffer] != self.memory[other]:
                    return False
            elif self.memory[buffer] == self.memory[other]:
                exempt = pair in self.in_place and at == offset
                if not exempt and mine & self.cells[other] << at:
                    return False
        return True


def smallest_peak(problem: Problem) -> int | None:
    """The smallest peak over all offsets, and over all memories that the buffers allow; None where nothing fits."""
    found = [best[0] for homes in assignments(problem) if (best := ExactPlacement(problem, homes).smallest())]
    return min(found, default=None)


def most_preferred(problem: Problem) -> tuple[int, ...] | None:
    """The largest bytes x instants that can lie in each memory, earlier memories first; None where nothing fits."""
    scores = sorted({(preferred(problem, homes), homes) for homes in assignments(problem)}, reverse=True)
    return next((score for score, homes in scores if ExactPlacement(problem, homes).smallest()), None)


def preferred(problem: Problem, memory: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes x instants in use in each memory."""
    used = [0] * len(problem.memories)
    for buffer, home in enumerate(memory):
        used[home] += sum((p.upper - p.lower) * (p.high - p.low) for p in problem.pieces_of(buffer))
    return tuple(used)


def assignments(problem: Problem) -> list[tuple[int, ...]]:
    """Every choice of a memory for every buffer that the buffers allow."""
    allowed = [range(len(problem.memories)) if m < 0 else [int(m)] for m in problem.memory]
    return list(product(*allowed))

"""The twin of the large-placement kernels: the same answers from plain loops over all buffers, for tests.

Everything is asked anew from the definition: which pieces overlap in time, which offsets they bar. Complexity: O(n) a
neighbour query, O(n^2) a filling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from memfit.planners.problem import FREE_OFFSET, Instance, Ints

NO_CEILING = (2**63 - 1) // 4
FIRST_FIT, BEST_FIT = 0, 1


def pieces_of(instance: Instance, buffer: int) -> list[tuple[int, int, int, int]]:
    """(lower, upper, low, high) of the pieces of a buffer that are not empty."""
    columns = (instance.piece_lower, instance.piece_upper, instance.piece_low, instance.piece_high)
    rows = range(int(instance.start[buffer]), int(instance.start[buffer + 1]))
    pieces = [tuple(int(column[row]) for column in columns) for row in rows]
    return [(lower, upper, low, high) for lower, upper, low, high in pieces if lower < upper]


def sections_of(instance: Instance) -> list[tuple[int, int]]:
    """The instants [from, to) of each section: a new one begins where an allocation follows a free."""
    events: list[tuple[int, int]] = []
    for buffer in range(len(instance)):
        for lower, upper, _, _ in pieces_of(instance, buffer):
            events += [(lower, 1), (upper, 0)]
    cuts: list[int] = []
    freed = True
    for instant, begins in sorted(events):
        if begins and freed:
            cuts.append(instant)
        freed = not begins
    ends = [*cuts[1:], max((instant for instant, _ in events), default=0) + 1]
    return list(zip(cuts, ends, strict=True))


def _alive(piece: tuple[int, int, int, int], section: tuple[int, int]) -> bool:
    return piece[0] < section[1] and section[0] < piece[1]


def loads_slowly(instance: Instance) -> list[int]:
    """The load of each section."""
    pieces = [piece for buffer in range(len(instance)) for piece in pieces_of(instance, buffer)]
    return [sum(p[3] - p[2] for p in pieces if _alive(p, section)) for section in sections_of(instance)]


def lifetimes_slowly(instance: Instance) -> list[int]:
    """Sections that the pieces of each buffer are alive in."""
    sections = sections_of(instance)
    return [sum(_alive(p, s) for p in pieces_of(instance, b) for s in sections) for b in range(len(instance))]


@dataclass
class BoardSlowly:
    """A partial placement: see ``native/core/large_placement_board.h``."""

    instance: Instance
    offset: list[int] = field(default_factory=list)
    work: int = 0

    def __post_init__(self) -> None:
        self.offset = [FREE_OFFSET] * len(self.instance)
        self.pieces = [pieces_of(self.instance, buffer) for buffer in range(len(self.instance))]

    def barred(self, buffer: int) -> list[tuple[int, int, int]]:
        """Open intervals of offsets that a placed buffer bars: (from, to, by)."""
        found = []
        for lower, upper, low, high in self.pieces[buffer]:
            for other, at in enumerate(self.offset):
                if at != FREE_OFFSET and other != buffer:
                    found += [(at + p[2] - high, at + p[3] - low, other)
                              for p in self.pieces[other] if p[0] < upper and lower < p[1]]  # fmt: skip
        self.work += 1 + len(found)
        return found

    def reach(self, buffer: int) -> int:
        """One past the highest byte that a piece of the buffer uses."""
        return max((high for _, _, _, high in self.pieces[buffer]), default=0)

    def candidates(self, buffer: int, ceiling: int) -> tuple[list[tuple[int, int, int]], list[int]]:
        """The barred intervals, and every offset at which something begins or ends to be in the way."""
        barred = self.barred(buffer)
        points = {0} | {to for _, to, _ in barred} | {begin + 1 for begin, _, _ in barred}
        highest = ceiling - self.reach(buffer)
        return barred, sorted(point for point in points if 0 <= point <= highest)

    def find(self, buffer: int, fit: int, ceiling: int) -> int:
        """First or best fit below a ceiling, or -1; a gap that reaches the ceiling is the widest."""
        step, highest = int(self.instance.alignment[buffer]), ceiling - self.reach(buffer)
        if highest < 0:
            return FREE_OFFSET
        barred, points = self.candidates(buffer, ceiling)
        fits = []
        for point in points:
            if any(begin < point < end for begin, end, _ in barred):
                continue
            if point and not any(end == point for _, end, _ in barred):
                continue
            until = min((begin for begin, _, _ in barred if begin >= point), default=2**62)
            offset = -(-point // step) * step
            if offset <= min(until, highest):
                room = NO_CEILING if until >= highest else until - point
                fits.append((0 if fit == FIRST_FIT else room, offset))
        return min(fits)[1] if fits else FREE_OFFSET

    def force(self, buffer: int, ceiling: int, cost: list[int]) -> tuple[int, list[int]]:
        """The cheapest offset below a ceiling, and the buffers in the way there."""
        step, highest = int(self.instance.alignment[buffer]), ceiling - self.reach(buffer)
        if highest < 0:
            return FREE_OFFSET, []
        barred, points = self.candidates(buffer, ceiling)
        choices = []
        for index, point in enumerate(points):
            # `points` are cut at the highest offset; what changes beyond it still ends the stretch.
            changes = [v for begin, end, _ in barred for v in (begin + 1, end) if v > point]
            stop = min(changes, default=2**63 - 1) - 1
            assert index + 1 == len(points) or points[index + 1] == stop + 1
            by = [other for begin, end, other in barred if begin < point < end]
            offset = -(-point // step) * step
            if offset <= min(stop, highest) and all(cost[other] >= 0 for other in by):
                choices.append((sum(cost[other] for other in by), stop - point, offset))
        if not choices:
            return FREE_OFFSET, []
        offset = min(choices)[2]
        return offset, sorted({other for begin, end, other in barred if begin < offset < end})


def fill_slowly(instance: Instance, order: list[int], fit: int, ceiling: int) -> tuple[Ints, Ints]:
    """Offsets in an order below a ceiling (-1: did not fit), and the same with those on top."""
    board = BoardSlowly(instance)
    for buffer in range(len(instance)):
        if instance.fixed[buffer] >= 0:
            board.offset[buffer] = int(instance.fixed[buffer])
    free = [buffer for buffer in order if instance.fixed[buffer] < 0]
    for buffer in free:
        board.offset[buffer] = board.find(buffer, fit, ceiling)
    partial = list(board.offset)
    for buffer in free:
        if board.offset[buffer] == FREE_OFFSET:
            board.offset[buffer] = board.find(buffer, FIRST_FIT, NO_CEILING)
    return np.array(partial, dtype=np.int64), np.array(board.offset, dtype=np.int64)


def splitmix(seed: int) -> Iterator[int]:
    """The numbers of ``native/core/random.h``."""
    mask = 2**64 - 1
    state = (seed * 0x9E3779B97F4A7C15 + 0x1234567) & mask
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def eject_slowly(
    instance: Instance, offset: Ints, ceiling: int, turn: int, seed: int, work: int
) -> tuple[Ints, bool]:  # fmt: skip
    """Search by ejection for so much work: offsets (-1: out), and whether every buffer lies below the ceiling."""
    board, lifetime = BoardSlowly(instance), lifetimes_slowly(instance)
    area = [float(size) * float(life) for size, life in zip(instance.size.tolist(), lifetime, strict=True)]
    largest = max([1.0, *area])
    weight = [1 + int(value / largest * 2**30) for value in area]
    if seed:
        weight = [one + one // 1024 * (draw % 512) for one, draw in zip(weight, splitmix(seed), strict=False)]
    cost = [-1 if pin >= 0 else one for pin, one in zip(instance.fixed.tolist(), weight, strict=True)]
    waiting: list[tuple[int, int]] = []

    def rank(turn: int, buffer: int, weight: list[int], ticket: int) -> int:
        return (weight[buffer], -ticket, int(instance.size[buffer]))[turn]

    hopeless = tickets = 0
    for buffer, (pin, at) in enumerate(zip(instance.fixed.tolist(), offset.tolist(), strict=True)):
        if pin >= 0 or (at != FREE_OFFSET and at + board.reach(buffer) <= ceiling):
            board.offset[buffer] = pin if pin >= 0 else at
        else:
            tickets += 1
            waiting.append((rank(turn, buffer, weight, tickets), buffer))
    while waiting and board.work < work:
        buffer = max(waiting)[1]
        waiting.remove(max(waiting))
        at, evicted = board.force(buffer, ceiling, cost)
        if at == FREE_OFFSET:
            hopeless += 1
            continue
        for other in evicted:
            board.offset[other] = FREE_OFFSET
            cost[other] += weight[other]
            tickets += 1
            waiting.append((rank(turn, other, weight, tickets), other))
        board.offset[buffer] = at
    return np.array(board.offset, dtype=np.int64), not waiting and not hopeless

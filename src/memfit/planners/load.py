"""The load: bytes that are alive at each instant, however they are placed; and what is alive at one of them.

The largest load is the lower bound that every placement of one memory is held against. Where buffers may lie over each
other they count once: of must-alias buffers alive together the largest, of an in-place pair the larger while both are
alive. Cost: O(n log n) for n pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from memfit.planners.problem import Ints, Problem


@dataclass(frozen=True)
class Load:
    """``nbytes[i]`` are alive in the instants [times[i], times[i + 1]); the last entry is the end, with 0 bytes."""

    times: Ints
    nbytes: Ints

    @property
    def peak(self) -> int:
        """The largest load, bytes."""
        return int(self.nbytes.max(initial=0))

    @property
    def peak_instant(self) -> int:
        """The first instant of the largest load; 0 where nothing ever lives."""
        return int(self.times[np.argmax(self.nbytes)]) if len(self.times) else 0


def load_of(problem: Problem, member: npt.NDArray[np.bool_] | None = None) -> Load:
    """The load of a Problem, or of the buffers in ``member`` alone (those of one memory)."""
    chosen = np.ones(len(problem), dtype=bool) if member is None else member.copy()
    classes = [group for group in _classes(problem.same) if chosen[group].all()]
    aliased = {buffer: number for number, group in enumerate(classes) for buffer in group}
    spans = [_class_spans(problem, group) for group in classes]
    spans += [
        [(p.lower, p.upper, p.high - p.low) for p in problem.pieces[b]]
        for b in problem.pieces
        if chosen[b] and b not in aliased
    ]
    spans += [_saved(problem, pair, chosen, aliased) for pair in problem.in_place]
    rows = np.array([row for part in spans for row in part], dtype=np.int64).reshape(-1, 3)
    chosen[list(aliased)] = False
    chosen[list(problem.pieces)] = False
    lower = np.concatenate([problem.lower[chosen], rows[:, 0]])
    upper = np.concatenate([problem.upper[chosen], rows[:, 1]])
    nbytes = np.concatenate([problem.size[chosen], rows[:, 2]])
    times, at = np.unique(np.concatenate([lower, upper]), return_inverse=True)
    change = np.zeros(len(times), dtype=np.int64)
    np.add.at(change, at.reshape(-1), np.concatenate([nbytes, -nbytes]))
    return Load(times, np.maximum(np.cumsum(change), 0))


def alive_at(problem: Problem, instant: int) -> Ints:
    """The buffers in use at an instant, largest first."""
    alive = (problem.lower <= instant) & (instant < problem.upper)
    for buffer, pieces in problem.pieces.items():
        alive[buffer] = any(piece.lower <= instant < piece.upper for piece in pieces)
    found = np.flatnonzero(alive)
    return found[np.argsort(-problem.size[found], kind="stable")]


def _classes(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Buffers connected by pairs."""
    group_of: dict[int, list[int]] = {}
    for a, b in pairs:
        first, second = group_of.setdefault(a, [a]), group_of.setdefault(b, [b])
        if first is not second:
            first += second
            group_of.update(dict.fromkeys(second, first))
    return list({id(group): group for group in group_of.values()}.values())


def _class_spans(problem: Problem, group: list[int]) -> list[tuple[int, int, int]]:
    """(lower, upper, bytes) of buffers at one offset: the bytes that they use together at each instant."""
    pieces = [piece for buffer in group for piece in problem.pieces_of(buffer)]
    times = sorted({time for piece in pieces for time in (piece.lower, piece.upper)})
    spans = []
    for lower, upper in pairwise(times):
        alive = [piece for piece in pieces if piece.lower <= lower and upper <= piece.upper]
        if alive:
            spans.append((lower, upper, _covered([(piece.low, piece.high) for piece in alive])))
    return spans


def _covered(windows: list[tuple[int, int]]) -> int:
    """Bytes that windows cover together."""
    total, reach = 0, 0
    for low, high in sorted(windows):
        total += max(0, high - max(low, reach))
        reach = max(reach, high)
    return total


def _saved(
    problem: Problem, pair: tuple[int, int], chosen: npt.NDArray[np.bool_], aliased: dict[int, int]
) -> list[tuple[int, int, int]]:
    """(lower, upper, -bytes) that an in-place pair saves at most where both are in use."""
    a, b = pair
    if not (chosen[a] and chosen[b]) or (a in aliased and aliased.get(b) == aliased[a]):
        return []
    spans = []
    for p in problem.pieces_of(a):
        for q in problem.pieces_of(b):
            lower, upper = max(p.lower, q.lower), min(p.upper, q.upper)
            if lower < upper:
                spans.append((lower, upper, -min(p.high - p.low, q.high - q.low)))
    return spans

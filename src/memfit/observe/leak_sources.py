"""What repeats in a program, the levels at its turns, and which of several that repeat is the step.

A declared step, else optimizer steps, else the outermost loop of the program that turned at least ``ENOUGH`` times, else
a data loader, else time. Among loops one that is short beside the others, or that ended before another began (it built
something), is not the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memfit.observe.leak_curve import Slope, slope_of

FLOOR = 512
"""Bytes a step below which growth is not worth a word."""
ENOUGH = 20
_MOST_SAMPLES = 1200
_STEADY = 8
_MOST, _SOME = 0.4, 0.2
"""Share of the time for which a loop counts; the smaller one where it still turns."""
_RANKS = {"declared": 0, "optimizer": 1, "loop": 2, "loader": 3, "time": 4}


@dataclass
class Samples:
    """Levels at the turns of one source, as columns."""

    step: list[int] = field(default_factory=list)
    when: list[float] = field(default_factory=list)
    heap: list[int] = field(default_factory=list)
    python: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def add(self, step: int, when: float, heap: int, python: int, resident: int) -> None:
        """One more; every second one is dropped where there are too many."""
        for column, value in zip(self.columns(), (step, when, heap, python, resident), strict=True):
            column.append(value)
        if len(self.step) > _MOST_SAMPLES:
            for column in self.columns():
                del column[1::2]

    def columns(self) -> tuple[list[Any], ...]:
        """All columns."""
        return self.step, self.when, self.heap, self.python, self.resident


@dataclass
class Source:
    """Something that repeats."""

    name: str
    kind: str
    depth: int = 0
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    next_count: int = 0
    ends: int = 0
    samples: Samples = field(default_factory=Samples)


def leader_of(given: Iterable[Source]) -> Source | None:
    """The source whose turns are the steps, as far as can be told; None where there is none."""
    every = list(given)
    sources = [source for source in every if source.count >= 2]
    if not sources:
        return next(iter(every), None)
    steady = [source for source in sources if source.count >= _STEADY] or sources
    best = min(_RANKS[source.kind] for source in steady)
    same = [source for source in sources if _RANKS[source.kind] == best]
    start, end = min(s.first for s in same), max(s.last for s in same)
    going = [s for s in same if s.last + 2 * (s.last - s.first) / (s.count - 1) >= end]
    going = [s for s in going if s.last - s.first >= _SOME * (end - start)]
    long = [s for s in same if s.last - s.first >= _MOST * (end - start)]
    long = [s for s in long if all(other.first < s.last for other in going)]
    left = {id(s): s for s in (*long, *going)}.values() or same
    many = [s for s in left if s.count >= ENOUGH]
    if many:
        return min(many, key=lambda s: (s.count, s.depth))
    return max(left, key=lambda s: s.count)


def process_slope(source: Source) -> Slope:
    """The slope of what the process holds, at the turns of a source."""
    samples = source.samples
    heap = np.asarray(samples.heap, np.float64)
    held = heap + np.asarray(samples.python, np.float64) if len(heap) and heap.any() else np.asarray(
        samples.resident, np.float64
    )  # fmt: skip
    return slope_of(samples.step, held, FLOOR)

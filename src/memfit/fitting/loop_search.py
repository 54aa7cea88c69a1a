"""The search for a better order, tiles and padding of a kernel: many judged by footprints, few simulated exactly.

Candidates are orders of the loops, powers of two as tiles of the longest loops, and rows as they are or padded by a line.
``Footprints`` and the arithmetic of the innermost loop rank them; the best are simulated over the first trips of their
outermost loop where that is little, the best of those in full; so are those that move the fewest lines. Cost: a second or
two; the exhaustive search it stands for takes minutes (``benchmarks/locality.py``).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memfit.analyses.cache_misses import Misses, misses_of_nest
from memfit.analyses.footprints import Footprints
from memfit.analyses.kernel_cost import arithmetic_seconds, behind, cost_of
from memfit.errors import NestError
from memfit.ir.kernel import Kernel, Variant, loops_of, lower, original
from memfit.machine.cache import Hierarchy
from memfit.machine.spec import Machine

MOST_ORDERS = 12
MOST_TILED = 3
SIMULATED = 10
SAMPLED = 12_000_000
"""Statements of one outer trip up to which a candidate is simulated over two of them before it is in full."""
MOST_EXACT = 5
FEWEST = 2
PLAIN_ARITHMETIC = 1.6
"""The variants with the fewest lines are looked for among those whose arithmetic is within this factor of the least."""
SECONDS = 1.6
"""CPU time that a search may take, about."""


@dataclass(frozen=True)
class Found:
    """A variant with its exact misses and projected seconds."""

    variant: Variant
    misses: Misses
    seconds: float

    def line_cost(self, machine: Machine) -> float:
        """What its misses take, each by the next level's time for a line."""
        return weigh([level.misses for level in self.misses.levels], self.misses.line, machine)


def weigh(misses: Sequence[float], line: int, machine: Machine) -> float:
    """Seconds that misses of each level take where lines come in order."""
    return sum(count * line / behind(machine, number)[1] for number, count in enumerate(misses))


def candidates(kernel: Kernel, line: int) -> Iterator[Variant]:
    """The variants that the search looks at."""
    extents = kernel.extents
    names = [name for name, _ in kernel.loops]
    longest = sorted((name for name in names if extents[name] >= 16), key=lambda name: -extents[name])[:MOST_TILED]
    sizes = {name: [2**n for n in range(3, 12) if 2**n < extents[name]] + [extents[name]] for name in longest}
    paddings: list[dict[str, int]] = [{}]
    padded = {
        name: array.shape[-1] + max(1, line // array.item)
        for name, array in kernel.arrays.items()
        if len(array.shape) > 1
        and array.strides is None
        and array.leading is None
        and array.shape[-1] * array.item % 512 == 0
    }
    if padded:
        paddings.append(padded)
    for order in orders(kernel):
        for chosen in itertools.product(*(sizes[name] for name in longest)):
            tiles = tuple(
                (n, s)
                for n, s in sorted(zip(longest, chosen, strict=True), key=lambda p: order.index(p[0]))
                if s < extents[n]
            )
            for leading in paddings:
                yield Variant(order, tiles, leading)
            if not tiles:
                continue
            if len(tiles) > 1:  # the tiles of the first two in the other order too
                yield Variant(order, (tiles[1], tiles[0], *tiles[2:]), paddings[-1])


def orders(kernel: Kernel) -> list[tuple[str, ...]]:
    """Orders worth looking at: all of few loops, else each loop innermost and each of the others just around it."""
    names = tuple(name for name, _ in kernel.loops)
    if math.factorial(len(names)) <= MOST_ORDERS:
        return list(itertools.permutations(names))
    found = [names]
    for inner in names:
        rest = [name for name in names if name != inner]
        found.append((*rest, inner))
        around = [name for name in kernel.reductions if name != inner]
        outside = [name for name in rest if name not in around]
        found.append((*outside, *sorted(around, key=names.index), inner))
        found.append((*sorted(around, key=names.index), *outside, inner))
    return list(dict.fromkeys(found))


def search(
    kernel: Kernel, hierarchy: Hierarchy, machine: Machine, *, seconds: float = SECONDS,
    progress: Callable[[str, int | None, int | None], None] | None = None,
) -> list[Found]:  # fmt: skip
    """The best variants found, the least projected time first; the kernel as written is not among them.

    Raises:
        NestError: the kernel is no nest.
    """
    say = progress or (lambda text, done, total: None)
    start = time.process_time()
    say(f"{kernel.name}: footprints", None, None)
    every: dict[tuple[object, ...], tuple[float, float, Variant]] = {}
    footprints = Footprints(kernel, hierarchy)
    for variant in candidates(kernel, hierarchy.line):
        key = (variant.order, variant.tiles, tuple(sorted(variant.leading.items())))
        if key not in every:
            lines = weigh(footprints.misses(variant), hierarchy.line, machine)
            every[key] = (lines, arithmetic_seconds(kernel, variant), variant)
        if time.process_time() - start > 0.4 * seconds:
            break
    ranked = sorted(every.values(), key=lambda row: row[0] + row[1])
    quick = PLAIN_ARITHMETIC * min(row[1] for row in ranked)
    fewest = sorted((row for row in ranked if row[1] <= quick), key=lambda row: row[0])[:FEWEST]
    found = [exactly(kernel, variant, hierarchy, machine) for _, _, variant in fewest]
    tried: list[tuple[float, Variant]] = []
    for number, (lines, arithmetic, variant) in enumerate(ranked[: 4 * SIMULATED]):
        say(f"{kernel.name}: simulating", number, 4 * SIMULATED)
        if SAMPLED * _outer_trips(kernel, variant) > kernel.executions():
            lines = _sampled(kernel, variant, hierarchy, machine)
        tried.append((lines + arithmetic, variant))
        if number >= 3 and time.process_time() - start > 0.6 * seconds:
            break
    tried.sort(key=lambda pair: pair[0])
    last = 0.0
    known = [f.variant for f in found]
    for number, variant in enumerate(v for v in _varied([variant for _, variant in tried]) if v not in known):
        if (number or found) and time.process_time() - start + last > seconds:
            break
        before = time.process_time()
        found.append(exactly(kernel, variant, hierarchy, machine))
        last = time.process_time() - before
    return sorted(found, key=lambda f: f.seconds)


def _varied(ranked: Sequence[Variant]) -> list[Variant]:
    """The first few, then the first with each other innermost loop, as the projection may favour one wrongly."""
    chosen = list(ranked[: MOST_EXACT - 2])
    for variant in ranked[MOST_EXACT - 2 :]:
        if len(chosen) < MOST_EXACT and all(variant.order[-1] != other.order[-1] for other in chosen):
            chosen.append(variant)
    chosen += [variant for variant in ranked if variant not in chosen][: MOST_EXACT - len(chosen)]
    return chosen


def exactly(kernel: Kernel, variant: Variant, hierarchy: Hierarchy, machine: Machine) -> Found:
    """A variant simulated in full."""
    misses = misses_of_nest(lower(kernel, variant), hierarchy)
    return Found(variant, misses, cost_of(kernel, variant, misses, machine).seconds)


def _sampled(kernel: Kernel, variant: Variant, hierarchy: Hierarchy, machine: Machine) -> float:
    """The cost of a variant's lines, from one and two trips of its outermost loop."""
    once = misses_of_nest(lower(kernel, variant, outer=1), hierarchy)
    trips = _outer_trips(kernel, variant)
    if trips == 1 or once.total * trips < 4_000_000:
        whole = misses_of_nest(lower(kernel, variant), hierarchy) if trips > 1 else once
        return weigh([level.misses for level in whole.levels], hierarchy.line, machine)
    twice = misses_of_nest(lower(kernel, variant, outer=2), hierarchy)
    counts = [a.misses + (trips - 1) * (b.misses - a.misses) for a, b in zip(once.levels, twice.levels, strict=True)]
    return weigh(counts, hierarchy.line, machine)


def _outer_trips(kernel: Kernel, variant: Variant) -> int:
    return next((loop.trips for loop in loops_of(kernel, variant) if loop.trips > 1), 1)


def spread(kernel: Kernel, hierarchy: Hierarchy, machine: Machine, count: int) -> list[Found]:
    """About ``count`` variants from the slowest to the quickest projected, to hold the projection against the clock."""
    names = [name for name, _ in kernel.loops]
    extents = kernel.extents
    longest = sorted((name for name in names if extents[name] >= 16), key=lambda name: -extents[name])[:2]
    every = [Variant(order) for order in orders(kernel)]
    for order in orders(kernel):
        for size in (8, 32, 128):
            tiles = tuple((name, size) for name in order if name in longest and size < extents[name])
            if tiles:
                every.append(Variant(order, tiles))
    every = list({(v.order, v.tiles): v for v in every}.values())
    footprints = Footprints(kernel, hierarchy)
    every.sort(key=lambda v: arithmetic_seconds(kernel, v) + weigh(footprints.misses(v), hierarchy.line, machine))
    picked = [every[round(i * (len(every) - 1) / max(count - 1, 1))] for i in range(min(count, len(every)))]
    found = [exactly(kernel, variant, hierarchy, machine) for variant in picked]
    return sorted(found, key=lambda f: f.seconds)


def as_written(kernel: Kernel, hierarchy: Hierarchy, machine: Machine) -> Found:
    """The kernel in its own order."""
    if not kernel.loops:
        raise NestError(kernel.name, "it has no loops", "write for loops over range(...)")
    return exactly(kernel, original(kernel), hierarchy, machine)

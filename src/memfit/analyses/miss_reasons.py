"""Why lines miss: cold, capacity, conflict or stride, by array and level; and the least that any order must move.

cold        the first use of a line
capacity    a fully associative LRU cache of the same size would miss too (Hill and Smith, 1989, three kinds)
conflict    only the sets are to blame; called stride where the array's steps reach few of them

Lower bounds count lines between a cache of S elements and the next level: of products summed over a loop, 2 V / sqrt(S)
elements for V multiplications, less a term of at most 2 S that is left out (Hong and Kung 1981, constant of Smith
et al. 2019); of a convolution the same divided by the root of the filter's reuse R x R
(Demmel and Dinh 2018); never less than every array once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfit.analyses.cache_misses import Misses, misses_of_nest
from memfit.analyses.reuse import Reuse, reuse_of_nest
from memfit.ir.kernel import Kernel
from memfit.ir.nest import Nest, encode, placed
from memfit.machine.cache import CacheLevel, Hierarchy


@dataclass(frozen=True)
class Reason:
    """Misses of one array in one level by reason; ``sets``: of the level's sets the array's inner steps reach."""

    array: str
    level: str
    misses: int
    cold: int
    capacity: int
    conflict: int
    sets: int
    word: str


def reasons_of(misses: Misses, reuse: Reuse, nest: Nest, hierarchy: Hierarchy) -> tuple[Reason, ...]:
    """The reasons of a nest's misses. ``reuse`` must hold misses at the lines of each level (``reuse_of_nest``)."""
    found = []
    assert reuse.misses is not None
    assert reuse.cold_by_array is not None
    for number, level in enumerate(misses.levels):
        shape = hierarchy.levels[number]
        where = list(reuse.capacities).index(shape.lines)
        for array, count in level.by_array.items():
            cold = min(reuse.cold_by_array[array], count)
            full = max(min(reuse.misses[array][where], count), cold)
            conflict = count - full
            sets = sets_reached(nest, array, shape)
            word = max((("cold", cold), ("capacity", full - cold), ("conflict", conflict)), key=lambda pair: pair[1])[0]
            if word == "conflict" and sets <= shape.sets // 2:
                word = "stride"
            found.append(Reason(array, level.name, count, cold, full - cold, conflict, sets, word if count else ""))
    return tuple(found)


def sets_reached(nest: Nest, array: str, level: CacheLevel) -> int:
    """How many sets the innermost moving loop of the array's accesses walks over; all, where it walks over lines in turn."""
    most = 1
    code = encode(nest if nest.bases else placed(nest))
    number = list(nest.arrays).index(array)
    around: list[int] = []
    for here, node in enumerate(code.nodes):
        while around and code.nodes[around[-1]].end <= here:
            around.pop()
        if node.loop:
            around.append(here)
        elif node.array == number:
            for loop in reversed(around):
                step = abs(node.address[1 + code.nodes[loop].variable])
                if step:
                    most = max(
                        most,
                        level.sets if step < level.line else level.sets // math.gcd(level.sets, step // level.line),
                    )
                    break
    return most


def analysed(nest: Nest, hierarchy: Hierarchy) -> tuple[Misses, Reuse, tuple[Reason, ...]]:
    """Misses, reuse distances and reasons of a nest in one go."""
    sizes = tuple(dict.fromkeys(level.lines for level in hierarchy.levels))
    misses, reuse = misses_of_nest(nest, hierarchy), reuse_of_nest(nest, sizes, hierarchy.line)
    return misses, reuse, reasons_of(misses, reuse, nest, hierarchy)


def lower_bound_lines(kernels: Sequence[Kernel], level: CacheLevel, touched: Mapping[str, int]) -> int:
    """Lines that must enter a cache of this size whatever the order.

    Args:
        touched: lines of each array that are touched at all, others than the kernels' too; arrays made and used between
            kernels may stay inside.
    """
    item = max(array.item for kernel in kernels for array in kernel.arrays.values())
    room = level.bytes // item
    made = {kernel.write[0] for kernel in kernels[:-1]}
    used = {array for kernel in kernels for array in kernel.arrays}
    least = sum(lines for array, lines in touched.items() if array in used and array not in made)
    for kernel in kernels:
        if kernel.combine != "product" or not kernel.reductions or len(kernel.reads) < 2:
            continue
        reuse = math.prod(extent for name, extent in kernel.loops if name in ("r", "s"))
        words = 2 * kernel.executions() / math.sqrt(room * reuse)
        least = max(least, math.ceil(words * item / level.line))
    return least

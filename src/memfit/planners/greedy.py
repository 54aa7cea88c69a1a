"""The field's greedy orders: take the buffers in one order, put each into a hole among those already placed.

    order        decreasing              in which system (each puts a buffer into the smallest hole: fit ``best``)
    size         bytes                   XLA's global decreasing size best fit (spatial), TFLite's greedy by size,
                                         ExecuTorch's greedy (which adds fixed buckets, not copied here)
    area         bytes x instants        a usual mixture of the two
    lifetime     instants                XLA's second try (temporal)
    allocation   earliest birth first    ONNX Runtime's memory pattern planner; what any online allocator sees
    breadth      bytes alive at the      TFLite's greedy by operator breadth (Pisarchyk and Lee, 2020)
                 fullest instant it sees
    conflicts    buffers it meets        colouring by degree

Fits: ``best`` the smallest hole, ``first`` the lowest, ``worst`` the largest; on top of everything where no hole fits.
Ties go to the lower offset, in the orders to the larger, then the longer, then the first. Pins are placed before all
others. A buffer with gaps fits where each of its pieces does; its hole is then the range of offsets that it may take.
None is optimal, and there is no constant bound on how far the peak is above the load. Cost: O(n log n + conflicts).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from memfit import _core
from memfit.planners.problem import Instance, Ints
from memfit.planners.reduce import sections

FITS = ("best", "first", "worst")
_SLICE = 20_000_000  # pieces that the kernel looks at between two chances to interrupt it


def _lifetime(instance: Instance) -> Ints:
    """Instants from first to last use."""
    return instance.upper - instance.lower


def _by_size(instance: Instance) -> Ints:
    return np.lexsort((-_lifetime(instance), -instance.size))


def _by_area(instance: Instance) -> Ints:
    height = instance.piece_high - instance.piece_low
    length = instance.piece_upper - instance.piece_lower
    if int(height.max(initial=0)) * int(length.max(initial=0)) * len(height) < 2**62:
        area = np.add.reduceat(height * length, instance.start[:-1])
        return np.lexsort((-instance.size, -area))
    exact = [h * t for h, t in zip(height.tolist(), length.tolist(), strict=True)]
    areas = [sum(exact[a:b]) for a, b in pairwise(instance.start.tolist())]
    return np.array(sorted(range(len(areas)), key=lambda i: (-areas[i], -int(instance.size[i]))), dtype=np.int64)


def _by_lifetime(instance: Instance) -> Ints:
    return np.lexsort((-instance.size, -_lifetime(instance)))


def _by_allocation(instance: Instance) -> Ints:
    return np.lexsort((-_lifetime(instance), -instance.size, instance.lower))


def _by_breadth(instance: Instance) -> Ints:
    lower, upper, full = sections(instance.piece_lower, instance.piece_upper)
    change = np.zeros(len(full) + 1, dtype=np.int64)
    height = instance.piece_high - instance.piece_low
    np.add.at(change, lower, height)
    np.add.at(change, upper, -height)
    widest = np.maximum.reduceat(range_maximum(np.cumsum(change)[:-1], lower, upper), instance.start[:-1])
    return np.lexsort((-_lifetime(instance), -instance.size, -widest))


def _by_conflicts(instance: Instance) -> Ints:
    ended = np.searchsorted(np.sort(instance.upper), instance.lower, side="right")
    begun = np.searchsorted(np.sort(instance.lower), instance.upper, side="left")
    return np.lexsort((-_lifetime(instance), -instance.size, ended - begun))


ORDERS: dict[str, Callable[[Instance], Ints]] = {
    "size": _by_size,
    "area": _by_area,
    "lifetime": _by_lifetime,
    "allocation": _by_allocation,
    "breadth": _by_breadth,
    "conflicts": _by_conflicts,
}
STRATEGIES = tuple(f"{order}/{fit}" for order in ORDERS for fit in FITS)


def range_maximum(values: Ints, lower: Ints, upper: Ints) -> Ints:
    """Largest of ``values[lower:upper]`` for each (not empty) range. Cost: O((n + m) log m), one level held at a time."""
    out = np.empty(len(lower), dtype=np.int64)
    level = np.frexp((upper - lower).astype(float))[1] - 1  # floor of the binary logarithm; lengths are below 2**53
    width, table = 1, values
    for k in range(int(level.max(initial=-1)) + 1):
        mine = np.flatnonzero(level == k)
        out[mine] = np.maximum(table[lower[mine]], table[upper[mine] - width])
        table = np.maximum(table[:-width], table[width:])
        width *= 2
    return out


def order_of(instance: Instance, name: str) -> Ints:
    """The rows of an Instance in the order of that name."""
    if not len(instance):
        return np.zeros(0, dtype=np.int64)
    return ORDERS[name](instance).astype(np.int64)


def place(instance: Instance, strategy: str) -> Ints:
    """Offsets by one strategy such as ``size/best``, in the Instance's bytes. The Instance's limit is not looked at.

    Raises:
        KeyError: no such strategy.
    """
    order, fit = strategy.split("/")
    return place_in_order(instance, order_of(instance, order), fit)


def place_in_order(instance: Instance, order: Ints, fit: str) -> Ints:
    """Offsets by taking the rows in ``order``; see the module text."""
    if not len(instance):
        return np.zeros(0, dtype=np.int64)
    search = _core.GreedyPlacement(
        instance.start, instance.piece_lower, instance.piece_upper, instance.piece_low, instance.piece_high,
        instance.alignment, instance.fixed, order, FITS.index(fit),
    )  # fmt: skip
    while not search.advance(_SLICE):
        pass
    return np.asarray(search.offsets(), dtype=np.int64)


def place_slowly(instance: Instance, order: Ints, fit: str) -> Ints:
    """The twin of the kernel: every buffer against every piece placed before it. Cost: O(n^2 log n)."""
    starts = instance.start.tolist()
    lower, upper = instance.piece_lower.tolist(), instance.piece_upper.tolist()
    low, high = instance.piece_low.tolist(), instance.piece_high.tolist()
    offset = instance.fixed.tolist()
    placed = [p for row, pin in enumerate(offset) if pin >= 0 for p in range(starts[row], starts[row + 1])]
    owner = np.repeat(np.arange(len(instance)), np.diff(instance.start)).tolist()
    for row in order.tolist():
        if instance.fixed[row] >= 0:
            continue
        mine = range(starts[row], starts[row + 1])
        forbidden = sorted(
            (offset[owner[q]] + low[q] - high[p], offset[owner[q]] + high[q] - low[p])
            for p in mine for q in placed if lower[p] < upper[q] and lower[q] < upper[p]
        )  # fmt: skip
        offset[row] = _hole(forbidden, int(instance.alignment[row]), fit)
        placed.extend(mine)
    return np.array(offset, dtype=np.int64)


def _hole(forbidden: list[tuple[int, int]], alignment: int, fit: str) -> int:
    """The offset of a buffer that may lie nowhere strictly between the two ends of any of the sorted ranges."""
    cursor, best, chosen = 0, -1, -1
    for begin, end in forbidden:
        if begin >= cursor:
            offset, room = -(-cursor // alignment) * alignment, begin - cursor
            if offset <= begin and (chosen < 0 or (room < best if fit == "best" else room > best)):
                best, chosen = room, offset
                if fit == "first":
                    break
        cursor = max(cursor, end)
    return chosen if chosen >= 0 else -(-cursor // alignment) * alignment

"""Where the free bytes lie at the reserved peak, and why the request that raised it could use none of them.

At the event that raised the reserved bytes to their peak, the ranges of the blocks alive then are laid into the segments;
what they leave are holes. A hole is *stranded* if the program paid for it and could not use it: it is inside a segment,
and still more had to be asked for. Plain geometry on a replay's addresses, the same for every policy.
Cost: O(events + blocks log blocks), once a replay with series.
"""

from __future__ import annotations

import numpy as np

from memfit.allocators.policy import Ints, ReplaySeries, Stranded
from memfit.ir.requests import Action, Requests
from memfit.units import format_bytes

SHOWN = 20


def stranded_bytes(
    requests: Requests, series: ReplaySeries, taken: Ints, segments: list[tuple[int, int]], heap: str
) -> tuple[Stranded, ...]:
    """Segments with free bytes at the reserved peak, those with most first, at most SHOWN of them.

    ``taken``: bytes the policy took at each ALLOCATE. ``segments``: (address, bytes) at the peak. ``heap``: what such a
    segment is called.
    """
    if not len(series.reserved) or not segments:
        return ()
    event = int(series.reserved.argmax())
    start, end = _alive(requests, series.address, taken, event)
    wanted = int(requests.nbytes[event]) if requests.action[event] == Action.ALLOCATE else 0
    found = []
    for number, (address, nbytes) in enumerate(sorted(segments)):
        first, last = np.searchsorted(start, [address, address + nbytes])
        edges = np.concatenate(([address], end[first:last])), np.concatenate((start[first:last], [address + nbytes]))
        holes = edges[1] - edges[0]
        free = int(holes.sum())
        if free:
            largest = int(holes.max())
            found.append(Stranded(number, nbytes, free, largest, _why(heap, largest, int((holes > 0).sum()), wanted)))
    found.sort(key=lambda row: (-row.free_bytes, row.segment))
    return tuple(found[:SHOWN])


def _alive(requests: Requests, address: Ints, taken: Ints, event: int) -> tuple[Ints, Ints]:
    """Start and end of the ranges of blocks alive after ``event``, by address."""
    action, block = requests.action[: event + 1], requests.block[: event + 1]
    placed = np.full(requests.blocks, -1, np.int64)
    size = np.zeros(requests.blocks, np.int64)
    allocates = np.flatnonzero(action == Action.ALLOCATE)
    placed[block[allocates]] = address[allocates]
    size[block[allocates]] = taken[allocates]
    placed[block[action == Action.FREE]] = -1
    alive = np.flatnonzero(placed >= 0)
    order = alive[np.argsort(placed[alive], kind="stable")]
    return placed[order], placed[order] + size[order]


def _why(heap: str, largest: int, holes: int, wanted: int) -> str:
    """In words: holes too small for the request that raised the peak, or room that it brought itself."""
    if wanted and largest < wanted:
        many = (
            f"{holes} holes, the largest {format_bytes(largest)}"
            if holes > 1
            else f"one hole of {format_bytes(largest)}"
        )
        return f"{many}: too small for the request of {format_bytes(wanted)} that raised the peak"
    if holes == 1:
        return f"room left in the {heap} for later requests"
    return f"{holes} holes between blocks that live on, the largest {format_bytes(largest)}"

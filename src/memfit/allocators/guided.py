"""A plan of one iteration, followed by a program that need not keep to it: the rest is served as it comes.

The plan lists the allocations of one iteration in order: bytes, and an offset, or none for a block that outlives the
iteration. A request is looked for among the next LOOK_AHEAD entries; the first of the same size is its place, if those
bytes are free right now. Else, and where nothing matches, it is served dynamically. Layers are alike, so a program that
left the plan could fall in step with the wrong one; where the last GRAM requests stand at one place of the plan only,
that is where it is::

    plan       8@0   4@8   16@0   -      8@0 ...        a first step that makes 2 more of its own, a step of another shape,
    requests   8     2     4      16            ->      cost dynamic memory for what differs and nothing else
    served     @0    dyn   @8     dyn: @0 is in use

So a block in the arena never overlaps another one, whatever the program does; the plan only has to be right where it
repeats. Blocks that stay (parameters, optimizer state) must not settle in it: those that live longer than ``longest``
events are dynamic, as the recorded trace says which they are. Cost: O(log n) an event.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import numpy as np

from memfit.allocators.policy import Ints
from memfit.ir.requests import Action, Requests

LOOK_AHEAD = 16
GRAM = 8
DYNAMIC = -1


def follow_plan(requests: Requests, nbytes: Ints, offset: Ints, longest: int) -> Ints:
    """The offset in the arena of each block of ``requests``, or DYNAMIC.

    ``nbytes`` and ``offset``: of one iteration's allocations in order, bytes; offset DYNAMIC where there is no place.
    ``longest``: events that a block of the arena lives at most.
    """
    short = _lifetimes(requests) <= longest
    entries: dict[int, list[int]] = {}
    for entry, size in enumerate(nbytes.tolist()):
        entries.setdefault(size, []).append(entry)
    count, at = len(nbytes), 0
    offsets = offset.tolist()
    known = _only_places(nbytes.tolist())
    last: deque[int] = deque(maxlen=GRAM)
    found = np.full(requests.blocks, DYNAMIC, np.int64)
    used: list[tuple[int, int]] = []
    held: dict[int, tuple[int, int]] = {}
    rows = zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    for action, block, size in rows:
        if action == Action.FREE and block in held:
            used.remove(held.pop(block))
        if action != Action.ALLOCATE:
            continue
        last.append(size)
        if size not in entries:
            continue
        same = entries[size]
        after = bisect_left(same, at)
        entry, ahead = (same[after], same[after] - at) if after < len(same) else (same[0], same[0] + count - at)
        entry = known.get(tuple(last), entry if ahead <= LOOK_AHEAD else DYNAMIC)
        if entry == DYNAMIC:
            continue
        at = (entry + 1) % count
        if short[block] and offsets[entry] != DYNAMIC and _free(used, offsets[entry], size):
            held[block] = (offsets[entry], offsets[entry] + size)
            insort(used, held[block])
            found[block] = offsets[entry]
    return found


def _lifetimes(requests: Requests) -> Ints:
    """Events from ALLOCATE to FREE of each block; more than there are where it is never freed."""
    lifetime = np.full(requests.blocks, 2 * len(requests), np.int64)
    frees = np.flatnonzero(requests.action == Action.FREE)
    born = np.flatnonzero(requests.action == Action.ALLOCATE)
    lifetime[requests.block[frees]] = frees - born[requests.block[frees]]
    return lifetime


def _only_places(sizes: list[int]) -> dict[tuple[int, ...], int]:
    """Where GRAM sizes in a row end that stand at one place of the iteration only; it goes on from its end to its start."""
    found: dict[tuple[int, ...], int] = {}
    twice = set()
    around = (sizes * GRAM)[1 - GRAM :] + sizes
    for entry in range(len(sizes)):
        gram = tuple(around[entry : entry + GRAM])
        if gram in found:
            twice.add(gram)
        found[gram] = entry
    return {gram: entry for gram, entry in found.items() if gram not in twice}


def _free(used: list[tuple[int, int]], start: int, size: int) -> bool:
    """Whether [start, start + size) touches none of the ranges in use, which are in order and apart."""
    after = bisect_left(used, (start, start))
    if after < len(used) and used[after][0] < start + size:
        return False
    return after == 0 or used[after - 1][1] <= start

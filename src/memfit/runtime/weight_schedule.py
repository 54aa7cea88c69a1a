"""Which pieces of the weights stay and which are read again, when the order of use is known and repeats.

A *chunk* is a piece of the weights of one size; an *access* (one operation) needs some chunks at once; the accesses of one
pass repeat in a circle. Between two uses of a chunk lies a *gap*: kept, the chunk occupies a frame all the while; not
kept, it is read once more. Beside what an access needs, the next ``ahead`` chunks in order of use have frames set aside,
so that they are read while the access computes::

    accesses        0    1    2    3    4    5          frames at access 2:  chunks of 2
    chunk a         #....................|..#                                + the next ``ahead`` chunks (|: read ahead)
    chunk b              #    #                                              + kept gaps that pass over 2

Keeping the most gaps that nowhere exceed the frames is interval packing: the shortest gaps first, which on a line is
Belady's choice (IBM Systems Journal 5(2), 1966; Carlisle and Lloyd 1995). Where gaps are equally long, as in one pass over
all layers, which ones stay is free, and they are spread evenly (multiples of the golden ratio): every stretch of the pass
then reads the same share, so that reading hides behind computing (Cao, Felten, Karlin and Li 1995 say why Belady's own
choice, all misses in a row, cannot). On a circle the greedy choice is not always optimal; ``testing.exact_weights`` tells.

Cost: O(accesses * ahead + gaps * accesses) with the last factor in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit.paging.accesses import Accesses
from memfit.paging.policies import POLICIES

GOLDEN = 0.6180339887498949
LARGE_SIZES = 3
"""Sizes of accesses that are tried as the border of the large ones."""
PACKINGS = 8
"""Shares of gaps tried; each halves what is left to try."""
Ints = npt.NDArray[np.int64]
Gap = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WeightSchedule:
    """What stays after each use. A *touch* is one chunk of one access; touches are numbered in order of use.

    Attributes:
        first: touches of access t are ``first[t]`` to ``first[t + 1]``, half-open.
        chunk: of each touch.
        keep: of each touch, whether its chunk stays until its next use.
        read: of each touch, whether it reads its chunk in the steady state.
        capacity: frames; ``ahead``: chunks read ahead at most; ``occupied``: frames set aside at each access.
    """

    first: Ints
    chunk: Ints
    keep: Flags
    read: Flags
    capacity: int
    ahead: int
    occupied: Ints

    @property
    def reads(self) -> int:
        """Chunks read in one steady pass."""
        return int(self.read.sum())

    @property
    def fresh(self) -> Flags:
        """Touches of chunks that the access before did not use: what hits and misses are counted over."""
        flags = np.ones(len(self.chunk), bool)
        chunks = [self.chunk[self.first[t] : self.first[t + 1]] for t in range(len(self.first) - 1)]
        for t, now in enumerate(chunks):
            if len(chunks) > 1:
                flags[self.first[t] : self.first[t + 1]] = ~np.isin(now, chunks[t - 1])
        return flags


def smallest_capacity(accesses: Sequence[Sequence[int]]) -> int:
    """Frames without which some access has no room, whatever the schedule."""
    return max((len(set(access)) for access in accesses), default=0)


def default_ahead(accesses: Sequence[Sequence[int]], capacity: int) -> int:
    """Chunks to read ahead: the largest access, at most an eightieth of the frames (each costs hits), at least one."""
    return max(1, min(smallest_capacity(accesses), capacity // 80))


def schedule_weights(accesses: Sequence[Sequence[int]], capacity: int, ahead: int | None = None) -> WeightSchedule:
    """The gaps to keep with ``capacity`` frames.

    Args:
        accesses: chunks of each access of one pass, each list without repetition.
        capacity: frames, at least ``smallest_capacity``.
        ahead: frames for reading ahead, less where an access leaves no room; None: ``default_ahead``.

    Raises:
        ValueError: some access needs more chunks than there are frames.
    """
    needed = smallest_capacity(accesses)
    if capacity < needed:
        raise ValueError(f"an access needs {needed} chunks at once, there are {capacity} frames")
    ahead = default_ahead(accesses, capacity) if ahead is None else ahead
    first = np.concatenate([[0], np.cumsum([len(access) for access in accesses])]).astype(np.int64)
    chunk = np.array([c for access in accesses for c in access], np.int64)
    position = np.repeat(np.arange(len(accesses)), np.diff(first))
    windows = _windows(accesses, capacity, ahead)
    occupied = np.array([len(window | set(access)) for window, access in zip(windows, accesses, strict=True)], np.int64)
    following = _next_touch(chunk)
    inside = _positions_in_windows(windows)
    gaps: list[Gap] = []
    lengths = np.empty(len(chunk), np.int64)
    for touch, after in enumerate(following.tolist()):
        begin, end = int(position[touch]), int(position[after])
        gap = np.arange(begin + 1, end if end > begin else end + len(accesses), dtype=np.int32) % len(accesses)
        held = inside.get(int(chunk[touch]))
        lengths[touch] = len(gap)
        gaps.append(gap if held is None else gap[~np.isin(gap, held)])
    sizes = np.repeat(np.diff(first), np.diff(first))
    keep = _most_gaps(gaps, lengths, sizes, occupied, capacity)
    for touch in np.flatnonzero(keep).tolist():
        occupied[gaps[touch]] += 1
    read = np.ones(len(chunk), bool)
    read[following[keep]] = False
    return WeightSchedule(first, chunk, keep, read, capacity, ahead, occupied)


def _most_gaps(gaps: Sequence[Gap], lengths: Ints, sizes: Ints, occupied: Ints, capacity: int) -> Flags:
    """The best of several packings. Of gaps equally long each prefers those of the largest accesses (``sizes``: chunks of
    each touch's access; kept, they take no further room at the access that needs most) and of the others an even share.
    """
    golden = (np.arange(len(gaps)) * GOLDEN) % 1.0
    best = _packed(gaps, np.lexsort((golden, lengths)), occupied, capacity)
    for threshold in [len(gaps) + 1, *np.unique(sizes)[::-1][:LARGE_SIZES].tolist()]:
        rest = sizes < threshold
        number, count = np.cumsum(rest) - 1, int(rest.sum())
        low, high = 0, count
        for _ in range(PACKINGS if count else 1):
            share = (low + high + 1) // 2
            apart = rest & ((number + 1) * share // max(1, count) == number * share // max(1, count))
            keep = _packed(gaps, np.lexsort((golden, apart, rest, lengths)), occupied, capacity)
            best = keep if keep.sum() > best.sum() else best
            low, high = (share, high) if keep[rest & ~apart].all() else (low, share - 1)
            if low >= high:
                break
    return best


def _packed(gaps: Sequence[Gap], order: Ints, occupied: Ints, capacity: int) -> Flags:
    """The gaps that fit one after the other in ``order``."""
    taken, keep = occupied.copy(), np.zeros(len(gaps), bool)
    for touch in order.tolist():
        gap = gaps[touch]
        if len(gap) == 0 or taken[gap].max() < capacity:
            taken[gap] += 1
            keep[touch] = True
    return keep


def _windows(accesses: Sequence[Sequence[int]], capacity: int, ahead: int) -> list[set[int]]:
    """For each access the chunks read ahead while it runs: the first ones used after it."""
    windows: list[set[int]] = []
    for t, access in enumerate(accesses):
        used, window = set(access), set[int]()
        room = min(ahead, capacity - len(used))
        for step in range(1, len(accesses)):
            if len(window) >= room:
                break
            for c in accesses[(t + step) % len(accesses)]:
                if c not in used and len(window) < room:
                    window.add(c)
        windows.append(window)
    return windows


def _positions_in_windows(windows: Sequence[set[int]]) -> dict[int, Ints]:
    found: dict[int, list[int]] = {}
    for t, window in enumerate(windows):
        for c in window:
            found.setdefault(c, []).append(t)
    return {c: np.array(positions, np.int64) for c, positions in found.items()}


def _next_touch(chunk: Ints) -> Ints:
    """For each touch the next touch of the same chunk, around the circle (itself where there is no other)."""
    following = np.empty(len(chunk), np.int64)
    later: dict[int, int] = {}
    for twice in range(2):
        for touch in range(len(chunk) - 1, -1, -1):
            c = int(chunk[touch])
            if twice:
                following[touch] = later[c]
            later[c] = touch
    return following


def fewest_reads(schedule: WeightSchedule) -> int:
    """Chunks that any schedule with these frames must read in a steady pass: Belady's misses over many passes.

    It serves the chunks one by one, which needs no more than serving an access at once, so no schedule reads less.
    """
    pages, trace = np.unique(schedule.chunk[schedule.fresh], return_inverse=True)
    if schedule.capacity >= len(pages):
        return 0
    rounds = 2 + max(8, min(64, 200_000 // max(1, len(trace))))

    def misses(times: int) -> int:
        repeated = Accesses(np.tile(trace, times).astype(np.int32), len(pages))
        return POLICIES["opt"].misses(repeated, schedule.capacity).misses

    return int((misses(rounds) - misses(2)) // (rounds - 2))

"""Requests as the caching allocator sees them: rounded sizes, and the queue (pool, size class, stream) of each.

What depends on a request alone is worked out here for all of them at once, so that both replays, compiled and twin,
start from the same columns. Cost: O(events), vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit.allocators.caching_settings import MIB, CachingSettings
from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests

Ints = npt.NDArray[np.int64]

MINIMUM_BLOCK = 512
SMALL_REQUEST = MIB
SMALL_SEGMENT = 2 * MIB
LARGE_REQUEST = 10 * MIB
SEGMENT_ROUNDING = 2 * MIB
LARGEST_REQUEST = 1 << 48


@dataclass(frozen=True)
class Columns:
    """One entry an event; ``rounded`` and ``queue`` are 0 where nothing is allocated.

    ``queues``: (pool, small, stream) of each queue, in the order in which the allocator walks them when it gives memory
    back: pool by pool, large before small, streams by number. ``event_of_block``: the event that allocated each block.
    """

    action: npt.NDArray[np.uint8]
    block: Ints
    nbytes: Ints
    rounded: Ints
    queue: npt.NDArray[np.int32]
    queues: tuple[tuple[int, bool, int], ...]
    event_of_block: Ints


def rounded_sizes(nbytes: Ints, settings: CachingSettings) -> Ints:
    """Bytes of the block that each request of ``nbytes`` > 0 gets.

    >>> rounded_sizes(np.array([1, 512, 513]), CachingSettings()).tolist()
    [512, 512, 1024]
    >>> rounded_sizes(np.array([1200 << 10]), CachingSettings(roundup_power2_divisions=4)).tolist() == [1280 << 10]
    True
    """
    plain = np.maximum((nbytes + (MINIMUM_BLOCK - 1)) // MINIMUM_BLOCK * MINIMUM_BLOCK, MINIMUM_BLOCK)
    divisions = np.asarray(settings.divisions, np.int64)
    if not np.any(divisions > 1):
        return plain
    power = np.frexp(nbytes.astype(np.float64))[1].astype(np.int64) - 1
    wanted = divisions[np.clip(power - 20, 0, len(divisions) - 1)]
    step = np.maximum(np.left_shift(1, power) // np.maximum(wanted, 1), 1)
    return np.where((wanted > 1) & (nbytes > MINIMUM_BLOCK * wanted), (nbytes + step - 1) // step * step, plain)


def segment_bytes(rounded: int, settings: CachingSettings) -> int:
    """Bytes asked of the driver for a rounded request that no cached block serves.

    >>> [segment_bytes(size, CachingSettings()) // MIB for size in (512, MIB, 2 * MIB, 10 * MIB, 11 * MIB)]
    [2, 2, 20, 10, 12]
    """
    if rounded <= SMALL_REQUEST:
        return SMALL_SEGMENT
    if rounded < LARGE_REQUEST:
        return settings.large_segment
    return -(-rounded // SEGMENT_ROUNDING) * SEGMENT_ROUNDING


def columns_of(requests: Requests, settings: CachingSettings, also: tuple[tuple[int, bool, int], ...] = ()) -> Columns:
    """The columns of a trace; ``also``: queues that must be there even if no request is for them.

    Raises:
        TraceError: sizes below 1 byte or above 2^48, blocks out of order, frees of what is not allocated.
    """
    action, block = requests.action, requests.block
    allocates = action == Action.ALLOCATE
    event_of_block = np.flatnonzero(allocates)
    _check(requests, allocates, event_of_block)
    nbytes = np.where(allocates, requests.nbytes, 0)
    rounded = np.zeros(len(action), np.int64)
    rounded[allocates] = rounded_sizes(requests.nbytes[allocates], settings)
    small = rounded <= SMALL_REQUEST
    parts = np.stack([requests.pool, small.astype(np.int32), requests.stream], axis=1)[allocates]
    more = np.asarray(also, np.int32).reshape(-1, 3)
    queues, inverse = _distinct(np.concatenate([parts, more]))
    queue = np.zeros(len(action), np.int32)
    queue[allocates] = inverse[: len(parts)]
    named = tuple((int(pool), bool(few), int(stream)) for pool, few, stream in queues)
    return Columns(action, block, nbytes, rounded, queue, named, event_of_block)


def _distinct(rows: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], Ints]:
    """The distinct rows in order, and which of them each row is."""
    if not len(rows):
        return rows, np.zeros(0, np.int64)
    found, inverse = np.unique(rows, axis=0, return_inverse=True)
    return found, inverse.reshape(-1)


def _check(requests: Requests, allocates: npt.NDArray[np.bool_], event_of_block: Ints) -> None:
    where, action, block = "the trace", requests.action, requests.block
    if len(action) and int(action.max()) > Action.EMPTY_CACHE:
        raise TraceError(where, f"event {int(np.argmax(action > Action.EMPTY_CACHE))} has an unknown action")
    count = len(event_of_block)
    sizes = requests.nbytes[allocates]
    for wrong, why in ((sizes < 1, "must be 1 byte or more"), (sizes > LARGEST_REQUEST, "is above 2^48 bytes")):
        if np.any(wrong):
            first = int(event_of_block[np.argmax(wrong)])
            raise TraceError(where, f"the size at event {first} is {int(requests.nbytes[first])}; it {why}")
    if np.any(block[allocates] != np.arange(count)):
        raise TraceError(where, "allocations must be numbered 0, 1, 2, ... in order")
    for kind in (Action.FREE, Action.FREE_REQUESTED):
        events = np.flatnonzero(action == kind)
        named = block[events]
        known = (named >= 0) & (named < count)
        known[known] = event_of_block[named[known]] < events[known]
        if not np.all(known):
            first = int(events[np.argmax(~known)])
            raise TraceError(where, f"event {first} frees block {int(block[first])}, which is not allocated there")
        if len(np.unique(named)) != len(named):
            seen, counts = np.unique(named, return_counts=True)
            raise TraceError(where, f"block {int(seen[np.argmax(counts > 1)])} is freed more than once")
    _check_order(requests, count)


def _check_order(requests: Requests, count: int) -> None:
    """A block is free for use only after the program asked for it to be freed."""
    asked = np.full(count, -1, np.int64)
    events = np.flatnonzero(requests.action == Action.FREE_REQUESTED)
    asked[requests.block[events]] = events
    events = np.flatnonzero(requests.action == Action.FREE)
    late = asked[requests.block[events]] > events
    if np.any(late):
        first = int(events[np.argmax(late)])
        raise TraceError(
            "the trace", f"event {first} frees block {int(requests.block[first])} before that was requested"
        )

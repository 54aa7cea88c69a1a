"""The binary buddy system over one growing arena: block sizes are powers of two, and a block lies at a multiple of its size.

A request takes the lowest free block of the smallest order that fits, halved until it fits exactly; a freed block joins
its buddy (the other half of the block that they were) as long as that is free too::

    request 300 KiB -> 512 KiB        [   512 KiB in use   |  256 free | 256 free ]  ->  joined to 512, then to 1024

So internal fragmentation is up to one half, and joining needs no search. The arena grows at its top, by at least
``granule``; a block must lie at a multiple of its size, and what lies below it becomes free blocks of rising orders.
EMPTY_CACHE gives free blocks of at least ``granule`` at the top back. Knowlton 1965; Knuth, The Art of Computer
Programming 1, section 2.5 (buddy system). Cost: O(orders) an event in the kernel as long as the free lists are short.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from memfit import _core
from memfit.allocators.policy import Replay
from memfit.allocators.serving import Outcome, check_requests, replay_of, serve
from memfit.ir.requests import Requests
from memfit.units import align, format_bytes

SMALLEST = 9
GRANULE = 21


class BuddyHeap:
    """The twin: all free blocks as (order, address) in one set."""

    def __init__(self, smallest: int, granule: int, capacity: int | None) -> None:
        self.smallest, self.granule, self.capacity = smallest, granule, capacity
        self.free_blocks: set[tuple[int, int]] = set()
        self.reserved = self.driver_allocations = self.driver_frees = 0

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """The lowest block of the smallest order that fits, halved."""
        order = max(self.smallest, (nbytes - 1).bit_length())
        fitting = [block for block in self.free_blocks if block[0] >= order]
        if not fitting:
            if not self._grow(order):
                return None
            fitting = [block for block in self.free_blocks if block[0] >= order]
        found, address = min(fitting)
        self.free_blocks.remove((found, address))
        while found > order:
            found -= 1
            self.free_blocks.add((found, address + (1 << found)))
        return address, 1 << order

    def free(self, address: int, taken: int) -> None:
        """Join with buddies."""
        self._release(address, taken.bit_length() - 1)

    def empty_cache(self) -> None:
        """Lower the top by free blocks of at least a granule."""
        lowered = False
        while top := [b for b in self.free_blocks if b[0] >= self.granule and b[1] + (1 << b[0]) == self.reserved]:
            self.free_blocks.remove(top[0])
            self.reserved = top[0][1]
            lowered = True
        self.driver_frees += lowered

    def segments(self) -> list[tuple[int, int]]:
        """The arena."""
        return [(0, self.reserved)]

    def _release(self, address: int, order: int) -> None:
        while (order, address ^ (1 << order)) in self.free_blocks:
            self.free_blocks.remove((order, address ^ (1 << order)))
            address &= ~(1 << order)
            order += 1
        self.free_blocks.add((order, address))

    def _grow(self, order: int) -> bool:
        made = max(order, self.granule)
        base = align(self.reserved, 1 << made)
        if self.capacity is not None and base + (1 << made) > self.capacity:
            made = order
            base = align(self.reserved, 1 << made)
            if base + (1 << made) > self.capacity:
                return False
        while self.reserved < base:
            gap = (self.reserved & -self.reserved).bit_length() - 1
            self._release(self.reserved, gap)
            self.reserved += 1 << gap
        self.reserved = base + (1 << made)
        self.driver_allocations += 1
        self._release(base, made)
        return True


@dataclass(frozen=True)
class BuddyPolicy:
    """``smallest``: order of the smallest block (9: 512 bytes); ``granule``: order of the least growth (21: 2 MiB)."""

    smallest: int = SMALLEST
    granule: int = GRANULE

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= self.granule <= 48:
            raise ValueError("orders must be 0 <= smallest <= granule <= 48")

    @property
    def name(self) -> str:
        """``buddy``."""
        changed = [] if self.smallest == SMALLEST else [f"blocks from {format_bytes(1 << self.smallest)}"]
        changed += [] if self.granule == GRANULE else [f"granule {format_bytes(1 << self.granule)}"]
        return "buddy" + (f" ({', '.join(changed)})" if changed else "")

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``. Raises TraceError for requests that no program can have made."""
        blocks = check_requests(requests)
        begun = time.process_time()
        if twin:
            outcome = serve(BuddyHeap(self.smallest, self.granule, capacity), requests, series)
        else:
            outcome = Outcome(*_core.replay_buddy(
                requests.action, requests.block, requests.nbytes, blocks, -1 if capacity is None else capacity, series,
                self.smallest, self.granule,
            ))  # fmt: skip
        return replay_of(self.name, requests, outcome, begun, series, "arena")

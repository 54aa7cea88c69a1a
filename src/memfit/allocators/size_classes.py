"""Size classes with slabs: how general allocators such as jemalloc serve many small blocks, as a policy.

A request is rounded up to a size class: multiples of 16 bytes up to 128, then four classes a doubling (160, 192, 224,
256, 320, ...), so that at most a fifth is lost to rounding. Classes up to 14 KiB are cut from *slabs*, each a run of
pages for slots of one class, with no remainder; larger ones are *extents* of pages::

    class 160     slab of 5 pages = 128 slots     [x x . x . . x ...]     lowest slab with room, lowest free slot
    class 20 KiB  extent of 5 pages               best fit among the free extents, split, joined when freed

A slab without a block in use is a free extent again. Extents come from regions: the first is 2 MiB, each further one the
next size class (2.5 MiB, 3 MiB, ...), or the class that holds the extent. EMPTY_CACHE gives wholly free regions back.
Classes, slab sizes and the growth of regions are jemalloc's (Evans, A Scalable Concurrent malloc(3) Implementation for
FreeBSD, 2006, and its release 5); it differs in that jemalloc has arenas and caches for each thread, delays giving
pages back, and prefers the oldest extent to the best one. Cost: O(log n) an event in the kernel.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from memfit import _core
from memfit.allocators.policy import Replay
from memfit.allocators.serving import Outcome, check_requests, replay_of, serve
from memfit.ir.requests import Requests
from memfit.units import align

PAGE = 4096
QUANTUM = 16
LARGEST_SLOT = 14 << 10
FIRST_REGION = 2 << 20
REGION_GAP = 2 << 20


def size_class(nbytes: int) -> int:
    """Bytes of the class that serves ``nbytes`` > 0.

    >>> [size_class(n) for n in (1, 128, 129, 257, 15000)]
    [16, 128, 160, 320, 16384]
    """
    if nbytes <= 8 * QUANTUM:
        return align(nbytes, QUANTUM)
    return align(nbytes, 1 << ((nbytes - 1).bit_length() - 3))


def slab_bytes(slot: int) -> int:
    """Bytes of a slab of slots of ``slot`` bytes: the fewest pages without a remainder.

    >>> slab_bytes(160), slab_bytes(14 << 10)
    (20480, 28672)
    """
    return math.lcm(PAGE, slot)


@dataclass
class Extent:
    """A run of pages. ``slot``: bytes of a slot where it is a slab, else 0; ``used``: addresses in use inside."""

    address: int
    nbytes: int
    free: bool = True
    slot: int = 0
    used: set[int] = field(default_factory=set)


class SlabHeap:
    """The twin: regions as lists of extents, every search from end to end."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.regions: list[list[Extent]] = []
        self.reserved = self.driver_allocations = self.driver_frees = self.end = 0
        self.next_region = FIRST_REGION

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """The lowest free slot of the class, or an extent."""
        size = size_class(nbytes)
        if size > LARGEST_SLOT:
            extent = self._take(size)
            return None if extent is None else (extent.address, extent.nbytes)
        slabs = [e for region in self.regions for e in region if e.slot == size and len(e.used) * size < e.nbytes]
        slab = min(slabs, key=lambda extent: extent.address) if slabs else self._take(slab_bytes(size))
        if slab is None:
            return None
        slab.slot = size
        address = min(a for a in range(slab.address, slab.address + slab.nbytes, size) if a not in slab.used)
        slab.used.add(address)
        return address, size

    def free(self, address: int, taken: int) -> None:
        """The slot is empty again; a slab without a block, or an extent, joins its free neighbours."""
        for region in self.regions:
            for extent in region:
                if extent.address <= address < extent.address + extent.nbytes:
                    extent.used.discard(address)
                    extent.free = not extent.used
                    extent.slot = extent.slot if extent.used else 0
            self._join(region)

    def empty_cache(self) -> None:
        """Wholly free regions go back."""
        idle = [region for region in self.regions if all(extent.free for extent in region)]
        self.driver_frees += len(idle)
        self.reserved -= sum(extent.nbytes for region in idle for extent in region)
        self.regions = [region for region in self.regions if region not in idle]

    def segments(self) -> list[tuple[int, int]]:
        """The regions."""
        return [(region[0].address, sum(extent.nbytes for extent in region)) for region in self.regions]

    def _take(self, size: int) -> Extent | None:
        fitting = [(r, e) for r in self.regions for e in r if e.free and e.nbytes >= size]
        if not fitting:
            if not self._grow(size):
                return None
            fitting = [(self.regions[-1], self.regions[-1][0])]
        region, extent = min(fitting, key=lambda pair: (pair[1].nbytes, pair[1].address))
        if extent.nbytes > size:
            region.insert(region.index(extent) + 1, Extent(extent.address + size, extent.nbytes - size))
            extent.nbytes = size
        extent.free = False
        return extent

    def _grow(self, size: int) -> bool:
        made = max(self.next_region, size_class(size))
        if self.capacity is not None and made > self.capacity - self.reserved:
            made = (self.capacity - self.reserved) // PAGE * PAGE
            if made < size:
                return False
        self.next_region = size_class(max(self.next_region, size_class(size)) + 1)
        start = align(self.end, REGION_GAP) + REGION_GAP
        self.regions.append([Extent(start, made)])
        self.end = start + made
        self.reserved += made
        self.driver_allocations += 1
        return True

    @staticmethod
    def _join(region: list[Extent]) -> None:
        joined: list[Extent] = []
        for extent in region:
            if joined and joined[-1].free and extent.free:
                joined[-1].nbytes += extent.nbytes
            else:
                joined.append(extent)
        region[:] = joined


@dataclass(frozen=True)
class SizeClassPolicy:
    """See the module text."""

    @property
    def name(self) -> str:
        """``size classes``."""
        return "size classes"

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``. Raises TraceError for requests that no program can have made."""
        blocks = check_requests(requests)
        begun = time.process_time()
        if twin:
            outcome = serve(SlabHeap(capacity), requests, series)
        else:
            outcome = Outcome(*_core.replay_size_classes(
                requests.action, requests.block, requests.nbytes, blocks, -1 if capacity is None else capacity, series
            ))  # fmt: skip
        return replay_of(self.name, requests, outcome, begun, series, "region")

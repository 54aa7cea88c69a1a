"""PyTorch's CUDA caching allocator, replayed: what a program's allocations make it reserve of the driver.

Rules of c10's ``CUDACachingAllocator`` (release 2.x, default settings, one stream):

* a request is rounded up to 512 bytes; up to 1 MiB it is served from the small pool, else from the large one;
* the best-fitting free block of the pool serves it, lowest address among equals;
* without one, a segment is taken from the driver: 2 MiB for a small request, 20 MiB for one under 10 MiB, else the
  request rounded up to 2 MiB;
* a block is split when at least 512 bytes (small) or more than 1 MiB (large) would be left over;
* a freed block joins its free neighbours of the same segment and stays cached;
* when the driver refuses, every segment that is wholly free goes back to it, and the request is tried once more.

Segments get rising addresses here; the driver's own may differ, which matters only among equal blocks. Not modelled:
several streams, ``expandable_segments``, ``max_split_size_mb``. Cost: O(log n) comparisons an event.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from memfit.units import align

MINIMUM_BLOCK = 512
SMALL_REQUEST = 1 << 20
SMALL_SEGMENT = 2 << 20
LARGE_SEGMENT = 20 << 20
LARGE_REQUEST = 10 << 20
SEGMENT_ROUNDING = 2 << 20


class OutOfMemoryError(Exception):
    """The driver has not enough left, also after all cached segments went back. ``wanted``, ``reserved`` (bytes)."""

    def __init__(self, wanted: int, reserved: int) -> None:
        super().__init__(f"a segment of {wanted} bytes is refused with {reserved} bytes reserved")
        self.wanted, self.reserved = wanted, reserved


@dataclass(eq=False, slots=True)
class Block:
    """A range of a segment. ``before`` and ``after``: its neighbours in the segment."""

    address: int
    nbytes: int
    small: bool
    allocated: bool = False
    before: Block | None = None
    after: Block | None = None


def rounded(nbytes: int) -> int:
    """Bytes of the block that a request of ``nbytes`` gets.

    >>> rounded(1), rounded(512), rounded(513)
    (512, 512, 1024)
    """
    return max(MINIMUM_BLOCK, align(nbytes, MINIMUM_BLOCK))


def segment_bytes(block_bytes: int) -> int:
    """Bytes asked of the driver for a rounded request that no cached block serves."""
    if block_bytes <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if block_bytes < LARGE_REQUEST else align(block_bytes, SEGMENT_ROUNDING)


@dataclass
class CachingAllocator:
    """The allocator's state. ``capacity``: bytes that the driver will give, or None for any number."""

    capacity: int | None = None
    reserved: int = 0
    allocated: int = 0
    driver_calls: int = 0
    _free: dict[bool, list[tuple[int, int]]] = field(default_factory=lambda: {True: [], False: []})
    _blocks: dict[int, Block] = field(default_factory=dict)
    _next_address: int = 1 << 32

    def allocate(self, nbytes: int) -> Block:
        """A block for a request of ``nbytes`` > 0.

        Raises:
            OutOfMemoryError: the capacity does not allow the segment it needs.
        """
        size = rounded(nbytes)
        small = size <= SMALL_REQUEST
        pool = self._free[small]
        position = bisect_left(pool, (size, 0))
        if position < len(pool):
            block = self._blocks[pool.pop(position)[1]]
        else:
            block = self._take_segment(segment_bytes(size), small)
        left = block.nbytes - size
        if (left >= MINIMUM_BLOCK) if small else (left > SMALL_REQUEST):
            rest = Block(block.address + size, left, small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = rest
            block.after, block.nbytes = rest, size
            self._blocks[rest.address] = rest
            insort(pool, (left, rest.address))
        block.allocated = True
        self.allocated += block.nbytes
        return block

    def free(self, block: Block) -> None:
        """Give a block back to its pool, joined with its free neighbours."""
        self.allocated -= block.nbytes
        block.allocated = False
        pool = self._free[block.small]
        after = block.after
        if after is not None and not after.allocated:
            self._forget(pool, after)
            block.nbytes += after.nbytes
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        before = block.before
        if before is not None and not before.allocated:
            pool.pop(bisect_left(pool, (before.nbytes, before.address)))
            del self._blocks[block.address]
            before.nbytes += block.nbytes
            before.after = block.after
            if block.after is not None:
                block.after.before = before
            block = before
        insort(pool, (block.nbytes, block.address))

    def release_cached(self) -> int:
        """Give every wholly free segment back to the driver; returns their bytes."""
        released = 0
        for small, pool in self._free.items():
            kept: list[tuple[int, int]] = []
            for entry in pool:
                block = self._blocks[entry[1]]
                if block.before is None and block.after is None:
                    released += block.nbytes
                    self.driver_calls += 1
                    del self._blocks[block.address]
                else:
                    kept.append(entry)
            self._free[small] = kept
        self.reserved -= released
        return released

    def blocks(self) -> list[Block]:
        """All blocks, by address."""
        return [self._blocks[address] for address in sorted(self._blocks)]

    def _forget(self, pool: list[tuple[int, int]], block: Block) -> None:
        pool.pop(bisect_left(pool, (block.nbytes, block.address)))
        del self._blocks[block.address]

    def _take_segment(self, nbytes: int, small: bool) -> Block:
        if self.capacity is not None and self.reserved + nbytes > self.capacity:
            self.release_cached()
            if self.reserved + nbytes > self.capacity:
                raise OutOfMemoryError(nbytes, self.reserved)
        self.driver_calls += 1
        self.reserved += nbytes
        block = Block(self._next_address, nbytes, small)
        self._next_address += nbytes + SEGMENT_ROUNDING
        self._blocks[block.address] = block
        return block


@dataclass(frozen=True, slots=True)
class CachingReplay:
    """Peaks of a replay. ``failed``: the event at which memory ran out (the replay stops there), or None."""

    peak_reserved: int
    peak_allocated: int
    driver_calls: int
    failed: int | None


def replay_caching(events: Iterable[tuple[int, int]], capacity: int | None = None) -> CachingReplay:
    """Replay (storage, delta) events: a positive delta allocates, a negative one frees the whole storage."""
    allocator = CachingAllocator(capacity)
    held: dict[int, Block] = {}
    peak_reserved = peak_allocated = 0
    for number, (storage, delta) in enumerate(events):
        if delta > 0:
            try:
                held[storage] = allocator.allocate(delta)
            except OutOfMemoryError:
                return CachingReplay(peak_reserved, peak_allocated, allocator.driver_calls, number)
            peak_reserved = max(peak_reserved, allocator.reserved)
            peak_allocated = max(peak_allocated, allocator.allocated)
        elif delta < 0 and storage in held:
            allocator.free(held.pop(storage))
    return CachingReplay(peak_reserved, peak_allocated, allocator.driver_calls, None)

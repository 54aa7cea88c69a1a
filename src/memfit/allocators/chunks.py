"""Best fit with coalescing over regions: what TensorFlow's BFC allocator and ONNX Runtime's arena share; the twin.

Memory comes from the system in *regions*; a region is a row of *chunks*, free or in use. A request is rounded up to 256
bytes and served by the smallest free chunk that fits, the lowest among equals. Both libraries keep free chunks in bins by
powers of two, sorted by size and address inside a bin, and search the bins upward: that is the same choice. The chunk
is split if it is at least twice as large, or if at least ``spare`` bytes would be left over::

    request 1000 -> 1024     chunk of 1792: given whole (1.75 x)      chunk of 2048: split into 1024 + 1024

A freed chunk joins its free neighbours in the region at once. How regions grow and go back is ``Growth``, in which the
two differ. Regions get rising addresses here, 2 MiB apart unless ``joins``. Kernel: ``native/core/replay_chunks.cc``.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from memfit.units import align

ROUNDING = 256
REGION_GAP = 2 << 20


@dataclass(frozen=True)
class Growth:
    """How regions come and go; bytes unless said otherwise.

    ``first``: the first region, where nothing larger is asked for. ``doubles``: a region that needed no doubling to hold
    its request makes the next one twice as large, up to ``largest`` (0: no end); else a region is what was asked for.
    ``everything``: the first region is the whole capacity, where there is one. ``spare``: see the module text.
    ``collects``: when memory runs out, wholly free regions go back and it is tried once more. ``joins``: a new region
    continues the last one. ``shrinks``: EMPTY_CACHE gives wholly free regions back, except the very first if
    ``keeps_first``; then the next region is ``after_shrink``.
    """

    first: int = 2 << 20
    doubles: bool = True
    largest: int = 0
    everything: bool = False
    spare: int = 128 << 20
    collects: bool = True
    joins: bool = False
    shrinks: bool = False
    keeps_first: bool = False
    after_shrink: int = 2 << 20

    def __post_init__(self) -> None:
        if self.first < 1 or self.after_shrink < 1 or self.spare < 0 or self.largest < 0:
            raise ValueError("first and after_shrink must be positive, spare and largest not negative")

    def numbers(self) -> list[int]:
        """The fields in order, for the kernel."""
        return [int(value) for value in astuple(self)]


@dataclass
class Chunk:
    """A range of a region."""

    address: int
    nbytes: int
    used: bool = False


@dataclass
class Region:
    """Chunks in address order. ``number``: how many regions came before it."""

    number: int
    chunks: list[Chunk]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return sum(chunk.nbytes for chunk in self.chunks)

    @property
    def idle(self) -> bool:
        """Whether nothing in it is in use."""
        return not any(chunk.used for chunk in self.chunks)


class ChunkHeap:
    """The twin: every search walks over all chunks."""

    def __init__(self, growth: Growth, capacity: int | None) -> None:
        self.growth, self.capacity = growth, capacity
        self.regions: list[Region] = []
        self.reserved = self.driver_allocations = self.driver_frees = self.made = self.end = 0
        size = growth.first if capacity is None else min(growth.first, capacity)
        if growth.everything and capacity is not None:
            size = capacity
        self.next_region = max(align(size, ROUNDING), ROUNDING)

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """The best chunk; a new region where there is none; after a collection where the system refuses."""
        size = align(nbytes, ROUNDING)
        found = self._best(size)
        if found is None and (self._extend(size) or (self._collect(size) and self._extend(size))):
            found = self._best(size)
        if found is None:
            return None
        region, chunk = found
        if chunk.nbytes >= 2 * size or chunk.nbytes - size >= self.growth.spare:
            if chunk.nbytes > size:
                position = region.chunks.index(chunk)
                region.chunks.insert(position + 1, Chunk(chunk.address + size, chunk.nbytes - size))
            chunk.nbytes = size
        chunk.used = True
        return chunk.address, chunk.nbytes

    def free(self, address: int, taken: int) -> None:
        """Join it with its free neighbours."""
        for region in self.regions:
            for chunk in region.chunks:
                if chunk.address == address:
                    chunk.used = False
            self._join(region)

    def empty_cache(self) -> None:
        """ONNX Runtime's shrink; TensorFlow has no such call."""
        if self.growth.shrinks:
            self._give_back([r for r in self.regions if r.idle and not (self.growth.keeps_first and r.number == 0)])
            self.next_region = align(self.growth.after_shrink, ROUNDING)

    def segments(self) -> list[tuple[int, int]]:
        """The regions."""
        return [(region.chunks[0].address, region.nbytes) for region in self.regions]

    def _best(self, size: int) -> tuple[Region, Chunk] | None:
        fitting = [(r, c) for r in self.regions for c in r.chunks if not c.used and c.nbytes >= size]
        return min(fitting, key=lambda pair: (pair[1].nbytes, pair[1].address)) if fitting else None

    def _extend(self, size: int) -> bool:
        available = None if self.capacity is None else (self.capacity - self.reserved) // ROUNDING * ROUNDING
        if available is not None and size > available:
            return False
        nbytes = size
        if self.growth.doubles:
            enough = size <= self.next_region
            while self.next_region < size:
                self.next_region *= 2
            nbytes = self.next_region if available is None else min(self.next_region, available)
            if enough:
                self._double()
        self.driver_allocations += 1
        self.reserved += nbytes
        if self.growth.joins and self.regions:
            self.regions[-1].chunks.append(Chunk(self.end, nbytes))
            self.end += nbytes
            self._join(self.regions[-1])
        else:
            start = align(self.end, REGION_GAP) + REGION_GAP
            self.regions.append(Region(self.made, [Chunk(start, nbytes)]))
            self.made += 1
            self.end = start + nbytes
        return True

    def _double(self) -> None:
        largest = self.growth.largest
        if largest and self.next_region >= largest // 2:
            self.next_region = align(largest, ROUNDING)
        elif self.next_region < 1 << 60:
            self.next_region *= 2

    def _collect(self, size: int) -> bool:
        idle = [region for region in self.regions if region.idle]
        free = sum(region.nbytes for region in idle)
        if not self.growth.collects or not idle or self.capacity is None:
            return False
        if size > self.capacity - self.reserved + free:
            return False
        self._give_back(idle)
        return True

    def _give_back(self, idle: list[Region]) -> None:
        self.driver_frees += len(idle)
        self.reserved -= sum(region.nbytes for region in idle)
        self.regions = [region for region in self.regions if region not in idle]

    @staticmethod
    def _join(region: Region) -> None:
        joined: list[Chunk] = []
        for chunk in region.chunks:
            if joined and not joined[-1].used and not chunk.used:
                joined[-1].nbytes += chunk.nbytes
            else:
                joined.append(chunk)
        region.chunks = joined

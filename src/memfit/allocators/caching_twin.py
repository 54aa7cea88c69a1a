"""The CUDA caching allocator in plain Python: the oracle of the compiled replay, and the replay that checks snapshots.

The rules are those of c10's ``CUDACachingAllocator`` (torch 2.13), carried over from its behaviour; ``docs/replay.md``
lists them. A block is a slot of parallel lists (bytes, state, neighbours, ...); the free blocks of a queue (pool, size
class, stream) lie in one sorted list of whole numbers ``bytes | address | slot``, so that the best fit, lowest address
among equals, is one bisection. Whether a block is free is told by its key; ``state`` tells the others apart. Addresses
rise with the age of segments here, so that the lowest address is also in the oldest segment, as torch has it. Cost:
O(log n) comparisons and O(n) bytes moved an event, n free blocks.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from memfit.allocators.caching_columns import MINIMUM_BLOCK, SMALL_REQUEST, SMALL_SEGMENT, segment_bytes
from memfit.allocators.caching_driver import Driver
from memfit.allocators.caching_settings import CachingSettings

FREE, USED, PENDING, UNMAPPED, GONE = 0, 1, 2, 3, 4
ADDRESS_SHIFT = 28
SIZE_SHIFT = ADDRESS_SHIFT + 56
SLOT_MASK = (1 << ADDRESS_SHIFT) - 1


class CachingTwin:
    """The allocator's state: see the module text. Lists are indexed by slot; -1 is no slot."""

    def __init__(self, queues: tuple[tuple[int, bool, int], ...], settings: CachingSettings, driver: Driver) -> None:
        self.settings, self.driver, self.queues = settings, driver, queues
        self.tail: list[int] = []  # address << ADDRESS_SHIFT | slot
        self.key: list[int] = []  # bytes << SIZE_SHIFT | tail of a free block, 0 of every other
        self.size: list[int] = []
        self.state: list[int] = []
        self.before: list[int] = []
        self.after: list[int] = []
        self.queue_of: list[int] = []
        self.base: list[int] = []  # where the slot's expandable segment begins, -1 for a plain one
        self.count_at_insertion: list[int] = []
        self.unused: list[list[int]] = [[] for _ in queues]
        self.free_keys: list[list[int]] = [[] for _ in queues]
        self.unmapped: list[list[tuple[int, int]]] = [[] for _ in queues]
        self.pending: dict[int, int] = {}  # slot -> block number
        self.synchronised: list[int] = []  # blocks whose pending free a synchronisation completed
        self.reserved = self.peak_reserved = 0
        self.driver_allocations = self.driver_frees = 0
        self.event = 0
        self.changes: list[tuple[int, int]] = []  # (event, reserved after it), where it changed
        fraction = 1.0 if settings.memory_fraction is None else settings.memory_fraction
        self.allowed = int(fraction * driver.device_bytes)
        self.searches = 0  # of the default large pool, counted only while garbage is collected
        self.collects = settings.collects_garbage and driver.limited
        self.max_split, self.rounding = settings.max_split, settings.max_non_split_rounding
        self.expandable = settings.expandable_segments
        self.releases_oversize = settings.max_split_size_mb is not None and not self.expandable
        self.least_rest = [MINIMUM_BLOCK if small or self.expandable else SMALL_REQUEST + 1 for _, small, _ in queues]

    # What the program asks for.

    def allocate(self, queue: int, size: int) -> int:
        """The slot that serves a rounded request, or -1 when memory ran out."""
        slot = self._find(queue, size)
        if slot < 0:
            slot = self.miss(queue, size)
            if slot < 0:
                return -1
        rest = self.size[slot] - size
        if rest >= self.least_rest[queue] and (size < self.max_split or self.queues[queue][1] or self.expandable):
            self.insert(self.cut(slot, size))
        self.state[slot] = USED
        return slot

    def request_free(self, slot: int, block: int) -> None:
        """The program gave block number ``block`` back, while another stream may still use it."""
        self.state[slot] = PENDING
        self.pending[slot] = block

    def free(self, slot: int) -> None:
        """The block can be used again."""
        self.pending.pop(slot, None)
        self._join(slot)
        self.insert(slot)

    def empty_cache(self) -> None:
        """Every segment (expandable: every page) that is wholly free goes back, private pools excepted."""
        for slot, block in list(self.pending.items()):
            self.free(slot)
            self.synchronised.append(block)
        for queue, (pool, _, _) in enumerate(self.queues):
            for slot in [key & SLOT_MASK for key in self.free_keys[queue]]:
                if pool and not self.driver.takes_private(self.address(slot), self.size[slot]):
                    continue
                if self.base[slot] >= 0:
                    self._unmap(slot)
                elif self.before[slot] < 0 and self.after[slot] < 0:
                    self._give_back(slot)

    # How a request is served.

    def _find(self, queue: int, size: int) -> int:
        if self.collects and self.queues[queue][:2] == (0, False):
            self.searches += 1
        position = self._position(queue, size)
        if position < 0:
            return -1
        return self._taken(queue, position)

    def _taken(self, queue: int, position: int) -> int:
        slot = self.free_keys[queue].pop(position) & SLOT_MASK
        self.key[slot] = 0
        return slot

    def address(self, slot: int) -> int:
        """Where a block begins."""
        return self.tail[slot] >> ADDRESS_SHIFT

    def would_find(self, queue: int, size: int) -> bool:
        """Whether a cached block serves a rounded request."""
        return self._position(queue, size) >= 0

    def _position(self, queue: int, size: int) -> int:
        keys = self.free_keys[queue]
        position = bisect_left(keys, size << SIZE_SHIFT)
        if position == len(keys):
            return -1
        slot = keys[position] & SLOT_MASK
        if self.expandable and self.base[slot] >= 0:
            grown = self._could_grow_to(slot)
            for other in keys[position + 1 :]:
                larger = self._could_grow_to(other & SLOT_MASK)
                if larger >= grown:
                    break
                slot, grown, position = other & SLOT_MASK, larger, position + 1
        held = self.size[slot]
        if (size < self.max_split <= held) or (size >= self.max_split and held >= size + self.rounding):
            return -1
        return position

    def _could_grow_to(self, slot: int) -> int:
        after = self.after[slot]
        return self.size[slot] + (self.size[after] if after >= 0 and self.state[after] == UNMAPPED else 0)

    def miss(self, queue: int, size: int) -> int:
        """Memory from the driver, in the order of the module ``docs/replay.md``; -1 when memory ran out."""
        wanted = segment_bytes(size, self.settings)
        if self.collects:
            self._collect_garbage()
        slot = self._grow(queue, size, wanted)
        if slot < 0 and self.releases_oversize and self._release_oversize(queue, size):
            slot = self._grow(queue, size, wanted)
        if slot < 0 and (self.queues[queue][0] == 0 or self.driver.releases_for_private):
            self.empty_cache()
            slot = self._grow(queue, size, wanted)
        return slot

    def _grow(self, queue: int, size: int, wanted: int) -> int:
        if self.reserved + wanted > self.allowed or self.driver.refuses:
            return -1
        if self.expandable:
            return self._expand(queue, size)
        if not self.driver.gives(self.reserved, wanted):
            return -1
        slot = self.place(self.driver.address(wanted), wanted, queue, -1)
        self._account(wanted)
        return slot

    def _collect_garbage(self) -> None:
        target, reclaimed = self.reserved - int(self.settings.garbage_collection_threshold * self.allowed), 0
        found = [
            key & SLOT_MASK
            for queue, (pool, small, _) in enumerate(self.queues)
            if pool == 0 and not small
            for key in self.free_keys[queue]
        ]
        whole = [s for s in found if self.before[s] < 0 and self.after[s] < 0]
        age = sum(self.searches - self.count_at_insertion[s] for s in whole)
        freed = True
        while self.driver.wants_garbage(target, reclaimed) and freed and whole:
            threshold, freed, kept = age / len(whole), False, []
            for slot in whole:
                mine = self.searches - self.count_at_insertion[slot]
                if mine >= threshold:
                    freed = True
                    reclaimed += self.size[slot]
                    age -= mine
                    self._give_back(slot)
                else:
                    kept.append(slot)
            whole = kept

    def _release_oversize(self, queue: int, size: int) -> bool:
        keys, least = self.free_keys[queue], max(size, self.max_split)
        position = bisect_left(keys, least << SIZE_SHIFT)
        if position < len(keys):
            self._give_back(keys[position] & SLOT_MASK)
            return True
        released = 0
        while released < least and keys and keys[-1] >> SIZE_SHIFT >= self.max_split:
            released += keys[-1] >> SIZE_SHIFT
            self._give_back(keys[-1] & SLOT_MASK)
        return released >= least

    # Segments.

    def _account(self, change: int) -> None:
        self.reserved += change
        if change > 0:
            self.driver_allocations += 1
            self.peak_reserved = max(self.peak_reserved, self.reserved)
        else:
            self.driver_frees += 1
        self.changes.append((self.event, self.reserved))

    def _give_back(self, slot: int) -> None:
        self._remove(slot)
        self.driver.gave_back(self.address(slot), self.size[slot])
        self._account(-self.size[slot])
        self._drop(slot)

    def _expand(self, queue: int, size: int) -> int:
        slot = self._room(queue, size)
        if self.state[slot] == UNMAPPED and not self._map(slot, min(self.size[slot], size)):
            return -1
        while self.size[slot] < size:
            more = self.after[slot]
            if not self._map(more, min(size - self.size[slot], self.size[more])):
                return -1
            slot = more
        self._remove(slot)
        return slot

    def _room(self, queue: int, size: int) -> int:
        """The lowest place where free and unmapped blocks side by side hold ``size``; else a new range of addresses."""
        for _, slot in self.unmapped[queue]:
            begin = slot
            before = self.before[slot]
            if before >= 0 and self.key[before]:
                begin = before
            found, at = 0, begin
            while found < size and at >= 0 and (self.key[at] or self.state[at] == UNMAPPED):
                found += self.size[at]
                at = self.after[at]
            if found >= size:
                return begin
        return self._reserve_at(queue, self.driver.address(self.span(queue)))

    def _reserve_at(self, queue: int, base: int) -> int:
        slot = self.place(base, self.span(queue), queue, base)
        self.state[slot] = UNMAPPED
        insort(self.unmapped[queue], (base, slot))
        return slot

    def span(self, queue: int) -> int:
        """Bytes of addresses that an expandable segment of the queue reserves: the device and an eighth, in pages."""
        page, total = self._page(queue), self.driver.device_bytes
        return -(-(total + total // 8) // page) * page

    def _page(self, queue: int) -> int:
        return SMALL_SEGMENT if self.queues[queue][1] else self.settings.large_segment

    def _map(self, slot: int, nbytes: int) -> bool:
        queue = self.queue_of[slot]
        page = self._page(queue)
        mapped = -(-nbytes // page) * page
        if not self.driver.gives(self.reserved, mapped):
            return False
        self.driver.mapped(self.address(slot), mapped)
        self.unmapped[queue].remove((self.address(slot), slot))
        if mapped < self.size[slot]:
            rest = self.cut(slot, mapped)
            self.state[rest] = UNMAPPED
            insort(self.unmapped[queue], (self.address(rest), rest))
        self.state[slot] = FREE
        self._join(slot)
        self.insert(slot)
        self._account(mapped)
        return True

    def _unmap(self, slot: int) -> None:
        queue, base = self.queue_of[slot], self.base[slot]
        page, start = self._page(queue), self.address(slot) - base
        begin, end = -(-start // page) * page, (start + self.size[slot]) // page * page
        if begin >= end:
            return
        behind = start + self.size[slot] - end
        self._remove(slot)
        if begin > start:
            rest = self.cut(slot, begin - start)
            self.insert(slot)
            slot = rest
        if behind:
            self.insert(self.cut(slot, end - begin))
        self.driver.gave_back(self.address(slot), self.size[slot])
        self._account(-self.size[slot])
        self.state[slot] = UNMAPPED
        for other in (self.before[slot], self.after[slot]):
            if other >= 0 and self.state[other] == UNMAPPED:
                self.unmapped[queue].remove((self.address(other), other))
                self._absorb(slot, other)
        if self.before[slot] < 0 and self.after[slot] < 0:
            self._drop(slot)
        else:
            insort(self.unmapped[queue], (self.address(slot), slot))

    # Blocks.

    def place(self, address: int, size: int, queue: int, base: int) -> int:
        """A new slot for a range without neighbours."""
        if self.unused[queue]:
            slot = self.unused[queue].pop()
            self.size[slot], self.state[slot], self.base[slot], self.count_at_insertion[slot] = size, FREE, base, 0
            self.before[slot] = self.after[slot] = -1
        else:
            slot = len(self.size)
            columns = (self.size, self.state, self.before, self.after, self.queue_of, self.base)
            for column, value in zip(columns, (size, FREE, -1, -1, queue, base), strict=True):
                column.append(value)
            for empty in (self.tail, self.key, self.count_at_insertion):
                empty.append(0)
        self.tail[slot] = address << ADDRESS_SHIFT | slot
        return slot

    def cut(self, slot: int, size: int) -> int:
        """Shorten a block to ``size``; the rest becomes a block after it."""
        rest = self.place(self.address(slot) + size, self.size[slot] - size, self.queue_of[slot], self.base[slot])
        after = self.after[slot]
        self.before[rest], self.after[rest] = slot, after
        if after >= 0:
            self.before[after] = rest
        self.after[slot], self.size[slot] = rest, size
        return rest

    def insert(self, slot: int) -> None:
        """Make a block free, in its queue."""
        self.state[slot] = FREE
        self.count_at_insertion[slot] = self.searches
        key = self.key[slot] = (self.size[slot] << SIZE_SHIFT) + self.tail[slot]
        insort(self.free_keys[self.queue_of[slot]], key)

    def _remove(self, slot: int) -> None:
        keys = self.free_keys[self.queue_of[slot]]
        del keys[bisect_left(keys, self.key[slot])]
        self.key[slot] = 0

    def _join(self, slot: int) -> None:
        for other in (self.before[slot], self.after[slot]):
            if other >= 0 and self.key[other]:
                self._remove(other)
                self._absorb(slot, other)

    def _absorb(self, slot: int, other: int) -> None:
        self.size[slot] += self.size[other]
        if self.before[slot] == other:
            self.tail[slot] = self.tail[other] - other + slot
            self.before[slot] = self.before[other]
            if self.before[slot] >= 0:
                self.after[self.before[slot]] = slot
        else:
            self.after[slot] = self.after[other]
            if self.after[slot] >= 0:
                self.before[self.after[slot]] = slot
        self._drop(other)

    def _drop(self, slot: int) -> None:
        self.state[slot] = GONE
        self.unused[self.queue_of[slot]].append(slot)

    def place_range(self, queue: int, address: int, nbytes: int) -> int:
        """A free block over pages already mapped in a queue's expandable segment; ranges come in order of address."""
        if not self.unmapped[queue]:
            self._reserve_at(queue, address)
        _, slot = self.unmapped[queue].pop()
        if address > self.address(slot):
            insort(self.unmapped[queue], (self.address(slot), slot))
            slot = self.cut(slot, address - self.address(slot))
        rest = self.cut(slot, nbytes)
        self.state[slot], self.state[rest] = FREE, UNMAPPED
        insort(self.unmapped[queue], (self.address(rest), rest))
        return slot

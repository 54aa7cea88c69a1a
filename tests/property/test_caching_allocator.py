"""The caching allocator against a slow twin that knows nothing but a list of ranges, and against its invariants."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.caching import CachingAllocator, OutOfMemoryError, replay_caching

KIB, MIB = 1 << 10, 1 << 20
SIZES = st.one_of(
    st.integers(1, 4 * KIB), st.integers(MIB - 600, MIB + 600), st.integers(9 * MIB, 11 * MIB), st.integers(1, 64 * MIB)
)
PROGRAMS = st.lists(st.tuples(st.booleans(), SIZES, st.integers(0, 1 << 16)), max_size=60)


class Twin:
    """Ranges [address, size, allocated, segment, small] in one list, searched from end to end."""

    def __init__(self, capacity: int | None) -> None:
        self.ranges: list[list[int]] = []
        self.capacity, self.segments, self.cursor = capacity, 0, 0
        self.reserved = 0

    def allocate(self, nbytes: int) -> list[int]:
        size = 512 * max(1, (nbytes + 511) // 512)
        small = int(size <= MIB)
        fitting = [r for r in self.ranges if not r[2] and r[4] == small and r[1] >= size]
        if fitting:
            chosen = min(fitting, key=lambda r: (r[1], r[0]))
        else:
            want = 2 * MIB if small else 20 * MIB if size < 10 * MIB else 2 * MIB * -(-size // (2 * MIB))
            if self.capacity is not None and self.reserved + want > self.capacity:
                for segment in {r[3] for r in self.ranges}:
                    whole = [r for r in self.ranges if r[3] == segment]
                    if not any(r[2] for r in whole):
                        self.reserved -= sum(r[1] for r in whole)
                        self.ranges = [r for r in self.ranges if r[3] != segment]
                if self.reserved + want > self.capacity:
                    raise MemoryError
            self.segments += 1
            chosen = [self.cursor, want, 0, self.segments, small]
            self.cursor += want + 1
            self.reserved += want
            self.ranges.append(chosen)
        left = chosen[1] - size
        if left >= 512 if small else left > MIB:
            self.ranges.append([chosen[0] + size, left, 0, chosen[3], small])
            chosen[1] = size
        chosen[2] = 1
        return chosen

    def free(self, block: list[int]) -> None:
        block[2] = 0
        merged = True
        while merged:
            merged = False
            for a in self.ranges:
                for b in self.ranges:
                    if a is not b and a[3] == b[3] and not a[2] and not b[2] and a[0] + a[1] == b[0]:
                        a[1] += b[1]
                        self.ranges = [r for r in self.ranges if r is not b]
                        merged = True
                        break
                if merged:
                    break


@settings(max_examples=150, deadline=None)
@given(PROGRAMS, st.sampled_from([None, 48 * MIB, 130 * MIB]))
def test_same_decisions_as_the_twin(program: list[tuple[bool, int, int]], capacity: int | None) -> None:
    fast, slow = CachingAllocator(capacity), Twin(capacity)
    held = []
    for frees, size, which in program:
        if frees and held:
            mine, twin = held.pop(which % len(held))
            fast.free(mine)
            slow.free(twin)
        else:
            try:
                twin = slow.allocate(size)
            except MemoryError:
                with pytest.raises(OutOfMemoryError):
                    fast.allocate(size)
                continue
            held.append((fast.allocate(size), twin))
        assert fast.reserved == slow.reserved
        assert fast.allocated == sum(r[1] for r in slow.ranges if r[2])
        assert sorted(b.nbytes for b in fast.blocks()) == sorted(r[1] for r in slow.ranges)


@settings(max_examples=100, deadline=None)
@given(PROGRAMS)
def test_blocks_tile_their_segments(program: list[tuple[bool, int, int]]) -> None:
    allocator = CachingAllocator()
    held = []
    for frees, size, which in program:
        if frees and held:
            allocator.free(held.pop(which % len(held)))
        else:
            held.append(allocator.allocate(size))
        blocks = allocator.blocks()
        assert sum(block.nbytes for block in blocks) == allocator.reserved
        for block in blocks:
            if block.after is not None:
                assert block.address + block.nbytes == block.after.address
                assert block.allocated or block.after.allocated, "two free neighbours were not joined"
    for block in held:
        allocator.free(block)
    assert allocator.release_cached() > 0 or not held
    assert allocator.reserved == 0


def test_known_segments() -> None:
    assert replay_caching([(0, 1)]).peak_reserved == 2 * MIB
    assert replay_caching([(0, MIB), (1, MIB)]).peak_reserved == 2 * MIB
    assert replay_caching([(0, MIB + 1)]).peak_reserved == 20 * MIB
    assert replay_caching([(0, 10 * MIB)]).peak_reserved == 10 * MIB
    assert replay_caching([(0, 11 * MIB + 1)]).peak_reserved == 12 * MIB


def test_cached_segments_go_back_before_memory_runs_out() -> None:
    events = [(0, 30 * MIB), (0, -30 * MIB), (1, 40 * MIB)]
    assert replay_caching(events).peak_reserved == 70 * MIB
    assert replay_caching(events, 40 * MIB).failed is None
    assert replay_caching(events, 39 * MIB).failed == 2

"""The caching allocator against a slow twin that knows nothing but a list of ranges, and against its invariants."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.caching import CachingPolicy, replay_caching
from memfit.allocators.caching_columns import columns_of
from memfit.allocators.caching_driver import Driver
from memfit.allocators.caching_loop import run
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.caching_twin import UNMAPPED, CachingTwin
from memfit.ir.requests import Action, Requests, requests_of_events

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


def served_by_twin(requests: Requests, capacity: int | None) -> tuple[int | None, int, list[int]]:
    """(failed event, reserved peak, bytes handed out after each event) of the slow twin."""
    twin, held, peak, allocated = Twin(capacity), {}, 0, []
    for event in range(len(requests)):
        block = int(requests.block[event])
        if requests.action[event] == Action.ALLOCATE:
            try:
                held[block] = twin.allocate(int(requests.nbytes[event]))
            except MemoryError:
                return event, peak, allocated
        else:
            twin.free(held.pop(block))
        peak = max(peak, twin.reserved)
        allocated.append(sum(r[1] for r in twin.ranges if r[2]))
    return None, peak, allocated


def requests_of(program: list[tuple[bool, int, int]]) -> Requests:
    storage, delta, held = [], [], []
    for number, (frees, size, which) in enumerate(program):
        if frees and held:
            storage.append(held.pop(which % len(held)))
            delta.append(-1)
        else:
            held.append(number)
            storage.append(number)
            delta.append(size)
    return requests_of_events(storage, delta)


@settings(max_examples=150, deadline=None)
@given(PROGRAMS, st.sampled_from([None, 48 * MIB, 130 * MIB]))
def test_same_decisions_as_the_twin(program: list[tuple[bool, int, int]], capacity: int | None) -> None:
    requests = requests_of(program)
    failed, peak, allocated = served_by_twin(requests, capacity)
    found = CachingPolicy().replay(requests, capacity, series=True)
    assert (found.failed, found.peak_reserved) == (failed, peak)
    assert found.series is not None
    assert found.series.allocated.tolist() == allocated


@settings(max_examples=100, deadline=None)
@given(PROGRAMS, st.booleans())
def test_blocks_tile_their_segments(program: list[tuple[bool, int, int]], expandable: bool) -> None:
    chosen = CachingSettings(expandable_segments=expandable)
    columns = columns_of(requests_of(program), chosen)
    twin = CachingTwin(columns.queues, chosen, Driver(None))
    held = run(twin, columns).slot
    covered = 0
    gone = {slot for unused in twin.unused for slot in unused}
    for slot, after in enumerate(twin.after):
        if slot in gone:
            continue
        covered += twin.size[slot] if twin.state[slot] != UNMAPPED else 0
        if after >= 0:
            assert twin.before[after] == slot
            assert twin.address(slot) + twin.size[slot] == twin.address(after)
            assert not (twin.key[slot] and twin.key[after]), "two free neighbours were not joined"
    assert covered == twin.reserved
    freed = set(columns.block[columns.action == Action.FREE].tolist())
    for block, slot in enumerate(held):
        if block not in freed:
            twin.free(slot)
    twin.empty_cache()
    assert twin.reserved == 0


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

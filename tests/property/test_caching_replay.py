"""The compiled caching allocator, its twin, and the twin's fast loop: equal on random programs under all settings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.advise import STEP, advise
from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_columns import columns_of
from memfit.allocators.caching_driver import Driver
from memfit.allocators.caching_loop import run
from memfit.allocators.caching_settings import CachingSettings, parse_settings
from memfit.allocators.caching_twin import CachingTwin
from memfit.ir.requests import Requests

KIB, MIB = 1 << 10, 1 << 20
CONFS = [
    "", "expandable_segments:True", "max_split_size_mb:32", "max_split_size_mb:64,max_non_split_rounding_mb:40",
    "roundup_power2_divisions:4", "roundup_power2_divisions:[1:2,4:8,16:0,>:4]", "large_segment_size_mb:64",
    "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9", "per_process_memory_fraction:0.7",
    "garbage_collection_threshold:0.6,per_process_memory_fraction:0.95,max_split_size_mb:40",
    "expandable_segments:True,large_segment_size_mb:12,max_split_size_mb:32",
    "expandable_segments:True,roundup_power2_divisions:8",
]  # fmt: skip
SIZES = st.one_of(
    st.sampled_from([512, 4 * KIB, MIB // 2, MIB, MIB + 512, 3 * MIB, 12 * MIB]), st.integers(1, 4 * KIB),
    st.integers(MIB - 600, MIB + 600), st.integers(9 * MIB, 11 * MIB), st.integers(1, 64 * MIB),
)  # fmt: skip
STEPS = st.tuples(st.integers(0, 15), SIZES, st.integers(0, 1 << 16), st.integers(0, 2), st.integers(0, 7))
PROGRAMS = st.lists(STEPS, max_size=80)
CAPACITIES = st.sampled_from([None, 70 * MIB, 130 * MIB, 260 * MIB])


def requests_of(program: list[tuple[int, int, int, int, int]]) -> Requests:
    rows, live, waiting, count = [], [], [], 0
    for kind, size, which, stream, pool in program:
        if kind == 0:
            rows.append((3, 0, 0, 0, 0))
        elif kind == 1 and waiting:
            rows.append((1, waiting.pop(which % len(waiting)), 0, 0, 0))
        elif kind < 8 and live:
            block = live.pop(which % len(live))
            rows.append((2 if kind == 2 else 1, block, 0, 0, 0))
            if kind == 2:
                waiting.append(block)
        else:
            rows.append((0, count, size, stream, max(0, pool - 5)))
            live.append(count)
            count += 1
    columns = np.asarray(rows, np.int64).reshape(-1, 5)
    return Requests(
        columns[:, 0].astype(np.uint8), columns[:, 1].copy(), columns[:, 2].copy(), columns[:, 3].astype(np.int32),
        columns[:, 4].astype(np.int32), np.full(len(columns), -1, np.int64),
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(PROGRAMS, st.sampled_from(CONFS), CAPACITIES)
def test_compiled_and_twin_are_equal(
    program: list[tuple[int, int, int, int, int]], conf: str, capacity: int | None
) -> None:
    policy, requests = CachingPolicy(parse_settings(conf)), requests_of(program)
    compiled = policy.replay(requests, capacity, series=True)
    twin = policy.replay(requests, capacity, series=True, twin=True)
    for name in ("failed", "peak_live", "peak_allocated", "peak_reserved", "driver_allocations", "driver_frees"):
        assert getattr(compiled, name) == getattr(twin, name), name
    assert compiled.series is not None
    assert twin.series is not None
    for name in ("live", "allocated", "reserved", "address"):
        assert np.array_equal(getattr(compiled.series, name), getattr(twin.series, name)), name
    assert compiled.stranded == twin.stranded
    if capacity is not None:
        assert compiled.peak_reserved <= capacity


@settings(max_examples=100, deadline=None)
@given(PROGRAMS, CAPACITIES)
def test_the_fast_loop_is_the_twin_written_out(
    program: list[tuple[int, int, int, int, int]], capacity: int | None
) -> None:
    columns = columns_of(requests_of(program), CachingSettings())
    told = []
    for plain in (True, False):
        twin = CachingTwin(columns.queues, CachingSettings(), Driver(capacity))
        outcome = run(twin, columns, plain=plain)
        told.append((outcome.failed, outcome.size.tolist(), outcome.address.tolist(), twin.changes, twin.driver_frees))
    assert told[0] == told[1]


@settings(max_examples=60, deadline=None)
@given(PROGRAMS, st.sampled_from(CONFS))
def test_no_two_blocks_in_use_overlap(program: list[tuple[int, int, int, int, int]], conf: str) -> None:
    policy, requests = CachingPolicy(parse_settings(conf)), requests_of(program)
    found = policy.replay(requests, 260 * MIB, series=True)
    assert found.series is not None
    held: dict[int, tuple[int, int]] = {}
    for event in range(len(found.series.address)):
        action, block = int(requests.action[event]), int(requests.block[event])
        if action == 0:
            begin = int(found.series.address[event])
            size = int(requests.nbytes[event])
            assert all(begin + size <= low or high <= begin for low, high in held.values())
            held[block] = begin, begin + size
        elif action in (1, 2):
            held.pop(block, None)


@settings(max_examples=40, deadline=None)
@given(PROGRAMS, st.sampled_from(CONFS))
def test_the_smallest_capacity_is_the_smallest(program: list[tuple[int, int, int, int, int]], conf: str) -> None:
    """Against every capacity one after the other, from the live peak up."""
    requests, chosen = requests_of(program), parse_settings(conf)
    row = advise(requests, settings=(chosen,)).rows[0]
    policy = CachingPolicy(chosen)
    works = [
        capacity
        for capacity in range(0, row.smallest_capacity + STEP, STEP)
        if policy.replay(requests, capacity).failed is None
    ]
    assert row.smallest_capacity in works
    if row.proved:
        assert works[0] == row.smallest_capacity
    at_it = policy.replay(requests, row.smallest_capacity)
    assert (row.driver_allocations, row.driver_frees) == (at_it.driver_allocations, at_it.driver_frees)

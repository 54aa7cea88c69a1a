"""What every allocator policy keeps: the kernel and its twin agree byte for byte, and no two live blocks overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.bfc import BfcPolicy
from memfit.allocators.buddy import BuddyPolicy
from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.fits import KINDS, FitPolicy
from memfit.allocators.onnx_arena import OnnxArenaPolicy
from memfit.allocators.policy import Policy, Replay, live_bytes
from memfit.allocators.size_classes import SizeClassPolicy
from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests
from memfit.testing.programs import programs, random_requests, requests_of_rows

MIB = 1 << 20
POLICIES: list[Policy] = [
    *(FitPolicy(kind) for kind in KINDS),
    FitPolicy("best", alignment=64, granule=64), FitPolicy("next", alignment=96, granule=9600),
    CachingPolicy(), CachingPolicy(CachingSettings(expandable_segments=True)), SizeClassPolicy(),
    BuddyPolicy(), BuddyPolicy(6, 12), BfcPolicy(), BfcPolicy(allow_growth=False), BfcPolicy(garbage_collection=False),
    BfcPolicy(regions_join=True), BfcPolicy(first_region=MIB, spare=MIB), OnnxArenaPolicy(),
    OnnxArenaPolicy(same_as_requested=True), OnnxArenaPolicy(max_dead_bytes=0, largest_extension=4 * MIB),
]  # fmt: skip
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)


def figures(replay: Replay) -> tuple[object, ...]:
    return (
        replay.policy, replay.peak_live, replay.peak_allocated, replay.peak_reserved, replay.driver_allocations,
        replay.driver_frees, replay.failed, replay.stranded,
    )  # fmt: skip


def assert_equal(kernel: Replay, twin: Replay) -> None:
    assert figures(kernel) == figures(twin)
    if twin.series is None:
        assert kernel.series is None
        return
    assert kernel.series is not None
    for column in ("live", "allocated", "reserved", "address"):
        np.testing.assert_array_equal(getattr(kernel.series, column), getattr(twin.series, column), column)


@each_policy
@settings(max_examples=25, deadline=None)
@given(requests=programs(), capacity=st.sampled_from([None, None, 30 * MIB, 333 * MIB + 77]), series=st.booleans())
def test_kernel_and_twin_agree(policy: Policy, requests: Requests, capacity: int | None, series: bool) -> None:
    assert_equal(
        policy.replay(requests, capacity, series=series), policy.replay(requests, capacity, series=series, twin=True)
    )


@each_policy
@pytest.mark.parametrize("alive", [20, 400])
def test_kernel_and_twin_agree_on_long_programs(policy: Policy, alive: int) -> None:
    requests = random_requests(alive, 3000, alive)
    free = policy.replay(requests, series=True)
    assert free.failed is None
    assert_equal(free, policy.replay(requests, series=True, twin=True))
    tight = int(free.peak_reserved * 0.8)
    assert_equal(policy.replay(requests, tight), policy.replay(requests, tight, twin=True))


@pytest.mark.parametrize(
    "policy", [FitPolicy("first"), FitPolicy("next"), FitPolicy("worst"), BfcPolicy(spare=MIB)], ids=str
)
def test_kernel_and_twin_agree_where_holes_are_many(policy: Policy) -> None:
    requests = random_requests(7, 5000, 1600)
    assert_equal(policy.replay(requests, series=True), policy.replay(requests, series=True, twin=True))


@each_policy
@settings(max_examples=15, deadline=None)
@given(requests=programs())
def test_what_always_holds(policy: Policy, requests: Requests) -> None:
    found = policy.replay(requests, series=True)
    assert found.failed is None
    series = found.series
    assert series is not None
    assert len(series.live) == len(series.allocated) == len(series.reserved) == len(series.address) == len(requests)
    np.testing.assert_array_equal(series.live, live_bytes(requests))
    assert (series.live <= series.allocated).all()
    assert (series.allocated <= series.reserved).all()
    if len(requests):
        peaks = [int(column.max()) for column in (series.live, series.allocated, series.reserved)]
        assert peaks == [found.peak_live, found.peak_allocated, found.peak_reserved]
    alive: dict[int, tuple[int, int]] = {}
    rows = zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    for (action, block, nbytes), address in zip(rows, series.address.tolist(), strict=True):
        if action == Action.ALLOCATE:
            assert address >= 0
            for other, (start, end) in alive.items():
                assert end <= address or address + nbytes <= start, f"blocks {block} and {other} overlap"
            alive[block] = (address, address + nbytes)
        else:
            assert address == -1
            if action == Action.FREE:
                del alive[block]


@each_policy
def test_capacity_is_kept_and_running_out_is_told(policy: Policy) -> None:
    rows = [(Action.ALLOCATE, number, 30 * MIB) for number in range(4)]
    found = policy.replay(requests_of_rows(rows), 100 * MIB, series=True)
    assert found.failed is not None
    assert 1 <= found.failed <= 3
    assert found.peak_reserved <= 100 * MIB
    assert found.peak_live == found.failed * 30 * MIB
    assert policy.replay(requests_of_rows(rows), 1000 * MIB).failed is None


@each_policy
def test_an_empty_program(policy: Policy) -> None:
    found = policy.replay(requests_of_rows([]), series=True)
    assert (found.peak_live, found.peak_reserved, found.fragmentation, found.failed) == (0, 0, 0.0, None)
    assert found.stranded == ()


@each_policy
def test_programs_that_cannot_be_are_refused(policy: Policy) -> None:
    allocate = (Action.ALLOCATE, 0, 512)
    for rows in (
        [(Action.ALLOCATE, 0, 0)], [(Action.ALLOCATE, 0, -512)], [(Action.ALLOCATE, 0, 1 << 60)], [(Action.FREE, 0, 0)],
        [allocate, (Action.ALLOCATE, 0, 512)], [allocate, (Action.FREE, 7, 0)], [allocate, (9, 0, 0)],
        [allocate, (Action.FREE, -1, 0)],
    ):  # fmt: skip
        with pytest.raises(TraceError):
            policy.replay(requests_of_rows(rows))


@each_policy
def test_sizes_of_terabytes(policy: Policy) -> None:
    rows = [
        (Action.ALLOCATE, 0, 10**12),
        (Action.ALLOCATE, 1, 10**12),
        (Action.FREE, 0, 0),
        (Action.ALLOCATE, 2, 10**12),
    ]
    found = policy.replay(requests_of_rows(rows))
    assert found.peak_live == 2 * 10**12
    assert found.peak_reserved >= 2 * 10**12
    assert_equal(found, policy.replay(requests_of_rows(rows), twin=True))

"""The rules of each allocator, case by case, as its documentation or source states them."""

from __future__ import annotations

import numpy as np
import pytest

from memfit.allocators.bfc import BfcPolicy
from memfit.allocators.buddy import BuddyPolicy
from memfit.allocators.fits import FitPolicy
from memfit.allocators.onnx_arena import OnnxArenaPolicy
from memfit.allocators.planned import PlannedPolicy
from memfit.allocators.policy import Policy, Replay
from memfit.allocators.size_classes import SizeClassPolicy, size_class, slab_bytes
from memfit.ir.requests import Action
from memfit.testing.programs import Event, requests_of_rows

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def run(policy: Policy, text: str, capacity: int | None = None, unit: int = MIB) -> Replay:
    """Replay ``a3 b2 -a c1``: allocate a of 3 units, b of 2, free a, allocate c; ``!`` empties the cache."""
    number: dict[str, int] = {}
    rows: list[Event] = []
    for word in text.split():
        if word == "!":
            rows.append((Action.EMPTY_CACHE, 0, 0))
        elif word[0] == "-":
            rows.append((Action.FREE, number[word[1:]], 0))
        else:
            number[word[0]] = len(number)
            rows.append((Action.ALLOCATE, number[word[0]], int(float(word[1:]) * unit)))
    return policy.replay(requests_of_rows(rows), capacity, series=True)


def addresses(found: Replay, unit: int = MIB) -> list[float]:
    assert found.series is not None
    return [address / unit for address in found.series.address.tolist() if address >= 0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("first", 0), ("best", 7), ("worst", 12), ("next", 12)],
)
def test_which_hole_a_fit_takes(kind: str, expected: int) -> None:
    # holes of 4 at 0, of 2 at 7, of 8 at 12; the last search ended at 23
    program = "a4 b3 c2 d3 e8 f3 -a -c -e"
    found = run(FitPolicy(kind, granule=MIB), f"{program} g2")
    assert addresses(found)[-1] == (0 if kind == "next" else expected)
    assert found.peak_reserved == 23 * MIB


def test_next_fit_goes_on_where_it_stopped() -> None:
    program = "a4 b3 c2 d3 e8 f3 -a -c -e g1 h1 i1"
    assert addresses(run(FitPolicy("next", granule=MIB), program))[-3:] == [0, 1, 2]
    assert addresses(run(FitPolicy("next", granule=MIB), "a4 b3 c2 d3 -c -a e2 f1"))[-2:] == [0, 2]


def test_an_arena_grows_by_what_its_open_end_lacks_and_shrinks_when_told() -> None:
    found = run(FitPolicy("first"), "a1 b1 -b c3 -c !")
    assert found.series is not None
    assert found.series.reserved.tolist() == [2 * MIB, 2 * MIB, 2 * MIB, 4 * MIB, 4 * MIB, 2 * MIB]
    assert (found.driver_allocations, found.driver_frees) == (2, 1)


def test_buddies_round_to_powers_of_two_lie_at_multiples_and_join() -> None:
    found = run(BuddyPolicy(), "a0.3 b0.6 c1 -a -b d2")
    assert addresses(found) == [0, 1, 2, 0]
    assert found.peak_allocated == 3 * MIB
    assert found.series is not None
    assert found.series.allocated.tolist()[:2] == [MIB // 2, MIB + MIB // 2]


def test_bfc_rounds_to_256_and_splits_at_twice_the_request() -> None:
    whole = run(BfcPolicy(), "a7 b1 -a c4", unit=256)
    assert addresses(whole, 256)[2] == addresses(whole, 256)[0]
    assert whole.series is not None
    assert whole.series.allocated.tolist()[-1] == 8 * 256  # 7 is less than twice 4: given whole
    split = run(BfcPolicy(), "a8 b1 -a c4", unit=256)
    assert split.series is not None
    assert split.series.allocated.tolist()[-1] == 5 * 256
    assert run(BfcPolicy(), "a1", unit=1).peak_allocated == 256


def test_bfc_splits_where_128_mib_would_be_spare() -> None:
    # a region of 512 MiB; the request of 300 leaves 212 to spare: split although it is less than twice
    assert run(BfcPolicy(), "a300").peak_allocated == 300 * MIB
    assert run(BfcPolicy(spare=GIB), "a300").peak_allocated == 512 * MIB


def test_bfc_regions_double() -> None:
    found = run(BfcPolicy(), "a2 b2 c2 d2 e9")
    assert found.series is not None
    # 2 MiB, then one of 4 for b and c, then one of 8, then 16 (already doubled)
    assert found.series.reserved.tolist() == [2 * MIB, 6 * MIB, 6 * MIB, 14 * MIB, 30 * MIB]
    assert run(BfcPolicy(first_region=MIB), "a0.5").peak_reserved == MIB


def test_bfc_takes_all_at_once() -> None:
    policy = BfcPolicy(allow_growth=False)
    assert run(policy, "a1", 100 * MIB).peak_reserved == 100 * MIB
    assert run(policy, "a1 b98", 100 * MIB).driver_calls == 1


def test_bfc_collects_free_regions_before_memory_runs_out() -> None:
    program = "a2 b4 c8 -a -b -c d16"
    found = run(BfcPolicy(), program, 20 * MIB)
    assert found.failed is None
    assert found.driver_frees == 3
    assert run(BfcPolicy(garbage_collection=False), program, 20 * MIB).failed == 6


def test_bfc_regions_that_join_hold_larger_chunks() -> None:
    program = "a2 b4 -a -b c6"
    assert run(BfcPolicy(regions_join=True), program).peak_reserved == 6 * MIB
    assert run(BfcPolicy(), program).peak_reserved == 14 * MIB


def test_onnx_arena_starts_at_one_mib_and_doubles_to_a_limit() -> None:
    found = run(OnnxArenaPolicy(), "a1 b1 c2")
    assert found.series is not None
    assert found.series.reserved.tolist() == [MIB, 3 * MIB, 7 * MIB]
    capped = run(OnnxArenaPolicy(initial_chunk=MIB, largest_extension=2 * MIB), "a1 b2 c2 d2")
    assert capped.series is not None
    assert capped.series.reserved.tolist() == [MIB, 3 * MIB, 5 * MIB, 7 * MIB]


def test_onnx_arena_same_as_requested() -> None:
    found = run(OnnxArenaPolicy(same_as_requested=True), "a3 b5 -a -b c4")
    assert found.peak_reserved == 8 * MIB
    assert addresses(found)[2] == addresses(found)[1]  # 5 MiB is less than twice 4: given whole
    assert found.series is not None
    assert found.series.allocated.tolist()[-1] == 5 * MIB


def test_onnx_arena_shrinks_but_keeps_its_first_region() -> None:
    found = run(OnnxArenaPolicy(), "a1 b2 c4 -a -b -c ! d3")
    assert found.series is not None
    assert found.series.reserved.tolist()[-2:] == [MIB, 5 * MIB]  # growth starts anew at 2 MiB, doubled for 3
    exact = run(OnnxArenaPolicy(same_as_requested=True), "a1 b2 -a -b !")
    assert exact.series is not None
    assert exact.series.reserved.tolist()[-1] == 0


def test_size_classes_are_jemallocs() -> None:
    assert [size_class(n) for n in (1, 16, 17, 112, 128, 129, 160, 161, 1025, 14 * KIB, 14 * KIB + 1)] == [
        16, 16, 32, 112, 128, 160, 160, 192, 1280, 14 * KIB, 16 * KIB,
    ]  # fmt: skip
    assert [slab_bytes(n) // 4096 for n in (16, 48, 160, 320, 5120, 14 * KIB)] == [1, 3, 5, 5, 5, 7]


def test_small_blocks_share_slabs_of_their_class() -> None:
    found = run(SizeClassPolicy(), "a150 b300 c151 d160 -c e152", unit=1)
    first, other, second, third, again = addresses(found, 1)
    assert (second - first, third - first) == (160, 320)
    assert again == second
    assert other - first == 20480  # behind the slab of five pages
    assert found.peak_allocated == 3 * 160 + 320


def test_a_plan_is_looked_up() -> None:
    found = run(PlannedPolicy(np.array([0, 4 * MIB, 0]), 7 * MIB), "a3 b3 -a c4")
    assert addresses(found) == [0, 4, 0]
    assert (found.peak_reserved, found.driver_calls) == (7 * MIB, 1)
    assert run(PlannedPolicy(np.array([0]), 7 * MIB), "a3", 6 * MIB).failed == 0
    with pytest.raises(ValueError, match="1 offsets for 2 blocks"):
        run(PlannedPolicy(np.array([0]), 7 * MIB), "a3 b3")


def test_names_say_what_is_not_the_default() -> None:
    assert FitPolicy("best", alignment=64, granule=4096).name == "best fit (alignment 64 B, granule 4.00 KiB)"
    assert BfcPolicy(allow_growth=False, garbage_collection=False).name == "TensorFlow BFC (all at once, no collection)"
    assert OnnxArenaPolicy(same_as_requested=True).name == "ONNX Runtime arena (same as requested)"
    assert BuddyPolicy(10).name == "buddy (blocks from 1.00 KiB)"
    with pytest.raises(ValueError, match="no 'quick' fit"):
        FitPolicy("quick")

"""The schedule of weights against brute force: what it promises holds, and how far it is from the fewest reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.runtime.weight_schedule import default_ahead, fewest_reads, schedule_weights, smallest_capacity
from memfit.testing.exact_weights import fewest_reads_exactly, why_not_kept


@st.composite
def passes(draw: st.DrawFn, most: int = 8, chunks: int = 7) -> list[list[int]]:
    access = st.lists(st.integers(0, chunks - 1), min_size=1, max_size=3, unique=True).map(sorted)
    return draw(st.lists(access, min_size=1, max_size=most))


@settings(max_examples=400, deadline=None)
@given(passes(), st.integers(0, 5), st.integers(0, 4))
def test_a_schedule_can_be_carried_out(accesses: list[list[int]], extra: int, ahead: int) -> None:
    capacity = smallest_capacity(accesses) + extra
    schedule = schedule_weights(accesses, capacity, ahead)
    assert why_not_kept(accesses, schedule) == ""


@settings(max_examples=300, deadline=None)
@given(passes(6, 5), st.integers(0, 3))
def test_reads_against_brute_force_and_belady(accesses: list[list[int]], extra: int) -> None:
    capacity = smallest_capacity(accesses) + extra
    schedule = schedule_weights(accesses, capacity, 0)
    exact = fewest_reads_exactly(accesses, capacity)
    assert fewest_reads(schedule) <= exact <= schedule.reads
    assert schedule.reads <= exact + 2  # a circle: the greedy choice is the best one on a line
    if exact == 0:
        assert schedule.reads <= 1


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12))
def test_on_a_cycle_it_is_the_best(chunks: int, capacity: int) -> None:
    accesses = [[chunk] for chunk in range(chunks)]
    capacity = min(capacity, chunks)
    assert schedule_weights(accesses, capacity, 0).reads == fewest_reads_exactly(accesses, capacity)


@pytest.mark.parametrize("share", [0.8, 0.5])
@pytest.mark.parametrize("sizes", [(4, 4, 4, 4, 11, 11, 11), (8,), (2, 2, 6)])
def test_hits_are_within_a_point_of_the_bound(share: float, sizes: tuple[int, ...]) -> None:
    accesses, reached = [], 0
    for _ in range(24 * 7 // len(sizes)):
        for size in sizes:
            accesses.append(list(range(reached, reached + size)))
            reached += size
    schedule = schedule_weights(accesses, int(share * reached))
    touched = int(schedule.fresh.sum())
    assert why_not_kept(accesses, schedule) == ""
    assert (schedule.reads - fewest_reads(schedule)) / touched <= 0.01
    assert schedule.reads / touched <= 1 - share + 0.01


def test_reads_are_spread_evenly() -> None:
    """Every stretch of the pass reads about the same share: Belady's own choice would read all in one run."""
    schedule = schedule_weights([[chunk] for chunk in range(400)], 200)
    read = schedule.read.astype(int)
    tenths = [int(read[i : i + 40].sum()) for i in range(0, 400, 40)]
    assert max(tenths) - min(tenths) <= 3


def test_a_layer_used_twice_as_often_stays() -> None:
    often = [[0], [1], [0], [2], [0], [3], [0], [4]]
    schedule = schedule_weights(often, 2, 0)
    assert not schedule.read[schedule.chunk == 0].any()


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 3 chunks at once, there are 2 frames"):
        schedule_weights([[0, 1, 2]], 2)
    assert default_ahead([[0]], 10) == 1
    assert smallest_capacity([]) == 0

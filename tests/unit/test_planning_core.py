"""Refusals with their words, greedy orders by hand, lower bounds and reductions by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memfit.errors import CapacityError, MemfitError, ProblemError
from memfit.planners import bounds, greedy, reduce
from memfit.planners.portfolio import STRATEGIES, plan_problem
from memfit.planners.problem import Memory, Piece, Placement, Problem, simple_problem
from memfit.planners.single_memory import refuse_invalid
from memfit.planners.validate import check_problem, why_invalid
from memfit.testing.exact_placement import smallest_peak
from memfit.testing.problems import layered, zero_slack


def three(**changes: object) -> Problem:
    """Three buffers a, b, c of 10, 20, 30 bytes; a meets b, b meets c."""
    problem = simple_problem([0, 1, 2], [2, 3, 4], [10, 20, 30], ids=("a", "b", "c"))
    return replace(problem, **changes)  # type: ignore[arg-type]


def column(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


REFUSED = [
    (three(size=column(10, 0, -3)), r"buffer b: its size is 0 bytes \(2 buffers in all\); sizes are positive"),
    (three(upper=column(2, 1, 4)), r"buffer b: its lifetime ends before it begins, or is empty \(begins at 1\)"),
    (three(alignment=column(1, 1, 0)), "buffer c: its alignment is 0"),
    (three(memory=column(-1, 3, -1)), "buffer b: it must lie in memory 3, which there is not"),
    (three(offset=column(-7, -1, -1)), "buffer a: its fixed offset is -7; offsets are not negative"),
    (three(alignment=column(1, 64, 1), offset=column(-1, 65, -1)), "its fixed offset 65 is no multiple of its alignment 64"),
    (three(offset=column(0, 5, -1)), r"buffer a and buffer b: both are fixed, at 0 \(10 B\) and at 5 \(20 B\), and overlap"),
    (three(ids=("a", "a", "c")), "buffer a: its id is used twice"),
    (three(size=column(10, 20)), "2 entries of size for 3 buffers"),
    (three(memories=()), "it has no memory"),
    (three(memories=(Memory("near", 0),)), "memory near: its capacity is 0 bytes"),
    (three(same=((0, 9),)), r"must-alias pair \(0, 9\) names a buffer that there is not"),
    (three(in_place=((1, 1),)), "buffer b: an in-place pair names it twice"),
    (three(same=((0, 2),), offset=column(0, -1, 64)), "must lie at one offset, yet have the fixed offsets 0, 64"),
    (three(in_place=((0, 1), (1, 2), (2, 0))), "in-place pairs form a cycle"),
    (three(pieces={1: ()}), "buffer b: it is never in use"),
    (three(pieces={1: (Piece(1, 3, 5, 5),)}), r"the window \[5, 5\) of \[1, 3\) is not within its 20 bytes"),
    (three(pieces={1: (Piece(1, 9, 0, 20),)}), r"its piece \[1, 9\) leaves its lifetime"),
    (three(pieces={7: (Piece(1, 2, 0, 20),)}), "it has pieces of buffer number 7, of 3"),
    (three(labels=("x",)), "1 labels for 3 buffers"),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_cannot_be_planned_is_refused_in_words(problem: Problem, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        check_problem(problem)
    with pytest.raises(ProblemError):
        plan_problem(problem)


def test_a_sound_problem_passes() -> None:
    check_problem(three(in_place=((0, 1), (1, 2)), same=(), offset=column(0, 10, -1)))


@pytest.mark.parametrize(("capacity", "needed", "name"), [(29, 30, "c"), (1, 30, "c")])
def test_a_capacity_below_one_buffer_names_it(capacity: int, needed: int, name: str) -> None:
    with pytest.raises(CapacityError) as caught:
        plan_problem(three(), capacity=capacity)
    assert (caught.value.capacity, caught.value.needed, caught.value.infeasible) == (capacity, needed, (name,))


def test_a_pin_that_ends_above_the_capacity_is_named() -> None:
    with pytest.raises(CapacityError) as caught:
        plan_problem(three(offset=column(100, -1, -1)), capacity=60)
    assert (caught.value.needed, caught.value.infeasible) == (110, ("a",))


def test_very_large_sizes_are_planned_and_sums_beyond_62_bits_refused() -> None:
    large = simple_problem([0] * 5, [10**12] * 5, [10**12] * 5)
    assert plan_problem(large, strategies=STRATEGIES, time_limit=1.0).best.peak == 5 * 10**12
    with pytest.raises(ProblemError, match="more than 4611686018427387904"):
        plan_problem(simple_problem([0] * 5, [1] * 5, [2**60] * 5))


def test_one_capacity_for_several_memories_is_refused() -> None:
    with pytest.raises(MemfitError, match="one capacity for 2 memories"):
        plan_problem(three(memories=(Memory("x"), Memory("y"))), capacity=64)


def test_an_invalid_placement_never_leaves() -> None:
    wrong = Placement("made up", column(0, 5, 40), column(0, 0, 0), 70, 0)
    assert "buffer a at 0 and buffer b at 5 are alive at one instant" in why_invalid(three(), wrong)
    with pytest.raises(ProblemError, match="a planner made an invalid placement"):
        refuse_invalid(three(), wrong)


@pytest.mark.parametrize(
    ("fit", "last"),
    [("best", 60), ("first", 0), ("worst", 20)],
)
def test_fits_choose_their_hole(fit: str, last: int) -> None:
    """Holes of 15 at 0, 30 at 20 and 10 at 60 between pins; the buffer of 10 bytes takes one of them."""
    pins = simple_problem([0] * 4, [1] * 4, [5, 10, 10, 10])
    problem = replace(pins, offset=column(15, 50, 70, -1))
    whole = reduce.whole_instance(problem, reduce.groups_of(problem))
    assert greedy.place(whole, f"size/{fit}")[3] == last


ORDERS = {
    "size": [2, 1, 0, 3],
    "area": [3, 2, 1, 0],
    "lifetime": [3, 1, 2, 0],
    "allocation": [0, 3, 1, 2],
    "breadth": [2, 1, 3, 0],
    "conflicts": [3, 2, 1, 0],
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders_by_hand(name: str) -> None:
    problem = simple_problem([0, 2, 3, 0], [1, 6, 5, 12], [6, 7, 20, 5])
    whole = reduce.whole_instance(problem, reduce.groups_of(problem))
    assert greedy.order_of(whole, name).tolist() == ORDERS[name]


def test_areas_beyond_64_bits_are_ordered() -> None:
    problem = simple_problem([0, 0], [2**40, 2**41], [2**41, 2**40 + 1])
    whole = reduce.whole_instance(problem, reduce.groups_of(problem))
    assert greedy.order_of(whole, "area").tolist() == [1, 0]


def test_the_load_says_when_and_who() -> None:
    found = bounds.load(three())
    assert (found.nbytes, found.instant, found.buffers) == (50, 2, (1, 2))
    assert found.reason == "the load: 2 buffers alive at instant 2"
    pinned = bounds.load(three(offset=column(90, -1, -1)))
    assert (pinned.nbytes, pinned.buffers) == (100, (0,))
    assert "buffer a" in pinned.reason


def test_the_load_counts_in_place_pairs_once() -> None:
    assert bounds.load(three(in_place=((1, 2),))).nbytes == 30
    star = simple_problem([0, 0, 1], [2, 2, 3], [8, 4, 6])
    assert bounds.load(replace(star, in_place=((0, 2), (1, 2)))).nbytes == 12


def test_the_load_counts_alignment_but_for_the_top() -> None:
    found = bounds.load(simple_problem([0, 0, 0], [1, 1, 1], [10, 50, 65], alignment=64))
    assert found.nbytes == 64 + 64 + 128 - 63
    assert "rounded up" in found.reason
    result = plan_problem(simple_problem([0, 0, 0], [1, 1, 1], [10, 50, 65], alignment=64))
    assert result.best.optimal


def test_rounded_components_have_no_alignment_left() -> None:
    problem = simple_problem([0, 1, 2], [3, 4, 5], [10, 100, 200], alignment=64)
    (part,) = reduce.split(reduce.whole_instance(problem, reduce.groups_of(problem)))
    assert part.rounded is not None
    assert part.rounded.instance.plain
    assert part.rounded.instance.size.tolist() == [1, 2, 4]
    assert (part.unit, part.rounded.unit) == (2, 64)


def test_components_are_cut_where_nobody_lives() -> None:
    problem = simple_problem([0, 1, 5, 6, 9], [2, 5, 7, 9, 11], [4, 4, 6, 6, 9])
    parts = reduce.split(reduce.whole_instance(problem, reduce.groups_of(problem)))
    assert [part.rows.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert [part.unit for part in parts] == [4, 6, 9]


def test_never_worse_than_any_greedy_order() -> None:
    for problem in (zero_slack(3, 60), layered(5, 60)):
        best = plan_problem(problem, time_limit=0.5).best.peak
        listed = plan_problem(problem, strategies=greedy.STRATEGIES)
        assert len(listed.all) == len(greedy.STRATEGIES)
        assert best <= listed.best.peak


def test_progress_is_told_and_may_stop() -> None:
    seen: list[str] = []

    def stop(text: str, share: float) -> None:
        assert 0 <= share <= 1
        seen.append(text)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_problem(zero_slack(2, 80), progress=stop)
    assert seen[0] == "greedy size/best"


def test_two_unpaired_windows_inside_a_third_buffer_are_not_counted_apart() -> None:
    """Buffers 1 and 2 both lie inside 0, on different bytes of it: a bound that counts one of them on top is no bound."""
    problem = replace(
        simple_problem([0, 0, 0], [1, 1, 1], [2, 1, 2]), in_place=((0, 1), (0, 2)), pieces={2: (Piece(0, 1, 1, 2),)}
    )
    assert smallest_peak(problem) == 2
    assert bounds.load(problem).nbytes == 2

"""The validator, the lower bound, the reduction and the greedy orders against brute force on small Problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.planners import bounds, greedy, reduce
from memfit.planners.problem import Instance, Ints, Placement, Problem
from memfit.planners.validate import why_invalid
from memfit.testing.exact_placement import ExactPlacement, smallest_peak
from memfit.testing.problems import layered, problems, zero_slack

SINGLE = problems(features=("alignment", "pins", "gaps", "same"))


def cells(problem: Problem, offset: list[int], memory: list[int]) -> dict[tuple[int, int, int], set[int]]:
    """Who uses each (memory, instant, byte): the definition of a placement, written out."""
    used: dict[tuple[int, int, int], set[int]] = {}
    for b in range(len(problem)):
        for p in problem.pieces_of(b):
            for t in range(p.lower, p.upper):
                for byte in range(offset[b] + p.low, offset[b] + p.high):
                    used.setdefault((memory[b], t, byte), set()).add(b)
    return used


def is_valid(problem: Problem, offset: list[int], memory: list[int]) -> bool:
    """Whether the cells allow the placement."""
    alias = {frozenset(p) for p in problem.same}
    for _ in range(len(problem)):
        alias |= {a ^ b for a in alias for b in alias if len(a ^ b) == 2}
    free = alias | {frozenset(p) for p in problem.in_place if offset[p[0]] == offset[p[1]]}
    if any(offset[a] != offset[b] or memory[a] != memory[b] for a, b in problem.same):
        return False
    for b in range(len(problem)):
        if offset[b] < 0 or offset[b] % problem.alignment[b] or problem.offset[b] not in (-1, offset[b]):
            return False
        if problem.memory[b] not in (-1, memory[b]):
            return False
    for (home, _, byte), users in cells(problem, offset, memory).items():
        capacity = problem.memories[home].capacity
        if capacity is not None and byte >= capacity:
            return False
        if any(a < b and frozenset((a, b)) not in free for a in users for b in users):
            return False
    return True


@settings(max_examples=400, deadline=None)
@given(problem=problems(memories=3), data=st.data())
def test_the_validator_says_what_the_cells_say(problem: Problem, data: st.DataObject) -> None:
    offset = [data.draw(st.integers(-1 if data.draw(st.integers(0, 20)) == 7 else 0, 14)) for _ in range(len(problem))]
    memory = [data.draw(st.integers(0, len(problem.memories) - 1)) for _ in range(len(problem))]
    for a, b in problem.same if data.draw(st.booleans()) else ():
        offset[b], memory[b] = offset[a], memory[a]
    tops: dict[int, int] = {}
    for b in range(len(problem)):
        tops[memory[b]] = max(tops.get(memory[b], 0), offset[b] + max(p.high for p in problem.pieces_of(b)))
    placement = Placement("", np.array(offset, np.int64), np.array(memory, np.int64), sum(tops.values()), 0)
    for brute in (True, False):
        assert (why_invalid(problem, placement, brute=brute) == "") == is_valid(problem, offset, memory)


@settings(max_examples=50, deadline=None)
@given(problem=problems())
def test_oracle_placements_are_valid_and_never_below_the_load(problem: Problem) -> None:
    best = ExactPlacement(problem).smallest()
    assert best is not None
    peak, offset = best
    assert bounds.load(problem).nbytes <= peak
    placement = Placement("", np.array(offset, np.int64).reshape(-1), np.zeros(len(problem), np.int64), peak, 0)
    assert why_invalid(problem, placement) == ""


@settings(max_examples=40, deadline=None)
@given(problem=problems(most=5, memories=3))
def test_the_load_is_below_every_peak_over_all_memories(problem: Problem) -> None:
    peak = smallest_peak(problem)
    if peak is not None:
        assert bounds.load(problem).nbytes <= peak


@settings(max_examples=200, deadline=None)
@given(problem=problems(features=()))
def test_the_load_of_plain_buffers_is_the_fullest_instant(problem: Problem) -> None:
    found = bounds.load(problem)
    sums = [int(problem.size[(problem.lower <= t) & (problem.upper > t)].sum()) for t in range(8)]
    assert found.nbytes == max(sums)
    if len(problem):
        assert sum(int(problem.size[b]) for b in found.buffers) == sums[found.instant] == found.nbytes


def as_problem(instance: Instance) -> Problem:
    """An Instance as a Problem of its own, so that the oracle can judge it."""
    from memfit.planners.problem import ANY_MEMORY, Memory, Piece

    rows = range(len(instance))
    pieces = {
        r: tuple(
            Piece(
                *(
                    int(c[p])
                    for c in (instance.piece_lower, instance.piece_upper, instance.piece_low, instance.piece_high)
                )
            )
            for p in range(instance.start[r], instance.start[r + 1])
        )
        for r in rows
    }
    return Problem(
        tuple(map(str, rows)), instance.lower, instance.upper, instance.size, instance.alignment, instance.fixed,
        np.full(len(instance), ANY_MEMORY, np.int64), pieces, memories=(Memory("m"),),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(problem=SINGLE, scale=st.sampled_from([1, 1, 4, 6]))
def test_the_reduction_keeps_the_optimum(problem: Problem, scale: int) -> None:
    groups = reduce.groups_of(problem)
    whole = reduce.whole_instance(problem, groups)
    parts = reduce.split(whole)
    solved = [ExactPlacement(as_problem(part.instance)).smallest() for part in parts]
    offsets = [np.array(best[1], dtype=np.int64) for best in solved if best is not None]
    assert len(offsets) == len(parts)
    offset = reduce.join(len(whole), parts, offsets)
    peak = max((part.unit * best[0] for part, best in zip(parts, solved, strict=True) if best), default=0)
    assert reduce.peak_of(whole, offset) == peak
    placement = Placement("", offset[groups.group], np.zeros(len(problem), np.int64), peak, 0)
    assert why_invalid(problem, placement) == ""
    expected = ExactPlacement(problem).smallest()
    assert expected is not None
    assert peak == expected[0]
    larger = replace(whole, size=whole.size * scale, alignment=whole.alignment * scale,
                     fixed=np.where(whole.fixed >= 0, whole.fixed * scale, -1),
                     piece_low=whole.piece_low * scale, piece_high=whole.piece_high * scale)  # fmt: skip
    for small, large in zip(parts, reduce.split(larger), strict=True):
        assert large.unit == small.unit * scale
        assert np.array_equal(large.instance.size, small.instance.size)


@settings(max_examples=150, deadline=None)
@given(problem=problems(most=12, instants=12, features=("gaps",)))
def test_sections_share_what_instants_share_and_are_few(problem: Problem) -> None:
    pieces = [p for b in range(len(problem)) for p in problem.pieces_of(b)]
    lower = np.array([p.lower for p in pieces], dtype=np.int64)
    upper = np.array([p.upper for p in pieces], dtype=np.int64)
    first, end, full = reduce.sections(lower, upper)
    for i in range(len(pieces)):
        for j in range(len(pieces)):
            meet = lower[i] < upper[j] and lower[j] < upper[i]
            assert (first[i] < end[j] and first[j] < end[i]) == meet
    alive = [frozenset(np.flatnonzero((lower <= t) & (upper > t)).tolist()) for t in full]
    assert all(not a <= b for i, a in enumerate(alive) for j, b in enumerate(alive) if i != j)


@settings(max_examples=150, deadline=None)
@given(problem=problems(most=16, instants=10, features=("alignment", "pins", "gaps", "same")),
       strategy=st.sampled_from(greedy.STRATEGIES))  # fmt: skip
def test_kernel_and_twin_place_alike(problem: Problem, strategy: str) -> None:
    whole = reduce.whole_instance(problem, reduce.groups_of(problem))
    order, fit = strategy.split("/")
    rows = greedy.order_of(whole, order)
    assert sorted(rows.tolist()) == list(range(len(whole)))
    fast, slow = greedy.place_in_order(whole, rows, fit), greedy.place_slowly(whole, rows, fit)
    assert fast.tolist() == slow.tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fit", greedy.FITS)
def test_kernel_and_twin_place_alike_at_length(seed: int, fit: str) -> None:
    for problem in (zero_slack(seed, 300), layered(seed, 200)):
        whole = reduce.whole_instance(problem, reduce.groups_of(problem))
        rows = greedy.order_of(whole, "size")
        assert greedy.place_in_order(whole, rows, fit).tolist() == greedy.place_slowly(whole, rows, fit).tolist()


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=20), data=st.data())
def test_range_maximum(values: list[int], data: st.DataObject) -> None:
    lower: list[int] = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=9))
    upper = [data.draw(st.integers(a + 1, len(values))) for a in lower]
    array: Ints = np.array(values, dtype=np.int64)
    found = greedy.range_maximum(array, np.array(lower, dtype=np.int64), np.array(upper, dtype=np.int64))
    assert found.tolist() == [max(values[a:b]) for a, b in zip(lower, upper, strict=True)]

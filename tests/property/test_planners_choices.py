"""Which memories, which in-place pairs, which buffers cannot fit: against brute force on small Problems."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.planners import bounds, reduce, single_memory
from memfit.planners.assignment import Assignment
from memfit.planners.in_place import choices
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import Memory, Problem
from memfit.planners.validate import why_invalid
from memfit.testing.exact_placement import ExactPlacement, most_preferred, preferred, smallest_peak
from memfit.testing.problems import is_sound, layered, problems


@settings(max_examples=60, deadline=None)
@given(problem=problems(most=5, memories=3))
def test_as_much_as_can_lies_in_the_preferred_memories(problem: Problem) -> None:
    result = plan_problem(problem, time_limit=5.0)
    expected = most_preferred(problem)
    if expected is None:
        assert result.fits is False
        assert result.infeasible
    else:
        assert result.fits is (True if any(m.capacity for m in problem.memories) else None)
        assert why_invalid(problem, result.best) == ""
        if len(problem.memories) > 1:
            assert preferred(problem, tuple(result.best.memory.tolist())) == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), near=st.integers(5, 80), middle=st.integers(5, 80))
def test_larger_problems_spill_and_keep_every_capacity(seed: int, near: int, middle: int) -> None:
    problem = layered(seed, 25, unit=1)
    memories = (Memory("near", near), Memory("middle", middle), Memory("far"))
    problem = replace(problem, memories=memories)
    if not is_sound(problem):
        return
    assignment = Assignment(problem)
    home = assignment.best()
    assert not assignment.overfull(home)
    for row in range(len(assignment.whole)):  # nothing that has room in an earlier memory is left in a later one
        loads = assignment.loads(home)
        for memory in range(int(home[row])):
            size, span = int(problem.size[row]), slice(assignment.lower[row], assignment.upper[row])
            assert int(loads[memory, span].max()) + size > assignment.room[memory]
    result = plan_problem(problem, time_limit=0.2)
    assert result.fits
    assert why_invalid(problem, result.best) == ""


@settings(max_examples=150, deadline=None)
@given(problem=problems(most=6, features=("pins", "gaps", "in_place", "same")))
def test_in_place_sets_can_be_used_and_none_is_missing(problem: Problem) -> None:
    chosen = choices(problem)
    assert chosen.sets[0] == ()
    peaks = []
    for pairs in chosen.sets:
        forced = replace(problem, same=(*problem.same, *pairs), in_place=())
        separate = replace(problem, in_place=pairs)
        groups = reduce.groups_of(problem, pairs)
        whole = reduce.whole_instance(problem, groups)
        assert bounds.load(problem).nbytes <= bounds.load_of(whole)
        best = ExactPlacement(forced).smallest()
        assert best is not None
        assert is_sound(separate)
        offset = np.array(best[1], dtype=np.int64)
        assert all(offset[a] == offset[b] for a, b in pairs)
        peaks.append(best[0])
    if chosen.complete:
        assert min(peaks) == smallest_peak(problem)


@settings(max_examples=100, deadline=None)
@given(problem=problems(), below=st.integers(1, 12))
def test_the_set_that_cannot_fit_is_irreducible(problem: Problem, below: int) -> None:
    best = smallest_peak(problem)
    largest = int((problem.size + np.maximum(problem.offset, 0)).max(initial=0))
    capacity = max(largest, (best or 0) - below)
    small = replace(problem, memories=(Memory("m", capacity),))
    if best is None or capacity >= best or not is_sound(small):
        return
    result = plan_problem(problem, capacity=capacity, time_limit=5.0)
    assert result.fits is False
    rows = np.array(sorted(problem.ids.index(name) for name in result.infeasible), dtype=np.int64)
    alone = smallest_peak(reduce.restrict(problem, rows))
    assert alone is not None
    assert alone > capacity


@settings(max_examples=100, deadline=None)
@given(problem=problems(features=("gaps", "same", "in_place")), below=st.integers(1, 12))
def test_an_irreducible_load_needs_every_buffer(problem: Problem, below: int) -> None:
    found = bounds.load(problem)
    capacity = found.nbytes - below
    rows = bounds.irreducible(problem, found, capacity)
    if found.nbytes and capacity >= int(problem.size.max()):
        chosen = reduce.restrict(problem, np.array(rows, dtype=np.int64))
        assert bounds.load(chosen).nbytes > capacity
        for left_out in rows:
            rest = reduce.restrict(problem, np.array([r for r in rows if r != left_out], dtype=np.int64))
            assert bounds.load(rest).nbytes <= capacity


@settings(max_examples=40, deadline=None)
@given(problem=problems(most=5, largest=10, features=("pins", "same")), step=st.sampled_from([2, 4]))
def test_sizes_rounded_up_to_the_alignment_lose_no_byte_of_the_optimum(problem: Problem, step: int) -> None:
    pins = np.where(problem.offset >= 0, problem.offset * step, -1)
    aligned = replace(problem, alignment=np.full(len(problem), step, dtype=np.int64), offset=pins)
    if is_sound(aligned):
        result = plan_problem(aligned, time_limit=5.0)
        assert result.best.peak == smallest_peak(aligned)
        for part in reduce.split(reduce.whole_instance(aligned, reduce.groups_of(aligned))):
            assert part.rounded is None or part.rounded.step % step == 0


@settings(max_examples=40, deadline=None)
@given(problem=problems(most=6))
def test_the_way_of_large_problems_is_valid_on_small_ones(problem: Problem) -> None:
    with mock.patch.object(single_memory, "_LARGE", 0):
        result = plan_problem(problem, time_limit=0.3)
    assert why_invalid(problem, result.best) == ""
    best = smallest_peak(problem)
    assert best is not None
    assert result.bound <= best <= result.best.peak

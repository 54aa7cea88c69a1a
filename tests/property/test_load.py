"""The load curve against counting every instant by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from memfit.planners.load import alive_at, load_of
from memfit.planners.problem import Problem, simple_problem
from memfit.testing.exact_placement import smallest_peak
from memfit.testing.problems import problems


def in_use(problem: Problem, instant: int) -> list[int]:
    return [b for b in range(len(problem)) if any(p.lower <= instant < p.upper for p in problem.pieces_of(b))]


@settings(max_examples=150, deadline=None)
@given(problems(features=("alignment", "gaps")))
def test_the_load_is_the_sum_of_what_is_in_use(problem: Problem) -> None:
    load = load_of(problem)
    for instant in range(-1, 8):
        counted = sum(
            p.high - p.low for b in range(len(problem)) for p in problem.pieces_of(b) if p.lower <= instant < p.upper
        )
        at = int(np.searchsorted(load.times, instant, side="right")) - 1
        assert counted == (load.nbytes[at] if at >= 0 else 0)
        assert sorted(alive_at(problem, instant).tolist()) == in_use(problem, instant)


@settings(max_examples=40, deadline=None)
@given(problems(most=5, features=("alignment", "gaps", "same", "in_place")))
def test_no_placement_is_below_the_load(problem: Problem) -> None:
    assert load_of(problem).peak <= smallest_peak(problem)


def test_parts_add_up_where_nothing_is_shared() -> None:
    problem = simple_problem([0, 1, 2], [3, 4, 5], [10, 20, 30])
    member = np.array([True, False, True])
    both = [
        dict(zip(*map(list, (load.times, load.nbytes)), strict=True))
        for load in (load_of(problem, member), load_of(problem, ~member))
    ]
    assert both[0][2] + both[1][1] == load_of(problem).peak == 60
    assert load_of(problem).peak_instant == 2
    assert load_of(simple_problem([], [], [])).peak == 0

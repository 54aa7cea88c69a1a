"""What every planner keeps to: a valid Placement, never below the lower bound, the same each time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from memfit.errors import CapacityError, ProblemError, UndecidedError
from memfit.planners import bounds
from memfit.planners.portfolio import STRATEGIES, plan_problem
from memfit.planners.problem import Memory, Piece, Placement, Problem, simple_problem
from memfit.planners.validate import why_invalid
from memfit.testing.exact_placement import smallest_peak
from memfit.testing.problems import layered, problems, zero_slack

PLANNERS: tuple[tuple[str, ...] | None, ...] = (*((name,) for name in STRATEGIES), None)
every_planner = pytest.mark.parametrize("strategies", PLANNERS, ids=lambda s: s[0] if s else "all")


def plan(problem: Problem, strategies: tuple[str, ...] | None, seconds: float = 0.1) -> Placement:
    """The best Placement, after what holds of every result was looked at."""
    result = plan_problem(problem, strategies=strategies, time_limit=seconds)
    unlimited = replace(problem, memories=tuple(replace(m, capacity=None) for m in problem.memories))
    for placement in result.all:
        assert why_invalid(unlimited, placement) == ""
        assert placement.peak >= result.best.peak or len(problem.memories) > 1
        assert placement.bound == result.bound
    assert result.fits is not True or why_invalid(problem, result.best) == ""
    assert bounds.load(problem).nbytes <= result.bound <= result.best.peak
    assert result.bound_reason
    if strategies:
        assert result.best.strategy == strategies[0] or len(problem.memories) > 1
    return result.best


def with_offsets(problem: Problem, **pins: int) -> Problem:
    offset = problem.offset.copy()
    for name, pin in pins.items():
        offset[problem.ids.index(name.removeprefix("b"))] = pin
    return replace(problem, offset=offset)


@every_planner
def test_no_buffers(strategies: tuple[str, ...] | None) -> None:
    assert plan(simple_problem([], [], []), strategies).peak == 0


@every_planner
def test_one_buffer(strategies: tuple[str, ...] | None) -> None:
    found = plan(simple_problem([3], [9], [100], alignment=64), strategies)
    assert (found.peak, found.offset.tolist(), found.optimal) == (100, [0], True)


@every_planner
def test_equal_lifetimes_are_stacked(strategies: tuple[str, ...] | None) -> None:
    found = plan(simple_problem([0] * 6, [2] * 6, [5, 1, 4, 4, 2, 8]), strategies)
    assert (found.peak, found.optimal) == (24, True)


@every_planner
def test_a_chain_reuses_bytes(strategies: tuple[str, ...] | None) -> None:
    found = plan(simple_problem([0, 1, 2, 3], [2, 3, 4, 5], [8, 8, 8, 8]), strategies)
    assert found.peak == 16


@every_planner
def test_pins_stay(strategies: tuple[str, ...] | None) -> None:
    problem = with_offsets(simple_problem([0, 0, 1], [4, 2, 4], [10, 10, 10]), b0=20)
    found = plan(problem, strategies)
    assert found.offset[0] == 20
    assert found.peak == 30


@every_planner
def test_alignment_is_kept(strategies: tuple[str, ...] | None) -> None:
    problem = simple_problem([0, 0, 0], [1, 1, 1], [10, 100, 3], alignment=64)
    found = plan(problem, strategies)
    assert not (found.offset % 64).any()
    assert 131 <= found.peak <= 202


@every_planner
def test_a_buffer_lies_in_the_gap_of_another(strategies: tuple[str, ...] | None) -> None:
    problem = replace(simple_problem([0, 2], [10, 8], [64, 64]), pieces={0: (Piece(0, 2, 0, 64), Piece(8, 10, 0, 64))})
    assert plan(problem, strategies).peak == 64


@every_planner
def test_must_alias_buffers_share_an_offset(strategies: tuple[str, ...] | None) -> None:
    problem = replace(simple_problem([0, 1, 1], [3, 4, 2], [10, 30, 5]), same=((0, 1),))
    found = plan(problem, strategies)
    assert found.offset[0] == found.offset[1]
    assert found.peak == 35


@every_planner
def test_an_in_place_pair_is_used_where_it_helps(strategies: tuple[str, ...] | None) -> None:
    problem = replace(simple_problem([0, 1, 2], [2, 3, 4], [10, 10, 10]), in_place=((0, 1), (1, 2)))
    assert plan(problem, strategies).peak == 10


@every_planner
def test_several_memories_keep_their_capacities(strategies: tuple[str, ...] | None) -> None:
    problem = replace(simple_problem([0, 0, 0], [5, 5, 5], [60, 50, 40]), memories=(Memory("near", 100), Memory("far")))
    found = plan(problem, strategies)
    assert sorted(found.memory.tolist()) == [0, 0, 1]
    assert found.memory.tolist() in ([0, 1, 0],)


@every_planner
@settings(max_examples=12, deadline=None)
@given(problem=problems())
def test_random_problems(strategies: tuple[str, ...] | None, problem: Problem) -> None:
    found = plan(problem, strategies)
    best = smallest_peak(problem)
    assert best is not None
    assert best <= found.peak
    assert found.bound <= best


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_everything_together_is_optimal_on_small_problems(problem: Problem) -> None:
    found = plan(problem, None, 5.0)
    assert found.peak == smallest_peak(problem)


@every_planner
def test_the_same_each_time(strategies: tuple[str, ...] | None) -> None:
    for problem in (zero_slack(4, 30), layered(4, 30)):
        first, second = plan(problem, strategies, 2.0), plan(problem, strategies, 2.0)
        if first.optimal:
            assert first.offset.tolist() == second.offset.tolist()


@pytest.mark.parametrize("capacity", [99, 100, 119, 120])
def test_a_capacity_is_kept_or_refused(capacity: int) -> None:
    problem = simple_problem([0, 0, 0, 7], [5, 5, 5, 9], [60, 40, 20, 10], ids=("a", "b", "c", "d"))
    if capacity >= 120:
        result = plan_problem(problem, capacity=capacity, must_fit=True)
        assert result.fits
        assert result.best.peak == 120
        return
    result = plan_problem(problem, capacity=capacity)
    assert result.fits is False
    assert result.best.peak == 120
    with pytest.raises(CapacityError) as caught:
        plan_problem(problem, capacity=capacity, must_fit=True)
    assert (caught.value.capacity, caught.value.needed) == (capacity, 120)
    expected = ("a", "b") if capacity == 99 else ("a", "b", "c")
    assert caught.value.infeasible == result.infeasible == expected


def test_what_is_not_decided_says_so() -> None:
    hard = zero_slack(1, 400)
    with pytest.raises(UndecidedError, match="not decided within the time limit"):
        plan_problem(hard, time_limit=0.0, must_fit=True)
    assert plan_problem(hard, time_limit=0.0).fits is None


@pytest.mark.parametrize("strategies", [(), ("size/best", "magic")])
def test_unknown_strategies_are_named(strategies: tuple[str, ...]) -> None:
    with pytest.raises(ProblemError, match="known: size/best"):
        plan_problem(simple_problem([0], [1], [1]), strategies=strategies)


def test_every_strategy_that_was_asked_for_is_listed() -> None:
    result = plan_problem(simple_problem([0, 0], [1, 2], [3, 4]), strategies=STRATEGIES)
    assert {p.strategy for p in result.all} == set(STRATEGIES)
    assert all(p.optimal for p in result.all)
    assert np.array_equal(result.best.offset, result.all[0].offset)

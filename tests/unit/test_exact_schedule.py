"""The integer program is right on cases counted by hand, and the planner reaches it on small graphs."""

import pytest

from memfit.analyses.liveness import simulate
from memfit.ir.graph import why_invalid
from memfit.passes.rematerialize import rematerialize
from memfit.testing.exact_schedule import exact_schedule
from memfit.testing.strategies import chain, mlp, random_graph

pytest.importorskip("scipy")


def test_unit_chain_counted_by_hand() -> None:
    graph = chain(3)  # f0 f1 f2 b2 b1 b0, input constant: 5 units at b2 counting the input, 4 with f0 run again
    peak = simulate(graph, range(6)).peak
    whole = exact_schedule(graph, peak)
    assert (whole.proven, whole.seconds) == (True, 6)
    tight = exact_schedule(graph, peak - 1)
    assert tight.proven
    assert tight.seconds == 7
    assert exact_schedule(graph, 2).infeasible


@pytest.mark.parametrize("seed", range(6))
def test_what_the_program_says_is_valid_and_keeps_the_budget(seed: int) -> None:
    graph = random_graph(seed, 10)
    budget = int(0.85 * simulate(graph, range(len(graph.ops))).peak)
    found = exact_schedule(graph, budget, time_limit=10)
    if found.schedule:
        assert why_invalid(graph, found.schedule) == ""
        assert simulate(graph, found.schedule).peak <= budget
        assert rematerialize(graph, budget).seconds <= found.seconds * 1.03
    else:
        assert found.infeasible


@pytest.mark.parametrize("fraction", [0.9, 0.8])
def test_the_planner_reaches_the_optimum_of_an_mlp(fraction: float) -> None:
    graph = mlp(4)
    peak = simulate(graph, range(len(graph.ops))).peak
    budget = int(graph.base_bytes + fraction * (peak - graph.base_bytes))
    found = exact_schedule(graph, budget, time_limit=20)
    assert found.proven
    assert rematerialize(graph, budget).seconds <= found.seconds * (1 + 1e-6)

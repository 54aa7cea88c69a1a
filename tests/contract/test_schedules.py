"""One suite for everything that makes a schedule: it keeps the rules of the Graph and says the truth about its figures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from memfit.analyses.liveness import simulate, simulate_slowly
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.order import order_for_peak
from memfit.passes.rematerialize import rematerialize, smallest_peak
from memfit.passes.reorder import optimizer_early

INSTANCES = Path(__file__).parents[2] / "benchmarks" / "instances"

MAKERS: dict[str, Callable[[Graph], Sequence[int]]] = {
    "program order": lambda graph: range(len(graph.ops)),
    "optimizer early": optimizer_early,
    "order for peak": lambda graph: order_for_peak(graph).schedule,
    "smallest peak": lambda graph: smallest_peak(graph).schedule,
    "rematerialize": lambda graph: rematerialize(graph, simulate(graph, range(len(graph.ops))).peak * 9 // 10).schedule,
}


@pytest.fixture(scope="module", params=["g-adamw", "r"])
def graph(request: pytest.FixtureRequest) -> Graph:
    return Graph.from_json(json.loads(gzip.open(INSTANCES / f"{request.param}.json.gz").read()))


@pytest.mark.parametrize("maker", list(MAKERS))
def test_it_keeps_the_rules_and_both_judges_agree(maker: str, graph: Graph) -> None:
    schedule = tuple(MAKERS[maker](graph))
    assert why_invalid(graph, schedule) == ""
    fast, slow = simulate(graph, schedule), simulate_slowly(graph, schedule)
    assert (fast.peak, fast.peak_position) == (slow.peak, slow.peak_position)
    assert fast.seconds == pytest.approx(slow.seconds)


def test_plans_state_their_own_figures(graph: Graph) -> None:
    for plan in (smallest_peak(graph), rematerialize(graph, simulate(graph, range(len(graph.ops))).peak * 8 // 10)):
        judged = simulate(graph, plan.schedule)
        assert judged.peak == plan.peak
        assert plan.lower_bound <= plan.smallest_feasible <= plan.peak
        assert judged.seconds == pytest.approx(plan.seconds)


def test_the_rules_can_be_broken(graph: Graph) -> None:
    assert why_invalid(graph, range(1, len(graph.ops)))
    assert why_invalid(graph, [*reversed(range(len(graph.ops)))])

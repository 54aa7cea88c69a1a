"""The smallest peak that is found and named in refusals, against the exact one of tiny graphs and a slow enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.analyses.bounds import peak_lower_bound
from memfit.analyses.liveness import arrays_of, simulate_slowly
from memfit.errors import BudgetError
from memfit.ir.graph import Graph, Op, Storage, why_invalid
from memfit.passes.rematerialize import rematerialize, smallest_peak
from memfit.testing.exact_peak import exact_smallest_peak
from memfit.testing.strategies import chain, random_graph, transformer


def least_of_all(graph: Graph, longest: int) -> int:
    """The smallest peak of all valid schedules of at most ``longest`` runs, one by one."""
    best = 1 << 62
    rows: list[tuple[int, ...]] = [()]
    for _ in range(longest):
        rows = [(*row, index) for row in rows for index in range(len(graph.ops)) if _may_follow(graph, (*row, index))]
        best = min([best, *(simulate_slowly(graph, row).peak for row in rows if not why_invalid(graph, row))])
    return best


def _may_follow(graph: Graph, row: tuple[int, ...]) -> bool:
    why = why_invalid(graph, row)
    return not why or "never runs" in why


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_exact_peak_is_that_of_an_enumeration(seed: int) -> None:
    graph = random_graph(seed, 2)
    longest = min(len(graph.ops) + 2, 6)
    assert exact_smallest_peak(graph) <= least_of_all(graph, longest)
    if len(graph.ops) <= 4:
        assert exact_smallest_peak(graph) == least_of_all(graph, longest)


def test_the_exact_peak_counted_by_hand() -> None:
    assert exact_smallest_peak(chain(2)) == simulate_slowly(chain(2), (0, 1, 2, 3)).peak
    over = Graph(
        (Op("a", (), (0,)), Op("b", (0,), (1,), reuse=0)), (Storage(5), Storage(5, output=True)),
    )  # fmt: skip
    assert exact_smallest_peak(over) == 5
    assert exact_smallest_peak(Graph((Op("a", (), (0,), workspace=3),), (Storage(5, output=True),))) == 8


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), ops=st.integers(3, 8))
@example(seed=42, ops=6)  # an output made twice, the second time before what it is made from is changed in place
@example(seed=62, ops=8)  # runs of four ops made again at once, over higher peaks on the way
@example(seed=64, ops=8)
@example(seed=76, ops=6)
@example(seed=91, ops=6)
def test_the_smallest_peak_of_tiny_graphs_is_the_exact_one(seed: int, ops: int) -> None:
    graph = random_graph(seed, ops)
    exact = exact_smallest_peak(graph)
    assert smallest_peak(graph).peak == exact
    with pytest.raises(BudgetError) as refusal:
        rematerialize(random_graph(seed, ops), exact - 1)
    assert refusal.value.needed == exact


def test_an_output_is_made_again_before_its_source_is_changed() -> None:
    """The walk alone (no beam): its edits reach a plan that leaves an output out between its last read and the change."""
    graph = random_graph(42, 6)
    arrays = arrays_of(graph)
    search = _core.Search(
        *arrays.liveness_arguments(),
        arrays.repeatable,
        arrays.edge_before,
        arrays.edge_after,
        arrays.chain,
        arrays.base,
    )
    program = np.arange(len(graph.ops), dtype=np.int32)
    sequence, peak, _ = search.lower(program, peak_lower_bound(graph).nbytes, 0, 200_000)
    assert why_invalid(graph, sequence.tolist()) == ""
    assert simulate_slowly(graph, sequence.tolist()).peak == peak == 19


def test_a_refusal_names_a_peak_that_a_new_search_keeps() -> None:
    def build() -> Graph:
        return transformer(1, batch=1, length=16, vocabulary=32)

    graph = build()
    with pytest.raises(BudgetError) as refusal:
        rematerialize(graph, graph.base_bytes)
    assert refusal.value.needed == smallest_peak(build()).peak
    assert rematerialize(build(), refusal.value.needed).peak <= refusal.value.needed

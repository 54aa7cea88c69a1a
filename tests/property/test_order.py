"""Orders with the least peak against brute force over every order, each native search against its slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.analyses.liveness import simulate
from memfit.ir.graph import Graph, Op, Storage, why_invalid
from memfit.passes.order import native_problem, needs_of, order_for_peak
from memfit.passes.order_modules import chained, problem_of
from memfit.testing.exact_order import bytes_while, least_bytes_while, least_peak, states
from memfit.testing.order_shapes import series_parallel, wired
from memfit.testing.strategies import random_graph, transformer

FOREVER = 1e6


def graphs(most: int) -> st.SearchStrategy[Graph]:
    seeds = st.integers(0, 10**9)
    return (
        st.builds(wired, seeds, st.integers(1, most))
        | st.builds(
            series_parallel, seeds, st.integers(2, most), shared=st.booleans(), spiced=st.sampled_from([0, 0.4])
        )
        | st.builds(random_graph, seeds, st.integers(2, most // 2 + 1), training=st.booleans())
    ).filter(lambda graph: len(graph.ops) <= most + 4)


def given_order(graph: Graph) -> np.ndarray:
    return np.arange(len(graph.ops), dtype=np.int32)


@settings(max_examples=250, deadline=None)
@given(graphs(9))
def test_the_answer_is_the_least_peak_of_all_orders_and_proved(graph: Graph) -> None:
    answer = order_for_peak(graph)
    assert why_invalid(graph, answer.schedule) == ""
    assert sorted(answer.schedule) == list(range(len(graph.ops)))
    assert simulate(graph, answer.schedule).peak == answer.peak == answer.bound == least_peak(graph)
    assert answer.optimal
    assert answer.given_peak == simulate(graph, range(len(graph.ops))).peak


@settings(max_examples=250, deadline=None)
@given(graphs(9))
def test_the_exact_search_alone_proves_the_least_peak(graph: Graph) -> None:
    problem, order = native_problem(graph), given_order(graph)
    high = int(problem.during(order).max()) + 1
    found, bound, complete = problem.exact(order[:0], order, 0, high, 10**6, FOREVER)
    assert complete
    assert why_invalid(graph, found.tolist()) == ""
    assert simulate(graph, found).peak == graph.base_bytes + bound == least_peak(graph)


@settings(max_examples=150, deadline=None)
@given(graphs(12), st.data())
def test_the_exact_search_orders_a_part_and_leaves_the_rest(graph: Graph, data: st.DataObject) -> None:
    problem, order = native_problem(graph), given_order(graph)
    first = data.draw(st.integers(0, len(order) - 1))
    last = data.draw(st.integers(first + 1, min(len(order), first + 8)))
    needs, done = needs_of(graph), frozenset(range(first))
    peaks = {done: 0}
    for state in states(graph):
        if state in peaks and len(state) < last:
            for op in range(first, last):
                if op not in state and needs[op] <= state:
                    peak = max(peaks[state], bytes_while(graph, state, op))
                    peaks[state | {op}] = min(peak, peaks.get(state | {op}, peak))
    found, bound, complete = problem.exact(order[:first], order[first:last], 0, 10**9, 10**6, FOREVER)
    whole = np.concatenate([order[:first], found, order[last:]])
    assert complete
    assert why_invalid(graph, whole.tolist()) == ""
    part = simulate(graph, whole).during[first:last]
    assert int(part.max()) == graph.base_bytes + bound == peaks[frozenset(range(last))]


@pytest.mark.parametrize("seed", range(8))
def test_forty_ops_of_any_shape_are_proved(seed: int) -> None:
    graph = wired(seed, 40)
    answer = order_for_peak(graph)
    assert why_invalid(graph, answer.schedule) == ""
    assert answer.optimal
    assert simulate(graph, answer.schedule).peak == answer.peak == answer.bound


@settings(max_examples=100, deadline=None)
@given(graphs(9), st.integers(0, 40))
def test_a_cut_off_exact_search_still_bounds_from_below(graph: Graph, states: int) -> None:
    problem, order = native_problem(graph), given_order(graph)
    found, bound, complete = problem.exact(order[:0], order, 0, 10**9, states, FOREVER)
    least = least_peak(graph)
    assert graph.base_bytes + bound <= least
    if complete:
        assert simulate(graph, found).peak == least


@settings(max_examples=100, deadline=None)
@given(graphs(9))
def test_a_minimum_cut_is_the_least_state_and_reaches_it(graph: Graph) -> None:
    problem, order = native_problem(graph), given_order(graph)
    worst = 0
    for op in range(len(graph.ops)):
        nbytes, done = problem.cut(order[:0], order, op)
        assert graph.base_bytes + nbytes == least_bytes_while(graph, op)
        before = frozenset(int(v) for v, ran in zip(order, done, strict=True) if ran)
        assert bytes_while(graph, before, op) == graph.base_bytes + nbytes
        worst = max(worst, nbytes)
    assert problem.bound(order, FOREVER)[0] == worst


@settings(max_examples=150, deadline=None)
@given(graphs(12), st.integers(1, 5), st.booleans())
def test_every_search_keeps_the_rules_and_is_never_above_its_start(graph: Graph, width: int, forward: bool) -> None:
    problem, order = native_problem(graph), given_order(graph)
    peak = simulate(graph, order).peak
    assert problem.during(order).tolist() == (simulate(graph, order).during - graph.base_bytes).tolist()
    least = problem.bound(order, FOREVER)[0]
    found = problem.beam(order, forward, width, least, peak - graph.base_bytes + 1, FOREVER)
    rows = [
        problem.uncross(order, least, FOREVER), problem.windows(order, least, 6, 100, FOREVER),
        *([found] if len(found) else []),
    ]  # fmt: skip
    for row in rows:
        assert why_invalid(graph, row.tolist()) == ""
        assert graph.base_bytes + least <= simulate(graph, row).peak <= peak


@settings(max_examples=100, deadline=None)
@given(graphs(9))
def test_forced_states_are_those_that_every_order_passes(graph: Graph) -> None:
    problem, order = native_problem(graph), given_order(graph)
    sizes = [len(state) for state in states(graph)]
    alone = [size for size in range(len(graph.ops) + 1) if sizes.count(size) == 1]
    forced = problem.forced(order).tolist()
    assert set(forced) <= set(alone)
    assert {0, len(graph.ops)} <= set(forced)


@settings(max_examples=300, deadline=None)
@given(graphs(10))
def test_modules_as_chains_lose_nothing(graph: Graph) -> None:
    needs = chained(graph, needs_of(graph), FOREVER)
    problem, count = problem_of(graph, needs), len(graph.ops)
    order = np.array(topological(needs), dtype=np.int32)
    assert why_invalid(graph, order.tolist()) == ""
    found, bound, complete = problem.exact(order[:0], order, 0, 10**9, 10**6, FOREVER)
    assert complete
    assert len(found) == count
    assert simulate(graph, found).peak == graph.base_bytes + bound == least_peak(graph)


def topological(needs: list[set[int]]) -> list[int]:
    out: list[int] = []
    while len(out) < len(needs):
        ready = [v for v, before in enumerate(needs) if v not in out and before <= set(out)]
        assert ready, "the chains contradict the needs"
        out.append(ready[0])
    return out


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_series_parallel_graphs_are_one_chain_and_proved(seed: int, shared: bool) -> None:
    graph = series_parallel(seed, 200, shared=shared)
    needs = chained(graph, needs_of(graph), FOREVER)
    assert len(native_problem(graph).forced(np.array(topological(needs), dtype=np.int32))) < len(graph.ops)
    forced = problem_of(graph, needs).forced(np.array(topological(needs), dtype=np.int32))
    assert forced.tolist() == list(range(len(graph.ops) + 1))
    answer = order_for_peak(graph)
    assert answer.optimal
    assert simulate(graph, topological(needs)).peak == answer.peak == simulate(graph, answer.schedule).peak


def test_a_fork_is_walked_one_branch_at_a_time() -> None:
    """Two branches that blow up and shrink: the program's order holds both big results, the best never does."""
    sizes = [1, 100, 1, 100, 1, 1]
    storages = (Storage(5, constant=True), *(Storage(n, output=i == 5) for i, n in enumerate(sizes)))
    reads_writes = [((0,), (1,)), ((1,), (2,)), ((1,), (4,)), ((2,), (3,)), ((4,), (5,)), ((3, 5), (6,))]
    graph = Graph(tuple(Op("op", r, w) for r, w in reads_writes), storages)
    answer = order_for_peak(graph)
    assert (answer.given_peak, answer.peak, answer.optimal) == (206, 107, True)


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_training_step_is_proved_in_full(blocks: int) -> None:
    answer = order_for_peak(transformer(blocks))
    assert answer.optimal
    assert answer.peak <= answer.given_peak


def test_a_storage_made_twice_leaves_the_order_alone() -> None:
    ops = (Op("a", (), (0,)), Op("b", (0,), (1,)), Op("a", (), (0,)), Op("c", (0, 1), (2,)))
    graph = Graph(ops, (Storage(3), Storage(4), Storage(5, output=True)))
    answer = order_for_peak(graph)
    assert answer.schedule == (0, 1, 2, 3)
    assert not answer.optimal


def test_an_empty_graph_has_an_empty_order() -> None:
    answer = order_for_peak(Graph((), (Storage(7, constant=True),)))
    assert (answer.schedule, answer.peak, answer.optimal) == ((), 7, True)


def test_no_time_gives_the_programs_order_or_better() -> None:
    graph = transformer(2)
    answer = order_for_peak(graph, time_limit=0.0)
    assert answer.peak <= answer.given_peak
    assert answer.bound <= answer.peak

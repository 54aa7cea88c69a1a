"""The native beam against a search in Python that leaves nothing out, on graphs small enough for it."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.analyses.liveness import arrays_of, simulate, simulate_slowly
from memfit.ir.graph import Graph, why_invalid
from memfit.testing.strategies import chain, random_graph


def least_seconds(graph: Graph, budget: int) -> float:
    """Dijkstra over (ops that ran, storages held): any allowed op may run, any storage may be dropped, at any time."""
    count, storages = len(graph.ops), graph.storages
    outputs = frozenset(s for s, storage in enumerate(storages) if storage.output and not storage.constant)
    start = (frozenset[int](), frozenset[int]())
    best = {start: 0.0}
    heap: list[tuple[float, int, tuple[frozenset[int], frozenset[int]]]] = [(0.0, 0, start)]
    serial = 0
    while heap:
        seconds, _, state = heapq.heappop(heap)
        if best[state] < seconds:
            continue
        done, held = state
        if len(done) == count and outputs <= held:
            return seconds
        steps = [(seconds, (done, held - {s})) for s in held]
        for index, op in enumerate(graph.ops):
            if index in done:
                if not op.repeatable or any(a == index and b in done for a, b in graph.order):
                    continue
            elif any(b == index and a not in done for a, b in graph.order) or any(
                later == index and earlier not in done
                for earlier, later in zip(graph.chain, graph.chain[1:], strict=False)
            ):
                continue
            if any(s not in held and not storages[s].constant for s in op.reads):
                continue
            after = held | set(op.writes)
            nbytes = graph.base_bytes + sum(storages[s].nbytes for s in after) + op.workspace
            if nbytes <= budget:
                steps.append((seconds + op.seconds, (done | {index}, after)))
            if op.reuse in op.reads and op.writes and not storages[op.reuse].constant:
                same = storages[op.reuse].nbytes == storages[op.writes[0]].nbytes
                if same and nbytes - storages[op.reuse].nbytes <= budget:
                    steps.append((seconds + op.seconds, (done | {index}, after - {op.reuse})))
        for cost, target in steps:
            if cost < best.get(target, float("inf")):
                best[target] = cost
                serial += 1
                heapq.heappush(heap, (cost, serial, target))
    return float("inf")


def search_of(graph: Graph) -> _core.Search:
    arrays = arrays_of(graph)
    rules = (arrays.repeatable, arrays.edge_before, arrays.edge_after, arrays.chain, arrays.base)
    return _core.Search(*arrays.liveness_arguments(), *rules)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), ops=st.integers(4, 7), share=st.floats(0.4, 1))
def test_a_complete_beam_is_as_cheap_as_an_exhaustive_search(seed: int, ops: int, share: float) -> None:
    graph = random_graph(seed, ops)
    budget = int(share * simulate(graph, range(len(graph.ops))).peak)
    sequence, peak, seconds, complete = search_of(graph).beam(budget, 1e300, 100_000)
    truth = least_seconds(graph, budget)
    if not len(sequence):
        assert not complete or truth == float("inf")
        return
    assert why_invalid(graph, sequence.tolist()) == ""
    assert simulate_slowly(graph, sequence.tolist()).peak == peak <= budget
    assert seconds >= truth * (1 - 1e-9)
    assert not complete or seconds == pytest.approx(truth)


def test_a_narrow_beam_says_that_it_left_something_out() -> None:
    graph = chain(8)
    budget = simulate(graph, range(len(graph.ops))).peak - 3
    *_, complete = search_of(graph).beam(budget, 1e300, 1)
    assert not complete


def test_graphs_too_large_are_left_alone() -> None:
    sequence, _, _, complete = search_of(chain(40)).beam(10**9, 1e300, 10)
    assert (len(sequence), complete) == (0, False)


def test_annealing_the_peak_never_goes_up() -> None:
    graph = chain(12)
    start = np.arange(len(graph.ops), dtype=np.int32)
    sequence, peak, _ = search_of(graph).lower(start, 0, 1, 200_000)
    assert why_invalid(graph, sequence.tolist()) == ""
    assert simulate_slowly(graph, sequence.tolist()).peak == peak < simulate(graph, start.tolist()).peak

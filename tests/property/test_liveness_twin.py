"""The native simulator, its Python twin and the executor's lifetimes say the same of every valid schedule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.analyses.liveness import arrays_of, lifetimes, simulate, simulate_slowly
from memfit.ir.graph import Graph, Op, Storage, why_invalid
from memfit.testing.strategies import random_graph, random_schedule


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), ops=st.integers(3, 24), draw=st.integers(0, 10**6))
def test_three_forms_agree(seed: int, ops: int, draw: int) -> None:
    graph = random_graph(seed, ops)
    schedule = random_schedule(graph, draw)
    assert why_invalid(graph, schedule) == ""
    slow, fast = simulate_slowly(graph, schedule), simulate(graph, schedule)
    assert fast.during.tolist() == slow.during.tolist()
    assert fast.reused.tolist() == slow.reused.tolist()
    assert (fast.peak, fast.peak_position) == (slow.peak, slow.peak_position)
    assert fast.seconds == pytest.approx(slow.seconds)
    assert [int(flag) for flag in lifetimes(graph, schedule).reused] == slow.reused.tolist()
    arrays = arrays_of(graph)
    search = _core.Search(
        *arrays.liveness_arguments(),
        arrays.repeatable,
        arrays.edge_before,
        arrays.edge_after,
        arrays.chain,
        arrays.base,
    )
    _, peak, seconds = search.figures(np.array(schedule, dtype=np.int32))
    assert (peak, seconds) == (slow.peak, pytest.approx(slow.seconds))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), draw=st.integers(0, 10**6))
def test_freeing_what_lifetimes_says_gives_the_same_bytes(seed: int, draw: int) -> None:
    """An executor that frees exactly ``freed`` never reads a freed storage and holds what the judge counted."""
    graph = random_graph(seed, 16)
    schedule = random_schedule(graph, draw)
    life, counted = lifetimes(graph, schedule), simulate(graph, schedule)
    held: set[int] = set()
    for position, index in enumerate(schedule):
        op = graph.ops[index]
        assert all(s in held or graph.storages[s].constant for s in op.reads)
        assert not held & set(op.writes), "an older instance is still held"
        held |= set(op.writes)
        nbytes = graph.base_bytes + sum(graph.storages[s].nbytes for s in held) + op.workspace
        nbytes -= graph.storages[op.reuse].nbytes if life.reused[position] else 0
        assert nbytes == counted.during[position]
        held -= set(life.freed[position])
    assert held == {s for s, storage in enumerate(graph.storages) if storage.output and not storage.constant}


def test_reuse_needs_a_dying_input_of_the_same_size() -> None:
    storages = (Storage(4, constant=True), Storage(10), Storage(10), Storage(10, output=True))
    ops = (
        Op("a", (0,), (1,)),
        Op("b", (1,), (2,), reuse=1),
        Op("c", (1, 2), (3,), reuse=2),
    )
    graph = Graph(ops, storages)
    assert simulate(graph, (0, 1, 2)).during.tolist() == [14, 24, 24]
    assert simulate(graph, (0, 1, 2)).reused.tolist() == [0, 0, 1]
    assert simulate(graph, (0, 1, 0, 2)).reused.tolist() == [0, 1, 0, 1]

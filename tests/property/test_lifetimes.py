"""Buffers of a Graph or a Trace are what its own judge counts, byte for byte, at every instant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.analyses.liveness import simulate_slowly
from memfit.analyses.timeline import timeline
from memfit.errors import ProblemError
from memfit.ir.graph import Graph, Op, Storage
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.planners.lifetimes import problem_of_graph, problem_of_trace
from memfit.planners.load import load_of
from memfit.planners.problem import Problem
from memfit.testing.strategies import random_graph, random_schedule


def bytes_at(problem: Problem, instant: int) -> int:
    """The load at an instant, looked up in the curve."""
    load = load_of(problem)
    at = int(np.searchsorted(load.times, instant, side="right")) - 1
    return int(load.nbytes[at]) if at >= 0 else 0


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), ops=st.integers(3, 24), draw=st.integers(0, 10**6), constants=st.booleans())
def test_the_load_of_a_graph_is_what_the_simulator_counts(seed: int, ops: int, draw: int, constants: bool) -> None:
    graph = random_graph(seed, ops)
    schedule = random_schedule(graph, draw)
    problem = problem_of_graph(graph, schedule, alignment=1, constants=constants)
    counted = simulate_slowly(graph, schedule)
    base = 0 if constants else graph.base_bytes
    load = load_of(problem)
    assert base + load.peak == counted.peak
    at = np.searchsorted(load.times, np.arange(len(schedule)), side="right") - 1
    assert (np.where(at >= 0, load.nbytes[at], 0) + base).tolist() == counted.during.tolist()
    assert len(problem.in_place) <= int(counted.reused.sum())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_load_of_a_trace_is_its_timeline(data: st.DataObject) -> None:
    """Random traces in which storages come again, grow and shrink."""
    count = data.draw(st.integers(1, 6))
    held = [0] * count
    events = []
    for _ in range(data.draw(st.integers(1, 30))):
        storage = data.draw(st.integers(0, count - 1))
        delta = data.draw(st.integers(-held[storage], 40))
        held[storage] += delta
        events.append((storage, delta))
    events.append((0, 7))
    column = np.array(events, dtype=np.int64)
    trace = Trace(
        "measured", (TraceOp("op"),), tuple(TraceStorage(1, Category.ACTIVATIONS, 0, (1,), "f") for _ in range(count)),
        column[:, 0], column[:, 1], np.zeros(len(events), np.int64),
    )  # fmt: skip
    problem = problem_of_trace(trace, alignment=1)
    assert [bytes_at(problem, event) for event in range(len(events))] == timeline(trace).live.tolist()
    assert (problem.upper > problem.lower).all()
    assert len(set(problem.ids)) == len(problem)


def two_ops(**second: object) -> Graph:
    storages = (Storage(100, constant=True, label="w"), Storage(100), Storage(100, output=True))
    return Graph((Op("aten.a.default", (0,), (1,)), Op("b", (1,), (2,), **second)), storages)  # type: ignore[arg-type]


def test_an_input_that_dies_where_it_may_be_overwritten_is_an_in_place_pair() -> None:
    assert problem_of_graph(two_ops()).in_place == ()
    problem = problem_of_graph(two_ops(reuse=1))
    assert [problem.ids[i] for i in problem.in_place[0]] == ["1", "2"]
    assert load_of(problem).peak == 128
    assert problem.labels == ("a", "b")


def test_sizes_are_rounded_to_the_alignment() -> None:
    assert problem_of_graph(two_ops()).size.tolist() == [128, 128]
    assert problem_of_graph(two_ops(), alignment=256).size.tolist() == [256, 256]
    assert problem_of_graph(two_ops(), alignment=1).size.tolist() == [100, 100]
    with pytest.raises(ProblemError, match="0 is no alignment"):
        problem_of_graph(two_ops(), alignment=0)


def test_what_exists_before_the_step_is_placed_only_if_asked() -> None:
    assert problem_of_graph(two_ops()).ids == ("1", "2")
    assert set(problem_of_graph(two_ops(), constants=True).ids) == {"0", "1", "2"}


def test_bytes_inside_an_op_live_for_it_alone() -> None:
    problem = problem_of_graph(two_ops(workspace=10))
    inside = problem.ids.index("inside 1")
    assert (problem.lower[inside], problem.upper[inside], problem.labels[inside]) == (1, 2, "inside b")


def trace_of(*storages: TraceStorage, ops: tuple[TraceOp, ...] = (TraceOp("aten.mm.default", 0, module="m"),)) -> Trace:
    """Every storage allocated, then freed in the same order."""
    count = len(storages)
    delta = np.array([s.nbytes for s in storages] + [-s.nbytes for s in storages], dtype=np.int64)
    order = np.array([*range(count), *range(count)], dtype=np.int64)
    return Trace("projected", ops, storages, order, delta, np.zeros(2 * count, np.int64))


def test_a_trace_keeps_names_and_leaves_out_what_keeps_memory_of_its_own() -> None:
    trace = trace_of(
        TraceStorage(10, Category.PARAMETERS, 0, (1,), "f", "weight"), TraceStorage(70, Category.ACTIVATIONS, 0, (1,), "f"),
        TraceStorage(5, Category.TEMPORARIES, 0), TraceStorage(5, Category.OUTSIDE, 0),
    )  # fmt: skip
    problem = problem_of_trace(trace)
    assert problem.labels == ("m mm", "m inside mm")
    assert problem.size.tolist() == [128, 64]
    assert problem.meta["category"] == ("activations", "temporaries")
    assert problem_of_trace(trace, constants=True).labels == ("weight", "m mm", "m inside mm")


def test_what_building_the_model_took_is_no_part_of_the_step() -> None:
    ops = (TraceOp("init", -1, "build"),)
    storages = (TraceStorage(64, Category.TEMPORARIES, 0, (1,), "f"),)
    with pytest.raises(ProblemError, match="no tensor that a plan could place"):
        problem_of_trace(trace_of(*storages, ops=ops))
    assert len(problem_of_trace(trace_of(*storages, ops=ops), constants=True)) == 1

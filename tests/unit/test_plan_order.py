"""`plan --order`: another order of the ops first, never a larger load, with its proof beside the placement's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memfit
from memfit.analyses.liveness import simulate
from memfit.cli.main import main
from memfit.errors import ProblemError
from memfit.ir.graph import Graph, Op, Storage
from memfit.testing.strategies import random_graph


def wide_then_narrow() -> Graph:
    """Three large values, each summed up to a small one; the given order makes all of them first."""
    large = [Op(f"make {i}", (0,), (1 + i,)) for i in range(3)]
    small = [Op(f"sum {i}", (1 + i,), (4 + i,)) for i in range(3)]
    storages = [Storage(64, constant=True), *[Storage(1024)] * 3, *[Storage(64)] * 3, Storage(64, output=True)]
    return Graph((*large, *small, Op("join", (4, 5, 6), (7,))), tuple(storages))


def test_each_large_value_dies_before_the_next_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = wide_then_narrow()
    given = memfit.plan(graph)
    report = memfit.plan(graph, order=True)
    assert given.best.peak == 3 * 1024 + 64
    assert report.best.peak == 1024 + 3 * 64
    assert report.best.optimal
    assert report.ordered is not None
    assert report.ordered.optimal
    path = tmp_path / "graph.json"
    path.write_text(graph.dumps())
    assert main(["plan", str(path), "--order", "--json", "--offsets"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["order"]["given_peak"] == simulate(graph, range(7)).peak
    assert sorted(found["order"]["schedule"]) == list(range(7))
    assert main(["plan", str(path), "--order"]) == 0
    assert "proved optimal" in capsys.readouterr().out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_never_above_the_given_order(seed: int) -> None:
    graph = random_graph(seed)
    if not any(storage.nbytes and not storage.constant for storage in graph.storages):
        return
    try:
        own = memfit.plan(graph)
    except ProblemError:  # nothing to place
        return
    assert memfit.plan(graph, order=True).bound <= own.bound


def test_what_has_no_ops_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "buffers.csv"
    table.write_text("id,lower,upper,size\na,0,2,8\n")
    assert main(["plan", str(table), "--order"]) == 2
    assert "needs a graph" in capsys.readouterr().err

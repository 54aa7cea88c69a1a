"""A sweep predicts every combination as one prediction does, in processes or on a dask cluster; what fails is a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfit.api.prediction import predict
from memfit.api.sweeping import sweep
from memfit.cli.main import main

STEP = """
import torch
def step(batch=2, width=8):
    if batch == 13:
        raise ValueError("unlucky")
    m = torch.nn.Sequential(torch.nn.Linear(width, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    return {"model": m, "inputs": torch.randn(batch, width), "loss": lambda y: y.sum(), "optimizer": optimizer}
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "swept_step.py").write_text(STEP)
    return f"{tmp_path / 'swept_step.py'}:step"


def test_every_combination_is_what_one_prediction_says(target: str) -> None:
    alone = {n: predict(target, settings={"batch": n, "width": 16}).peak for n in (1, 300)}
    budget = (alone[1].allocated + alone[300].allocated) // 2
    report = sweep(target, {"batch": (1, 300, 13), "width": (16,)}, budget=budget, processes=1)
    assert [point.values["batch"] for point in report.points] == [1, 300, 13]
    assert [point.live for point in report.points[:2]] == [alone[1].live, alone[300].live]
    assert [point.fits for point in report.points] == [True, False, False]
    assert "unlucky" in report.points[2].error


def test_the_command(target: str, capsys: Any) -> None:
    page = Path(target).parent / "page.html"
    command = [
        "predict",
        target,
        "--sweep",
        "batch=1..2",
        "--sweep",
        "width=4,8",
        "--check",
        "--json",
        "--html",
        str(page),
    ]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [list(point["values"].values()) for point in found["points"]] == [[1, 4], [1, 8], [2, 4], [2, 8]]
    assert "4 of 4 combinations fit" in page.read_text()
    assert main(["predict", target, "--png", str(page.with_suffix(".png"))]) == 2
    for wrong in ("batch", "batch=3..1", "batch=1..x", "batch="):
        assert main(["predict", target, "--sweep", wrong]) == 2
    assert main(["predict", target, "--cluster", "tcp://127.0.0.1:1"]) == 2
    assert main(["predict", target, "--sweep", "batch=1..100001"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_dask_cluster_does_the_same(target: str) -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed (pip install 'memfit[dask]')")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        there = sweep(target, {"batch": (1, 2)}, cluster=cluster.scheduler_address)
    here = sweep(target, {"batch": (1, 2)}, processes=1)
    assert [point.live for point in there.points] == [point.live for point in here.points]

"""A program's step as a Problem: from its captured graph, or from its predicted trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import memfit
from memfit.analyses.liveness import simulate
from memfit.cli.main import main
from memfit.errors import CapacityError, CaptureError, TargetError
from memfit.frameworks.torch.step_graph import graph_of_step
from memfit.ir.step import Step


class Net(torch.nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.sum()


def training(width: int = 64, batch: int = 32) -> Step:
    model = Net(width)
    return Step(model, torch.randn(batch, width), optimizer=torch.optim.SGD(model.parameters(), 0.1))


def inference() -> Step:
    return Step(Net(), torch.randn(32, 64))


class Branching(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * 2 if float(y) > 0 else y


@pytest.mark.parametrize("build", [training, inference])
@pytest.mark.parametrize("source", ["graph", "trace"])
def test_a_step_is_planned_at_its_lower_bound(build: Any, source: str) -> None:
    report = memfit.plan(build, source=source)
    assert report.best.optimal
    assert report.best.peak == report.bound == report.load.peak
    assert (report.best.offset % 64 == 0).all()
    assert not report.notes
    assert report.at is not None
    assert report.at.phase in ("forward", "backward", "optimizer")


def test_training_holds_more_than_inference_and_constants_more_still() -> None:
    peaks = [
        memfit.plan(build, constants=constants).best.peak
        for build in (inference, training)
        for constants in (False, True)
    ]
    assert peaks[0] < peaks[2]
    parameters = 3 * (64 * 64 + 64) * 4
    assert peaks[3] >= peaks[2] + parameters


def test_the_graph_of_a_model_of_any_size_takes_no_memory() -> None:
    graph = graph_of_step(lambda: training(width=40_000, batch=8))
    assert graph.base_bytes > 3 * 40_000**2 * 4
    assert simulate(graph, range(len(graph.ops))).peak > graph.base_bytes


def test_a_step_that_exists_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    step = training()
    before = [p.detach().clone() for p in step.model.parameters()]
    state = torch.get_rng_state()
    assert memfit.plan(step).best.optimal
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
    assert all(p.grad is None for p in step.model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_no_single_graph_is_planned_from_its_trace_with_a_note() -> None:
    def build() -> Step:
        return Step(Branching(), torch.randn(4, 64))

    report = memfit.plan(build)
    assert report.best.optimal
    assert report.notes[0].startswith("planned from the predicted trace of one step: memfit cannot capture the step")
    with pytest.raises(CaptureError):
        memfit.plan(build, source="graph")


def test_in_place_operations_of_the_graph_lower_the_peak() -> None:
    """exp may write over its input: graph planning sees it, plain lifetimes need both."""

    class Chain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(torch.exp(torch.exp(x + 1)))

    report = memfit.plan(lambda: Step(Chain(), torch.randn(1024, 64)), source="graph")
    assert len(report.problem.in_place) == 3
    assert report.best.peak == 1024 * 64 * 4


def test_a_capacity_below_what_must_be_alive_raises_in_python() -> None:
    with pytest.raises(CapacityError) as caught:
        memfit.plan(training, capacity=20_000)
    assert caught.value.needed > 20_000
    assert caught.value.infeasible
    assert memfit.plan(training, capacity=20_000, must_fit=False).fits is False


@pytest.mark.parametrize(("target", "text"), [(3, "it is no target"), ("net.py:nothing", "there is no file net.py")])
def test_what_is_no_target(target: Any, text: str) -> None:
    with pytest.raises(TargetError, match=text):
        memfit.plan(target)


def test_the_command_on_a_target_and_on_its_saved_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("planned_net.py").write_text(
        "import torch\n\ndef step(width=64):\n    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU())\n"
        "    return {'model': model, 'inputs': torch.randn(8, width), 'loss': lambda out: out.sum()}\n"
    )
    assert main(["plan", "planned_net.py:step", "--set", "width=32", "--json", "--html", "p.html"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data["best"]["optimal"] is True
    assert Path("p.html").is_file()
    assert main(["predict", "planned_net.py:step", "--steps", "1", "--save-trace", "t.npz"]) == 0
    capfd.readouterr()
    assert main(["plan", "t.npz", "--json"]) == 0
    from_file = json.loads(capfd.readouterr().out)
    assert main(["plan", "planned_net.py:step", "--source", "trace", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["best"]["peak"] == from_file["best"]["peak"]

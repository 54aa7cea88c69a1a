"""The command's path end to end: recipe, verification in fresh processes, fallback to modules, levers, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import memfit
from memfit.api.fitted import fit, fit_target
from memfit.errors import BudgetError, TraceError
from memfit.frameworks.target import build_step
from memfit.frameworks.torch import worker
from memfit.frameworks.torch.steps import run_step
from memfit.ir.recipe import Recipe
from memfit.ir.step import Step

PROGRAM = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(32, 32), nn.Dropout(0.1)
    def forward(self, x):
        return torch.tanh(self.drop(self.layer(x)))

class Net(nn.Module):
    def __init__(self, branch):
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(8)])
        self.branch = branch
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            if self.branch and torch.rand([]) > 0.4:
                x = x / 2
        return x.square().mean()

def plain(rows=512, branch=False):
    torch.manual_seed(0)
    model = Net(branch)
    return dict(model=model, inputs=torch.randn(rows, 32), optimizer=torch.optim.AdamW(model.parameters()))

def head(rows=256, classes=2000):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, classes))
    labels = torch.randint(0, classes, (rows,))
    return dict(model=model, inputs=torch.randn(rows, 32), loss=lambda y: nn.functional.cross_entropy(y, labels))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "a_program.py"
    path.write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return str(path)


def test_fit_of_one_graph_is_verified_and_leaves_a_recipe(program: str, tmp_path: Path) -> None:
    report = fit_target(f"{program}:plain", "60%", settings={"rows": 1024}, steps=2)
    assert report.feasible
    assert report.exact
    assert {"loss", "gradient", "parameter", "optimizer", "random state", "budget"} <= set(report.verified)
    assert (
        report.verified["gradient"]["compared"] == 16
    )  # weight and bias of 8 layers, before the optimizer clears them
    assert all(check["ok"] for check in report.verified.values())
    assert report.fitted.measured_peak is not None
    assert report.fitted.measured_peak <= report.budget < report.baseline.measured_peak
    assert abs(report.fitted.projected_peak - report.fitted.measured_peak) <= 0.01 * report.fitted.measured_peak
    assert abs(report.baseline.projected_peak - report.baseline.measured_peak) <= 0.01 * report.baseline.measured_peak
    assert "recompute" in {row.name for row in report.levers}
    assert report.fitted.timeline
    assert json.loads(json.dumps(report.to_json()))["budget"] == report.budget
    recipe = Recipe.load(tmp_path / str(report.recipe))
    assert recipe.mode == "graph"
    step = build_step(f"{program}:plain", {"rows": 1024})
    assert torch.isfinite(fit(step, report.budget, recipe=str(tmp_path / str(report.recipe)))())


@pytest.mark.parametrize("settings", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_gradients_are_taken_as_the_optimizer_is_given_them(settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    inputs, first = torch.randn(4, 6), {name: p.detach().clone() for name, p in model.named_parameters()}
    step = Step(model, inputs, lambda out: out.square().mean(), torch.optim.SGD(model.parameters(), 0.1, **settings))
    found = worker._gradients_given(step, lambda: run_step(step))
    twin = torch.nn.Linear(6, 3)
    twin.load_state_dict(first)
    twin(inputs).square().mean().backward()
    assert found == {f"gradient {name}": worker._digest(p.grad) for name, p in twin.named_parameters()}
    assert all(p.grad is None for p in model.parameters())
    run_step(step)
    assert len(found) == 2  # the hook is gone


def test_a_branch_on_values_is_fitted_by_modules_and_says_why(program: str) -> None:
    report = fit_target(f"{program}:plain", "75%", settings={"rows": 2048, "branch": True}, steps=2)
    assert report.exact
    assert report.fitted.measured_peak is not None
    assert report.fitted.measured_peak <= report.budget
    assert any("a_program.py:" in note for note in report.notes)


def test_below_the_floor_the_error_names_the_smallest(program: str, tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        fit_target(f"{program}:plain", 40_000, settings={"rows": 64}, verify=False)
    assert caught.value.needed > 40_000
    assert not list(tmp_path.glob("*.json*"))


def test_a_chunked_head_only_where_another_order_of_sums_is_allowed(program: str) -> None:
    target = f"{program}:head"
    smallest = 0
    with pytest.raises(BudgetError) as caught:
        fit_target(target, "20%", verify=False)
    smallest = caught.value.needed
    report = fit_target(target, smallest - 500_000, allow_reassociation=True, steps=2)
    assert {"chunked-loss": "reassociating"}.items() <= {row.name: row.numerics for row in report.levers}.items()
    assert report.fitted.measured_peak is not None
    assert report.fitted.measured_peak <= smallest - 500_000
    assert report.exact or report.verified["largest relative error"] < 1e-4


def test_named_levers_are_used_from_the_start(program: str) -> None:
    report = fit_target(f"{program}:plain", "90%", settings={"rows": 4096}, levers=("offload",), steps=2)
    assert "offload" in {row.name for row in report.levers}
    assert report.exact


def test_two_lines_in_a_script(program: str) -> None:
    step = build_step(f"{program}:plain")
    twin = build_step(f"{program}:plain")
    run = memfit.fit((step.model, step.inputs, step.optimizer), budget="1GiB")
    for number in range(2):
        torch.manual_seed(number)
        expected = run_step(twin)
        torch.manual_seed(number)
        assert torch.equal(run(step.inputs), expected)


def test_a_damaged_recipe_is_refused(program: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"format": 1, "buckets": 3}')
    with pytest.raises(TraceError, match="not a memfit recipe"):
        fit(build_step(f"{program}:plain"), "1GiB", recipe=str(broken))

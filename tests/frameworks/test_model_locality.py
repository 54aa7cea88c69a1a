"""``memfit locality`` of programs: what operations move, which changes keep the results, what becomes advice."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from memfit.api import model_locality as verb
from memfit.cli.main import main
from memfit.errors import TargetError
from memfit.fitting.timed_kernel import Timed
from memfit.frameworks.torch import layout_changes as layouts
from memfit.frameworks.torch.op_costs import op_costs
from memfit.ir.step import Step
from memfit.machine.roofline import Roofline
from memfit.machine.spec import load_machine


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.shared = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        y = self.second(x)
        return (self.shared(y) + y).transpose(1, 3).contiguous().view(len(x), -1)


def _net(*, train=False):
    torch.manual_seed(0)
    model = Net()
    for norm in (model.norm, model.shared):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    loss = (lambda out: out.square().mean()) if train else None
    return Step(model=model.train(train), inputs=torch.randn(2, 3, 12, 12), loss=loss)


def test_every_change_there_is_room_for_keeps_the_results():
    run = layouts.plain_run(_net())
    room = layouts.possible(run)
    assert room == [layouts.CHANNELS_LAST, layouts.FOLD, layouts.COPIES]
    expected = layouts.result_of(run)
    for changes in [(change,) for change in room] + [tuple(room)]:
        other = layouts.changed(run, changes)
        if layouts.FOLD in changes:
            assert isinstance(other.step.model.norm, nn.Identity)
        if changes == (layouts.COPIES,):
            assert layouts.difference(expected, layouts.result_of(other)) == 0.0
        assert (layouts.FOLD in changes) == (layouts.difference(expected, layouts.result_of(other)) > 1)
    assert layouts.result_of(run).outputs[0].equal(expected.outputs[0])


def test_a_training_step_compares_gradients_and_leaves_the_model_alone():
    step = _net(train=True)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    run = layouts.plain_run(step)
    assert layouts.FOLD not in layouts.possible(run)
    first = layouts.result_of(run)
    assert len(first.gradients) == len(list(step.model.parameters()))
    assert layouts.difference(first, layouts.result_of(layouts.changed(run, (layouts.CHANNELS_LAST,)))) <= 1
    wrong = layouts.StepResult(first.outputs, [gradient * 1.01 for gradient in first.gradients])
    assert layouts.difference(first, wrong) > 1
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert all(before[name].equal(tensor) for name, tensor in step.model.state_dict().items())


def test_what_differs():
    one = torch.ones(4)
    same = layouts.StepResult([one], [])
    assert layouts.difference(same, layouts.StepResult([one.clone()], [])) == 0.0
    assert layouts.difference(same, layouts.StepResult([one * math.nan], [])) == math.inf
    assert layouts.difference(same, layouts.StepResult([one[:3]], [])) == math.inf
    assert layouts.difference(same, layouts.StepResult([one, one], [])) == math.inf
    half = one.bfloat16()
    assert layouts.difference(layouts.StepResult([half], []), layouts.StepResult([half * 1.01], [])) <= 1


def test_a_table_counts_by_the_rows_taken():
    model = nn.Sequential(nn.Embedding(10_000, 16), nn.Linear(16, 4, bias=False))
    run = layouts.plain_run(Step(model=model, inputs=torch.arange(8)))
    costs = op_costs(run, layouts.kept_tensors(run))
    looked, product = [op for op in costs.ops if op.bytes]
    assert looked.bytes == 2 * 8 * 16 * 4 + 8 * 8
    assert product.bytes == 8 * 16 * 4 + 16 * 4 * 4 + 8 * 4 * 4
    assert product.flops == 2 * 8 * 16 * 4
    assert costs.least_bytes == 8 * 8 + 16 * 4 * 4 + 8 * 4 * 4


def test_what_limits_an_operation():
    limits = Roofline(1e10, (("L1", 1000, 1e11),), 1e10)
    assert limits.bound(1 << 20, 1000.0, 1e-3) == "memory"
    assert limits.bound(1 << 20, 1e9, 1e-1) == "compute"
    assert limits.bound(64, 1.0, 1e-5) == "call"
    assert limits.floor(500, 0.0) == 500 / 1e11


def _report(monkeypatch, *times, room):
    monkeypatch.setattr(verb, "in_turns", lambda runs, once, **_: list(times))
    monkeypatch.setattr(verb, "FUSED_SHARE", math.inf)
    monkeypatch.setattr(layouts, "possible", lambda run: room)
    return verb.model_locality(_net(), machine=load_machine())


def test_a_change_is_advice_only_where_its_times_lie_apart(monkeypatch):
    slow, quick, near = Timed(0.010, 0.009, 0.011, 11), Timed(0.005, 0.004, 0.006, 11), Timed(0.0088, 0.008, 0.0095, 11)
    report = _report(monkeypatch, slow, quick, near, room=[layouts.CHANNELS_LAST, layouts.COPIES])
    assert [row.measured_speedup for row in report.advice] == [2.0]
    assert "channels_last" in report.advice[0].change
    assert report.advice[0].stake_seconds > 0
    assert any("no difference that outweighs the spread" in note for note in report.notes)
    assert sum(row.seconds for row in report.ops) == pytest.approx(report.step_seconds)


def test_a_change_of_the_results_is_no_advice(monkeypatch):
    original = layouts.changed

    def wrong(run, changes):
        other = original(run, changes)
        with torch.no_grad():
            other.step.model.second.weight.mul_(1.1)
        return other

    monkeypatch.setattr(layouts, "changed", wrong)
    report = _report(monkeypatch, room=[layouts.CHANNELS_LAST])
    assert report.advice == ()
    assert any("results differ" in note for note in report.notes)


def test_a_model_on_another_device_is_refused():
    with pytest.raises(TargetError, match="meta"):
        layouts.plain_run(Step(model=nn.Linear(2, 2, device="meta"), inputs=torch.zeros(1, 2)))


def test_the_command(tmp_path, capsys):
    target = tmp_path / "tiny_for_locality.py"
    target.write_text("import torch\ndef make(width=8):\n    return torch.nn.Linear(width, 2), torch.zeros(4, width)\n")
    page = tmp_path / "page.html"
    arguments = ["locality", f"{target}:make", "--machine", "amd-zen4", "--no-prove", "--set", "width=16"]
    assert main([*arguments, "--json", "--html", str(page)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"levels", "lower_bound_lines", "advice", "ops", "roofline"} <= set(answer)
    assert answer["ops"][0]["flops"] == 2 * 4 * 16 * 2
    assert "roofline" in page.read_text()
    assert main(arguments) == 0
    assert main([*arguments, "--cache", "32KiB/8"]) == 2
    assert main(["locality", f"{target}:missing"]) == 2
    assert main(["locality", "nonsense"]) == 2

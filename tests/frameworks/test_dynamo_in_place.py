"""In-place forms in compiled halves: what crosses from forward to backward is never overwritten, and bits stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from memfit.frameworks.torch import dynamo_backend, two_halves
from memfit.frameworks.torch.step_meter import digest, measure
from memfit.frameworks.torch.two_halves import crossing_reuse, peak_in_halves, without_reuse
from memfit.ir.graph import Graph, Op, Storage
from memfit.ir.step import Step
from tests.frameworks import tiny_models


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def crossing_graph() -> Graph:
    """f0 -> s0, f1 over s0 -> s1, then b2 over s1 -> s2, b3 over s2 -> s3 (the output)."""
    rows = [Op("f0", (), (0,)), *(Op(f"op{i}", (i - 1,), (i,), reuse=i - 1) for i in (1, 2, 3))]
    return Graph(tuple(rows), tuple(Storage(100, output=i == 3) for i in range(4)))


def test_only_what_crosses_the_cut_is_named() -> None:
    graph = crossing_graph()
    assert crossing_reuse(graph, (0, 1, 2, 3), 2) == [2]
    assert crossing_reuse(graph, (0, 1, 2, 3), 0) == []
    assert crossing_reuse(graph, (0, 1, 0, 1, 2, 3), 2) == []  # made again in backward: its own
    assert crossing_reuse(graph, (0, 1, 2, 3), 1) == [1]
    assert crossing_reuse(without_reuse(graph, {2}), (0, 1, 2, 3), 2) == []


def test_the_peak_counts_what_cannot_be_taken_over() -> None:
    graph = crossing_graph()
    assert peak_in_halves(graph, (0, 1, 2, 3), []) == 100
    assert peak_in_halves(graph, (0, 1, 2, 3), [2]) == 200
    assert peak_in_halves(without_reuse(graph), (0, 1, 2, 3), []) == 200


class Roots(nn.Module):
    """Backward of a square root multiplies the saved result by two: an op that could overwrite a saved value."""

    def __init__(self, strided: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.embed = nn.Embedding(50, 32)
        self.strided = strided

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) + self.embed((ids * 3 + 1) % 50)
        for layer in self.layers:
            y = layer(x).square() + 1
            if self.strided:
                y = (y.t().mul(2.0).sqrt().neg() + 0.5).t()[:, ::1]
            x = torch.relu(torch.sqrt(y.abs() + 1e-3))
        return x.float().mean() + torch.clamp(ids, 3, 40).add(1).mul(2).float().mean()


def roots(strided: bool = False) -> Step:
    torch.manual_seed(0)
    return Step(Roots(strided), torch.randint(0, 50, (256,)), loss=lambda out: out)


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.first(x.contiguous(memory_format=torch.channels_last)))
        x = nn.functional.leaky_relu(self.norm(self.second(x)) + x)
        return torch.softmax(x.permute(0, 2, 3, 1).reshape(-1, 8) / 2, -1).square().mean()


def pictures() -> Step:
    torch.manual_seed(0)
    return Step(Pictures(), torch.randn(4, 3, 16, 16), loss=lambda out: out)


def loss_of(step: Step, function: Any) -> torch.Tensor:
    given = step.inputs
    out = function(**given) if isinstance(given, dict) else function(given)
    return out.loss if hasattr(out, "loss") else out


def twice_backward(step: Step, function: Any) -> dict[str, str]:
    torch.manual_seed(7)
    loss = loss_of(step, function)
    loss.backward(retain_graph=True)
    loss.backward()
    return digest(step, loss.detach())


def peak_of(step: Step, function: Any) -> int:
    def run() -> None:
        step.model.zero_grad()
        loss_of(step, function).backward()

    run()
    step.model.zero_grad()
    return measure(step, run).peak


def _eager_peak(step: Step) -> int:
    return peak_of(step, step.model)


BUILDS: dict[str, Callable[[], Step]] = {
    "roots": roots, "strided roots": lambda: roots(True), "pictures": pictures,
    "bert": tiny_models.bert, "t5": tiny_models.t5,
}  # fmt: skip


def built(name: str) -> Step:
    torch.manual_seed(0)
    step = BUILDS[name]()
    step.model.train()
    return step


@pytest.mark.parametrize("name", BUILDS)
def test_equal_bits_after_two_backward_runs_of_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    cut_in_two = dynamo_backend.halves_of

    def watched(*arguments: Any) -> Any:
        halves = cut_in_two(*arguments)
        for half in halves:
            for node in half.graph.nodes:
                schema = getattr(node.target, "_schema", None)
                if schema is not None and any(a.alias_info and a.alias_info.is_write for a in schema.arguments):
                    written.append(str(node.target))
        return halves

    monkeypatch.setattr(dynamo_backend, "halves_of", watched)
    plain, step = built(name), built(name)
    expected = twice_backward(plain, torch.compile(plain.model, backend="aot_eager", dynamic=False))
    share = 0.85 if name == "bert" else 0.8  # its parameters and gradients alone are 0.81 of the peak
    allowed = int(share * _eager_peak(built(name)))
    compiled = torch.compile(step.model, backend="memfit", options={"budget": allowed}, dynamic=False)
    assert twice_backward(step, compiled) == expected
    assert written, "no op of this program was made to write over its input"
    assert peak_of(step, compiled) <= allowed


def test_without_the_guard_a_second_backward_run_reads_overwritten_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dynamo_backend, two_halves):
        monkeypatch.setattr(module, "crossing_reuse", lambda graph, schedule, cut: [])
    step = roots()
    compiled = torch.compile(step.model, backend="memfit", options={"budget": int(0.8 * _eager_peak(roots()))})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        twice_backward(step, compiled)

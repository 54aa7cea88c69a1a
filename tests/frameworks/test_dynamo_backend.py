"""``torch.compile(..., backend="memfit")``: the same bits, the budget kept by measurement, refusals that say where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from memfit.errors import BudgetError, CaptureError
from memfit.frameworks.torch.step_meter import digest, measure
from memfit.ir.step import Step


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    def __init__(self, depth: int = 4, width: int = 64, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width),
                nn.BatchNorm1d(width) if norm else nn.LayerNorm(width),
            )
            for _ in range(depth)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x.square().mean()


def build(**settings: Any) -> Step:
    torch.manual_seed(0)
    return Step(Net(**settings), torch.randn(256, 64), loss=lambda out: out)


def trained(step: Step, function: Any, inputs: Any = None) -> list[dict[str, str]]:
    torch.manual_seed(7)
    found = []
    for _ in range(2):
        loss = function(step.inputs if inputs is None else inputs)
        loss.backward()
        found.append(digest(step, loss.detach()))
    return found


def peak_of(step: Step, function: Any) -> int:
    step.model.zero_grad()

    def run() -> None:
        function(step.inputs).backward()

    run()
    step.model.zero_grad()
    return measure(step, run).peak


@pytest.mark.parametrize("share", [None, 0.8, 0.5])
def test_same_bits_and_within_budget(share: float | None) -> None:
    plain = build()
    expected = trained(plain, torch.compile(plain.model, backend="aot_eager"))
    step = build()
    eager = build()
    baseline = peak_of(eager, eager.model)
    options = {} if share is None else {"budget": int(baseline * share)}
    compiled = torch.compile(step.model, backend="memfit", options=options)
    assert trained(step, compiled) == expected
    if share is not None:
        assert peak_of(step, compiled) <= baseline * share


def test_without_dropout_the_bits_are_those_of_eager() -> None:
    a, b = build(dropout=0.0), build(dropout=0.0)
    budget = int(peak_of(build(), build().model) * 0.6)
    compiled = torch.compile(b.model, backend="memfit", options={"budget": budget})
    assert trained(a, a.model) == trained(b, compiled)


def test_too_small_a_budget_says_what_is_needed() -> None:
    step = build()
    with pytest.raises(BudgetError) as caught:
        torch.compile(step.model, backend="memfit", options={"budget": "20KiB"})(step.inputs)
    assert caught.value.needed > 20 * 1024
    torch._dynamo.reset()
    enough = torch.compile(step.model, backend="memfit", options={"budget": caught.value.needed + 2**17})
    assert peak_of(step, enough) <= caught.value.needed + 2**17


def test_a_graph_break_is_refused_with_its_line() -> None:
    class Breaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            torch._dynamo.graph_break()
            return torch.tanh(y).sum()

    model = Breaking()
    with pytest.raises(CaptureError, match=r"test_dynamo_backend\.py:\d+"):
        torch.compile(model, backend="memfit", options={"budget": "1GiB"})(torch.randn(4, 8))
    torch._dynamo.reset()
    assert torch.compile(model, backend="memfit")(torch.randn(4, 8)).requires_grad


def test_a_plan_per_shape() -> None:
    step, plain = build(dropout=0.0, norm=False), build(dropout=0.0, norm=False)
    budget = int(peak_of(build(norm=False), build(norm=False).model) * 0.7)
    compiled = torch.compile(step.model, backend="memfit", options={"budget": budget}, dynamic=True)
    for rows in (256, 100, 17, 256):
        x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows))
        step.model.zero_grad()
        plain.model.zero_grad()
        assert trained(step, compiled, x) == trained(plain, plain.model, x)
    assert peak_of(step, compiled) <= budget


def test_inference_and_wrong_options() -> None:
    step = build()
    step.model.eval()
    with torch.no_grad():
        compiled = torch.compile(step.model, backend="memfit", options={"budget": "1GiB"})
        assert torch.equal(compiled(step.inputs), step.model(step.inputs))
        torch._dynamo.reset()
        with pytest.raises(CaptureError, match="does not know the option"):
            torch.compile(step.model, backend="memfit", options={"budgets": 3})(step.inputs)

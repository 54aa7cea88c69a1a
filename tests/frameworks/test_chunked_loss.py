"""Chunked head and loss: the same loss and gradients up to the order of sums, and logits that never exist."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import MODELS
from torch import nn
from torch.nn import functional

from memfit.frameworks.torch.chunked_loss import DeferredLogits, chunked_heads, find_heads
from memfit.frameworks.torch.step_meter import measure
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step


def outcome(step: Step, heads: tuple[str, ...] = (), rows: int | None = None) -> list[torch.Tensor]:
    step.model.zero_grad()
    torch.manual_seed(4)
    with chunked_heads(step.model, heads, rows):
        loss = run_step(step)
    return [loss, *(p.grad.clone() for p in step.model.parameters() if p.grad is not None)]


def assert_close(a: list[torch.Tensor], b: list[torch.Tensor], tolerance: float = 2e-5) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert float((x - y).norm()) <= tolerance * (float(x.norm()) + 1e-6)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "llama", "mixtral", "whisper", "mamba"])
def test_transformers_heads(name: str) -> None:
    torch.manual_seed(1)
    step = MODELS[name]()
    step.model.train()
    step.inputs["labels"][0, 5:7] = -100
    heads = find_heads(step)
    assert len(heads) == 1
    assert_close(outcome(step), outcome(step, heads, rows=5), 1e-4)


class Tower(nn.Module):
    def __init__(self, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, classes, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


LABELS = torch.randint(0, 37, (3, 9), generator=torch.Generator().manual_seed(0))
LOSSES = {
    "flat": lambda out: functional.cross_entropy(out.view(-1, 37), LABELS.view(-1)),
    "shifted": lambda out: functional.cross_entropy(out[:, :-1].reshape(-1, 37).float(), LABELS[:, 1:].reshape(-1)),
    "dots": lambda out: functional.cross_entropy(
        out[..., :-1, :].contiguous().flatten(0, 1), LABELS[..., 1:].flatten()
    ),
    "classes second": lambda out: functional.cross_entropy(out.transpose(1, 2), LABELS),
    "sum": lambda out: nn.CrossEntropyLoss(reduction="sum", ignore_index=3)(out.permute(0, 2, 1), LABELS) / 7,
    "masked": lambda out: functional.cross_entropy(out[LABELS > 5], LABELS[LABELS > 5]),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_forms_of_the_loss(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    step = Step(Tower(37, bias), torch.randn(3, 9, 16), loss=LOSSES[kind])
    assert find_heads(step) == ("head",)
    for rows in (1, 4, 1000):
        assert_close(outcome(step), outcome(step, ("head",), rows))


NOT_CHUNKED: dict[str, Any] = {
    "softmax": lambda out: functional.nll_loss(functional.log_softmax(out, -1).flatten(0, 1), LABELS.flatten()),
    "smoothing": lambda out: functional.cross_entropy(out.flatten(0, 1), LABELS.flatten(), label_smoothing=0.1),
    "squares": lambda out: (out * 2).square().mean() + out.mT.sum() + out[..., 3].sum(),
    "probabilities": lambda out: functional.cross_entropy(out.flatten(0, 1), torch.full((27, 37), 1 / 37)),
    "properties": lambda out: (
        out.sum() * len(out) * out.shape[-1] * out.size(0) * out.numel() * (1 if out.is_contiguous() else 2)
    ),
}


@pytest.mark.parametrize("kind", NOT_CHUNKED)
def test_everything_else_computes_the_logits(kind: str) -> None:
    torch.manual_seed(0)
    step = Step(Tower(37), torch.randn(3, 9, 16), loss=NOT_CHUNKED[kind])
    assert find_heads(step) == ()
    for a, b in zip(outcome(step), outcome(step, ("head",)), strict=True):
        assert torch.equal(a, b)


def test_logits_can_still_be_read() -> None:
    model, x = Tower(37), torch.randn(2, 4, 16)
    with chunked_heads(model, ["head"]):
        logits = model(x)
    assert isinstance(logits, DeferredLogits)
    assert logits.shape == (2, 4, 37)
    assert torch.equal(logits.argmax(-1), model(x).argmax(-1))
    assert torch.equal(torch.stack([logits, logits])[0], model(x))
    assert "37" not in repr(logits.sum())


def test_peak_falls_by_the_logits() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 4000, (256,))
    step = Step(Tower(4000), torch.randn(256, 16), loss=lambda out: functional.cross_entropy(out, labels))
    plain = measure(step, lambda: outcome(step)).peak
    chunked = measure(step, lambda: outcome(step, ("head",))).peak
    logits = 256 * 4000 * 4
    assert plain - chunked > 1.9 * logits
    assert_close(outcome(step), outcome(step, ("head",)))


def test_accumulation_autocast_and_a_second_backward() -> None:
    torch.manual_seed(0)
    step = Step(Tower(37), torch.randn(3, 9, 16), loss=LOSSES["flat"], accumulate=3)
    assert_close(outcome(step), outcome(step, ("head",), 4))
    half = Step(step.model, step.inputs, loss=LOSSES["flat"], autocast="bfloat16")
    assert_close(outcome(half), outcome(half, ("head",), 4), 3e-2)
    with chunked_heads(step.model, ["head"]):
        loss = LOSSES["flat"](step.model(step.inputs))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()

"""Recomputation gives the same bits and leaves the same state as the plain step."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from tiny_models import MODELS
from torch import nn

from memfit.frameworks.torch.checkpointing import Footprint, Recomputation, ReplayError, recomputing
from memfit.frameworks.torch.steps import call_model, loss_of
from memfit.ir.step import Step


def build(name: str) -> Step:
    torch.manual_seed(3)
    step = MODELS[name]()
    step.model.train()
    return step


def outcome(step: Step, paths: Iterable[str] = (), steps: int = 2) -> dict[str, Any]:
    torch.manual_seed(11)
    random.seed(5)
    recomputation = Recomputation(step.model, paths)
    losses = []
    for _ in range(steps):
        with recomputation.applied():
            loss = loss_of(step, call_model(step.model, step.inputs))
            loss.backward()
        losses.append(loss.detach())
    return {
        "losses": losses,
        "grads": [None if p.grad is None else p.grad.clone() for p in step.model.parameters()],
        "buffers": [b.clone() for b in step.model.buffers()],
        "random": torch.get_rng_state(),
        "python": random.getstate(),
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["python"] == b["python"]
    for key in ("losses", "grads", "buffers"):
        for x, y in zip(a[key], b[key], strict=True):
            assert (x is None) == (y is None), key
            assert x is None or torch.equal(x, y), key
    assert torch.equal(a["random"], b["random"])


def blocks(model: nn.Module) -> list[str]:
    """Children of every ModuleList and Sequential."""
    return [
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        for child, _ in module.named_children()
    ]


@pytest.mark.parametrize("name", MODELS)
def test_blocks_of_transformers_models(name: str) -> None:
    plain = outcome(build(name))
    step = build(name)
    paths = blocks(step.model)
    assert len(paths) >= 2
    assert_same(plain, outcome(step, paths))


@pytest.mark.parametrize("name", MODELS)
def test_every_module_at_once(name: str) -> None:
    """All levels nested, the root included: each module is recomputed inside those around it."""
    plain = outcome(build(name))
    step = build(name)
    paths = [n for n, m in step.model.named_modules() if not isinstance(m, nn.ModuleList)]
    assert_same(plain, outcome(step, paths))


class Normed(nn.Module):
    """BatchNorm, dropout, a spectral norm, Python and torch randomness, a counter, a list, a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.register_buffer("mean", torch.zeros(6))
        self.plain = torch.zeros(6)
        self.calls, self.seen = 0, []

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        self.calls += 1
        self.seen.append(self.calls)
        y = nn.functional.dropout(self.norm(self.linear(x)), 0.4)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(y.mean(0))
            self.plain += self.mean
        return {
            "y": torch.tanh(y * self.mean.clone() * scale * random.random() + self.calls),
            "rest": [y.sum(), "text", None],
        }


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Normed()
        self.outer = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6))
        self.outer[2].weight = self.outer[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.inner(x, scale=2.0)
        second = self.inner(self.outer(first["y"]))
        return (second["y"] ** 2).mean() + first["rest"][0] * 0.01


def state_of(model: nn.Module) -> list[Any]:
    return [
        value
        for m in model.modules()
        for key, value in vars(m).items()
        if key in ("calls", "seen", "plain", "training")
    ]


@pytest.mark.parametrize(
    "paths", [["inner"], ["outer"], ["inner", "outer", "inner.norm", "inner.linear"], [""], ["", "inner"]]
)
def test_state_of_every_kind_moves_once(paths: list[str]) -> None:
    def run(chosen: list[str]) -> tuple[dict[str, Any], nn.Module]:
        torch.manual_seed(0)
        step = Step(Twice(), torch.randn(5, 6), loss=lambda out: out)
        return outcome(step, chosen, steps=3), step.model

    (plain, model), (again, other) = run([]), run(paths)
    assert_same(plain, again)
    for a, b in zip(state_of(model), state_of(other), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert other.inner.calls == 6


def test_model_is_as_it_was_after() -> None:
    model = Twice()
    before = {name: set(vars(m)) for name, m in model.named_modules()}
    with recomputing(model, ["inner", "outer"]):
        assert "forward" in vars(model.inner)
    assert {name: set(vars(m)) for name, m in model.named_modules()} == before


class InPlaceOnInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, also: tuple[torch.Tensor, ...] = ()) -> torch.Tensor:
        x.mul_(2).add_(1)
        return torch.sin(self.linear(x) * x) + sum(also)


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.inner(y * 1.0, also=(y, y)).sum() if isinstance(self.inner, InPlaceOnInput) else self.inner(y).sum()


@pytest.mark.parametrize("wanted", [False, True])
def test_inputs_changed_in_place(wanted: bool) -> None:
    def run(paths: list[str]) -> tuple[dict[str, Any], torch.Tensor]:
        torch.manual_seed(0)
        x = torch.randn(3, 4, requires_grad=wanted)
        return outcome(Step(Outer(InPlaceOnInput()), x, loss=lambda out: out), paths), x

    (plain, x), (again, z) = run([]), run(["inner"])
    assert_same(plain, again)
    assert x.grad is None if not wanted else torch.equal(x.grad, z.grad)


class Unchanged(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Own(nn.Module):
    """Custom autograd function inside, several outputs of which one is unused."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return 3 * x * x * grad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Cube.apply(x), torch.exp(x)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x)[0]


@pytest.mark.parametrize("inner", [Unchanged, Own])
def test_odd_modules(inner: type[nn.Module]) -> None:
    def run(paths: list[str]) -> dict[str, Any]:
        torch.manual_seed(0)
        return outcome(Step(Outer(inner()), torch.randn(3, 4), loss=lambda out: out), paths)

    assert_same(run([]), run(["inner", "first"]))


def test_autocast_and_attention_with_one_tensor_thrice() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y, _ = self.attention(x, x, x)
            return y.float().square().mean()

    def run(paths: list[str]) -> dict[str, Any]:
        torch.manual_seed(0)
        return outcome(Step(Model(), torch.randn(2, 5, 8, requires_grad=True), loss=lambda out: out), paths)

    assert_same(run([]), run(["attention"]))


def test_double_backward_and_retained_graph() -> None:
    def run(paths: list[str]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(3, 4, requires_grad=True)
        with recomputing(model, paths):
            (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            gradient.square().sum().backward(retain_graph=True)
            gradient.square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(run([]), run(["0", "1", "2"]), strict=True))


def test_refuses_rather_than_be_wrong() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Tanh(), nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 1.0
            z = self.block(y)
            y += 1  # what the block read is gone
            return (z + y).sum()

    model = Residual()
    known = Recomputation(model, ["block"], {"block": Footprint()})
    with known.applied(), pytest.raises(ReplayError, match="changed in place after"):
        model(torch.randn(2, 4)).backward()
    with recomputing(model, ["block"]):  # its first call copies what it is given
        model(torch.randn(2, 4)).backward()


def test_saved_bytes_are_freed_and_nothing_leaks() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(4)])
    x = torch.randn(32, 64)

    def tensors() -> int:
        return sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor)

    gc.collect()
    gc.disable()
    try:
        start = tensors()
        with recomputing(model, [str(i) for i in range(4)]):
            loss = model(x).sum()
        assert tensors() - start <= 4 * x.numel() + 1
        loss.backward()
        model.zero_grad()
        del loss
        assert tensors() <= start
    finally:
        gc.enable()


def test_a_key_value_cache_is_not_kept() -> None:
    step = build("gpt2")
    with recomputing(step.model, [f"transformer.h.{i}" for i in range(3)]):
        output = call_model(step.model, step.inputs)
        held = [weakref.ref(output.past_key_values), weakref.ref(output.past_key_values.layers[1].keys)]
        loss = output.loss
        del output
        gc.collect()
        assert [reference() for reference in held] == [None, None]
        loss.backward()

"""Lossy levers do what they say: fewer bytes by measurement, and an error that is stated and small."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from test_modulewise import branching
from torch import nn

from memfit.errors import MemfitError
from memfit.frameworks.torch.lowbit import LowBit, low_bit_activations, low_bit_optimizer, measure_error
from memfit.frameworks.torch.module_plan import ModulePlan
from memfit.frameworks.torch.step_meter import StepState, held_bytes, measure
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step


@pytest.fixture
def eager() -> Iterator[None]:
    """torchao compiles its update; here it runs as it is written."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def test_saved_activations_take_a_quarter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.Tanh())])
    step = Step(model, torch.randn(512, 64), loss=lambda out: out.square().mean())
    model.zero_grad()
    plain = measure(step, lambda: run_step(step)).peak
    model.zero_grad()

    def packed() -> None:
        with low_bit_activations(model, step.inputs):
            run_step(step)

    small = measure(step, packed).peak
    saved = 12 * 512 * 64 * 4
    assert plain - small > 0.6 * saved
    state = StepState(step)
    error = measure_error(step, LowBit(activation_bits=8), state.restore)
    assert error.loss == 0
    assert 0 < error.update < 0.02


def test_gradients_of_what_is_not_packed_stay_exact() -> None:
    weight = torch.randn(40, 40, requires_grad=True)
    x = torch.randn(3, 40)  # fewer values than are worth packing
    exact = torch.autograd.grad((x @ weight).square().sum(), weight)
    with low_bit_activations(None):
        loss = (x @ weight).square().sum()
    assert torch.equal(exact[0], torch.autograd.grad(loss, weight)[0])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_low_bit_optimizer(eager: None, bits: int, kind: type[torch.optim.Optimizer]) -> None:
    pytest.importorskip("torchao")
    step = branching(kind, depth=2, dropout=0.0)
    run_step(step)
    lowered = LowBit(optimizer_bits=bits).lowered(step)
    assert held_bytes(lowered) < held_bytes(step)
    exact_state = sum(p.numel() * 8 for p in step.model.parameters() if p.numel() >= 4096)
    saved = held_bytes(step) - held_bytes(lowered)
    assert saved > exact_state * (0.65 if bits == 8 else 0.8)  # a table of 256 values per tensor takes the rest
    state = StepState(step)
    error = measure_error(step, LowBit(optimizer_bits=bits), state.restore)
    assert error.loss == 0
    assert 0 < error.update < (0.1 if bits == 8 else 0.5)


def test_a_scheduler_of_the_users_optimizer_reaches_the_low_bit_one(eager: None) -> None:
    pytest.importorskip("torchao")
    step = branching(torch.optim.AdamW, depth=2, dropout=0.0)
    fitted = ModulePlan(low_bit=LowBit(optimizer_bits=8)).apply(step)
    scheduler = torch.optim.lr_scheduler.LambdaLR(step.optimizer, lambda epoch: 0.0 if epoch else 1.0)
    step.optimizer.param_groups[0]["weight_decay"] = 0.0
    before = [p.detach().clone() for p in step.model.parameters()]
    fitted()
    moved = [p.detach().clone() for p in step.model.parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
    fitted()
    assert all(torch.equal(a, b) for a, b in zip(moved, step.model.parameters(), strict=True))


def test_no_low_bit_form_is_said() -> None:
    step = branching(torch.optim.RMSprop, depth=1)
    with pytest.raises(MemfitError, match="not for RMSprop"):
        low_bit_optimizer(step.optimizer, 8)


def test_autocast_error_is_stated() -> None:
    step = branching(None, depth=2, dropout=0.0)
    error = measure_error(step, LowBit(autocast="bfloat16"), StepState(step).restore)
    assert 0 < error.loss < 0.05
    assert 0 < error.update < 0.2

"""Checkpointing that is in the model already: what a block drops in its second run is what it dropped in its first."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from memfit import CaptureError, Step
from memfit.frameworks.torch.capture import capture
from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.steps import run_step


class Checkpointed(nn.Module):
    """Blocks with dropout and batch norm, every other one checkpointed, dropout between them."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 24), nn.BatchNorm1d(24), nn.Dropout(0.4), nn.GELU(), nn.Dropout(0.2))
            for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if index % 2 else functional.dropout(block(x), 0.1)
        return x.square().mean()


class Calls(nn.Module):
    """A function of the input and a weight."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.randn(24, 24)), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x @ self.weight).mean()


@pytest.mark.parametrize("share", [2.0, 0.85])
def test_identical_with_dropout_and_batch_norm_in_checkpoints(share: float) -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    step = Step(model, torch.randn(64, 24), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    eager = copy.deepcopy(step)
    whole = FittedStep(copy.deepcopy(step), 1 << 30).first.plan
    fitted = FittedStep(step, int(share * whole.baseline_peak))
    assert fitted.first.plan.peak <= share * whole.baseline_peak
    for number in range(3):
        torch.manual_seed(number)
        expected, state = run_step(eager), torch.get_rng_state()
        torch.manual_seed(number)
        assert torch.equal(expected, fitted())
        assert torch.equal(state, torch.get_rng_state())
    for (label, mine), theirs in zip(step.model.state_dict().items(), eager.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), label


def test_random_ops_appear_once_each() -> None:
    model = Checkpointed()
    found = capture(Step(model, torch.randn(64, 24), optimizer=torch.optim.SGD(model.parameters())))
    draws = [node for node in found.module.graph.nodes if str(node.target) == "memfit.bernoulli.default"]
    assert len(draws) == 4 * 2 + 2  # two in each block, one after every other; none for the second runs


def _same_numbers_again(x: torch.Tensor) -> torch.Tensor:
    state = torch.get_rng_state()
    first = functional.dropout(x, 0.5)
    torch.set_rng_state(state)
    return first * functional.dropout(x, 0.5) + functional.dropout(x, 0.5)


def test_a_program_may_put_the_state_back_itself() -> None:
    torch.manual_seed(0)
    step = Step(Calls(_same_numbers_again), torch.randn(8, 24))
    eager, fitted = copy.deepcopy(step), FittedStep(step, 1 << 30)
    torch.manual_seed(5)
    expected = run_step(eager)
    torch.manual_seed(5)
    assert torch.equal(expected, fitted())


_FOREIGN = torch.get_rng_state()


def _foreign_state(x: torch.Tensor) -> torch.Tensor:
    torch.set_rng_state(_FOREIGN)
    return functional.dropout(x, 0.5)


def _seeded(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return functional.dropout(x, 0.5)


def _other_numbers(x: torch.Tensor) -> torch.Tensor:
    state = torch.get_rng_state()
    first = functional.dropout(x, 0.5)
    torch.set_rng_state(state)
    return first + torch.randn(3).sum()


@pytest.mark.parametrize(
    ("function", "why"), [(_foreign_state, "random state"), (_seeded, "seeds"), (_other_numbers, "something else")]
)
def test_what_cannot_be_followed_is_refused(function: Callable[[torch.Tensor], torch.Tensor], why: str) -> None:
    with pytest.raises(CaptureError, match=why):
        capture(Step(Calls(function), torch.randn(8, 24)))

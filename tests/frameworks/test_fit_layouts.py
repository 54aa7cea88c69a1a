"""Steps whose gradients come in another layout than their parameters, and recurrent layers, are fitted bit-identically."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from memfit import Step
from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.steps import run_step


class ChannelsLast(nn.Module):
    """A convolution whose weight's gradient is made channels last, the weight itself is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(image.to(memory_format=torch.channels_last)))
        return torch.relu(self.second(hidden)).mean()


class Transposed(nn.Module):
    """A weight that is used transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 40))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.weight.t()).tanh().square().mean()


class Recurrent(nn.Module):
    """An LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(12, 20, 2, batch_first=True, dropout=0.2), nn.GRU(20, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(self.lstm(x)[0])[0].square().mean()


CASES = {
    "channels last": (ChannelsLast, (2, 3, 16, 16)),
    "transposed": (Transposed, (32, 40)),
    "recurrent": (Recurrent, (4, 9, 12)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_identical_after_three_steps(name: str) -> None:
    make, shape = CASES[name]
    torch.manual_seed(0)
    model = make()
    step = Step(model, torch.randn(*shape), optimizer=torch.optim.AdamW(model.parameters()))
    eager = copy.deepcopy(step)
    fitted = FittedStep(step, 1 << 30)
    for number in range(3):
        torch.manual_seed(number)
        expected = run_step(eager)
        torch.manual_seed(number)
        assert torch.equal(expected, fitted())
    for (label, mine), theirs in zip(step.model.state_dict().items(), eager.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), label

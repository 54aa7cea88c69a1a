"""Values that are transposed, permuted, expanded, complex or with holes: fitted at several budgets, the same bits as eager.

Bits depend on layouts: which loop a kernel takes, the order of a sum, the order in which random numbers fall. Each case
puts such values between learned layers; compared are loss, gradients, parameters, optimizer state and random state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fft import fft, fft2, ifft, irfft, irfft2, rfft, rfft2
from torch.nn import functional

from memfit import Step
from memfit.errors import BudgetError
from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.measure import same_bits
from memfit.frameworks.torch.steps import run_step

ROWS, IMAGE, WIDTH = (6, 9, 12), (2, 5, 9, 7), 14
Function = Callable[[Any, Tensor], Tensor]
gelu, drop = functional.gelu, functional.dropout


class Model(nn.Module):
    """A learned layer, then what is tested, which may use a second one, a square of weights and complex weights."""

    def __init__(self, tested: Function, first: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.tested, self.first, self.last = tested, first, last
        self.square = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.3)
        self.wave = nn.Parameter(torch.randn(WIDTH, dtype=torch.cfloat) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.tested(self, self.first(x))
        return (found.abs() if found.is_complex() else found).tanh().square().mean()


def swapped(y: Tensor) -> Tensor:
    """The same values, with the first two dimensions swapped in memory."""
    return y.transpose(0, 1).contiguous().transpose(0, 1)


def turned(y: Tensor) -> Tensor:
    """The same values, with the last dimension outermost in memory."""
    return y.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def last_channels(y: Tensor) -> Tensor:
    return y.to(memory_format=torch.channels_last)


def phases(m: Any, y: Tensor) -> Tensor:
    z = rfft(y, dim=1)
    return m.last(irfft(z.abs() * torch.exp(1j * z.angle()), n=9, dim=1))


def spectrogram(m: Any, y: Tensor) -> Tensor:
    window = torch.hann_window(8)
    z = torch.stft(y.transpose(1, 2).reshape(-1, 9).repeat(1, 4), 8, 4, window=window, return_complex=True)
    return torch.istft(z * z.abs(), 8, 4, window=window)


def rotary(m: Any, y: Tensor) -> Tensor:
    z = torch.view_as_complex(y.reshape(6, 9, -1, 2).contiguous())
    turns = torch.polar(torch.ones(9, z.shape[-1]), torch.arange(9.0)[:, None] * torch.ones(z.shape[-1]))
    return m.last(torch.view_as_real(z * turns).flatten(2))


def overlapping(m: Any, y: Tensor) -> Tensor:
    flat = y.exp().contiguous().view(-1)
    return flat.as_strided((flat.numel() // 4 - 4, 8), (4, 1)).tanh() @ torch.ones(8, 3)


def attention(m: Any, y: Tensor) -> Tensor:
    q = m.last(y).view(6, 9, 2, -1).transpose(1, 2)
    return gelu(functional.scaled_dot_product_attention(q, q.tanh(), q, dropout_p=0.1).transpose(1, 2).flatten(2))


def windows(m: Any, y: Tensor) -> Tensor:
    a = y.permute(0, 2, 3, 1).roll((1, 2), (1, 2))
    a = a[:, :8, :6].reshape(2, 2, 4, 2, 3, -1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 12, WIDTH)
    return gelu(a @ m.square).softmax(1) * a


def inside_views(m: Any, y: Tensor) -> Tensor:
    a = y * 1.5
    a.transpose(0, 1).mul_(2).add_(1)
    a[:, 1::2].sigmoid_()
    return m.last(a)


def drawn(y: Tensor) -> Tensor:
    return drop(y, 0.2)


SERIES: dict[str, Function] = {
    "fft": lambda m, y: m.last(irfft(rfft(y, dim=1) * m.wave, n=9, dim=1)).relu(),
    "fft 2": lambda m, y: gelu(m.last(fft2(y).real)), "phases": phases, "spectrogram": spectrogram, "rotary": rotary,
    "power": lambda m, y: m.last((fft(y.transpose(1, 2)) * fft(y.transpose(1, 2)).conj()).real.transpose(1, 2)),
    "complex view": lambda m, y: torch.view_as_real(torch.view_as_complex(torch.stack([y, y.sin()], -1)) * m.wave).exp(),
    "complex quotient": lambda m, y: m.last((m.wave / torch.complex(y, y.cos() + 2) * m.wave.conj()).real),
    "polar": lambda m, y: m.last(ifft(torch.polar(y.abs(), y) * m.wave * (0.3 + 1j), dim=1).real),
    "random angles": lambda m, y: rfft(y, dim=1).angle() * torch.rand_like(rfft(y, dim=1).angle()),
    "einsum": lambda m, y: gelu(m.last(torch.einsum("btd,de->ebt", y, m.square).permute(1, 2, 0))),
    "einsum 2": lambda m, y: torch.einsum("tbs,bsd->btd", torch.einsum("btd,bsd->tbs", y, y).softmax(-1), y).sin(),
    "transposed linear": lambda m, y: gelu(m.last(gelu(y.transpose(0, 1)) + 1)).transpose(0, 2),
    "mixed": lambda m, y: m.last((turned(y) * 1.5).sin() * y - (turned(y) + y) / 2),
    "mixed add": lambda m, y: m.last(torch.add(turned(y).sin(), y.cos(), alpha=0.3).exp().sub(y, alpha=0.7)),
    "mixed three": lambda m, y: m.last(torch.addcmul(turned(y), y, y.tanh(), value=0.3) + torch.lerp(y, turned(y), 0.2)),
    "expanded": lambda m, y: m.last((y.mean(1, keepdim=True).expand(-1, 9, -1) * y).sigmoid()),
    "expanded rows": lambda m, y: m.last(y[:1].exp().expand(6, 9, -1).relu() + y),
    "as strided": lambda m, y: m.last(y.sin().contiguous().as_strided((5, 9, WIDTH), (9 * WIDTH, WIDTH, 1)) * 2).exp(),
    "overlapping": overlapping, "unfold": lambda m, y: gelu(y.tanh().unfold(1, 4, 2)) * 2,
    "sliced": lambda m, y: ((gelu(y)[:, ::2] * 2).sigmoid() * gelu(y)[:, ::2])[..., ::3].exp(),
    "attention": attention, "inside views": inside_views, "dropout": lambda m, y: m.last(drawn(turned(y)) * drawn(y)),
    "normed series": lambda m, y: m.last(drawn(functional.batch_norm(y.transpose(1, 2), None, None, training=True)).mT),
    "log sigmoid": lambda m, y: m.last(drawn(functional.logsigmoid(swapped(y))) * y),
    "copied sign": lambda m, y: m.last(torch.copysign(swapped(y), torch.tensor(-1.0)) * drawn(y)),
    "logarithms": lambda m, y: m.last(drawn(torch.xlogy(swapped(y), y[0].abs() + 0.1)) + y),
    "bfloat16": lambda m, y: (gelu(y.mT.bfloat16()) * y.bfloat16().mT.contiguous()).float(),
}  # fmt: skip
IMAGES: dict[str, Function] = {
    "channels last": lambda m, y: functional.max_pool2d(m.last(last_channels(y) * y).sigmoid(), 2),
    "batch norm": lambda m, y: m.last(functional.batch_norm(last_channels(y), None, None, training=True).relu()) + y,
    "permuted batch norm": lambda m, y: drawn(functional.batch_norm(y.permute(0, 3, 2, 1), None, None, training=True)).exp(),
    "permuted": lambda m, y: m.last(gelu(y.mT).contiguous().mT + 1).sin(), "windows": windows,
    "permuted layer norm": lambda m, y: m.last(gelu(functional.layer_norm(y.permute(0, 2, 3, 1), (WIDTH,)) @ m.square)
                                               .permute(0, 3, 1, 2) * 0.5 + y),
    "upsampled": lambda m, y: functional.interpolate(last_channels(y), scale_factor=2, mode="bilinear")[:, :, ::2].exp(),
    "shuffled": lambda m, y: m.last(functional.channel_shuffle(last_channels(y), 2).sigmoid()) + drawn(y),
    "padded": lambda m, y: m.last(functional.pad(last_channels(y), (1, 1, 1, 1), mode="reflect").sigmoid()),
    "fft 2 image": lambda m, y: m.last(irfft2(rfft2(y) * m.wave[:, None, None], s=(9, 7))),
    "fft channels": lambda m, y: m.last((fft(y, dim=1) * m.wave[:, None, None] + fft(y, dim=1).conj()).real).tanh(),
}  # fmt: skip
CASES = {
    **{f"series {name}": case for name, case in SERIES.items()},
    **{f"image {n}": case for n, case in IMAGES.items()},
}


def make(name: str, optimized: bool) -> Step:
    torch.manual_seed(0)
    if name.startswith("series"):
        model = Model(CASES[name], nn.Linear(12, WIDTH), nn.Linear(WIDTH, WIDTH))
    else:
        model = Model(CASES[name], nn.Conv2d(5, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    x = torch.randn(*(ROWS if name.startswith("series") else IMAGE))
    return Step(model, x, optimizer=torch.optim.AdamW(model.parameters()) if optimized else None)


def left(step: Step) -> dict[str, Tensor]:
    """What a step leaves: parameters, gradients, optimizer state."""
    found: dict[str, Tensor] = dict(step.model.state_dict())
    for name, parameter in step.model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
        state = step.optimizer.state.get(parameter, {}) if step.optimizer is not None else {}
        found.update({f"{key} of {name}": value for key, value in state.items()})
    return found


def agrees(step: Step, eager: Step, run: Any) -> None:
    """One step of both leaves the same bits."""
    torch.manual_seed(1)
    expected, state = run_step(eager), torch.get_rng_state()
    torch.manual_seed(1)
    assert same_bits(expected, run())
    assert torch.equal(state, torch.get_rng_state())
    mine, theirs = left(step), left(eager)
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not same_bits(mine[name], theirs[name])] == []


@pytest.mark.parametrize("name", list(CASES))
def test_the_same_bits_at_every_budget(name: str) -> None:
    free = FittedStep(make(name, True), 1 << 30)
    agrees(free.step, make(name, True), free)
    high = free.first.plan.baseline_peak
    for optimized, part in ((True, 0.9), (False, 1.0)):
        step = make(name, optimized)
        try:
            fitted = FittedStep(step, int(part * high))
        except BudgetError as refused:
            fitted = FittedStep(step, refused.needed)
        agrees(step, make(name, optimized), fitted)


class Waves(nn.Module):
    """A filter of learned complex weights between transforms along the first dimension but one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.linear = nn.Parameter(torch.randn(33, 64, dtype=torch.cfloat) * 0.1), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(irfft(rfft(x, dim=1) * self.weight[None], n=64, dim=1)).relu().square().mean()


@pytest.mark.parametrize("part", [0.83, 0.9, 1.5])
def test_a_learned_filter(part: float) -> None:
    torch.manual_seed(0)
    model = Waves()
    step = Step(model, torch.randn(8, 64, 64), optimizer=torch.optim.AdamW(model.parameters()))
    eager = copy.deepcopy(step)
    peak = FittedStep(copy.deepcopy(step), 1 << 30).first.plan.baseline_peak
    agrees(step, eager, FittedStep(step, int(part * peak)))

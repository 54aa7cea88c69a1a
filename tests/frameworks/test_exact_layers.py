"""Every layer and function that people build models of: the fitted step leaves the same bits as the program itself.

Each case is a learned layer, the thing under test, and a loss; dimensions are odd, so that vector code has remainders.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from memfit import Step
from memfit.frameworks.torch.fitted import FittedStep
from memfit.frameworks.torch.steps import run_step

ROWS, SERIES, IMAGE, VOLUME, WORDS = (6, 13), (5, 3, 13), (3, 5, 9, 7), (2, 3, 5, 6, 7), (2, 7, 13)


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Attention(nn.Module):
    """Self-attention over words of 12 numbers."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.narrow, self.attention = nn.Linear(13, 12), nn.MultiheadAttention(12, 3, dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        return self.attention(x, x, x)[0]


class Translates(nn.Module):
    """An encoder and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.whole = nn.Linear(13, 12), nn.Transformer(12, 2, 1, 1, 24, 0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        return self.whole(x, x[:, :4])


class Pairs(nn.Module):
    """A bilinear form."""

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Bilinear(13, 13, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, x.cos())


class Unrolled(nn.Module):
    """A recurrent cell, step by step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Any:
        state = None
        for row in x:
            state = self.cell(row, state)
        return state


class Exponential(torch.autograd.Function):
    """An autograd function of the user's own."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * context.saved_tensors[0].exp()


class Parametrized(nn.Module):
    """Spectral and weight norm."""

    def __init__(self) -> None:
        super().__init__()
        norms = torch.nn.utils.parametrizations
        self.first, self.second = norms.spectral_norm(nn.Linear(13, 13)), norms.weight_norm(nn.Linear(13, 13))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def strided_writes(x: Tensor) -> Tensor:
    y = x * 1.5
    y[:, 1:3].mul_(2.0)
    y[:, ::2].add_(1)
    y[2] = 0
    return y.exp()


def indexed(x: Tensor) -> Tensor:
    index = torch.tensor([0, 2, 1])
    y = x.clone()
    y[index] = y[index].exp()
    y = y.index_add(0, index, x[:3])
    return y.masked_fill(y > 2, 0.0)


def square(x: Tensor) -> Tensor:
    return x @ x.t() + 10 * torch.eye(6)


def ctc(x: Tensor) -> Tensor:
    logits = x.view(6, 1, 13).log_softmax(2)
    return functional.ctc_loss(logits, torch.tensor([[1, 2, 3]]), torch.tensor([6]), torch.tensor([3]))


def attention(dropout: float, causal: bool) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        x = x[None, None]
        return functional.scaled_dot_product_attention(x, x, x, dropout_p=dropout, is_causal=causal)

    return run


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "celu in place": lambda: nn.CELU(inplace=True), "elu in place": lambda: nn.ELU(inplace=True), "gelu": nn.GELU,
    "gelu tanh": lambda: nn.GELU("tanh"), "glu": lambda: nn.GLU(0), "hardsigmoid": nn.Hardsigmoid,
    "hardswish in place": lambda: nn.Hardswish(inplace=True), "leaky relu": lambda: nn.LeakyReLU(inplace=True),
    "log sigmoid": nn.LogSigmoid, "mish in place": lambda: nn.Mish(inplace=True), "prelu": nn.PReLU,
    "rrelu": nn.RReLU, "rrelu in place": lambda: nn.RReLU(inplace=True), "selu": lambda: nn.SELU(inplace=True),
    "silu in place": lambda: nn.SiLU(inplace=True), "softplus": nn.Softplus, "softmin": lambda: nn.Softmin(1),
    "softshrink": nn.Softshrink, "threshold": lambda: nn.Threshold(0.1, 0.2, True), "dropout": lambda: nn.Dropout(0.3),
    "dropout in place": lambda: nn.Dropout(0.3, True), "alpha dropout": lambda: nn.AlphaDropout(0.3),
    "feature alpha dropout": lambda: nn.FeatureAlphaDropout(0.3), "layer norm": lambda: nn.LayerNorm(13),
    "rms norm": lambda: nn.RMSNorm(13), "batch norm": lambda: nn.BatchNorm1d(13), "bilinear": Pairs,
    "parametrized": Parametrized,
}  # fmt: skip
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "batch norm 2": lambda: nn.BatchNorm2d(6), "group norm": lambda: nn.GroupNorm(2, 6),
    "instance norm": lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    "local response": lambda: nn.LocalResponseNorm(2), "max pool": lambda: nn.MaxPool2d(2),
    "max pool indices": lambda: nn.MaxPool2d(3, 1, 1, return_indices=True), "lp pool": lambda: nn.LPPool2d(2, 2),
    "average pool": lambda: nn.AvgPool2d(2, ceil_mode=True), "adaptive average": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d((3, 2)), "fractional": lambda: nn.FractionalMaxPool2d(2, output_size=(4, 3)),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6),
    "dilated": lambda: nn.Conv2d(6, 4, 3, dilation=2), "bilinear up": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "bicubic up": lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"), "nearest up": lambda: nn.Upsample(scale_factor=2),
    "reflection": lambda: nn.ReflectionPad2d(2), "replication": lambda: nn.ReplicationPad2d(1),
    "circular": lambda: nn.CircularPad2d(1), "dropout 2": lambda: nn.Dropout2d(0.3), "unfold": lambda: nn.Unfold(3),
    "channel shuffle": lambda: nn.ChannelShuffle(3),
    "block": lambda: nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(True), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, momentum=None)),
}  # fmt: skip
VOLUMES: dict[str, Callable[[], nn.Module]] = {
    "convolution 3": lambda: nn.Conv3d(4, 4, 3), "max pool 3": lambda: nn.MaxPool3d(2),
    "batch norm 3": lambda: nn.BatchNorm3d(4),
    "transposed 3": lambda: nn.ConvTranspose3d(4, 2, 2, 2), "up 3": lambda: nn.Upsample(scale_factor=2, mode="trilinear"),
}  # fmt: skip
SEQUENCES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(13, 9, 2, dropout=0.1), "gru": lambda: nn.GRU(13, 9, bidirectional=True),
    "rnn": lambda: nn.RNN(13, 9, nonlinearity="relu"), "lstm projection": lambda: nn.LSTM(13, 9, proj_size=4),
    "lstm cell": lambda: Unrolled(nn.LSTMCell(13, 7)), "gru cell": lambda: Unrolled(nn.GRUCell(13, 7)),
}  # fmt: skip
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Attention(0.0), "attention dropout": lambda: Attention(0.2), "transformer": Translates,
    "encoder": lambda: nn.Sequential(nn.Linear(13, 12), nn.TransformerEncoderLayer(12, 3, 24, 0.1, batch_first=True)),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "strided writes": strided_writes, "indexed": indexed, "sort": lambda x: x.sort(1)[0], "topk": lambda x: x.topk(3, 1)[0],
    "cumsum": lambda x: x.cumsum(1), "cumprod": lambda x: (x * 0.1 + 1).cumprod(1), "logsumexp": lambda x: x.logsumexp(1),
    "median": lambda x: x.median(1)[0], "kth": lambda x: x.kthvalue(2, 1)[0], "var": lambda x: x.var(1),
    "std": lambda x: x.std(0),
    "norm": lambda x: x.norm(dim=1), "cdist": lambda x: torch.cdist(x, x + 1), "outer": lambda x: torch.outer(x[0], x[1]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x), "svd": torch.linalg.svdvals,
    "cholesky": lambda x: torch.linalg.cholesky(square(x)), "inverse": lambda x: torch.linalg.inv(square(x)),
    "solve": lambda x: torch.linalg.solve(square(x), x), "eigenvalues": lambda x: torch.linalg.eigvalsh(square(x)),
    "rfft": lambda x: torch.fft.rfft(x).abs(), "irfft": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 1.1),
    "scatter": lambda x: torch.zeros(6, 13).scatter_add(1, torch.arange(13).expand(6, 13) % 5, x),
    "gather": lambda x: x.gather(1, torch.arange(13).flip(0).expand(6, 13)), "roll": lambda x: x.roll(2, 1),
    "where": lambda x: torch.where(x > 0, x.exp(), x.sin()), "clamp": lambda x: x.clamp(-0.5, 0.5),
    "cross entropy": lambda x: functional.cross_entropy(x, torch.arange(6), label_smoothing=0.1), "ctc": ctc,
    "huber": lambda x: functional.huber_loss(x, torch.zeros_like(x)), "pdist": functional.pdist,
    "cosine": lambda x: functional.cosine_similarity(x, x.roll(1, 0)), "causal": attention(0.0, True),
    "attention dropped": attention(0.2, False), "gumbel": functional.gumbel_softmax,
    "random": lambda x: x * torch.rand_like(x) + torch.randn(13) * torch.randint(0, 3, (13,)),
    "permuted": lambda x: x[torch.randperm(6)], "drawn rows": lambda x: x[torch.multinomial(torch.ones(6), 4)],
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((6, 13), 0.4)), "normal": lambda x: torch.normal(x, 1.0),
    "poisson": lambda x: x * torch.poisson(torch.ones(6, 13)),
    "grid": lambda x: functional.grid_sample(x.view(1, 1, 6, 13), torch.zeros(1, 4, 4, 2) + x.mean(), align_corners=False),
    "linear up": lambda x: functional.interpolate(x[None], size=20, mode="linear"),
    "embedding": lambda x: functional.embedding(torch.arange(6) % 3, x),
    "embedding bag": lambda x: functional.embedding_bag(torch.arange(6) % 3, x, torch.tensor([0, 2])),
    "complex": lambda x: (torch.complex(x, x) @ torch.complex(x, x).t()).abs(),
    "half": lambda x: (x.half() @ x.half().t()).float(),
    "bfloat16": lambda x: (x.bfloat16() @ x.bfloat16().t()).float(), "own function": Exponential.apply,
    "masked": lambda x: x[x > 0].sum() * x, "item": lambda x: x * (2 if x.sum().item() > 1e9 else 3),
}  # fmt: skip

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    **{name: (lambda: nn.Linear(13, 13), make, ROWS) for name, make in ACTIVATIONS.items()},
    **{name: (lambda: nn.Conv2d(5, 6, 3, padding=1), make, IMAGE) for name, make in IMAGES.items()},
    **{name: (lambda: nn.Conv3d(3, 4, 3, padding=1), make, VOLUME) for name, make in VOLUMES.items()},
    **{name: (lambda: nn.Linear(13, 13), make, SERIES) for name, make in SEQUENCES.items()},
    **{name: (lambda: nn.Linear(13, 13), make, WORDS) for name, make in TRANSFORMERS.items()},
    **{
        f"f {name}": (lambda: nn.Linear(13, 13), lambda function=function: Calls(function), ROWS)  # type: ignore[misc]
        for name, function in FUNCTIONS.items()
    },
}


class Model(nn.Module):
    """A learned layer, then what is tested, then a loss."""

    def __init__(self, first: nn.Module, tested: nn.Module) -> None:
        super().__init__()
        self.first, self.tested = first, tested

    def forward(self, x: Tensor) -> Tensor:
        found = self.tested(self.first(x))
        while isinstance(found, (tuple, list)):
            found = found[0]
        return found.tanh().square().mean()


@pytest.mark.parametrize("name", list(CASES))
def test_the_same_bits(name: str) -> None:
    first, tested, shape = CASES[name]
    torch.manual_seed(0)
    model = Model(first(), tested())
    step = Step(model, torch.randn(*shape), optimizer=torch.optim.AdamW(model.parameters()))
    eager = copy.deepcopy(step)
    fitted = FittedStep(step, 1 << 30)
    for number in range(2):
        torch.manual_seed(number)
        expected, state = run_step(eager), torch.get_rng_state()
        torch.manual_seed(number)
        assert torch.equal(expected, fitted()), number
        assert torch.equal(state, torch.get_rng_state())
    for (label, mine), theirs in zip(model.state_dict().items(), eager.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), label


@pytest.mark.parametrize("name", ["block", "dropout 2", "batch norm"])
def test_measuring_leaves_random_numbers_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of any op's cost, so that a step is measured before its first run and before another way of it."""
    monkeypatch.setenv("MEMFIT_CACHE", str(tmp_path))
    torch.manual_seed(0)
    first, tested, shape = CASES[name]
    model = Model(first(), tested())
    step = Step(model, torch.randn(*shape), optimizer=torch.optim.AdamW(model.parameters()))
    eager = copy.deepcopy(step)
    before = torch.get_rng_state()
    fitted = FittedStep(step, 1 << 30)
    assert torch.equal(before, torch.get_rng_state())
    for number in range(3):
        expected, state = run_step(eager), torch.get_rng_state()
        torch.set_rng_state(before)
        assert torch.equal(expected, fitted()), number
        assert torch.equal(state, torch.get_rng_state())
        before = state

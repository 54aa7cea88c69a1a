"""The tape against real runs: programs that do what models do, projected without running and measured by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from memfit.analyses.timeline import timeline
from memfit.errors import MemfitError
from memfit.frameworks.torch.steps import run_step
from memfit.frameworks.torch.tape import trace_step
from memfit.ir.step import Step
from memfit.ir.trace import Category, Trace

SLACK = 512
"""Bytes: numbers wrapped as tensors."""


def measured_peak(build: Callable[[], Step], steps: int = 2) -> int:
    """Peak of the CPU allocator's own events over construction and steps, by torch's profiler."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        step = build()
        for _ in range(steps):
            run_step(step)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def mean_square(output: Any) -> torch.Tensor:
    return (output[0] if isinstance(output, tuple) else output).square().mean()


class Mlp(nn.Module):
    def __init__(self, width: int = 64, tied: bool = False, recompute: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.recompute = recompute
        if tied:
            self.third.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.dropout(self.norm(self.first(x)).relu_(), 0.2, self.training)
        x = checkpoint(self._middle, x, use_reentrant=False) if self.recompute else self._middle(x)
        return self.third(x.view(-1, 2, x.shape[1] // 2).flatten(1)) + x

    def _middle(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.second(x)) * x.sigmoid()


def mlp(optimizer: Callable[[Any], Any] | None = None, **how: Any) -> Step:
    settings = {name: how.pop(name) for name in ("tied", "recompute") if name in how}
    model = Mlp(**settings)
    made = optimizer(model.parameters()) if optimizer else None
    return Step(model, torch.randn(512, 64), mean_square, made, **how)


class Blocks(nn.Module):
    """Checkpointed blocks, each of which keeps the random state it began with."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.1)) for _ in range(6)])
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


def mean_square_of(model: nn.Module, x: torch.Tensor) -> Step:
    return Step(model, x, mean_square, torch.optim.SGD(model.parameters(), lr=0.1))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    f"{kind.__name__} {form}": lambda p, kind=kind, form=form: kind(
        p, lr=0.01, foreach=form == "foreach", **({"fused": True} if form == "fused" else {})
    )
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
    for form in ("for-loop", "foreach", "fused")
} | {
    f"{kind.__name__} {form}": lambda p, kind=kind, form=form: kind(p, lr=0.01, foreach=form == "foreach")
    for kind in (
        torch.optim.Adadelta, torch.optim.Adamax, torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam,
        torch.optim.RMSprop,
        torch.optim.Rprop, torch.optim.Adafactor,
    )
    for form in ("for-loop", "foreach")
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_in_every_form(name: str) -> None:
    def build() -> Step:
        return mlp(OPTIMIZERS[name])

    trace = trace_step(build, real=False)
    assert abs(timeline(trace).peak - measured_peak(build)) <= SLACK
    state = sum(storage.nbytes for storage in trace.storages if storage.category is Category.OPTIMIZER_STATE)
    assert state > 0 or name.startswith("SGD")


PROGRAMS: dict[str, Callable[[], Step]] = {
    "inference": lambda: mlp(train=False),
    "tied weights": lambda: mlp(torch.optim.AdamW, tied=True),
    "checkpoint": lambda: mlp(torch.optim.AdamW, recompute=True),
    "checkpointed blocks": lambda: mean_square_of(Blocks(False), torch.randn(16, 64)),
    "reentrant": lambda: mean_square_of(Blocks(True), torch.randn(16, 64, requires_grad=True)),
    "accumulate": lambda: mlp(torch.optim.AdamW, accumulate=3),
    "autocast": lambda: mlp(torch.optim.AdamW, autocast="bfloat16"),
    "momentum": lambda: mlp(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ways_to_run_a_step(name: str) -> None:
    build = PROGRAMS[name]
    assert abs(timeline(trace_step(build, real=False)).peak - measured_peak(build)) <= SLACK


def test_an_optimizer_with_a_closure_needs_a_run_of_its_own() -> None:
    with pytest.raises(MemfitError, match=r"LBFGS calls a closure .* give Step\(run="):
        trace_step(lambda: mlp(torch.optim.LBFGS))


class Picks(nn.Module):
    """Ends with an op whose backward fills zeros that it makes: in place, but not while a dispatch mode looks on."""

    def __init__(self, pick: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.pick = nn.Linear(8, 512), pick

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pick(self.layer(x))


ROWS = torch.arange(63, -1, -1)
PICKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "index": lambda y: y[ROWS],
    "index_select": lambda y: y.index_select(0, ROWS),
    "gather": lambda y: y.gather(1, ROWS.expand(64, 64)),
    "max": lambda y: y.max(0).values,
    "sort": lambda y: y.sort(0).values,
    "take": lambda y: y.take(ROWS),
    "masked_select": lambda y: y.masked_select(torch.ones(64, 512, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", PICKS)
def test_zeros_of_a_backward_are_filled_in_place(name: str) -> None:
    def build() -> Step:
        return Step(Picks(PICKS[name]), torch.randn(64, 8), lambda y: y.square().mean())

    assert abs(timeline(trace_step(build, real=False)).peak - measured_peak(build)) <= SLACK


def test_a_sparse_gradient_is_kept_as_it_is() -> None:
    def build() -> Step:
        model = nn.Sequential(nn.Embedding(500, 32, sparse=True), nn.Linear(32, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Step(model, torch.arange(400).reshape(8, 50), lambda y: y.square().mean(), optimizer)

    assert abs(timeline(trace_step(build, real=False)).peak - measured_peak(build)) <= SLACK


class Reads(nn.Module):
    """Reads values where fake tensors have none: in the constructor, in a branch, as a length, as a list."""

    def __init__(self) -> None:
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, 0.5, 4)]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Dropout(rate)) for rate in rates)
        nn.init.trunc_normal_(self.layers[0][0].weight, std=0.02)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
            if torch.isnan(x).any():
                raise ValueError("a branch that a real run does not take")
        parts = x.split(lengths.tolist())
        x = x[: int(lengths.max())]
        while not bool((x.abs() < 1e30).all()):
            x = x / 2
        chosen = x[lengths.new_tensor([True, False]).repeat(x.shape[0])[: x.shape[0]]]
        return chosen.sum() + sum(part.mean() for part in parts) * x.detach().norm().item() ** 0


def test_values_that_decide_are_real_ones() -> None:
    def build() -> Step:
        inputs = torch.randn(64, 32), torch.tensor([16, 16, 32])
        return Step(Reads(), inputs, lambda y: y.square(), train=True)

    assert abs(timeline(trace_step(build, real=False)).peak - measured_peak(build)) <= 2 * SLACK


class Router(nn.Module):
    """A mixture of experts in plain loops: shapes come from values."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 4)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        result = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            row, slot = (chosen == number).nonzero(as_tuple=True)
            result.index_add_(0, row, expert(x[row]) * weight[row, slot, None])
        return result


def test_a_router_spreads_tokens_as_a_random_one_does() -> None:
    def build() -> Step:
        return Step(Router(), torch.randn(2000, 32), mean_square, train=True)

    measured = measured_peak(build)
    assert abs(timeline(trace_step(build, real=False)).peak - measured) <= 0.05 * measured


class InPlaceSums(nn.Module):
    """Sums that PyTorch writes into their first operand only where no dispatch mode looks on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x.transpose(0, 1))  # adds its bias to a product that it copied together
        a, b, c = y * 2, y * 3, y * 4  # three gradients of y to add up
        plain = a + b  # and a sum that must stay a tensor of its own
        return a.sum() + plain.mean() * c.norm()


@pytest.mark.parametrize("train", [True, False])
def test_sums_that_no_mode_may_see(train: bool) -> None:
    def build() -> Step:
        return Step(InPlaceSums(), torch.randn(32, 64, 64), lambda y: y, train=train)

    assert abs(timeline(trace_step(build, real=False)).peak - measured_peak(build)) <= SLACK


def test_sparse_gradients() -> None:
    def build() -> Step:
        model = nn.Sequential(nn.Embedding(1000, 16, sparse=True), nn.Flatten())
        optimizer = torch.optim.SparseAdam(model.parameters())
        return Step(model, torch.randint(0, 1000, (8, 4)), mean_square, optimizer)

    measured = measured_peak(build)
    trace = trace_step(build)
    assert abs(timeline(trace).peak - measured) <= 0.05 * measured


@pytest.mark.parametrize("kind", ["LBFGS", "Muon"])
def test_optimizers_of_other_shapes(kind: str) -> None:
    settings = {"max_iter": 6, "lr": 0.1, "tolerance_grad": 0, "tolerance_change": 0} if kind == "LBFGS" else {}

    def build() -> Step:
        model = nn.Linear(256, 256, bias=False)
        optimizer = getattr(torch.optim, kind)(model.parameters(), **settings)
        inputs = torch.randn(8, 256)

        def run(step: Step) -> None:
            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = mean_square(model(inputs))
                loss.backward()
                return loss

            optimizer.step(closure)

        return Step(model, inputs, mean_square, optimizer, run=run)

    measured = measured_peak(build)
    assert abs(timeline(trace_step(build)).peak - measured) <= 0.15 * measured


def test_a_step_that_exists_is_neither_read_nor_changed() -> None:
    step = mlp(torch.optim.AdamW)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    state = torch.get_rng_state()
    trace = trace_step(step, real=False)
    assert timeline(trace).peak > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert not step.optimizer.state
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())
    assert abs(timeline(trace).peak - timeline(trace_step(lambda: mlp(torch.optim.AdamW), real=False)).peak) <= 4096


def test_the_trace_is_sound() -> None:
    trace: Trace = trace_step(lambda: mlp(torch.optim.AdamW), real=False)
    born = {}
    for storage, delta in zip(trace.storage.tolist(), trace.delta.tolist(), strict=True):
        assert abs(delta) == trace.storages[storage].nbytes
        assert (storage not in born) == (delta > 0) or delta == 0
        born[storage] = delta
    assert timeline(trace).live.min() >= 0
    categories = {storage.category for storage in trace.storages}
    assert categories >= {
        Category.PARAMETERS, Category.BUFFERS, Category.INPUTS, Category.GRADIENTS, Category.OPTIMIZER_STATE,
        Category.ACTIVATIONS, Category.TEMPORARIES,
    }  # fmt: skip
    parameters = sum(s.nbytes for s in trace.storages if s.category is Category.PARAMETERS)
    assert parameters == sum(s.nbytes for s in trace.storages if s.category is Category.GRADIENTS) / 2
    assert any(op.module == "second" and "test_tape.py" in op.line for op in trace.ops if op.phase == "forward")
    assert any(op.module == "second" for op in trace.ops if op.phase == "backward")


def test_a_model_larger_than_any_memory() -> None:
    def build() -> Step:
        model = nn.Sequential(*[nn.Linear(1 << 17, 1 << 17) for _ in range(8)])
        return Step(model, torch.randn(4, 1 << 17), mean_square, torch.optim.AdamW(model.parameters()))

    parameters = 8 * 4 * ((1 << 34) + (1 << 17))
    assert timeline(trace_step(build, real=False)).peak > 4 * parameters


def test_a_program_that_raises_says_so() -> None:
    def build() -> Step:
        return Step(nn.Linear(3, 4), torch.randn(2, 5), mean_square)

    with pytest.raises(MemfitError, match="mat1 and mat2"):
        trace_step(build)

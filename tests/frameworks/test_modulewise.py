"""Module-level fitting keeps the measured budget, leaves the plain step's bits, and says no with a figure."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from tiny_models import MODELS
from torch import nn

from memfit.errors import BudgetError, CaptureError
from memfit.frameworks.torch.capture import capture
from memfit.frameworks.torch.modulewise import ModulePlan, fit_modules
from memfit.frameworks.torch.step_meter import digest, measure
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act, self.drop = nn.GELU(), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.down(self.act(self.up(self.norm(x)))))


class Branching(nn.Module):
    """Not one graph: a branch on a value, ``.item()``, a custom function, a Python counter, BatchNorm, dropout."""

    def __init__(self, depth: int = 6, width: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, dropout) for _ in range(depth)])
        self.norm, self.head, self.calls = nn.BatchNorm1d(width), nn.Linear(width, 1), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        for block in self.blocks:
            x = block(x)
            if x.abs().mean().item() > 100:
                x = x / 2
        return self.head(self.norm(x)).square().mean()


def branching(
    optimizer: type[torch.optim.Optimizer] | None = torch.optim.AdamW, rows: int = 256, **settings: Any
) -> Step:
    torch.manual_seed(0)
    model = Branching(**settings)
    return Step(
        model,
        torch.randn(rows, 32),
        loss=lambda out: out,
        optimizer=optimizer and optimizer(model.parameters(), lr=1e-2),
    )


def steps_of(step: Step, run: Any, count: int = 3) -> list[dict[str, str]]:
    torch.manual_seed(5)
    return [digest(step, run()) for _ in range(count)]


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, None])
def test_budget_is_kept_with_the_same_bits(optimizer: Any, share: float) -> None:
    step = branching(optimizer)
    run_step(step)
    plain = measure(step, lambda: run_step(step)).peak
    plan = fit_modules(step, int(plain * share))
    assert plan.measured_peak <= plan.budget
    assert plan.exact
    assert plan.recompute or plan.early_optimizer
    again = branching(optimizer)
    runner = ModulePlan.from_json(json.loads(json.dumps(plan.to_json()))).apply(again)
    fresh = branching(optimizer)
    assert steps_of(fresh, lambda: run_step(fresh)) == steps_of(again, runner)
    assert measure(again, runner).peak <= plan.budget
    assert sum(row["saved"] for row in plan.levers) == plan.baseline_peak - plan.measured_peak


class Drawing(nn.Module):
    """Where a coin says so, a wide block runs twice: the step's peak is one of two."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(32, 0.1) for _ in range(6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        if torch.rand([]).item() < 0.4:
            x = self.blocks[0](torch.cat([x, x, x, x]))
        return x.square().mean()


def drawing() -> Step:
    torch.manual_seed(0)
    model = Drawing()
    return Step(
        model, torch.randn(256, 32), loss=lambda out: out, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2)
    )


@pytest.mark.parametrize("share", [0.9, 0.7])
def test_a_peak_that_depends_on_draws_is_kept_under_others(share: float) -> None:
    step = drawing()
    peaks = [measure(step, lambda: run_step(step)).peak for _ in range(12)]
    assert len(set(peaks[1:])) > 1
    plan = fit_modules(drawing(), int(max(peaks) * share))
    runner = plan.apply(step)
    assert max(measure(step, runner).peak for _ in range(12)) <= plan.budget


def test_the_step_is_put_back() -> None:
    step = branching()
    before = digest(step, None)
    peak = measure(branching(), lambda: None).peak
    with pytest.raises(BudgetError) as caught:
        fit_modules(step, peak)
    assert digest(step, None) == before
    assert not step.optimizer.state
    assert caught.value.allowed == peak < caught.value.needed
    plan = fit_modules(step, caught.value.needed)  # what it names as needed is feasible
    assert plan.measured_peak <= caught.value.needed


def test_more_budget_never_costs_more() -> None:
    step = branching(None, depth=8)
    plain = measure(step, lambda: run_step(step)).peak
    step.model.zero_grad()
    counts = [len(fit_modules(step, int(plain * share)).recompute) for share in (1.0, 0.85, 0.7, 0.55)]
    assert counts[0] == 0
    assert counts == sorted(counts)


def test_a_step_that_runs_its_own_loop() -> None:
    def loop(step: Step) -> torch.Tensor:
        total = torch.zeros(())
        for part in step.inputs.split(128):
            loss = step.model(part)
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(step.model.parameters(), 1.0)
        step.optimizer.step()
        step.optimizer.zero_grad()
        return total

    def build() -> Step:
        plain = branching()
        return Step(plain.model, plain.inputs, optimizer=plain.optimizer, run=loop)

    step = build()
    run_step(step)
    plain = measure(step, lambda: run_step(step)).peak
    plan = fit_modules(step, int(plain * 0.75))
    assert plan.recompute
    assert not plan.early_optimizer
    again, fresh = build(), build()
    assert steps_of(fresh, lambda: run_step(fresh)) == steps_of(again, plan.apply(again))


class Stubborn(nn.Module):
    """Each call gives something else, whatever is replayed: it must be found and left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.count = nn.Linear(32, 128), [iter(range(10**6))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 1.0 + next(self.count[0]) % 7
        return torch.tanh(torch.tanh(self.inner(x) * scale) * scale)[:, :32]


def test_a_module_that_cannot_be_replayed_is_left_out() -> None:
    def build() -> Step:
        step = branching(None, depth=4)
        step.model.blocks.insert(2, Stubborn())
        return step

    step = build()
    # restore cannot wind back an iterator, so hold the plain step still: seven calls a round
    plain = measure(step, lambda: run_step(step)).peak
    plan = fit_modules(step, int(plain * 0.85))
    assert plan.measured_peak <= plan.budget
    assert not plan.exact or "blocks.2" not in plan.recompute


@pytest.mark.parametrize("name", MODELS)
def test_transformers_models(name: str) -> None:
    def build() -> Step:
        torch.manual_seed(3)
        plain = MODELS[name]()
        plain.model.train()
        return Step(plain.model, plain.inputs, optimizer=torch.optim.AdamW(plain.model.parameters(), lr=1e-3))

    step = build()
    run_step(step)
    run = measure(step, lambda: run_step(step))
    plan = fit_modules(step, run.peak - 1)
    assert plan.measured_peak < run.peak
    again, fresh = build(), build()
    assert steps_of(fresh, lambda: run_step(fresh), 2) == steps_of(again, plan.apply(again), 2)


def test_inference_and_callables_say_no() -> None:
    model = nn.Linear(8, 8)
    with pytest.raises(BudgetError, match="inference"):
        fit_modules(Step(model, torch.randn(4, 8)), 10)
    function = Step(lambda x: (x * x).sum(), torch.randn(1000, requires_grad=True), loss=lambda out: out)
    with pytest.raises(BudgetError, match="no modules"):
        fit_modules(function, 10)
    assert fit_modules(copy.copy(function), 10**6).recompute == ()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adafactor"])
def test_early_optimizer_leaves_the_same_bits(kind: str) -> None:
    optimizer = getattr(torch.optim, kind)
    a, b = branching(optimizer, dropout=0.0), branching(optimizer, dropout=0.0)
    a.model.head.weight.requires_grad_(False)
    b.model.head.weight.requires_grad_(False)
    assert steps_of(a, lambda: run_step(a)) == steps_of(b, ModulePlan(early_optimizer=True).apply(b))


def test_micro_batches_only_where_they_are_the_same() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*[Block(32, 0.0) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x).square().mean()

    def build(dropout: float = 0.0) -> Step:
        torch.manual_seed(0)
        model = Plain()
        model.blocks[0].drop.p = dropout
        return Step(
            model, torch.randn(256, 32), loss=lambda out: out, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
        )

    step = build()
    with pytest.raises(BudgetError) as caught:
        fit_modules(step, 1)
    budget = int(caught.value.needed * 0.8)
    plan = fit_modules(step, budget, allow_reassociation=True)
    assert plan.micro_batches > 1
    assert not plan.exact
    assert plan.measured_peak <= budget
    assert plan.error < 1e-4
    again, fresh = build(), build()
    plan.apply(again)()
    run_step(fresh)
    for p, q in zip(again.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)
    with pytest.raises(BudgetError, match="random numbers"):
        fit_modules(build(0.1), budget, allow_reassociation=True)
    with pytest.raises(BudgetError, match="normalises over the batch"):
        fit_modules(branching(dropout=0.0), 1, allow_reassociation=True)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_micro_batches_with_ignored_labels(name: str) -> None:
    from memfit.frameworks.torch.microbatch import compared, run_micro_batches, split_of

    torch.manual_seed(1)
    step = MODELS[name]()
    step.model.eval()  # no dropout
    step.inputs["labels"] = step.inputs["labels"].clone()
    step.inputs["labels"][0, 4:] = -100
    found = compared(step, 2)
    assert not found.refused
    assert found.error < 1e-4
    assert found.weights == ("shifted" if name in ("gpt2", "llama") else "labels")
    step = Step(step.model, step.inputs, train=True)
    whole = run_step(step)
    step.model.zero_grad()
    assert torch.allclose(run_micro_batches(step, split_of(step, 2, found.weights)), whole, rtol=1e-5)


def test_chunked_loss_and_low_bits_where_allowed() -> None:
    def build() -> Step:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3000, bias=False))
        labels = torch.arange(256) * 11
        return Step(model, torch.randn(256, 16), loss=lambda out: nn.functional.cross_entropy(out, labels))

    step = build()
    with pytest.raises(BudgetError, match="allow reassociation") as caught:
        fit_modules(step, 4_000_000)
    assert caught.value.needed > 5_000_000
    plan = fit_modules(step, 4_000_000, allow_reassociation=True)
    assert plan.chunked_heads == ("2",)
    assert plan.measured_peak <= 4_000_000
    assert plan.micro_batches == 1
    again, fresh = build(), build()
    assert torch.allclose(ModulePlan.from_json(json.loads(json.dumps(plan.to_json()))).apply(again)(), run_step(fresh))
    deep = branching(None, rows=1024, depth=5, dropout=0.1)
    with pytest.raises(BudgetError) as caught:
        fit_modules(deep, 1)
    lossy = fit_modules(deep, caught.value.needed - 20_000, allow_inexact=True)
    assert lossy.low_bit.activation_bits == 8 or lossy.low_bit.autocast
    assert not lossy.exact
    assert lossy.measured_peak <= lossy.budget
    assert 0 < lossy.error < 0.2
    assert {"lossy"} & {row["numerics"] for row in lossy.levers}


class Reentrant(torch.nn.Module):
    """Blocks whose parameters get their gradients inside of a checkpoint's own backward."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 16)) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.requires_grad_()
        for block in self.blocks:
            x = x + torch.utils.checkpoint.checkpoint(block, x, use_reentrant=True)
        return x


class Doubled(torch.autograd.Function):
    """Twice its input; no backward of its own inside."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * 2


class Doubling(torch.nn.Module):
    """Uses ``Doubled``, and on request has a parameter that nothing uses."""

    def __init__(self, unused: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)
        self.spare = torch.nn.Linear(2, 2) if unused else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(self.layer(x))  # type: ignore[no-any-return]


def test_gradients_made_inside_of_a_backward_are_no_single_graph() -> None:
    def step(model: torch.nn.Module) -> Step:
        return Step(model, torch.randn(64, 16), lambda y: y.square().mean())

    with pytest.raises(CaptureError, match="use_reentrant=True"):
        capture(step(Reentrant()))
    with pytest.raises(CaptureError, match=r"spare\.weight may get its gradient inside of Doubled"):
        capture(step(Doubling(unused=True)))
    assert capture(step(Doubling(unused=False))).trained == ("layer.weight", "layer.bias")

"""A fitted step leaves the bits that the eager step leaves, within its budget, whatever levers its schedule uses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import tiny_models
import torch

from memfit.errors import BudgetError, CaptureError
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.capture import capture
from memfit.frameworks.torch.fitted import FittedStep, measured_program
from memfit.frameworks.torch.held import held_beside
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step
from memfit.passes.rematerialize import smallest_peak

MODELS = ("gpt2", "bert", "vit", "t5", "llama", "mixtral", "whisper", "resnet", "swin", "mamba")


def twins(build: Callable[[], Step], optimizer: Any) -> tuple[Step, Step]:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        step = build()
        for module in step.model.train().modules():
            if hasattr(module, "layerdrop"):  # skips layers by a random value: no single graph, fitted by modules
                module.layerdrop = 0.0
        made.append(Step(step.model, step.inputs, step.loss, optimizer and optimizer(step.model.parameters()), True))
    return made[0], made[1]


def state_of(step: Step) -> list[tuple[str, torch.Tensor | None]]:
    rows: list[tuple[str, torch.Tensor | None]] = [("random state", torch.get_rng_state())]
    rows += [(f"parameter {n}", p.detach().clone()) for n, p in step.model.named_parameters()]
    rows += [(f"gradient {n}", p.grad) for n, p in step.model.named_parameters()]
    rows += [(f"buffer {n}", b.clone()) for n, b in step.model.named_buffers()]
    return rows


def assert_same_run(eager: Step, fitted: Callable[[], Any], other: Step, steps: int = 2) -> None:
    for number in range(steps):
        torch.manual_seed(number + 5)
        loss = run_step(eager)
        expected = state_of(eager)
        torch.manual_seed(number + 5)
        found_loss = fitted()
        assert torch.equal(loss, found_loss), f"loss of step {number}"
        for (name, a), (_, b) in zip(expected, state_of(other), strict=True):
            assert (a is None) == (b is None), name
            assert a is None or (a.stride() == b.stride() and torch.equal(a, b)), f"{name} after step {number}"


def fitted_between(step: Step, share: float, held: int = 0) -> FittedStep:
    """The step fitted to bytes ``share`` of the way from the smallest feasible peak to the program's own."""
    return next(fitted_at(step, (share,), held))


def fitted_at(step: Step, shares: Sequence[float], held: int = 0) -> Iterator[FittedStep]:
    """The step, captured once, fitted to each of these shares, one after another."""
    captured, program = measured_program(step)
    plan = smallest_peak(program.graph)
    for share in shares:
        budget = plan.peak + int(share * (plan.baseline_peak - plan.peak))
        yield FittedStep(step, budget + held, held=held, captured=captured)


@pytest.mark.parametrize("name", MODELS)
def test_ten_architectures_with_dropout_are_bit_identical(name: str) -> None:
    eager, other = twins(getattr(tiny_models, name), lambda p: torch.optim.AdamW(p, lr=1e-3))
    shares = (0.0, 0.4)
    for share, fitted in zip(shares, fitted_at(other, shares), strict=True):
        schedule = fitted.first.plan.schedule
        assert share or len(schedule) > len(set(schedule)), "nothing was recomputed: the test shows nothing"
        assert_same_run(eager, fitted, other)


@pytest.mark.parametrize("name", ["gpt2", "resnet", "whisper"])
def test_gradients_without_an_optimizer(name: str) -> None:
    eager, other = twins(getattr(tiny_models, name), None)
    assert_same_run(eager, fitted_between(other, 0.1), other)


@pytest.mark.parametrize(
    "options", [{"offload": 1.0}, {"optimizer_state": "file"}, {"offload": 0.5, "optimizer_state": "file"}]
)
def test_levers_that_move_bytes_are_bit_identical(options: dict[str, Any]) -> None:
    def build() -> Step:
        layers = [torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Dropout(0.1), torch.nn.Linear(256, 64)]
        model = torch.nn.Sequential(*[m for _ in range(3) for m in copy.deepcopy(layers)])
        return Step(model, torch.randn(512, 64), lambda y: y.square().mean())

    eager, other = twins(build, lambda p: torch.optim.AdamW(p, lr=1e-2))
    fitted = FittedStep(other, 10**9, options=options)
    names = {op.name for op in fitted.first.program.graph.ops}
    assert ("memfit.load" in names) == bool(options.get("offload"))
    assert_same_run(eager, fitted, other, steps=3)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p),
    "asgd": lambda p: torch.optim.ASGD(p),
    "rprop": lambda p: torch.optim.Rprop(p),
    "groups": lambda p: torch.optim.AdamW(
        [{"params": [q]} | ({"lr": 0.1} if i % 2 else {}) for i, q in enumerate(p)], lr=1e-3
    ),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers_stepped_one_parameter_at_a_time_are_bit_identical(name: str) -> None:
    def build() -> Step:
        model = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 3)
        )
        return Step(model, torch.randn(5, 8), lambda y: y.square().mean())

    eager, other = twins(build, OPTIMIZERS[name])
    fitted = FittedStep(other, 10**9)
    assert any(op.phase == "optimizer" for op in fitted.first.program.graph.ops)
    assert_same_run(eager, fitted, other, steps=4)


def test_learning_rate_schedulers_are_followed() -> None:
    eager, other = twins(tiny_models.gpt2, lambda p: torch.optim.AdamW(p, lr=1e-3))
    schedulers = [torch.optim.lr_scheduler.StepLR(step.optimizer, 1, gamma=0.5) for step in (eager, other)]
    fitted = FittedStep(other, 10**9)
    for number in range(3):
        torch.manual_seed(number)
        loss = run_step(eager)
        torch.manual_seed(number)
        assert torch.equal(loss, fitted())
        for scheduler in schedulers:
            scheduler.step()
    assert all(torch.equal(a, b) for a, b in zip(eager.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("name", ["gpt2", "resnet", "t5"])
def test_measured_peak_is_the_projected_one_and_keeps_the_budget(name: str, share: float) -> None:
    torch.manual_seed(0)
    with allocator_hook.installed():
        before = allocator_hook.live_bytes()
        step = getattr(tiny_models, name)()
        step = Step(step.model.train(), step.inputs, step.loss, None, True)
        held = held_beside(step, allocator_hook.live_bytes() - before)
        fitted = fitted_between(step, share, held)
        budget = fitted.budget
        fitted()
        step.model.zero_grad(set_to_none=True)
        live = allocator_hook.live_bytes()
        allocator_hook.reset_peak()
        loss = fitted()
        above = allocator_hook.peak_bytes() - live
        del loss
    plan, graph = fitted.first.plan, fitted.first.program.graph
    projected = plan.peak - graph.base_bytes
    assert plan.peak <= budget
    assert above <= projected + 8192
    assert above >= 0.99 * projected - 8192


def test_a_batch_of_another_shape_gets_a_plan_of_its_own() -> None:
    eager, other = twins(tiny_models.gpt2, lambda p: torch.optim.SGD(p, lr=0.1))
    fitted = FittedStep(other, 10**9)
    longer = {name: torch.cat([value, value], dim=1) for name, value in eager.inputs.items()}
    for inputs in (eager.inputs, longer, eager.inputs, longer):
        torch.manual_seed(1)
        loss = run_step(Step(eager.model, inputs, optimizer=eager.optimizer))
        torch.manual_seed(1)
        assert torch.equal(loss, fitted(inputs))
    assert len(fitted.buckets) == 2


def test_gradient_accumulation_is_bit_identical() -> None:
    eager, other = twins(tiny_models.gpt2, lambda p: torch.optim.SGD(p, lr=0.1))
    eager, other = (Step(s.model, s.inputs, s.loss, s.optimizer, True, accumulate=3) for s in (eager, other))
    assert_same_run(eager, fitted_between(other, 0.2), other)


def test_autocast_is_bit_identical() -> None:
    eager, other = twins(tiny_models.gpt2, lambda p: torch.optim.SGD(p, lr=0.1))
    eager, other = (Step(s.model, s.inputs, s.loss, s.optimizer, True, autocast="bfloat16") for s in (eager, other))
    assert_same_run(eager, FittedStep(other, 10**9), other)


def test_inference_returns_what_the_model_returns() -> None:
    step = tiny_models.bert()
    step = Step(step.model.eval(), {k: v for k, v in step.inputs.items() if k != "labels"})
    expected, found = run_step(step), FittedStep(step, 10**9)()
    assert type(found) is type(expected)
    assert torch.equal(found.logits, expected.logits)


def test_an_impossible_budget_says_what_would_be_possible() -> None:
    step = tiny_models.gpt2()
    with pytest.raises(BudgetError) as caught:
        FittedStep(step, 1000)
    needed = caught.value.needed
    assert needed > 1000
    assert FittedStep(tiny_models.gpt2(), needed).first.plan.peak <= needed


def test_control_flow_on_values_names_the_line() -> None:
    class Branching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            if torch.rand([]) < 0.5:
                y = y * 2
            return y.mean()

    with pytest.raises(CaptureError, match=r"test_fit_exact\.py:\d+"):
        capture(Step(Branching(), torch.randn(2, 4), train=True))

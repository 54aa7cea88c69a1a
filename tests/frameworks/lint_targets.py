"""A step for each rule of `lint` that triggers it, and its twin with the advice followed, in which the rule is silent.

Every function takes ``fixed``: False makes the step with the fault, True the twin. Sizes are such that the fault matters.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from memfit.ir.step import Step

WIDTH, BATCH = 64, 128


def body(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def data(batch: int = BATCH) -> torch.Tensor:
    return torch.randn(batch, WIDTH)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def trained(step: Step, loss: torch.Tensor, **backward: Any) -> torch.Tensor:
    step.optimizer.zero_grad()
    loss.backward(**backward)
    step.optimizer.step()
    return loss.detach()


def evaluation_with_graph(fixed: bool = False) -> Step:
    model = body(WIDTH, 256, 256)

    def run(step: Step) -> Any:
        trained(step, step.model(step.inputs).square().mean())
        with torch.no_grad() if fixed else nullcontext():
            score = step.model(data(512)).mean()
        return float(score)

    return Step(model, data(), optimizer=sgd(model), run=run)


def inference_with_graph(fixed: bool = False) -> Step:
    def run(step: Step) -> Any:
        with torch.inference_mode() if fixed else nullcontext():
            return step.model(step.inputs).argmax(-1)

    return Step(body(WIDTH, 256, 256).eval(), data(), run=run, train=False)


class Teacher(nn.Module):
    """A student that matches a teacher; the teacher's graph ends at ``detach``."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.student, self.teacher = body(WIDTH, 32), body(WIDTH, 256, 256)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad() if self.fixed else nullcontext():
            wanted = self.teacher(values)
        return (self.student(values) - wanted.detach()).square().mean()


def teacher_with_graph(fixed: bool = False) -> Step:
    model = Teacher(fixed)
    return Step(model, data(), optimizer=sgd(model.student))


class Unused(nn.Module):
    """Keeps the second head's result until the end of the forward pass."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.trunk, self.head, self.second = nn.Linear(WIDTH, 64), nn.Linear(64, 1), body(64, 256, 256)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.trunk(values).relu()
        with torch.no_grad() if self.fixed else nullcontext():
            second = self.second(hidden)
        return {"loss": self.head(hidden).square().mean(), "second": second}


def unused_head(fixed: bool = False) -> Step:
    model = Unused(fixed)

    def run(step: Step) -> Any:
        output = step.model(step.inputs)
        loss = trained(step, output["loss"])
        return loss, float(output["second"].mean())

    return Step(model, data(), optimizer=sgd(model), run=run)


def functional_without_use(fixed: bool = False) -> Step:
    model = body(WIDTH, 64)

    def run(step: Step) -> Any:
        output = step.model(step.inputs)
        source = step.model[0].weight.detach() if fixed else step.model[0].weight
        penalty = torch.exp(source.repeat(8, 8)).mean()
        loss = trained(step, output.square().mean())
        return loss, float(penalty)

    return Step(model, data(), optimizer=sgd(model), run=run)


def gradient_norm(fixed: bool = False) -> Step:
    model = body(WIDTH, 256, 256)

    def run(step: Step) -> Any:
        loss = step.model(step.inputs).square().mean()
        gradients = torch.autograd.grad(loss, list(step.model.parameters()), create_graph=not fixed)
        norm = float(sum(one.detach().square().sum() for one in gradients))
        for parameter, gradient in zip(step.model.parameters(), gradients, strict=True):
            parameter.grad = gradient.detach() / (1 + norm)
        step.optimizer.step()
        return norm

    return Step(model, data(), optimizer=sgd(model), run=run)


def carried_state(fixed: bool = False) -> Step:
    model = nn.GRU(WIDTH, 64)
    state: dict[str, Any] = {"hidden": None}

    def run(step: Step) -> Any:
        with torch.no_grad() if fixed else nullcontext():
            output, hidden = step.model(step.inputs, state["hidden"])
        state["hidden"] = hidden
        return float(output.mean())

    return Step(model, torch.randn(8, 32, WIDTH), run=run)


def kept_losses(fixed: bool = False) -> Step:
    model = body(WIDTH, 64)
    losses: list[Any] = []

    def run(step: Step) -> Any:
        loss = step.model(step.inputs).square().mean()
        trained(step, loss)
        losses.append(loss.item() if fixed else loss)

    return Step(model, data(), optimizer=sgd(model), run=run)


def running_loss(fixed: bool = False) -> Step:
    model = body(WIDTH, 64)
    state = {"running": torch.zeros(())}

    def run(step: Step) -> Any:
        loss = step.model(step.inputs).square().mean()
        trained(step, loss)
        state["running"] = state["running"] + (loss.detach() if fixed else loss)

    return Step(model, data(), optimizer=sgd(model), run=run)


def validation_losses(fixed: bool = False) -> Step:
    model = body(WIDTH, 256)
    losses: list[Any] = []

    def run(step: Step) -> Any:
        trained(step, step.model(step.inputs).square().mean())
        with torch.no_grad() if fixed else nullcontext():
            losses.append(step.model(data()).square().mean())

    return Step(model, data(), optimizer=sgd(model), run=run)


def retained_graph(fixed: bool = False) -> Step:
    model = body(WIDTH, 256, 256)

    def run(step: Step) -> Any:
        loss = step.model(step.inputs).square().mean()
        loss.backward(retain_graph=not fixed)
        step.optimizer.step()
        step.optimizer.zero_grad()
        with torch.no_grad():
            step.model(data(512))
        return float(loss)

    return Step(model, data(), optimizer=sgd(model), run=run)


def frozen_by_omission(fixed: bool = False) -> Step:
    model = nn.Sequential(body(WIDTH, 256, 256), nn.Linear(1, 8), nn.GELU(), nn.Linear(8, 1))
    if fixed:
        model[0].requires_grad_(False)
    head = [parameter for layer in model[1:] for parameter in layer.parameters()]
    return Step(model, data(), lambda output: output.square().mean(), torch.optim.Adam(head))


def input_gradient(fixed: bool = False) -> Step:
    model = body(WIDTH, 256, 256)
    model[:4].requires_grad_(False)
    values = data()
    values.requires_grad_(not fixed)
    return Step(model, values, lambda output: output.square().mean(), sgd(model[4:]))


def train_mode(fixed: bool = False) -> Step:
    return Step(body(WIDTH, 256, 256, dropout=0.1).train(not fixed), data(), train=False)


def validation_in_train_mode(fixed: bool = False) -> Step:
    model = body(WIDTH, 128, dropout=0.1)

    def run(step: Step) -> Any:
        loss = trained(step, step.model(step.inputs).square().mean())
        if fixed:
            step.model.eval()
        with torch.no_grad():
            score = float(step.model(data(512)).mean())
        step.model.train()
        return loss, score

    return Step(model, data(), optimizer=sgd(model), run=run)


def zeroed_gradients(fixed: bool = False) -> Step:
    model = body(WIDTH, 512, 512)

    def run(step: Step) -> Any:
        loss = step.model(step.inputs).square().mean()
        loss.backward()
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=fixed)
        return float(loss)

    return Step(model, data(512), optimizer=sgd(model), run=run)


class Copying(nn.Module):
    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.first, self.second = nn.Linear(WIDTH, 256), nn.Linear(256, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = self.first(values)
        residual = hidden if self.fixed else hidden.clone()
        return self.second(torch.tanh(hidden) + residual.exp()).square().mean()


def needless_copy(fixed: bool = False) -> Step:
    model = Copying(fixed)
    return Step(model, data(), optimizer=sgd(model))


class Scaled(nn.Module):
    def __init__(self, fixed: bool) -> None:
        super().__init__()
        scale = torch.from_numpy(np.linspace(0.5, 1.5, 256))
        self.register_buffer("scale", scale.float() if fixed else scale)
        self.first, self.second = nn.Linear(WIDTH, 256), nn.Linear(256, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(values) * self.scale)
        return self.second(hidden.float()).square().mean()


def double_by_accident(fixed: bool = False) -> Step:
    model = Scaled(fixed)
    return Step(model, data(), optimizer=sgd(model))


# rule, target, and what the source line that it should name contains
CASES: tuple[tuple[str, Callable[[bool], Step], str], ...] = (
    ("no-grad", evaluation_with_graph, "step.model(data(512))"),
    ("no-grad", inference_with_graph, "step.model(step.inputs).argmax"),
    ("unused-graph", teacher_with_graph, "self.teacher(values)"),
    ("unused-graph", unused_head, "self.second(hidden)"),
    ("unused-graph", functional_without_use, "torch.exp(source"),
    ("create-graph", gradient_norm, "torch.autograd.grad("),
    ("detach", carried_state, "step.model(step.inputs, state"),
    ("detach", kept_losses, "square().mean()"),
    ("detach", running_loss, 'state["running"] + '),
    ("no-grad", validation_losses, "losses.append(step.model"),
    ("detach", validation_losses, "losses.append(step.model"),
    ("retained-graph", retained_graph, "loss.backward(retain_graph"),
    ("requires-grad", frozen_by_omission, ""),
    ("input-grad", input_gradient, ""),
    ("eval-mode", train_mode, ""),
    ("eval-mode", validation_in_train_mode, "step.model(data(512))"),
    ("set-to-none", zeroed_gradients, "zero_grad(set_to_none"),
    ("copy", needless_copy, "hidden.clone()"),
    ("float64", double_by_accident, "self.scale"),
)

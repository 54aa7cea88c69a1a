"""What the zoo's target functions share: their register, optimizers by name, and Steps from a model and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from memfit.ir.step import Step

Build = Callable[..., Step]
FAMILIES: dict[str, tuple[str, ...]] = {}
REGISTERED: dict[str, Build] = {}


def family(name: str) -> Callable[[Build], Build]:
    """Enter a target function under its family."""

    def enter(function: Build) -> Build:
        FAMILIES[name] = (*FAMILIES.get(name, ()), function.__name__)
        REGISTERED[function.__name__] = function
        return function

    return enter


def make_optimizer(name: str, parameters: Any) -> Any:
    """The optimizer that ``name`` means (module text), or None for "none"."""
    kind, _, form = name.partition("_")
    if kind == "none":
        return None
    settings: dict[str, Any] = {"lr": 1e-3}
    if form == "momentum":
        settings["momentum"] = 0.9
    if kind not in ("lbfgs", "adafactor", "sparseadam", "muon"):
        settings["foreach"] = form == "foreach"
        if kind in ("sgd", "adam", "adamw", "adagrad"):
            settings["fused"] = form == "fused"
    elif kind == "adafactor":
        settings["foreach"] = form == "foreach"
    classes = {value.lower(): value for value in dir(torch.optim)}
    return getattr(torch.optim, classes[kind])(parameters, **settings)


def as_step(model: nn.Module, inputs: Any, optimizer: str, train: bool, loss: Any = None) -> Step:
    if not train:
        inputs = {k: v for k, v in inputs.items() if k != "labels"} if isinstance(inputs, dict) else inputs
        return Step(model.eval(), inputs, train=False)
    return Step(model.train(), inputs, loss, make_optimizer(optimizer, model.parameters()), train=True)


def tokens(batch: int, length: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(3, vocabulary, (batch, length))


def text_step(model: nn.Module, batch: int, length: int, vocabulary: int, optimizer: str, train: bool) -> Step:
    ids = tokens(batch, length, vocabulary)
    return as_step(model, {"input_ids": ids, "labels": ids}, optimizer, train)


def image_step(model: nn.Module, batch: int, size: int, classes: int, optimizer: str, train: bool) -> Step:
    inputs = {"pixel_values": torch.randn(batch, 3, size, size), "labels": torch.randint(0, classes, (batch,))}
    return as_step(model, inputs, optimizer, train)

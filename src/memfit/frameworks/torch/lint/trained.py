"""Gradients that nobody uses: ``requires-grad`` for parameters that no optimizer steps, ``input-grad`` for inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from memfit.frameworks.torch.lint.changes import Frozen
from memfit.frameworks.torch.lint.finding import Finding, Seen
from memfit.ir.trace import Category
from memfit.units import format_bytes


def untrained(seen: Seen) -> list[Finding]:
    """Parameters that get a gradient while an optimizer steps others only."""
    watch, model = seen.watch, seen.step.model
    if not watch.stepped or not isinstance(model, nn.Module):
        return []
    idle = {
        name: parameter for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in watch.stepped and id(parameter) in watch.with_gradient
    }  # fmt: skip
    if not idle:
        return []
    nbytes = sum(parameter.numel() * parameter.dtype.itemsize for parameter in idle.values())
    part = _common_prefix(list(idle)) or seen.named(model)
    line = seen.made_at(Category.PARAMETERS, idle)
    what = f"{len(idle)} parameters of {part} ({format_bytes(nbytes)}) get gradients, and no optimizer steps them"
    fix = f"{part}.requires_grad_(False) before the first step"
    return [Finding("requires-grad", line, what, fix, part, nbytes, change=Frozen(parameters=idle))]


def _common_prefix(names: list[str]) -> str:
    """The module that all of these parameters lie in; empty for the model itself.

    >>> _common_prefix(["encoder.0.weight", "encoder.2.bias"]), _common_prefix(["head.weight"])
    ('encoder', 'head')
    """
    paths = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def input_gradients(seen: Seen) -> list[Finding]:
    """Inputs that require gradients in a step that memfit's own loop runs, where nobody reads them."""
    found = [] if seen.own_loop or not seen.training else _wanting(seen.step.inputs)
    if not found:
        return []
    nbytes = sum(one.numel() * one.dtype.itemsize for one in found)
    labels = {storage.label for storage in seen.trace.storages if storage.category is Category.INPUTS}
    line = seen.made_at(Category.INPUTS, labels)
    what = f"inputs require gradients ({format_bytes(nbytes)}) that nobody reads"
    fix = "make them without requires_grad, or pass .detach() of them"
    return [Finding("input-grad", line, what, fix, "", nbytes, change=Frozen(inputs=True))]


def _wanting(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad and value.is_leaf else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _wanting(item)]

"""The output error that a format of a layer causes, measured on a calibration batch.

One run of the model keeps, per layer, the mean square of each input column and up to ``_ROWS`` input rows. From these
comes the local error of a format: ``|X (W - W')'|^2 / |X W'|^2``. The error that counts is that of the whole model's
output with this one layer in its new format, measured by running; where the time given is over, it is the layer's
measured error in another format times the ratio of the local errors. The sum over layers is a model of the error of all
of them together, good for choosing; the error that is reported is measured on the whole.
Cost: one forward for each layer and format measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from memfit.errors import TargetError
from memfit.frameworks.torch.compressible import Layer, New, replace_layer, restore_layer
from memfit.frameworks.torch.quantized_int4 import NativeInt4Weight
from memfit.frameworks.torch.quantized_linear import PackedWeight
from memfit.frameworks.torch.quantized_sparse import SparseWeight
from memfit.frameworks.torch.steps import autocast_of, call_model
from memfit.ir.step import Step
from memfit.passes import sparsify
from memfit.passes.formats import Format
from memfit.passes.quantize import quantize

_ROWS = 256


@dataclass(frozen=True)
class OutputError:
    """Of an output against the original: ``relative`` in the 2-norm, ``largest`` over the largest value of that output."""

    relative: float
    largest: float


@dataclass
class Statistics:
    """What a layer saw. ``squares``: mean square per column; ``rows``: a sample of its inputs, [n, columns]."""

    squares: np.ndarray[Any, np.dtype[np.float32]]
    rows: torch.Tensor


def run_outputs(step: Step) -> list[torch.Tensor]:
    """The floating-point tensors that the model gives on the step's inputs, as float32.

    Raises:
        TargetError: there are none.
    """
    with torch.no_grad(), autocast_of(step):
        output = call_model(step.model, step.inputs)
    leaves = pytree.tree_leaves(output if not hasattr(output, "to_tuple") else dict(output))
    found = [leaf.float() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if not found:
        raise TargetError("step", "its output holds no floating-point tensor to compare", "return logits or embeddings")
    return found


def compare(reference: list[torch.Tensor], found: list[torch.Tensor]) -> OutputError:
    """The worst output counts; what is no number is an infinite error."""
    relative = largest = 0.0
    for old, new in zip(reference, found, strict=True):
        gap = (new - old).double()
        if not bool(torch.isfinite(gap).all()):
            return OutputError(float("inf"), float("inf"))
        if gap.numel():
            relative = max(relative, float(gap.norm() / old.double().norm().clamp(min=1e-30)))
            largest = max(largest, float(gap.abs().max() / old.abs().max().clamp(min=1e-30)))
    return OutputError(relative, largest)


def observe(step: Step, layers: list[Layer]) -> dict[str, Statistics]:
    """Run the model once and keep what each layer saw. An embedding's rows are those it looked up."""
    sums: dict[str, tuple[torch.Tensor, int]] = {}
    rows: dict[str, list[torch.Tensor]] = {}
    handles = []

    def hook(name: str) -> Callable[[Any, Any], None]:
        def keep(module: Any, args: Any) -> None:
            x = args[0].detach().reshape(-1, args[0].shape[-1]).float()
            total, count = sums.get(name, (torch.zeros(x.shape[1]), 0))
            sums[name] = (total + (x * x).sum(0), count + len(x))
            held = sum(len(part) for part in rows.setdefault(name, []))
            if held < _ROWS and len(x):
                picked = torch.linspace(0, len(x) - 1, min(len(x), _ROWS - held)).long()
                rows[name].append(x[picked].clone())

        return keep

    for layer in layers:
        for place in layer.places:
            if place.kind != "embedding":
                handles.append(place.module.register_forward_pre_hook(hook(layer.name)))
    try:
        run_outputs(step)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: Statistics((total / max(count, 1)).numpy(), torch.cat(rows[name]) if rows[name] else torch.empty(0))
        for name, (total, count) in sums.items()
    }


def converted(layer: Layer, form: Format, seen: Statistics | None, zeros: float = 0.5) -> New:
    """``layer``'s weight in ``form``. ``zeros``: the share dropped by csr and bitmap.

    Raises:
        TargetError: the weight holds values that are no numbers.
    """
    importance = None if seen is None else seen.squares
    plain = layer.matrix().float().contiguous().numpy()
    low, high = float(plain.min(initial=0)), float(plain.max(initial=0))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise TargetError("model", f"the weight of {layer.name} holds values that are no finite numbers")
    if form.kind == "int":
        return PackedWeight.of(quantize(plain, form.bits, form.group, importance), layer.dtype)
    if form.kind == "torch":
        return NativeInt4Weight.of(layer.matrix().contiguous(), form.group)
    if form.kind == "2:4":
        mask = sparsify.keep_two_of_four(plain, importance)
    else:
        mask = sparsify.keep_share(plain, zeros, importance)
    return SparseWeight.of(form.kind, layer.matrix().contiguous(), mask)


def local_error(layer: Layer, new: New, seen: Statistics | None) -> float:
    """Squared relative error of the layer's own output on the rows it saw (of its weight, for an embedding)."""
    old = layer.matrix().float()
    if seen is None or not len(seen.rows):
        gap = new.dense().float() - old
        return float((gap * gap).sum() / (old * old).sum().clamp(min=1e-30))
    wanted = seen.rows @ old.t()
    gap = new.product(seen.rows, None) - wanted
    return float((gap * gap).sum() / (wanted * wanted).sum().clamp(min=1e-30))


def error_with(step: Step, layer: Layer, new: New, reference: list[torch.Tensor]) -> float:
    """Squared relative error of the model's output with this one layer replaced."""
    replace_layer(layer, new)
    try:
        return compare(reference, run_outputs(step)).relative ** 2
    finally:
        restore_layer(layer)

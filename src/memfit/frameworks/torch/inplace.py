"""Ops that may write their result over an input that dies there, with bit-equal results.

Elementwise kernels, whose element ``i`` depends on elements ``i`` alone, and softmaxes, which read a row before they
write it; only where the dying tensor covers its whole storage with the layout of the result. The call is the op's own
``out=`` or in-place form, and ``memfit.frameworks.torch.measure`` runs both forms of each signature and keeps only what
gave equal bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from memfit.ir.graph import Storage

aten = torch.ops.aten

# op -> (form, argument positions that may be overwritten). "out": the overload that takes out=/grad_input=;
# "self": the trailing-underscore form, which overwrites argument 0.
_FORMS: dict[Any, tuple[Any, str, tuple[int, ...]]] = {
    aten.add.Tensor: (aten.add.out, "out", (0, 1)),
    aten.sub.Tensor: (aten.sub.out, "out", (0, 1)),
    aten.mul.Tensor: (aten.mul.out, "out", (0, 1)),
    aten.div.Tensor: (aten.div.out, "out", (0, 1)),
    aten.add.Scalar: (aten.add_.Scalar, "self", (0,)),
    aten.sub.Scalar: (aten.sub_.Scalar, "self", (0,)),
    aten.mul.Scalar: (aten.mul_.Scalar, "self", (0,)),
    aten.div.Scalar: (aten.div_.Scalar, "self", (0,)),
    aten.relu.default: (aten.relu_.default, "self", (0,)),
    aten.gelu.default: (aten.gelu.out, "out", (0,)),
    aten.silu.default: (aten.silu.out, "out", (0,)),
    aten.tanh.default: (aten.tanh.out, "out", (0,)),
    aten.sigmoid.default: (aten.sigmoid.out, "out", (0,)),
    aten.exp.default: (aten.exp.out, "out", (0,)),
    aten.neg.default: (aten.neg.out, "out", (0,)),
    aten.rsqrt.default: (aten.rsqrt.out, "out", (0,)),
    aten.sqrt.default: (aten.sqrt.out, "out", (0,)),
    aten.pow.Tensor_Scalar: (aten.pow.Tensor_Scalar_out, "out", (0,)),
    aten.clamp.default: (aten.clamp.out, "out", (0,)),
    aten.hardtanh.default: (aten.hardtanh.out, "out", (0,)),
    aten.hardswish.default: (aten.hardswish.out, "out", (0,)),
    aten.leaky_relu.default: (aten.leaky_relu.out, "out", (0,)),
    aten.elu.default: (aten.elu.out, "out", (0,)),
    aten.softplus.default: (aten.softplus.out, "out", (0,)),
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input", (0,)),
    aten.gelu_backward.default: (aten.gelu_backward.grad_input, "grad_input", (0,)),
    aten.silu_backward.default: (aten.silu_backward.grad_input, "grad_input", (0,)),
    aten.tanh_backward.default: (aten.tanh_backward.grad_input, "grad_input", (0,)),
    aten.sigmoid_backward.default: (aten.sigmoid_backward.grad_input, "grad_input", (0,)),
    aten.leaky_relu_backward.default: (aten.leaky_relu_backward.grad_input, "grad_input", (0,)),
    aten._softmax.default: (aten._softmax.out, "out", (0,)),
    aten._log_softmax.default: (aten._log_softmax.out, "out", (0,)),
    aten._softmax_backward_data.default: (aten._softmax_backward_data.out, "grad_input", (0, 1)),
    aten._log_softmax_backward_data.default: (aten._log_softmax_backward_data.out, "out", (0, 1)),
    aten.masked_fill.Scalar: (aten.masked_fill_.Scalar, "self", (0,)),
}


def reusable_inputs(node: Node, storage_of: dict[Node, int], storages: list[Storage]) -> tuple[int, ...]:
    """The storages that ``node``'s result may take over where they die."""
    form = _FORMS.get(node.target)
    if form is None:
        return ()
    fitting = [place for place in form[2] if fits_over(node, place, storages, storage_of)]
    return tuple(storage_of[node.args[place]] for place in fitting)  # type: ignore[index]


def fits_over(node: Node, place: int, storages: list[Storage], storage_of: dict[Node, int]) -> bool:
    """Whether argument ``place`` covers its whole, non-constant storage with the layout of the result, alone."""
    source = node.args[place] if place < len(node.args) else None
    if not isinstance(source, Node) or source not in storage_of or storages[storage_of[source]].constant:
        return False
    given, made = source.meta.get("val"), node.meta.get("val")
    if not isinstance(given, torch.Tensor) or not isinstance(made, torch.Tensor):
        return False
    if given.is_conj() or given.is_neg():
        return False
    same = given.shape == made.shape and given.stride() == made.stride() and given.dtype == made.dtype
    whole = given.storage_offset() == 0 and given.untyped_storage().nbytes() == made.untyped_storage().nbytes()
    dense = given.numel() * given.element_size() == given.untyped_storage().nbytes() and _dense(given)
    others = [n for n in node.all_input_nodes if n is not source and storage_of.get(n) == storage_of[source]]
    return same and whole and dense and not others


def _dense(tensor: torch.Tensor) -> bool:
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def in_place_call(node: Node, storage: int, storage_of: dict[Node, int]) -> tuple[Any, str, int] | None:
    """The call that overwrites ``storage``: (op, keyword or 'self', argument position); None where there is none."""
    form = _FORMS.get(node.target)
    if form is None:
        return None
    for place in form[2]:
        if place < len(node.args) and storage_of.get(node.args[place], -1) == storage:  # type: ignore[arg-type]
            return form[0], form[1], place
    return None

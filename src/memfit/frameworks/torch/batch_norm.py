"""Batch norm in two halves, so that running it again does not count its statistics again.

``native_batch_norm`` in training reads its input twice: for mean and inverse deviation, then to normalise. Backward needs
the small statistics anyway; with them kept, the output again is one multiply-add per element, about a third of the cost::

    statistics:  x -> mean, inverse deviation          normalise:  x, mean, inverse deviation -> output

The multiply-add is the kernel's own arithmetic written with ``addcmul`` (fused multiply-add on both sides); each signature
is probed and the split is used only where both give equal bits. (The idea of cheaper forms of an op for recomputation:
Shah et al., MONeT, ICLR 2021, section 4.) The first run is still one kernel call where the halves stand side by side.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

NAME = "aten.native_batch_norm.default"


def can_split(node: Node) -> bool:
    """Whether ``node`` is a training batch norm with weight and bias whose statistics are read apart from its output."""
    if str(node.target) != NAME or len(node.args) <= 5 or node.args[5] is not True:
        return False
    read = {user.args[1] for user in node.users if user.target is operator.getitem and user.users}
    return read >= {0, 1, 2} and all(isinstance(argument, Node) for argument in node.args[:3])


def normalise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """The output of batch norm from its input (N, C, ...) and its statistics (C,)."""
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = torch.mul(weight, inverse)
    shift = torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(shift.view(shape), x, scale.view(shape))


def gives_equal_bits(arguments: tuple[Any, ...]) -> bool:
    """Whether ``normalise`` gives the bits and layout of the kernel on these arguments (of ``native_batch_norm``)."""
    x, weight, bias = arguments[:3]
    if not all(t.dtype == torch.float32 for t in (x, weight, bias)) or x.dim() < 2:
        return False
    plain, mean, inverse = torch.ops.aten.native_batch_norm.default(x, weight, bias, None, None, *arguments[5:])
    again = normalise(x, weight, bias, mean, inverse)
    return torch.equal(plain, again) and plain.stride() == again.stride()

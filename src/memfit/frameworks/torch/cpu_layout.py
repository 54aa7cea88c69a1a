"""Where CPU kernels lay out or size an output differently from PyTorch's own shape functions, or these do not exist.

One function for each such op, entered under the op's overload name. It gets the op and fake arguments and returns fake
outputs, or ``NotImplemented`` where the general answer holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memfit.frameworks.torch.scratch_recurrent import layer_gradients, layer_outputs

Correction = Callable[[Any, list[Any], dict[str, Any]], Any]
CORRECTIONS: dict[str, Correction] = {}


def _corrects(*names: str) -> Callable[[Correction], Correction]:
    def enter(function: Correction) -> Correction:
        for name in names:
            CORRECTIONS[name] = function
        return function

    return enter


_corrects("aten.mkldnn_rnn_layer.default")(layer_outputs)
_corrects("aten.mkldnn_rnn_layer_backward.default")(layer_gradients)


@_corrects("aten.native_layer_norm_backward.default")
def _layer_norm_gradients(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The gradient of the input is contiguous, whatever the input is."""
    gradient, *others = func(*args, **kwargs)
    if gradient is not None and not gradient.is_contiguous():
        gradient = torch.empty(gradient.shape, dtype=gradient.dtype)
    return (gradient, *others)


@_corrects("aten._grouped_mm.default")
def _grouped_product(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The shape function knows bfloat16 only; the CPU kernel takes other dtypes and pads nothing."""
    first, second = args[0], args[1]
    offsets: Any = args[2] if len(args) > 2 else kwargs.get("offs")
    dtype = (args[4] if len(args) > 4 else kwargs.get("out_dtype")) or first.dtype
    shape: tuple[int, ...]
    if first.dim() == second.dim() == 2:
        shape = (offsets.shape[0], first.shape[0], second.shape[1])
    elif first.dim() == 2:
        shape = (first.shape[0], second.shape[-1])
    else:
        shape = (first.shape[1], second.shape[1]) if second.dim() == 2 else (*first.shape[:2], second.shape[-1])
    return torch.empty(shape, dtype=dtype)


@_corrects("aten.convolution_backward.default")
def _convolution_gradients(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The gradient of a 1x1 kernel has the strides of the kernel, not of the channels-last format."""
    weight = args[2]
    outputs = list(func(*args, **kwargs))
    gradient = outputs[1]
    if gradient is not None and gradient.stride() != weight.stride() and all(size == 1 for size in weight.shape[2:]):
        outputs[1] = torch.empty(weight.shape, dtype=weight.dtype)
    return tuple(outputs)

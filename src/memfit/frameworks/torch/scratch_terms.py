"""Terms of the scratch table: named byte counts of one op call, from shapes, strides and dtypes alone.

A table entry is a sum of factor x term, so a term says what a kernel allocates in units it thinks in: a contiguous copy
of its first argument (``copy0``), eight bytes for each element of the sorted line (``line``), operands in the common
dtype (``promoted``). Every term is exact for the kernels it was read off; ``calibrate`` checks them by running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch


@dataclass(frozen=True)
class Call:
    """One op call: ``tensors`` in schema order (lists flattened), ``outputs`` likewise."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


def bytes_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements as if contiguous."""
    return int(tensor.numel()) * tensor.dtype.itemsize


def tensors_of(values: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of nested tuples, lists and dicts, in order."""
    if isinstance(values, torch.Tensor):
        return (values,)
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (tuple, list)):
        return ()
    return tuple(tensor for value in values for tensor in tensors_of(value))


def copy_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a contiguous copy, 0 for a tensor that is contiguous."""
    return 0 if tensor.is_contiguous() else bytes_of(tensor)


def _dense_copy(tensor: torch.Tensor) -> int:
    """A copy, unless the tensor is contiguous in either memory format."""
    if tensor.is_contiguous():
        return 0
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return 0
    if tensor.dim() == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        return 0
    return bytes_of(tensor)


def _blas_ready(matrix: torch.Tensor) -> bool:
    rows, columns = int(matrix.shape[-2]), int(matrix.shape[-1])
    down, across = int(matrix.stride(-2)), int(matrix.stride(-1))
    return (across == 1 and down >= max(1, columns)) or (down == 1 and across >= max(1, rows))


def _blas_copies(call: Call, indices: tuple[int, int]) -> int:
    """Copies of matrices that BLAS cannot read; one batch at a time for a batched product."""
    total = 0
    for index in indices:
        matrix = call.tensors[index]
        if matrix.dtype in low_precision() or _blas_ready(matrix):
            continue
        total += bytes_of(matrix) // (int(matrix.shape[0]) if matrix.dim() == 3 and matrix.shape[0] else 1)
    return total + _packed(call.tensors[indices[0]], call.tensors[indices[1]])


def _packed(a: torch.Tensor, b: torch.Tensor) -> int:
    """Panels that oneDNN packs for a low-precision product: a block of B, and a block of A when it is transposed."""
    if a.dtype not in low_precision():
        return 0
    rows, inner = int(a.shape[-2]), int(a.shape[-1])
    panel = min(132096, 128 * max(inner, 64) + 33792 * min(1, rows // 64 + 1))
    if int(a.stride(-1)) != 1 or int(a.shape[-1]) == 1:
        panel += int(min(1.27 * rows * inner * 2, 1261696))
    return torch.get_num_threads() * panel


@cache
def low_precision() -> tuple[torch.dtype, ...]:
    """Dtypes below float32 that oneDNN computes on this machine."""
    kinds: list[torch.dtype] = []
    for dtype, probe in ((torch.bfloat16, "_is_mkldnn_bf16_supported"), (torch.float16, "_is_mkldnn_fp16_supported")):
        if hasattr(torch.ops.mkldnn, probe) and getattr(torch.ops.mkldnn, probe)():
            kinds.append(dtype)
    return tuple(kinds)


def _line(call: Call) -> int:
    """Eight bytes for each element along the sorted dimension."""
    tensor = call.tensors[0]
    if tensor.dim() == 0:
        return 8
    dim = call.get(2, "dim", -1) if call.name.endswith("stable") else call.get(1, "dim", -1)
    return 8 * int(tensor.shape[dim]) if isinstance(dim, int) else 8 * int(tensor.numel())


def _strided_line(call: Call) -> int:
    """A copy of the input with the reduced dimension moved last, through a tile of 60 x 60."""
    tensor, dim = call.tensors[0], int(call.get(1, "dim", -1))
    if tensor.is_contiguous() and dim % max(1, tensor.dim()) == tensor.dim() - 1:
        return 0
    tile = 3600 * tensor.dtype.itemsize if tensor.dim() == 2 and tensor.numel() >= 3600 else 0
    return bytes_of(tensor) + tile


def _promoted(call: Call) -> int:
    """Copies of operands in the common dtype, when the kernel does not convert as it reads."""
    if len(call.tensors) < 1:
        return 0
    operands = [t for t in call.tensors if t.device.type in ("cpu", "meta")]
    if not operands or len({t.dtype for t in operands}) == 1:
        return _converted_result(call, operands)
    common = operands[0].dtype
    with_dims = [t for t in operands if t.dim()] or operands
    common = with_dims[0].dtype
    for tensor in with_dims[1:]:
        common = torch.promote_types(common, tensor.dtype)
    total = sum(int(t.numel()) * common.itemsize for t in operands if t.dtype != common)
    if _is_inplace(call.name) and operands[0].dtype != common:
        total += int(operands[0].numel()) * common.itemsize
    return total


def _converted_result(call: Call, operands: list[torch.Tensor]) -> int:
    """A result computed in another dtype first: abs of complex numbers, division of integers."""
    if len(call.outputs) != 1 or not operands:
        return 0
    out, given = call.outputs[0].dtype, operands[0].dtype
    if given.is_complex and not out.is_complex and out != torch.bool:
        return int(call.outputs[0].numel()) * given.itemsize
    if out.is_floating_point and not given.is_floating_point and not given.is_complex:
        return sum(int(t.numel()) for t in operands) * out.itemsize
    return 0


def _is_inplace(name: str) -> bool:
    return name.split(".")[0].endswith("_")


def _cast(call: Call) -> int:
    """The input in the output's dtype, where a reduction converts before it sums."""
    tensor, out = call.tensors[0], call.outputs[0]
    if tensor.dtype == out.dtype or tensor.dtype in (torch.float16, torch.bfloat16):
        return 0
    return int(tensor.numel()) * out.dtype.itemsize


def _normalised(call: Call) -> int:
    """Bytes of the normalised shape in float32, of a layer normalisation's backward."""
    shape = call.args[2] if len(call.args) > 2 and isinstance(call.args[2], (list, tuple)) else ()
    return 4 * prod(int(s) for s in shape)


def _batch_norm_backward(call: Call) -> int:
    """A temporary of the input's size when everything is contiguous, else one value per channel."""
    grad, x = call.tensors[0], call.tensors[1]
    if grad.is_contiguous() and x.is_contiguous():
        return bytes_of(x)
    return int(x.shape[1]) * 4


def _layout_copies(call: Call) -> int:
    """Both operands copied when their layouts differ and the first is a permutation; the first alone when expanded."""
    first, second = call.tensors[0], call.tensors[1]
    if first.stride() == second.stride() or first.is_contiguous():
        return 0
    if second.is_contiguous():
        return bytes_of(first) * (1 if 0 in first.stride() else 2)
    return 0


def _vectorised_resize(call: Call) -> int:
    """Both sides in channels-last, which small two-dimensional resizes use."""
    tensor, out = call.tensors[0], call.outputs[0]
    if tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last):
        return 0
    small = int(out.shape[-1]) + int(out.shape[-2]) <= 128
    return bytes_of(tensor) + bytes_of(out) if small and tensor.is_contiguous() else 0


TERMS: dict[str, Callable[[Call], int]] = {
    "one": lambda c: 1,
    "threads": lambda c: torch.get_num_threads(),
    "in0": lambda c: bytes_of(c.tensors[0]),
    "in1": lambda c: bytes_of(c.tensors[1]),
    "out0": lambda c: bytes_of(c.outputs[0]),
    "outs": lambda c: sum(bytes_of(t) for t in c.outputs),
    "copy0": lambda c: copy_bytes(c.tensors[0]),
    "copy1": lambda c: copy_bytes(c.tensors[1]),
    "copy2": lambda c: copy_bytes(c.tensors[2]),
    "dense0": lambda c: _dense_copy(c.tensors[0]),
    "dense1": lambda c: _dense_copy(c.tensors[1]),
    "strided_line": _strided_line,
    "numel0": lambda c: int(c.tensors[0].numel()),
    "index0": lambda c: 8 * int(c.tensors[0].numel()),
    "rows0": lambda c: int(c.tensors[0].shape[-2]) if c.tensors[0].dim() > 1 else 1,
    "rows1": lambda c: int(c.tensors[1].shape[-2]) if c.tensors[1].dim() > 1 else 1,
    "side0": lambda c: min(int(s) for s in c.tensors[0].shape[-2:]) * c.tensors[0].dtype.itemsize,
    "square0": lambda c: prod(int(s) for s in c.tensors[0].shape[-1:] * 2) * c.tensors[0].dtype.itemsize,
    "line": _line,
    "last0": lambda c: int(c.tensors[0].shape[-1]) * 4,
    "channels0": lambda c: int(c.tensors[0].shape[1]) * 4 if c.tensors[0].dim() > 1 else 4,
    "planes0": lambda c: int(prod(c.tensors[0].shape[:2])) * 4,
    "cast": _cast,
    "promoted": _promoted,
    "resize": _vectorised_resize,
    "masks": lambda c: sum(
        8 * int(c.outputs[0].shape[0]) * t.dim() for t in c.tensors[1:] if t.dtype in (torch.bool, torch.uint8)
    ),
    "blas01": lambda c: _blas_copies(c, (0, 1)),
    "blas12": lambda c: _blas_copies(c, (1, 2)),
    "normalised": _normalised,
    "batch_norm": _batch_norm_backward,
    "layouts": _layout_copies,
    "several": lambda c: bytes_of(c.tensors[0]) if len(c.args) > 1 and len(c.args[1]) > 1 else 0,
}

"""Scratch: bytes that a CPU kernel asks of the allocator inside one call and gives back before it returns.

A dispatch-level trace sees an op's inputs and outputs, never what its kernel allocates in between: im2col columns,
blocked copies for oneDNN, contiguous copies of an expanded gradient, LAPACK work. This module decides those bytes from
shapes, strides and dtypes alone, so fake tensors do. Sources, in order:

1. convolutions, recurrent layers, attention: the formulas of ``scratch_convolution``, ``scratch_recurrent``, below;
2. the table ``data/scratch_cpu.json`` (or what ``memfit calibrate`` measured here): per op, stages of
   ``{term: factor}``; the scratch is the largest stage, each the sum of factor x term (``TERMS``);
3. element-wise ops: copies of the operands that type promotion converts;
4. anything else: 0, and ``is_known`` says False.

Cost: microseconds a call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

import torch

from memfit.frameworks.torch import scratch_convolution as convolution
from memfit.frameworks.torch.scratch_recurrent import keeps_workspace, layer_of

Table = dict[str, Any]


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


# --- terms --------------------------------------------------------------------------------------------------------


def _copy(tensor: torch.Tensor) -> int:
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


def _blas_copies(call: Call, indices: Iterable[int]) -> int:
    """Copies of matrices that BLAS cannot read; one batch at a time for a batched product."""
    total = 0
    for index in indices:
        matrix = call.tensors[index]
        if matrix.dtype in _low_precision() or _blas_ready(matrix):
            continue
        total += bytes_of(matrix) // (int(matrix.shape[0]) if matrix.dim() == 3 and matrix.shape[0] else 1)
    return total + _packed(call.tensors[indices[0]], call.tensors[indices[1]])  # type: ignore[index]


def _packed(a: torch.Tensor, b: torch.Tensor) -> int:
    """Panels that oneDNN packs for a low-precision product: a block of B, and a block of A when it is transposed."""
    if a.dtype not in _low_precision():
        return 0
    rows, inner = int(a.shape[-2]), int(a.shape[-1])
    panel = min(132096, 128 * max(inner, 64) + 33792 * min(1, rows // 64 + 1))
    if int(a.stride(-1)) != 1 or int(a.shape[-1]) == 1:
        panel += int(min(1.27 * rows * inner * 2, 1261696))
    return torch.get_num_threads() * panel


@cache
def _low_precision() -> tuple[torch.dtype, ...]:
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


def _attention(call: Call, backward: bool) -> int:
    """Per-thread tiles of the flash kernel: scores, running maximum and sum, accumulator; both scores in backward."""
    query = call.tensors[1 if backward else 0]
    key = call.tensors[2 if backward else 1]
    length, width, keys = int(query.shape[2]), int(query.shape[3]), int(key.shape[2])
    rows = min(256 if length >= 768 else 64 if length >= 192 else 32, length)
    columns = min(512, keys)
    low = query.dtype in (torch.float16, torch.bfloat16)
    if backward:
        tile = 2 * rows * columns * 4 + rows * 4 + (2 * rows * columns * 2 if low else 0)
    else:
        tile = (rows * columns + 2 * rows + rows * width) * 4 + (rows * columns * 2 if low else 0)
    return torch.get_num_threads() * tile + (
        bytes_of(call.tensors[0]) if backward and int(call.tensors[0].stride(-1)) != 1 else 0
    )


TERMS: dict[str, Callable[[Call], int]] = {
    "one": lambda c: 1,
    "threads": lambda c: torch.get_num_threads(),
    "in0": lambda c: bytes_of(c.tensors[0]),
    "in1": lambda c: bytes_of(c.tensors[1]),
    "out0": lambda c: bytes_of(c.outputs[0]),
    "outs": lambda c: sum(bytes_of(t) for t in c.outputs),
    "copy0": lambda c: _copy(c.tensors[0]),
    "copy1": lambda c: _copy(c.tensors[1]),
    "copy2": lambda c: _copy(c.tensors[2]),
    "dense0": lambda c: _dense_copy(c.tensors[0]),
    "dense1": lambda c: _dense_copy(c.tensors[1]),
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


# --- the table ----------------------------------------------------------------------------------------------------


def user_table_path() -> Path:
    """Where ``memfit calibrate`` keeps what it measured: ``$MEMFIT_CALIBRATION`` or the cache folder."""
    named = os.environ.get("MEMFIT_CALIBRATION")
    cache_root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(cache_root) / "memfit" / "scratch_cpu.json"


def shipped_table() -> Table:
    """The table that comes with the package."""
    text = resources.files("memfit.frameworks.torch").joinpath("data/scratch_cpu.json").read_text()
    return dict(json.loads(text))


@cache
def table() -> Table:
    """The shipped table, with the user's measured entries over it when they were measured with this PyTorch."""
    merged = shipped_table()
    path = user_table_path()
    if path.is_file():
        try:
            own = json.loads(path.read_text())
            if own.get("torch") == torch.__version__ and own.get("format") == merged["format"]:
                merged = {**merged, **own, "ops": {**merged["ops"], **own["ops"]}}
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return merged


def lanes() -> int:
    """Floats in one vector of oneDNN's kernels here: the width of its channel blocks."""
    return 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8


def _name(func: Any) -> str:
    return f"{func._schema.name.replace('::', '.')}.{func._schema.overload_name or 'default'}"


def is_known(func: Any) -> bool:
    """Whether the scratch of ``func`` is measured or follows a rule, rather than assumed to be zero."""
    name = _name(func)
    return name in _SPECIAL or name in table()["ops"] or _is_pointwise(func) or func.is_view


def _is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags


def scratch_bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Transient bytes inside one call of ``func`` on the CPU: its peak beyond its inputs and what it leaves alive.

    ``args``, ``kwargs``, ``out``: real or fake tensors; only shapes, strides and dtypes are read. Never raises on
    shapes: an op whose arguments do not fit its entry counts 0.
    """
    name = _name(func)
    special = _SPECIAL.get(name)
    stages = None if special else table()["ops"].get(name)
    if special is None and stages is None and not _is_pointwise(func):
        return 0
    call = Call(name, args, kwargs, tensors_of((args, kwargs)), tensors_of(out))
    try:
        if special is not None:
            return max(0, int(special(call)))
        if stages is None:
            return _promoted(call)
        return max(0, *(int(sum(factor * TERMS[term](call) for term, factor in stage.items())) for stage in stages))
    except (IndexError, TypeError, KeyError, RuntimeError):
        return 0


def extra_output_bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> dict[int, int]:
    """Bytes that the real outputs hold and the fake ones do not: ``{index of output: additional bytes}``."""
    name = _name(func)
    if name == "aten.mkldnn_rnn_layer.default":
        workspace = tensors_of(out)[3]
        extra = layer_of(args[0], int(args[10])).workspace - bytes_of(workspace)
        return {3: extra} if extra > 0 and keeps_workspace(args, kwargs) else {}
    return {}


# --- ops with formulas of their own -------------------------------------------------------------------------------


def _reformatted(described: convolution.Convolution, tensor: torch.Tensor) -> int:
    """A copy in the memory format that the convolution works in."""
    if not described.channels_last:
        return _copy(tensor)
    last = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
    return 0 if tensor.is_contiguous(memory_format=last) else bytes_of(tensor)


def _convolution(call: Call) -> int:
    x, weight = call.args[0], call.args[1]
    described = convolution.describe(
        x, weight, tuple(int(s) for s in call.outputs[0].shape[2:]), call.args[3], call.args[4], call.args[5],
        bool(call.args[6]), call.args[7], int(call.args[8]),
    )  # fmt: skip
    return _reformatted(described, x) + convolution.forward_scratch(
        described, lanes=lanes(), threads=torch.get_num_threads(), low_precision=_low_precision()
    )


def _convolution_backward(call: Call) -> int:
    grad, x, weight = call.args[0], call.args[1], call.args[2]
    mask = call.args[10]
    described = convolution.describe(
        x, weight, tuple(int(s) for s in grad.shape[2:]), call.args[4], call.args[5], call.args[6], bool(call.args[7]),
        call.args[8], int(call.args[9]),
    )  # fmt: skip
    return _reformatted(described, grad) + _reformatted(described, x) + convolution.backward_scratch(
        described, (bool(mask[0]), bool(mask[1]), bool(mask[2])),
        lanes=lanes(), threads=torch.get_num_threads(), low_precision=_low_precision(),
    )  # fmt: skip


def _rnn_layer(call: Call) -> int:
    return layer_of(call.args[0], int(call.args[10])).forward_scratch(keeps_workspace(call.args, call.kwargs))


def _rnn_layer_backward(call: Call) -> int:
    hidden = int(call.args[5].shape[-1])
    grads = [call.args[i] for i in (10, 11, 12) if len(call.args) > i and isinstance(call.args[i], torch.Tensor)]
    return layer_of(call.args[0], hidden).backward_scratch() + sum(_copy(g) for g in grads)


_SPECIAL: dict[str, Callable[[Call], int]] = {
    "aten.convolution.default": _convolution,
    "aten._convolution.default": _convolution,
    "aten.convolution_backward.default": _convolution_backward,
    "aten.mkldnn_rnn_layer.default": _rnn_layer,
    "aten.mkldnn_rnn_layer_backward.default": _rnn_layer_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": lambda c: _attention(c, backward=False),
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": lambda c: _attention(c, backward=True),
}

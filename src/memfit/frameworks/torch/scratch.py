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
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from memfit.frameworks.torch import scratch_convolution as convolution
from memfit.frameworks.torch.scratch_recurrent import keeps_workspace, layer_of
from memfit.frameworks.torch.scratch_terms import TERMS, Call, bytes_of, copy_bytes, low_precision, tensors_of

Table = dict[str, Any]


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
            return TERMS["promoted"](call)
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


def _reformatted(described: convolution.Convolution, tensor: torch.Tensor) -> int:
    """A copy in the memory format that the convolution works in."""
    if not described.channels_last:
        return copy_bytes(tensor)
    last = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
    return 0 if tensor.is_contiguous(memory_format=last) else bytes_of(tensor)


def _convolution(call: Call) -> int:
    x, weight = call.args[0], call.args[1]
    described = convolution.describe(
        x, weight, tuple(int(s) for s in call.outputs[0].shape[2:]), call.args[3], call.args[4], call.args[5],
        bool(call.args[6]), call.args[7], int(call.args[8]),
    )  # fmt: skip
    return _reformatted(described, x) + convolution.forward_scratch(
        described, lanes=lanes(), threads=torch.get_num_threads(), low_precision=low_precision()
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
        lanes=lanes(), threads=torch.get_num_threads(), low_precision=low_precision(),
    )  # fmt: skip


def _rnn_layer(call: Call) -> int:
    return layer_of(call.args[0], int(call.args[10])).forward_scratch(keeps_workspace(call.args, call.kwargs))


def _rnn_layer_backward(call: Call) -> int:
    hidden = int(call.args[5].shape[-1])
    grads = [call.args[i] for i in (10, 11, 12) if len(call.args) > i and isinstance(call.args[i], torch.Tensor)]
    return layer_of(call.args[0], hidden).backward_scratch() + sum(copy_bytes(g) for g in grads)


_SPECIAL: dict[str, Callable[[Call], int]] = {
    "aten.convolution.default": _convolution,
    "aten._convolution.default": _convolution,
    "aten.convolution_backward.default": _convolution_backward,
    "aten.mkldnn_rnn_layer.default": _rnn_layer,
    "aten.mkldnn_rnn_layer_backward.default": _rnn_layer_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": lambda c: _attention(c, backward=False),
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": lambda c: _attention(c, backward=True),
}

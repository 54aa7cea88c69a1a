"""Scratch of convolutions on the CPU: which kernel eager PyTorch takes, and the buffers that kernel asks for.

oneDNN keeps channels in blocks of one vector (16 floats with AVX-512, 8 with AVX2), so a contiguous tensor is copied
into a blocked one, with its channels rounded up, and the blocked result is copied out::

    forward   [bias | X blocked | W blocked | Y blocked]  then  [Y blocked | Y]
    backward  [gY blocked | W blocked | gX blocked]  then  [gX blocked | gX]  then  [gX | gY blocked | X blocked | gW]

The other kernels unfold the input into columns. Facts checked against real allocator events (``calibrate``); the block
width comes from the table. Small buffers of oneDNN's own (tens of KiB) are rounded, not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from memfit.units import align


@dataclass(frozen=True)
class Convolution:
    """One convolution call. ``spatial``: input extents; ``out``: output extents; ``kernel``: without channels."""

    batch: int
    channels: int
    features: int
    spatial: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    weight_last: bool = True

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def input_bytes(self) -> int:
        """Bytes of the input, plain."""
        return self.batch * self.channels * prod(self.spatial) * self.itemsize

    @property
    def output_bytes(self) -> int:
        """Bytes of the output, plain."""
        return self.batch * self.features * prod(self.out) * self.itemsize

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight, plain."""
        return self.channels * self.features // self.groups * prod(self.kernel) * self.itemsize


def describe(
    x: torch.Tensor, weight: torch.Tensor, y_spatial: tuple[int, ...], stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Convolution:  # fmt: skip
    """The call in numbers; a one-dimensional convolution becomes two-dimensional, as in eager PyTorch."""
    rank = x.dim() - 2
    one = rank == 1

    def wide(values: Any, fill: int) -> tuple[int, ...]:
        row = tuple(int(v) for v in values)
        row = row * rank if len(row) == 1 else row
        return (fill, *row) if one else row

    channels = int(x.shape[1])
    features = int(weight.shape[1]) * groups if transposed else int(weight.shape[0])
    last = torch.channels_last if rank == 2 else torch.channels_last_3d if rank == 3 else None
    return Convolution(
        int(x.shape[0]), channels, features, wide(x.shape[2:], 1), wide(y_spatial, 1), wide(weight.shape[2:], 1),
        wide(stride, 1), wide(padding, 0), wide(dilation, 1), groups, transposed, wide(output_padding, 0), x.dtype,
        last is not None and (_is_last(x, last) or _is_last(weight, last)),
        last is not None and weight.is_contiguous(memory_format=last),
    )  # fmt: skip


def _is_last(tensor: torch.Tensor, memory_format: torch.memory_format) -> bool:
    return tensor.is_contiguous(memory_format=memory_format) and not tensor.is_contiguous()


def takes_onednn(c: Convolution, threads: int, low_precision: tuple[torch.dtype, ...]) -> bool:
    """Whether eager PyTorch gives this convolution to oneDNN rather than to its own kernels.

    The rule of ATen's backend choice: single-threaded 1x1 and small single-image convolutions stay in ATen.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:  # type: ignore[attr-defined]
        return False
    if c.transposed and any(p >= s or p >= d for p, s, d in zip(c.output_padding, c.stride, c.dilation, strict=True)):
        return False
    if c.dtype in low_precision:
        return True
    if c.dtype != torch.float32:
        return False
    strided, dilated = any(s != 1 for s in c.stride), any(d != 1 for d in c.dilation)
    last_two = c.kernel[-1] != 1 or c.kernel[-2] != 1
    worth = strided or dilated or c.batch >= 16 or last_two or threads > 1
    large = c.batch * c.channels * c.spatial[0] * c.spatial[1] > 20480
    return worth and (c.groups > 1 or (c.kernel[-1] > 3 and c.kernel[-2] > 3) or c.batch > 1 or large)


@dataclass(frozen=True)
class _Blocked:
    """Bytes of the blocked copies of X, W, Y (0: the kernel reads it plain), and the plan's columns."""

    x: int
    weight: int
    y: int
    bias: int
    columns: int
    grad_x: int
    plain: bool = False


def _blocked(c: Convolution, lanes: int, threads: int) -> _Blocked:
    size, area_in, area_out, window = c.itemsize, prod(c.spatial), prod(c.out), prod(c.kernel)
    per_in, per_out = c.channels // c.groups, c.features // c.groups
    if c.groups == 1:
        channels, features = align(c.channels, lanes), align(c.features, lanes)
        plain = c.channels < lanes and not c.transposed
        weight = (c.channels if plain else channels) * features * window * size
        bias = features * size if features != c.features else 0
        x = 0 if plain else c.batch * channels * area_in * size
        y = c.batch * (c.features if c.transposed else features) * area_out * size
        grad_x = c.batch * (c.channels if plain and max(c.stride) > 1 else channels) * area_in * size
        return _Blocked(x, weight, y, bias, 0, grad_x)
    if per_in == 1 and per_out == 1 and len(c.kernel) == 3:
        return _Blocked(c.input_bytes, c.weight_bytes, c.output_bytes, 0, 0, c.input_bytes, plain=True)
    if per_in == 1 and per_out == 1:
        groups = align(c.groups, lanes)
        x = c.batch * groups * area_in * size
        bias = groups * size if groups != c.groups else 0
        return _Blocked(x, groups * window * size, c.batch * groups * area_out * size, bias, 0, x)
    if per_in % 4 == 0 and per_out % 4 == 0 and max(c.kernel) < 32:
        return _Blocked(c.input_bytes, c.weight_bytes, c.output_bytes, 0, 0, c.input_bytes)
    columns = threads * per_in * window * area_out * size
    return _Blocked(0, 0, c.output_bytes, 0, columns, c.input_bytes, plain=True)


def _columns(c: Convolution) -> int:
    """Columns that ATen's own kernels unfold: of the whole batch, but of one image when dilated or transposed."""
    window = prod(c.kernel)
    if c.transposed:
        return c.features // c.groups * window * prod(c.spatial) * c.itemsize
    if window == 1 and all(s == 1 for s in c.stride) and not any(c.padding):
        return 0
    images = 1 if any(d != 1 for d in c.dilation) else c.batch
    return images * (c.channels // c.groups) * window * prod(c.out) * c.itemsize


def forward_scratch(c: Convolution, *, lanes: int, threads: int, low_precision: tuple[torch.dtype, ...]) -> int:
    """Bytes inside a convolution beyond its output; ``lanes``: floats in a vector of oneDNN's kernels."""
    if not takes_onednn(c, threads, low_precision):
        return _columns(c)
    b = _blocked(c, lanes, threads)
    if c.channels_last:
        return b.weight + (0 if c.weight_last else c.weight_bytes) + threads * 8192 + b.columns
    inside = b.bias + b.x + b.weight + b.y + b.columns
    strided = max(c.stride) > 1 and prod(c.kernel) == 1
    if strided:
        inside += threads * min(c.channels, 64) * min(prod(c.out), 64) * c.itemsize
    out_copies = 2 if (c.transposed and max(c.stride) > 1) or (b.plain and b.x) else 1
    return max(inside - c.output_bytes, out_copies * b.y)


def _depthwise_weights(c: Convolution, weight: int, wanted: bool, threads: int) -> int:
    """Bytes of a depthwise backward in channels last with AVX2, by the kernel that makes the weights' gradient.

    The kernel of its own (window at most three wide, padding at most half of it and, where it strides, at most a stride,
    all of its rows inside the image) keeps one blocked gradient. A window taller than the image goes to matrix products,
    with columns of one image's channel. The rest goes to blocked matrix products, on a gradient of 8 x 8 lanes a channel.
    """
    if not wanted:
        return weight
    height, rows = c.spatial[-2], c.kernel[-2]
    if height < rows:
        columns = (prod(c.kernel) + 1) * prod(c.out) * c.itemsize
        return 4 * c.weight_bytes + threads * columns + 384
    half = all(2 * p <= k and (s == 1 or p <= s) for p, k, s in zip(c.padding, c.kernel, c.stride, strict=True))
    if c.kernel[-1] <= 3 and half and height >= rows + c.padding[-2] % c.stride[-2]:
        return 2 * weight
    return c.weight_bytes * (1 + 8 * 8)


def backward_scratch(
    c: Convolution, mask: tuple[bool, bool, bool], *, lanes: int, threads: int, low_precision: tuple[torch.dtype, ...]
) -> int:
    """Bytes inside a convolution's backward beyond the gradients that it returns; ``mask``: which of them it makes."""
    grad_x = c.input_bytes if mask[0] else 0
    grad_w = c.weight_bytes if mask[1] else 0
    if not takes_onednn(c, threads, low_precision):
        if not any(mask[:2]):
            return 0
        bias = c.features * c.itemsize if c.dtype in (torch.float16, torch.bfloat16) else 0
        if len(c.kernel) == 3 and prod(c.kernel) == 1 and not c.transposed:
            return max(0, c.input_bytes - grad_w - c.features * c.itemsize)
        return max(_columns(c), bias)
    b = _blocked(c, lanes, threads)
    shared = b.x + b.y > 13 * b.weight
    reduce = (threads - 1) * b.weight if shared else 0
    if c.dtype != torch.float32:
        image = (c.channels * prod(c.spatial) + c.features * prod(c.out)) * c.itemsize
        reduce += int(1.27 * threads * image)
    if c.channels_last and lanes == 8 and c.groups > 1 and c.channels == c.groups == c.features and len(c.kernel) == 2:
        return _depthwise_weights(c, b.weight, mask[1], threads) + (0 if c.weight_last else c.weight_bytes) + reduce
    if c.channels_last:
        squared = c.groups > 1 and c.channels == c.groups and (max(c.kernel) > 3 or min(c.out[-2:]) < max(c.kernel))
        kept = b.weight * lanes * lanes if squared else b.weight
        return b.weight + kept + (0 if c.weight_last else c.weight_bytes) + threads * 8192 + reduce
    returned = grad_x + grad_w
    peak = 0
    if mask[0]:
        copies = 2 if max(c.stride) > 1 and c.groups == 1 and not c.transposed else 1
        wide = align(c.channels, lanes) / c.channels if c.groups == 1 and not b.x else 1
        padded = threads * (c.output_bytes // max(1, c.batch) + 40960) if copies == 2 else 0
        peak = max(b.y + int(b.weight * wide) + b.grad_x + padded, b.grad_x + copies * grad_x)
        if b.plain:
            peak = max(b.columns + b.grad_x, b.grad_x + grad_x)
    if mask[1]:
        wide_depthwise = c.groups > 1 and c.channels == c.groups and max(c.kernel) > 3
        copies = (max(c.kernel) + 1) * b.weight + reduce if wide_depthwise else b.x + b.y + reduce
        if b.plain:
            copies = b.columns + threads * (c.groups if b.columns else 4) * c.weight_bytes
        peak = max(peak, grad_x + copies + max(b.weight, c.weight_bytes), grad_x + b.weight + grad_w)
    return max(0, peak - returned)

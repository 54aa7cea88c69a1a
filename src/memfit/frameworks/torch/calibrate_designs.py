"""Calls that calibrate the scratch table: ops on a few shapes each, chosen so that their terms differ.

``designs()`` maps an op's name, as a dispatch mode sees it, to functions that build (op, args, kwargs) on real tensors.
Sizes are a few MiB at most, so that block overheads of KiB do not decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

Invocation = tuple[Any, tuple[Any, ...], dict[str, Any]]
Design = Callable[[], Invocation]
_ATEN = torch.ops.aten


def _real(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype) if dtype.is_floating_point else torch.randint(0, 50, shape, dtype=dtype)


def _last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last)


def _convolutions() -> Iterator[tuple[bool, Design]]:
    """Convolutions: (backward?, call)."""
    rows = [
        # batch, channels, features, extents, kernel, stride, padding, dilation, groups, transposed, last, dtype
        (2, 16, 32, (32, 32), 3, 1, 1, 1, 1, False, False, torch.float32),
        (4, 20, 40, (25, 25), 3, 1, 1, 1, 1, False, False, torch.float32),
        (2, 3, 64, (48, 48), 7, 2, 3, 1, 1, False, False, torch.float32),
        (4, 64, 96, (16, 16), 3, 2, 1, 1, 1, False, False, torch.float32),
        (2, 32, 48, (24, 24), 3, 1, 2, 2, 1, False, False, torch.float32),
        (2, 64, 64, (24, 24), 3, 1, 1, 1, 64, False, False, torch.float32),
        (2, 32, 64, (24, 24), 3, 1, 1, 1, 4, False, False, torch.float32),
        (1, 8, 16, (40, 40), 3, 1, 1, 1, 1, False, False, torch.float32),
        (2, 8, 16, (24, 24), 3, 1, 1, 1, 1, False, False, torch.float64),
        (2, 32, 48, (24, 24), 3, 1, 1, 1, 1, False, True, torch.float32),
        (4, 32, 48, (400,), 5, 1, 2, 1, 1, False, False, torch.float32),
        (2, 16, 32, (12, 12, 12), 3, 1, 1, 1, 1, False, False, torch.float32),
        (2, 4, 16, (16, 16, 16), 3, 1, 1, 1, 1, False, False, torch.float32),
        (2, 32, 16, (24, 24), 4, 2, 1, 1, 1, True, False, torch.float32),
    ]
    for batch, channels, features, extents, kernel, stride, pad, dilation, groups, transposed, last, dtype in rows:
        rank = len(extents)

        def call(
            backward: bool, b: int = batch, c: int = channels, f: int = features, e: tuple[int, ...] = extents,
            k: int = kernel, s: int = stride, p: int = pad, d: int = dilation, g: int = groups, t: bool = transposed,
            cl: bool = last, kind: torch.dtype = dtype, n: int = rank,
        ) -> Invocation:  # fmt: skip
            x = _real(b, c, *e, dtype=kind)
            weight = _real(c if t else f, (f if t else c) // g, *[k] * n, dtype=kind)
            if cl:
                x, weight = _last(x), _last(weight)
            rest = ([s] * n, [p] * n, [d] * n, t, [0] * n, g)
            if not backward:
                return _ATEN.convolution.default, (x, weight, None, *rest), {}
            grad = torch.ones_like(_ATEN.convolution.default(x, weight, None, *rest))
            return _ATEN.convolution_backward.default, (grad, x, weight, None, *rest, [True, True, False]), {}

        yield False, lambda call=call: call(False)  # type: ignore[misc]
        yield True, lambda call=call: call(True)  # type: ignore[misc]


def _simple(op: Any, *builders: Callable[[], tuple[Any, ...]]) -> list[Design]:
    return [lambda b=builder: (op, b(), {}) for builder in builders]  # type: ignore[misc]


def _lstm(backward: bool, steps: int, rows: int, inputs: int, hidden: int) -> Invocation:
    with torch.no_grad():
        x = _real(steps, rows, inputs)
        weights = [_real(4 * hidden, inputs), _real(4 * hidden, hidden), _real(4 * hidden), _real(4 * hidden)]
        states = [torch.zeros(rows, hidden), torch.zeros(rows, hidden)]
    tail: tuple[Any, ...] = (False, [], 2, hidden, 1, True, False, False, True)
    forward = (x, *weights, *states, *tail)
    op = _ATEN.mkldnn_rnn_layer.default
    if not backward:
        return op, forward, {}
    with torch.enable_grad():
        y, h, c, workspace = op(*forward)
    grads = (torch.ones_like(y), torch.zeros_like(h), torch.zeros_like(c))
    args = (x, *weights, *states, y, h, c, *grads, False, 2, hidden, 1, True, True, False, [], False, workspace)
    return _ATEN.mkldnn_rnn_layer_backward.default, args, {}


def designs() -> dict[str, list[Design]]:
    """Op name -> calls. Building a call allocates its tensors; nothing is kept."""
    table: dict[str, list[Design]] = {}
    for backward, call in _convolutions():
        table.setdefault(f"aten.convolution{'_backward' if backward else ''}.default", []).append(call)
    shapes = [(9, 5, 70, 60), (30, 4, 96, 64), (17, 12, 40, 33)]
    table["aten.mkldnn_rnn_layer.default"] = [lambda s=s: _lstm(False, *s) for s in shapes]  # type: ignore[misc]
    table["aten.mkldnn_rnn_layer_backward.default"] = [lambda s=s: _lstm(True, *s) for s in shapes]  # type: ignore[misc]
    a = _ATEN
    table["aten.mm.default"] = _simple(
        a.mm.default, lambda: (_real(300, 200), _real(200, 250)), lambda: (_real(300, 400)[:, ::2], _real(200, 250))
    )
    table["aten._softmax_backward_data.default"] = _simple(
        a._softmax_backward_data.default,
        lambda: (_real(1, 1).expand(300, 200), torch.softmax(_real(300, 200), 1), 1, torch.float32),
        lambda: (_real(300, 200), torch.softmax(_real(300, 200), 1), 1, torch.float32),
    )
    flash = a._scaled_dot_product_flash_attention_for_cpu.default
    table["aten._scaled_dot_product_flash_attention_for_cpu.default"] = _simple(
        flash,
        *[lambda n=n, w=w: (*(_real(2, 4, n, w) for _ in range(3)),) for n, w in ((64, 32), (300, 64), (800, 32))],  # type: ignore[misc]
    )
    table["aten.sort.default"] = _simple(
        a.sort.default, lambda: (_real(40_000), -1), lambda: (_real(300, 200), 1), lambda: (_real(300, 200), 0)
    )
    table["aten.median.default"] = _simple(a.median.default, lambda: (_real(300, 200),), lambda: (_real(50_000),))
    table["aten.median.dim"] = _simple(a.median.dim, lambda: (_real(300, 200), 1), lambda: (_real(300, 200), 0))
    table["aten.kthvalue.default"] = _simple(
        a.kthvalue.default, lambda: (_real(300, 200), 3), lambda: (_real(80, 900), 3)
    )
    table["aten._linalg_svd.default"] = _simple(
        a._linalg_svd.default, lambda: (_real(120, 120),), lambda: (_real(4, 90, 60),), lambda: (_real(200, 80),)
    )
    table["aten.linalg_inv_ex.default"] = _simple(
        a.linalg_inv_ex.default, lambda: (_real(150, 150),), lambda: (_real(90, 90),)
    )
    table["aten._linalg_eigh.default"] = _simple(
        a._linalg_eigh.default,
        lambda: ((lambda m: m + m.T)(_real(90, 90)),),
        lambda: ((lambda m: m + m.T)(_real(150, 150)),),
    )
    table["aten.im2col.default"] = _simple(
        a.im2col.default,
        *[lambda n=n: (_real(4, 8, n, n), [3, 3], [1, 1], [1, 1], [1, 1]) for n in (30, 50)],  # type: ignore[misc]
    )
    table["aten.embedding_dense_backward.default"] = _simple(
        a.embedding_dense_backward.default,
        lambda: (_real(1, 1, 1).expand(8, 50, 64), torch.randint(0, 900, (8, 50)), 900, -1, False),
        lambda: (_real(8, 50, 64), torch.randint(0, 900, (8, 50)), 900, -1, False),
    )
    table["aten.native_batch_norm_backward.default"] = _simple(
        a.native_batch_norm_backward.default,
        *[
            lambda c=c, n=n: (
                _real(4, c, n, n), _real(4, c, n, n), _real(c), torch.zeros(c), torch.ones(c), torch.zeros(c),
                torch.ones(c), True, 1e-5, [True, True, True],
            )
            for c, n in ((16, 30), (24, 41))
        ],
    )  # type: ignore[misc] # fmt: skip
    table["aten.upsample_nearest2d.default"] = _simple(
        a.upsample_nearest2d.default, lambda: (_real(4, 8, 20, 20), [40, 40]), lambda: (_real(2, 8, 70, 70), [140, 140])
    )
    table["aten._unique2.default"] = _simple(
        a._unique2.default, lambda: (_real(60_000, dtype=torch.int64),), lambda: (_real(90_000, dtype=torch.int64),)
    )
    table["aten.sum.default"] = _simple(a.sum.default, lambda: (_real(300, 200) > 0,), lambda: (_real(300, 200),))
    table["aten.add.Tensor"] = _simple(
        a.add.Tensor, lambda: (_real(300, 200).bfloat16(), _real(300, 200)), lambda: (_real(300, 200), _real(200))
    )
    table["aten.mse_loss.default"] = _simple(a.mse_loss.default, lambda: (_real(300, 200), _real(300, 200)))
    table["aten.logsumexp.default"] = _simple(
        a.logsumexp.default, lambda: (_real(300, 200), [1]), lambda: (_real(90, 900), [0])
    )
    return table

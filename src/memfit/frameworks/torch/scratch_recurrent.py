"""Scratch and workspace of oneDNN's LSTM layer, and a fake-mode path that takes it as the real one does.

A real LSTM on the CPU runs one ``mkldnn_rnn_layer`` per layer and direction; under fake tensors the backend test fails
and PyTorch decomposes the same call into matrix products, whose bytes are another story (half of the real peak in a
language model). ``real_recurrent_path`` makes ``torch.lstm`` decompose as the real one while it is active.

The workspace, kept from forward to backward, is a row of page-aligned sections (T steps, N rows, I inputs, H hidden)::

    gates T*N*ld(4H) | layer states 3 x 2(T+1)N*ld(I|H) | iteration states 2 x 2(T+1)N*ld(H) | cell T*N*ld(H)

where ld rounds to a cache line and steps off multiples of 256 elements. Checked against real events by ``calibrate``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from memfit.units import align

_PAGE = 4096
_FIXED = 12856


def _ld(extent: int) -> int:
    wide = align(extent, 16)
    return wide + 16 if wide % 256 == 0 else wide


@dataclass(frozen=True)
class LstmLayer:
    """One layer and direction: ``steps`` T, ``rows`` N, ``inputs`` I, ``hidden`` H; floats."""

    steps: int
    rows: int
    inputs: int
    hidden: int

    @property
    def _gates(self) -> int:
        return align(4 * self.steps * self.rows * _ld(4 * self.hidden), _PAGE)

    @property
    def workspace(self) -> int:
        """Bytes that forward keeps for backward, in training."""
        layer = align(8 * (self.steps + 1) * self.rows * max(_ld(self.inputs), _ld(self.hidden)), _PAGE)
        iteration = align(8 * (self.steps + 1) * self.rows * self.hidden, _PAGE)
        cell = align(4 * self.steps * self.rows * _ld(self.hidden), _PAGE)
        return self._gates + 3 * layer + 2 * iteration + cell

    @property
    def _weights(self) -> int:
        return 4 * (self.inputs + self.hidden) * _ld(4 * self.hidden)

    def forward_scratch(self, training: bool) -> int:
        """Bytes inside the forward call beyond what it returns."""
        if training:
            return 16 * self.hidden + self._weights + self._gates + _FIXED
        packed = 16 * self.hidden * (_ld(self.inputs) if self.inputs % 16 else self.inputs)
        packed += 16 * self.hidden * (_ld(self.hidden) if self.hidden % 16 else self.hidden)
        states = 4 * self.rows * max(_ld(self.inputs), _ld(self.hidden)) * 4
        return 16 * self.hidden + packed + self._gates + _FIXED + states

    def backward_scratch(self) -> int:
        """Bytes inside the backward call beyond the gradients that it returns."""
        gates = 16 * self.hidden
        reordered = sum(gates * _ld(extent) for extent in (self.inputs, self.hidden) if _ld(extent) != extent)
        return gates + reordered + self._weights + self._gates + _FIXED + 8 * self.rows * self.hidden


def layer_of(input: torch.Tensor, hidden: int) -> LstmLayer:
    """The layer behind a call's ``input`` of shape (T, N, I)."""
    return LstmLayer(int(input.shape[0]), int(input.shape[1]), int(input.shape[2]), hidden)


def _takes_onednn(input: torch.Tensor, hx: Any, params: Any) -> bool:
    tensors = [input, *hx, *params]
    return (
        torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)  # type: ignore[attr-defined]
        and all(t.device.type == "cpu" for t in tensors)
        and input.dtype == torch.float32
        and input.numel() > 0
        and input.dim() == 3
        and len(hx) == 2
        and hx[0].shape[2] == hx[1].shape[2]
    )


def _layers(
    input: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    directions, per = 2 if bidirectional else 1, 4 if has_biases else 2
    hidden = int(hx[0].shape[2])
    layer = input.transpose(0, 1) if batch_first else input
    layer = layer.contiguous()
    last_h, last_c = [], []
    for index in range(num_layers):
        outputs = []
        for direction in range(directions):
            at = index * directions + direction
            weights = list(params[at * per : (at + 1) * per])
            if not has_biases:
                weights += [torch.zeros(4 * hidden, dtype=input.dtype) for _ in range(2)]
            out, h, c, _workspace = torch.ops.aten.mkldnn_rnn_layer.default(
                layer, *weights, hx[0][at], hx[1][at], direction == 1, [], 2, hidden, num_layers, has_biases,
                bidirectional, False, train,
            )  # fmt: skip
            outputs.append(out)
            last_h.append(h)
            last_c.append(c)
        layer = torch.cat(outputs, -1) if bidirectional else outputs[0]
        del outputs
        if dropout and train and index < num_layers - 1:
            layer = torch.dropout(layer, dropout, train)
    output = layer.transpose(0, 1) if batch_first else layer
    return output, torch.stack(last_h), torch.stack(last_c)


@contextlib.contextmanager
def real_recurrent_path() -> Iterator[None]:
    """While active, ``torch.nn.LSTM`` and ``torch.lstm`` run the ops of a real CPU run, also on fake tensors."""
    holder: Any = torch._VF
    original = torch._C._VariableFunctions.lstm

    def lstm(*args: Any) -> Any:
        if len(args) == 9 and isinstance(args[3], bool) and _takes_onednn(args[0], args[1], args[2]):
            input, hx, params, biases, layers, dropout, train, bidirectional, batch_first = args
            return _layers(input, hx, params, biases, layers, dropout, train, bidirectional, batch_first)
        return original(*args)

    _ensure_fake_backward()
    before = torch.lstm
    holder.lstm = lstm
    torch.lstm = lstm  # type: ignore[assignment]
    try:
        yield
    finally:
        del holder.lstm
        torch.lstm = before  # type: ignore[assignment]


_registered: list[torch.library.Library] = []


def _ensure_fake_backward() -> None:
    """Give ``mkldnn_rnn_layer_backward`` shapes under fake tensors, once, where PyTorch has none."""
    op = torch.ops.aten.mkldnn_rnn_layer_backward.default
    if _registered or op.has_kernel_for_dispatch_key(torch._C.DispatchKey.Meta):
        return

    def shapes(input: Any, w1: Any, w2: Any, w3: Any, w4: Any, hx: Any, cx: Any, *rest: Any, **_: Any) -> Any:
        bias = torch.empty_like(w3)
        return (
            torch.empty_like(input), torch.empty_like(w1), torch.empty_like(w2), bias, bias,
            torch.empty_like(hx), torch.empty_like(cx),
        )  # fmt: skip

    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("mkldnn_rnn_layer_backward", shapes)
    _registered.append(library)

"""Scratch and workspace of oneDNN's LSTM layer on the CPU.

A real LSTM runs one ``mkldnn_rnn_layer`` per layer and direction. PyTorch's shape function leaves its workspace empty
and its backward has none, so half of the real peak of a recurrent language model is missing from a fake run; the two
corrections below give both. The workspace is a row of page-aligned sections (T steps, N rows, I inputs, H hidden)::

    gates T*N*ld(4H) | layer states 3 x 2(T+1)N*ld(I|H) | iteration states 2 x 2(T+1)N*H | cell T*N*ld(H)

where ld rounds to a cache line and steps off multiples of 256 elements. Checked against real events by ``calibrate``.
"""

from __future__ import annotations

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
        packed = 16 * (self.inputs + self.hidden) * align(self.hidden, 32)
        row = 8 * (self.steps + 1) * self.rows
        states = row * max(0, _ld(self.inputs) - _ld(self.hidden)) + row * _ld(self.hidden) // 8
        return 16 * self.hidden + packed + self._gates + _FIXED + states

    def backward_scratch(self) -> int:
        """Bytes inside the backward call beyond the gradients that it returns."""
        gates = 16 * self.hidden
        reordered = sum(gates * _ld(extent) for extent in (self.inputs, self.hidden) if _ld(extent) != extent)
        return gates + reordered + self._weights + self._gates + _FIXED + 8 * self.rows * self.hidden


def layer_of(input: torch.Tensor, hidden: int) -> LstmLayer:
    """The layer behind a call's ``input`` of shape (T, N, I)."""
    return LstmLayer(int(input.shape[0]), int(input.shape[1]), int(input.shape[2]), hidden)


def keeps_workspace(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a ``mkldnn_rnn_layer`` call keeps a workspace: asked to train, with gradients enabled."""
    train = args[15] if len(args) > 15 else kwargs.get("train")
    return bool(train) and torch.is_grad_enabled()


def layer_outputs(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What ``mkldnn_rnn_layer`` really returns: PyTorch's own shape function leaves the workspace empty.

    A correction in the form of ``cpu_layout``: ``func``, fake arguments -> fake outputs.
    """
    input, hidden = args[0], int(args[10])
    training = keeps_workspace(args, kwargs)
    states = [torch.empty_like(args[5]), torch.empty_like(args[6])]
    output = input.new_empty((input.shape[0], input.shape[1], hidden))
    kept = layer_of(input, hidden).workspace if training else 0
    return (output, *states, torch.empty(kept, dtype=torch.uint8, device=input.device))


def layer_gradients(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What ``mkldnn_rnn_layer_backward`` returns, for which PyTorch has no shape function.

    A correction in the form of ``cpu_layout``.
    """
    input, first, second, bias = args[0], args[1], args[2], args[3]
    states = [torch.empty_like(args[5]), torch.empty_like(args[6])]
    return (*(torch.empty_like(tensor) for tensor in (input, first, second, bias, bias)), *states)

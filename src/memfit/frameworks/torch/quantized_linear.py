"""Linear layers and embeddings over packed weights of 2 to 8 bits: the modules that a compressed model is made of.

``PackedWeight`` holds the tiles, scales and zero points as buffers; ``PackedLinear`` and ``PackedEmbedding`` use one, and
may share it (tied embeddings). On a CPU the product is the native one (`native/core/lowbit_product.h`): nothing is
dequantised, the inputs are rounded to 8 bits per 32 values. On another device the weight is dequantised on use. The
product is a registered operation, so that fake and hollow tensors, export and compile know its shape. No gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from memfit.passes.packing import COLUMNS, ROWS, padded
from memfit.passes.quantize import Packed, packed_bytes
from memfit.runtime import lowbit


class PackedWeight(nn.Module):
    """A weight [rows, columns] in packed form. ``dtype``: what it stood for, and what ``dense`` gives."""

    tiles: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(
        self, rows: int, columns: int, bits: int, group: int, dtype: torch.dtype, *, device: Any = None
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.bits, self.group, self.dtype = rows, columns, bits, group, dtype
        groups, high = -(-columns // group), padded(rows, ROWS)
        shape = (high // ROWS, padded(columns, COLUMNS) // COLUMNS, 32 * bits)
        self.register_buffer("tiles", torch.empty(shape, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.empty(groups, high, dtype=torch.bfloat16, device=device))
        self.register_buffer("zeros", torch.empty(groups, high, dtype=torch.uint8, device=device))

    @classmethod
    def of(cls, packed: Packed, dtype: torch.dtype) -> PackedWeight:
        """The module over ``packed``'s arrays, which it shares."""
        made = cls(packed.rows, packed.columns, packed.bits, packed.group, dtype, device="meta")
        made.tiles = torch.from_numpy(packed.tiles)
        made.scales = torch.from_numpy(packed.scales.view(np.int16)).view(torch.bfloat16)
        made.zeros = torch.from_numpy(packed.zeros)
        return made

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return packed_bytes(self.rows, self.columns, self.bits, self.group)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # `model.to(dtype)` means the dtype of results; scales keep theirs, which the kernel reads.
        scales = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != torch.bfloat16:
            self.dtype = self.scales.dtype
            self.scales = scales.to(self.scales.device)
        return self

    def dense(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The weight, or those of its ``rows``, dequantised: as many bytes as the original has."""
        index = torch.arange(self.rows, device=self.tiles.device) if rows is None else rows
        block, place = index // ROWS, index % ROWS
        # of a tile's vectors, the 4 bytes of one row
        tiles = self.tiles.reshape(*self.tiles.shape[:2], self.bits, ROWS, 4)[block, :, :, place]
        values, at, taken = None, 0, 0
        for width in {2: (2,), 3: (2, 1), 4: (4,), 6: (4, 2), 8: (4, 4)}[self.bits]:
            shifts = torch.arange(0, 8, width, device=tiles.device, dtype=torch.uint8).reshape(-1, 1)
            plane = (tiles[:, :, at : at + width].unsqueeze(3) >> shifts) & (2**width - 1)
            plane = plane.reshape(len(index), -1, COLUMNS) << taken
            values = plane if values is None else values | plane
            at, taken = at + width, taken + width
        assert values is not None
        scale, zero = (part.t()[index].float().unsqueeze(2) for part in (self.scales, self.zeros))
        wide = values.reshape(len(index), -1)
        missing = scale.shape[1] * self.group - wide.shape[1]
        wide = torch.nn.functional.pad(wide, (0, missing)).reshape(len(index), -1, self.group)
        dense = ((wide.float() - zero) * scale).reshape(len(index), -1)[:, : self.columns]
        return dense.to(self.dtype).contiguous()

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``x`` [..., columns] times the weight transposed, plus ``bias``."""
        if x.device.type != "cpu":
            return nn.functional.linear(x, self.dense().to(x.dtype), bias)
        return torch.ops.memfit.packed_linear(
            x, self.tiles, self.scales, self.zeros, bias, self.rows, self.columns, self.bits, self.group
        )

    def extra_repr(self) -> str:
        """Shape and format."""
        return f"{self.rows} x {self.columns}, {self.bits} bits, groups of {self.group}"


@torch.library.custom_op("memfit::packed_linear", mutates_args=())
def _packed_linear(
    x: torch.Tensor, tiles: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bias: torch.Tensor | None,
    rows: int, columns: int, bits: int, group: int,
) -> torch.Tensor:  # fmt: skip
    flat = x.detach().reshape(-1, columns)
    tokens = flat.shape[0]
    inputs = flat.float().contiguous()
    out = torch.empty(tokens, rows)
    scratch = torch.empty(lowbit.activation_bytes(tokens, columns), dtype=torch.uint8)
    lowbit.product(
        tiles.reshape(-1).numpy(), scales.reshape(-1).view(torch.int16).numpy().view(np.uint16), zeros.reshape(-1).numpy(),
        (rows, columns, bits, group), inputs.reshape(-1).numpy(),
        None if bias is None else bias.detach().float().contiguous().numpy(),
        out.reshape(-1).numpy(), scratch.numpy(), torch.get_num_threads(),
    )  # fmt: skip
    return out.to(x.dtype).reshape(*x.shape[:-1], rows)


@_packed_linear.register_fake
def _packed_linear_shape(
    x: torch.Tensor, tiles: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bias: torch.Tensor | None,
    rows: int, columns: int, bits: int, group: int,
) -> torch.Tensor:  # fmt: skip
    return x.new_empty(*x.shape[:-1], rows)


class PackedLinear(nn.Module):
    """``nn.Linear`` (or transformers' ``Conv1D``) over a packed weight."""

    def __init__(self, packed: nn.Module, bias: torch.Tensor | None, *, transposed: bool = False) -> None:
        super().__init__()
        self.packed, self.transposed = packed, transposed
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))
        self.in_features, self.out_features = packed.columns, packed.rows

    @property
    def weight(self) -> torch.Tensor:
        """The weight, dequantised anew at each use: for programs that read it."""
        dense: torch.Tensor = self.packed.dense()  # type: ignore[operator]
        return dense.t() if self.transposed else dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer it stands for."""
        return self.packed.product(x, self.bias)  # type: ignore[operator,no-any-return]


class PackedEmbedding(nn.Module):
    """``nn.Embedding`` over a packed weight: only the rows looked up are dequantised, each once."""

    def __init__(self, packed: nn.Module, padding_idx: int | None = None) -> None:
        super().__init__()
        self.packed, self.padding_idx = packed, padding_idx
        self.num_embeddings, self.embedding_dim = packed.rows, packed.columns

    @property
    def weight(self) -> torch.Tensor:
        """The whole table, dequantised anew at each use."""
        return self.packed.dense()  # type: ignore[operator,no-any-return]

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """The rows of ``index``."""
        rows: torch.Tensor = self.packed.dense(index.reshape(-1))  # type: ignore[operator]
        return rows.reshape(*index.shape, self.embedding_dim)

"""torch's own four-bit product on a CPU, as a module: for bfloat16 models on processors with AVX-512.

A thin layer over ``aten::_weight_int4pack_mm_for_cpu``: the weight is packed two values a byte, with a bfloat16 scale and
zero point per group of 32, 64 or 128 columns. It takes bfloat16 inputs only: with float32 the same operator is some
hundred times slower (no vector kernel). Rows must be a multiple of 16, columns of the group. Where ``PackedLinear`` runs
it is the faster of the two without AVX-512; it gives rounded weights and unrounded inputs, the other both rounded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

GROUPS = (32, 64, 128)


class NativeInt4Weight(nn.Module):
    """A bfloat16 weight [rows, columns] in torch's packed four-bit form; stands in for a ``PackedWeight``."""

    tiles: torch.Tensor
    scales_and_zeros: torch.Tensor
    dtype = torch.bfloat16

    def __init__(self, rows: int, columns: int, group: int, *, device: Any = None) -> None:
        super().__init__()
        self.rows, self.columns, self.group = rows, columns, group
        self.register_buffer("tiles", torch.empty(rows, columns // 2, dtype=torch.uint8, device=device))
        both = torch.empty(columns // group, rows, 2, dtype=torch.bfloat16, device=device)
        self.register_buffer("scales_and_zeros", both)

    @staticmethod
    def fits(rows: int, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Whether the operator takes a weight of this shape and type."""
        return group in GROUPS and rows % 16 == 0 and columns % group == 0 and dtype == torch.bfloat16

    @classmethod
    def of(cls, weight: torch.Tensor, group: int = 32) -> NativeInt4Weight:
        """Quantise ``weight`` [rows, columns] to nearest.

        Raises:
            ValueError: a weight that the operator does not take.
        """
        rows, columns = weight.shape
        if not cls.fits(rows, columns, group, weight.dtype):
            raise ValueError(
                f"{rows} x {columns} of {weight.dtype} in groups of {group}: rows go by 16, columns by the group, of "
                f"{GROUPS}, and values are bfloat16"
            )
        grouped = weight.detach().float().reshape(rows, -1, group)
        low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
        scale = ((high - low) / 15).clamp(min=1e-30).bfloat16()
        # the operator computes scale * (q - 8) + zero
        zero = (low + 8 * scale.float()).bfloat16()
        centred = (grouped - zero.float().unsqueeze(2)) / scale.float().unsqueeze(2)
        values = (centred + 8).round_().clamp_(0, 15).to(torch.int32).reshape(rows, columns)
        made = cls(rows, columns, group, device="meta")
        made.tiles = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
        made.scales_and_zeros = torch.stack([scale, zero], 2).transpose(0, 1).contiguous()
        return made

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``x`` [..., columns] in bfloat16 times the weight transposed, plus ``bias``."""
        flat = x.reshape(-1, self.columns).contiguous()
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.tiles, self.group, self.scales_and_zeros)
        out = out.reshape(*x.shape[:-1], self.rows)
        return out if bias is None else out + bias

    def dense(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The weight, or those of its ``rows``, as the operator sees it."""
        whole = self.product(torch.eye(self.columns, dtype=torch.bfloat16), None).t().contiguous()
        return whole if rows is None else whole[rows]

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return self.tiles.nbytes + self.scales_and_zeros.nbytes

    def extra_repr(self) -> str:
        """Shape and format."""
        return f"{self.rows} x {self.columns}, torch's 4 bits, groups of {self.group}"

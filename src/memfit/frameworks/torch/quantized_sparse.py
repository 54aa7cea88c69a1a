"""Weights with zeros that are not stored: 2:4, CSR and bitmap, as modules that stand in for a packed weight.

2:4 and bitmap are made dense on each use (the transient is the whole weight, and the report says so); CSR multiplies
as it is, through the library's sparse product with 32-bit indices. No gradients.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from memfit.passes.packing import padded
from memfit.passes.sparsify import Mask, pack_quads

_PARTS = 128


class SparseWeight(nn.Module):
    """A weight [rows, columns] of which ``kept`` values are stored. ``kind``: 2:4, csr or bitmap."""

    values: torch.Tensor

    def __init__(
        self, kind: str, rows: int, columns: int, kept: int, dtype: torch.dtype, *, device: Any = None
    ) -> None:
        super().__init__()
        self.kind, self.rows, self.columns, self.kept, self.dtype = kind, rows, columns, kept, dtype
        quads = -(-columns // 4)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "2:4": ((-(-rows * quads // 2),), torch.uint8),
            "csr": ((kept,), torch.int32),
            "bitmap": ((-(-rows * columns // 8),), torch.uint8),
        }
        values = (rows, quads, 2) if kind == "2:4" else (kept,)
        self.register_buffer("values", torch.empty(values, dtype=dtype, device=device))
        shape, index = shapes[kind]
        self.register_buffer("places", torch.empty(shape, dtype=index, device=device))
        if kind != "2:4":
            self.register_buffer("starts", torch.empty(rows + 1, dtype=torch.int32, device=device))

    @classmethod
    def of(cls, kind: str, weight: torch.Tensor, mask: Mask) -> SparseWeight:
        """``weight`` where ``mask``, stored as ``kind``."""
        rows, columns = weight.shape
        kept = int(mask.sum())
        made = cls(kind, rows, columns, kept, weight.dtype, device="meta")
        where = torch.from_numpy(mask)
        if kind == "2:4":
            bits = weight.dtype.itemsize
            as_integers = weight.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[bits]).numpy()
            packed = pack_quads(as_integers, mask)
            made.values = torch.from_numpy(packed.values).view(weight.dtype)
            made.places = torch.from_numpy(packed.positions)
            return made
        made.values = weight.detach()[where]
        made.starts = torch.from_numpy(np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int32))
        if kind == "csr":
            made.places = torch.from_numpy(np.nonzero(mask)[1].astype(np.int32))
        else:
            made.places = torch.from_numpy(np.packbits(mask.reshape(-1), bitorder="little"))
        return made

    def dense(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The whole weight, or those of its ``rows``."""
        quads = -(-self.columns // 4)
        width = quads * 4 if self.kind == "2:4" else self.columns
        out = torch.zeros(self.rows, width, dtype=self.values.dtype, device=self.values.device)
        # In parts: indices take as many bytes as the weight itself.
        step = padded(max(1, self.rows // _PARTS), 8)
        for first in range(0, self.rows, step):
            last = min(self.rows, first + step)
            part = out[first:last].view(-1)
            if self.kind == "2:4":
                nibbles = self.places[first * quads // 2 : -(-last * quads // 2)]
                nibbles = torch.stack([nibbles & 15, nibbles >> 4], 1).view(-1)[: (last - first) * quads]
                places = torch.stack([nibbles & 3, nibbles >> 2], 1).to(torch.int64)
                part.view(-1, 4).scatter_(1, places, self.values[first:last].view(-1, 2))
                continue
            begin, end = int(self.starts[first]), int(self.starts[last])
            if self.kind == "csr":
                counts = (self.starts[first + 1 : last + 1] - self.starts[first:last]).to(torch.int64)
                lines = torch.repeat_interleave(torch.arange(last - first, device=out.device), counts)
                part[lines * self.columns + self.places[begin:end]] = self.values[begin:end]
                continue
            shifts = torch.arange(8, dtype=torch.uint8, device=out.device)
            bits = self.places[first * self.columns // 8 : -(-last * self.columns // 8)]
            mask = ((bits.unsqueeze(1) >> shifts) & 1).view(-1)[: len(part)].bool()
            part.masked_scatter_(mask, self.values[begin:end])
        out = out[:, : self.columns]
        return out if rows is None else out[rows]

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``x`` [..., columns] times the weight transposed, plus ``bias``."""
        if self.kind != "csr" or x.dtype not in (torch.float32, torch.float64):
            return nn.functional.linear(x, self.dense().to(x.dtype), bias)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the layout is in beta
            sparse = torch.sparse_csr_tensor(
                self.starts, self.places, self.values.to(x.dtype), (self.rows, self.columns), check_invariants=False
            )
            out = torch.sparse.mm(sparse, x.reshape(-1, self.columns).t()).t().reshape(*x.shape[:-1], self.rows)
        return out if bias is None else out + bias

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def extra_repr(self) -> str:
        """Shape and format."""
        return f"{self.rows} x {self.columns}, {self.kind}, {self.kept} kept"

"""Quantise a weight to 2 .. 8 bits with a scale and a zero point per group of columns, and state the error.

Each row is cut into groups of ``group`` columns; ``value = scale * (q - zero)`` with q and zero of ``bits`` bits and a
bfloat16 scale. The range of a group is the widest or one of a few narrower ones, whichever gives the least squared error,
each column weighted by the mean square of its inputs (the diagonal form of what Frantar et al. 2022, arXiv:2210.17323,
minimise; the search over ranges as in Lin et al. 2023, arXiv:2306.00978, section 3). Not optimal: rounding is to nearest,
column by column, and the ranges are six. The error is that of the stored values: scales are rounded before values are.
Cost: O(6 * values); beside input and output, temporaries of a few rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit.passes.packing import COLUMNS, PLANES, ROWS, Bytes, pack, padded, tile_bytes, unpack

Floats = npt.NDArray[np.float32]

RANGES = (1.0, 0.95, 0.9, 0.84, 0.77, 0.68)
_CHUNK = 1 << 15  # values worked on at a time, so that temporaries stay small beside a layer


@dataclass(frozen=True)
class Packed:
    """A quantised weight of ``rows`` x ``columns``.

    Attributes:
        tiles: as ``packing.pack`` makes them.
        scales: bfloat16 bits [groups, rows padded to 8].
        zeros: [groups, rows padded to 8].
    """

    rows: int
    columns: int
    bits: int
    group: int
    tiles: Bytes
    scales: npt.NDArray[np.uint16]
    zeros: Bytes

    @property
    def nbytes(self) -> int:
        """Bytes stored: values, scales and zero points."""
        return self.tiles.nbytes + self.scales.nbytes + self.zeros.nbytes


def packed_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Projected bytes of a weight: values, scales and zero points, padding included. Exact."""
    groups = -(-columns // group)
    return tile_bytes(rows, columns, bits) + 3 * groups * padded(rows, ROWS)


def empty(rows: int, columns: int, bits: int, group: int) -> Packed:
    """Storage for a packed weight."""
    if bits not in PLANES or group < COLUMNS or group % COLUMNS:
        raise ValueError(f"bits {bits} in groups of {group}: bits are {sorted(PLANES)}, groups multiples of {COLUMNS}")
    groups, high = -(-columns // group), padded(rows, ROWS)
    tiles = np.zeros((high // ROWS, padded(columns, COLUMNS) // COLUMNS, 32 * bits), np.uint8)
    return Packed(
        rows, columns, bits, group, tiles, np.zeros((groups, high), np.uint16), np.zeros((groups, high), np.uint8)
    )


def quantize(weight: Floats, bits: int, group: int, importance: Floats | None = None) -> Packed:
    """Quantise ``weight`` [rows, columns] of finite float32.

    Args:
        bits: 2, 3, 4, 6 or 8.
        group: columns that share a scale, a multiple of 32.
        importance: per column, the mean square of its inputs; left out, all columns count the same.

    Returns:
        the packed weight.
    """
    rows, columns = weight.shape
    return quantize_parts(lambda first, last: weight[first:last], rows, columns, bits, group, importance)


def quantize_parts(
    read: Callable[[int, int], Floats], rows: int, columns: int, bits: int, group: int, importance: Floats | None = None
) -> Packed:
    """As ``quantize``, of a weight of which ``read(first, last)`` gives some rows at a time: it need not be in memory."""
    packed = empty(rows, columns, bits, group)
    step = max(ROWS, _CHUNK // max(1, columns) // ROWS * ROWS)
    for first in range(0, rows, step):
        part = read(first, min(rows, first + step))
        values, scales, zeros = _quantize_rows(part, bits, group, importance)
        packed.tiles[first // ROWS : padded(first + len(part), ROWS) // ROWS] = pack(values, bits)
        packed.scales[:, first : first + len(part)] = scales.T
        packed.zeros[:, first : first + len(part)] = zeros.T
    return packed


def _quantize_rows(
    weight: Floats, bits: int, group: int, importance: Floats | None
) -> tuple[Bytes, npt.NDArray[np.uint16], Bytes]:
    rows, columns = weight.shape
    groups = -(-columns // group)
    wide = np.zeros((rows, groups * group), np.float32)
    wide[:, :columns] = weight
    grouped = wide.reshape(rows, groups, group)
    counts = np.ones(groups * group, np.float32) if importance is None else np.zeros(groups * group, np.float32)
    if importance is not None:
        counts[:columns] = importance / max(float(importance.mean()), 1e-30) + 1e-3
    counts = counts.reshape(1, groups, group)
    top = np.float32(2**bits - 1)
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    best = np.full((rows, groups), np.inf, np.float32)
    kept_scale, kept_zero = np.ones((rows, groups), np.float32), np.zeros((rows, groups), np.float32)
    values = np.empty_like(grouped)
    for share in RANGES if bits < 8 else RANGES[:1]:
        scale = from_bfloat16(to_bfloat16((high - low) * (np.float32(share) / top)))
        scale[scale < 1e-37] = 1.0
        zero = np.clip(np.rint(-low * np.float32(share) / scale), 0, top)
        _round(grouped, scale, zero, top, values)
        values -= zero[:, :, None]
        values *= scale[:, :, None]
        values -= grouped
        with np.errstate(over="ignore"):
            error = np.einsum("rgc,rgc,zgc->rg", values, values, counts, optimize=False)
        better = (error < best) | (np.float32(share) == RANGES[0])  # squares of large values may overflow
        best = np.where(better, error, best)
        kept_scale, kept_zero = np.where(better, scale, kept_scale), np.where(better, zero, kept_zero)
    _round(grouped, kept_scale, kept_zero, top, values)
    rounded = values.astype(np.uint8).reshape(rows, -1)[:, :columns]
    return rounded, to_bfloat16(kept_scale), kept_zero.astype(np.uint8)


def _round(grouped: Floats, scale: Floats, zero: Floats, top: np.float32, out: Floats) -> None:
    np.divide(grouped, scale[:, :, None], out=out)
    np.rint(out, out=out)
    out += zero[:, :, None]
    np.clip(out, 0, top, out=out)


def dequantize(packed: Packed) -> Floats:
    """The float32 weight [rows, columns] that ``packed`` stands for."""
    values = unpack(packed.tiles, packed.rows, packed.columns, packed.bits).astype(np.float32)
    group_of = np.arange(packed.columns) // packed.group
    scales = from_bfloat16(packed.scales)[:, : packed.rows].T[:, group_of]
    return (values - packed.zeros[:, : packed.rows].T[:, group_of]) * scales


def product_twin(packed: Packed, x: Floats, bias: Floats | None = None) -> Floats:
    """The slow twin of the native product: inputs rounded to 8 bits per 32 columns of each token, sums in float64."""
    width = padded(packed.columns, COLUMNS)
    wide = np.zeros((len(x), width), np.float32)
    wide[:, : packed.columns] = x
    blocks = wide.reshape(len(x), width // COLUMNS, COLUMNS)
    largest = np.abs(blocks).max(2, keepdims=True)
    inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0).astype(np.float32)
    rounded = np.rint(blocks * inverse).astype(np.float64) * (largest / np.float32(127))
    out = rounded.reshape(len(x), width)[:, : packed.columns] @ dequantize(packed).astype(np.float64).T
    return np.asarray(out if bias is None else out + bias, np.float32)


def relative_error(weight: Floats, packed: Packed, importance: Floats | None = None) -> float:
    """2-norm of the change of the weight over its 2-norm, columns weighted by ``importance``."""
    gap = dequantize(packed) - weight
    scale = 1.0 if importance is None else importance
    return float(np.sqrt((gap * gap * scale).sum() / max(float((weight * weight * scale).sum()), 1e-30)))


def to_bfloat16(values: Floats) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16 (ties to even) of finite values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> Floats:
    """float32 of bfloat16 bits; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)

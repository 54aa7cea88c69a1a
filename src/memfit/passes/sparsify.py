"""Which values of a weight become zero, stored in a form that really is smaller, and the error of it.

2:4 keeps two of each four neighbouring values of a row; a share drops the least important values of each row. Importance
is |weight| times the root mean square of the column's inputs where those are known (Sun et al. 2023, arXiv:2306.11695),
else |weight|. No weight is changed to make up for dropped ones, as SparseGPT does.

    2:4      the kept values [rows, quads, 2], and per quad two 2-bit positions, two quads to a byte
    csr      kept values, 32-bit columns, 32-bit row starts
    bitmap   kept values, one bit for every value, 32-bit row starts

Cost: O(values), for a share O(values log columns).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def scores(weight: Floats, importance: Floats | None = None) -> Floats:
    """What a value is worth keeping for. ``importance``: mean square of each column's inputs."""
    size = np.abs(weight)
    return size if importance is None else size * np.sqrt(importance + np.float32(1e-12))


def keep_two_of_four(weight: Floats, importance: Floats | None = None) -> Mask:
    """True where a value stays: two in each four of a row (columns past the last full four included)."""
    rows, columns = weight.shape
    wide = np.full((rows, -(-columns // 4) * 4), -1.0, np.float32)
    wide[:, :columns] = scores(weight, importance)
    order = np.argsort(-wide.reshape(rows, -1, 4), axis=2, kind="stable")
    mask = np.zeros((rows, wide.shape[1] // 4, 4), bool)
    np.put_along_axis(mask, order[:, :, :2], True, axis=2)
    return mask.reshape(rows, -1)[:, :columns]


def keep_share(weight: Floats, zeros: float, importance: Floats | None = None) -> Mask:
    """True where a value stays: in each row the share ``zeros`` (0 to 1) of least importance goes."""
    rows, columns = weight.shape
    drop = min(columns, round(columns * zeros))
    order = np.argsort(scores(weight, importance), axis=1, kind="stable")
    mask = np.ones((rows, columns), bool)
    np.put_along_axis(mask, order[:, :drop], False, axis=1)
    return mask


@dataclass(frozen=True)
class Quads:
    """A 2:4 weight. ``values`` [rows, quads, 2]; ``positions``: a nibble per quad, first position in its low bits."""

    rows: int
    columns: int
    values: npt.NDArray[np.generic]
    positions: npt.NDArray[np.uint8]


def pack_quads(weight: npt.NDArray[np.generic], mask: Mask) -> Quads:
    """Pack ``weight`` where ``mask`` has at most two of each four."""
    rows, columns = weight.shape
    quads = -(-columns // 4)
    wide, kept = np.zeros((rows, quads * 4), weight.dtype), np.zeros((rows, quads * 4), bool)
    wide[:, :columns], kept[:, :columns] = weight, mask
    # positions of the kept first, in rising order, then of the dropped: always two that differ
    order = np.argsort(~kept.reshape(rows, quads, 4), axis=2, kind="stable")[:, :, :2].astype(np.uint8)
    taken = np.take_along_axis(kept.reshape(rows, quads, 4), order, axis=2)
    values = np.take_along_axis(wide.reshape(rows, quads, 4), order, axis=2) * taken
    nibbles = (order[:, :, 0] | (order[:, :, 1] << 2)).reshape(-1)
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(4))
    return Quads(rows, columns, values.astype(weight.dtype), (nibbles[0::2] | (nibbles[1::2] << 4)).astype(np.uint8))


def unpack_quads(quads: Quads) -> npt.NDArray[np.generic]:
    """The dense weight [rows, columns]."""
    count = quads.rows * -(-quads.columns // 4)
    nibbles = np.stack([quads.positions & 15, quads.positions >> 4], axis=1).reshape(-1)[:count]
    dense = np.zeros((count, 4), quads.values.dtype)
    where = np.arange(count)
    values = quads.values.reshape(count, 2)
    dense[where, nibbles >> 2] = values[:, 1]
    dense[where, nibbles & 3] = values[:, 0]
    return dense.reshape(quads.rows, -1)[:, : quads.columns]


def break_even(itemsize: int, columns: int) -> dict[str, float]:
    """The share of zeros above which a form is smaller than the dense weight. ``itemsize``: bytes of a value.

    >>> break_even(4, 4096)["csr"], break_even(4, 4096)["bitmap"]
    (0.5001220703125, 0.031494140625)
    """
    per_row = 4 / columns
    return {
        "csr": 1 - (itemsize - per_row) / (itemsize + 4),
        "bitmap": (1 / 8 + per_row) / itemsize,
    }


def relative_error(weight: Floats, mask: Mask, importance: Floats | None = None) -> float:
    """2-norm of what is dropped over the 2-norm of the weight, columns weighted by ``importance``."""
    scale = 1.0 if importance is None else importance
    total = max(float((weight * weight * scale).sum()), 1e-30)
    return float(np.sqrt((weight * weight * scale * ~mask).sum() / total))

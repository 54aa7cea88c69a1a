"""Values of 2, 3, 4, 6 or 8 bits as bytes in tiles: what the native product of `native/core/lowbit_product.h` reads.

A weight of ``[rows, columns]`` becomes tiles of 8 rows x 32 columns, rows and columns padded; a tile takes ``32 * bits``
bytes and holds its values in planes (6 bits: one plane of 4, one of 2). Packing and unpacking are exact inverses.
Cost: O(values) with a few temporaries of one byte a value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

PLANES: dict[int, tuple[int, ...]] = {2: (2,), 3: (2, 1), 4: (4,), 6: (4, 2), 8: (4, 4)}
"""Bits per value -> bits of its planes, low plane first."""
ROWS, COLUMNS, _STEPS = 8, 32, 8


def padded(count: int, multiple: int) -> int:
    """``count`` rounded up to a multiple.

    >>> padded(33, 32)
    64
    """
    return -(-count // multiple) * multiple


def tile_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of the packed values of a weight of ``rows`` x ``columns``."""
    return padded(rows, ROWS) * padded(columns, COLUMNS) * bits // 8


def pack(values: Bytes, bits: int) -> Bytes:
    """``values`` [rows, columns], each below ``2 ** bits`` -> tiles [rows / 8, columns / 32, 32 * bits], zero padded."""
    rows, columns = values.shape
    whole = values
    if rows % ROWS or columns % COLUMNS:
        whole = np.zeros((padded(rows, ROWS), padded(columns, COLUMNS)), np.uint8)
        whole[:rows, :columns] = values
    # [row block, row, column block, step, column] -> [row block, column block, step, byte of a vector]
    steps = whole.reshape(-1, ROWS, whole.shape[1] // COLUMNS, _STEPS, 4).transpose(0, 2, 3, 1, 4)
    steps = steps.reshape(steps.shape[0], steps.shape[1], _STEPS, 32)
    parts, taken = [], 0
    for width in PLANES[bits]:
        plane = (steps >> np.uint8(taken)) & np.uint8(2**width - 1)
        per_byte = 8 // width
        shifts = (np.arange(per_byte, dtype=np.uint8) * width)[:, None]
        grouped = plane.reshape(*plane.shape[:2], _STEPS // per_byte, per_byte, 32) << shifts
        parts.append(np.bitwise_or.reduce(grouped, axis=3).reshape(*plane.shape[:2], -1))
        taken += width
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


def unpack(tiles: Bytes, rows: int, columns: int, bits: int) -> Bytes:
    """The inverse of ``pack``: [rows, columns] of one byte a value."""
    shape = (padded(rows, ROWS) // ROWS, padded(columns, COLUMNS) // COLUMNS, 32 * bits)
    tiles = tiles.reshape(shape)
    steps = np.zeros((*shape[:2], _STEPS, 32), np.uint8)
    at = taken = 0
    for width in PLANES[bits]:
        per_byte = 8 // width
        plane = tiles[:, :, at : at + 32 * width].reshape(*shape[:2], width, 1, 32)
        shifts = (np.arange(per_byte, dtype=np.uint8) * width)[:, None]
        spread = (plane >> shifts) & np.uint8(2**width - 1)
        steps |= spread.reshape(steps.shape) << np.uint8(taken)
        at, taken = at + 32 * width, taken + width
    whole = steps.reshape(*shape[:2], _STEPS, ROWS, 4).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(whole.reshape(shape[0] * ROWS, shape[1] * COLUMNS)[:rows, :columns])

"""Rows of a column into a batch in one pass: gathered, scaled, channels reordered, type changed.

``Recipe`` is the fused form of a list of transforms for one column. The kernel is native/core/gather_rows; ``run_slowly``
is its twin in NumPy, with the same roundings to the bit (product and sum are rounded each; float32 for targets up to 32
bits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit import _core
from memfit.data.column_file import numpy_dtype

ELEMENTS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "bf16")
KEEP_LAST, KEEP_FIRST, LAST_TO_FIRST, FIRST_TO_LAST = range(4)
STREAM_BYTES = 4 << 20
"""Batches from here on are written past the caches: they would not stay there until they are used."""


@dataclass(frozen=True)
class Recipe:
    """What happens to a row: ``channels`` x ``inner`` values of ``source`` -> of ``target``, in ``shape``.

    ``scale`` and ``shift``: one number per channel, or both empty: values are only converted. ``target`` may be
    ``bf16``, which NumPy holds as its bits in uint16.
    """

    source: str
    target: str
    layout: int
    channels: int
    inner: int
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()

    @property
    def copies(self) -> bool:
        """Whether rows stay as they are."""
        return self.source == self.target and not self.scale and self.layout in (KEEP_LAST, KEEP_FIRST)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored."""
        return self.channels * self.inner * _bytes(self.source)

    @property
    def made_bytes(self) -> int:
        """Bytes of a row in the batch."""
        return self.channels * self.inner * _bytes(self.target)

    @property
    def made_dtype(self) -> np.dtype[np.generic]:
        """The type of the batch's array."""
        return np.dtype("u2") if self.target == "bf16" else numpy_dtype(self.target)

    def run(self, base: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Rows at ``offsets`` (bytes from the start of ``base``) into ``out``; without the interpreter's lock."""
        scale = np.array(self.scale, np.float64) if self.scale else None
        shift = np.array(self.shift, np.float64) if self.scale else None
        _core.gather_rows(
            base, offsets, _number(self.source), _number(self.target), self.layout, self.channels, self.inner, scale,
            shift, out, len(offsets) * self.made_bytes >= STREAM_BYTES,
        )  # fmt: skip

    def run_slowly(self, base: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.generic]:
        """The twin: the batch as a new array."""
        rows = (
            np.stack([base[at : at + self.row_bytes] for at in offsets]) if len(offsets) else np.empty((0, 0), np.uint8)
        )
        values = rows.view(numpy_dtype("u1" if self.source == "bool" else self.source))
        first = self.layout in (KEEP_FIRST, FIRST_TO_LAST)
        shaped = values.reshape(len(offsets), *((self.channels, self.inner) if first else (self.inner, self.channels)))
        made: NDArray[np.generic] = shaped
        if self.scale:
            wide = np.dtype(np.float32 if self.target in ("f4", "f2", "bf16") else np.float64)
            over = (-1, 1) if first else (1, -1)
            scale, shift = np.array(self.scale).astype(wide), np.array(self.shift).astype(wide)
            made = shaped.astype(wide) * scale.reshape(over) + shift.reshape(over)
        if self.layout in (LAST_TO_FIRST, FIRST_TO_LAST):
            made = made.swapaxes(1, 2)
        with np.errstate(over="ignore"):
            made = brain_bits(made.astype(np.float32)) if self.target == "bf16" else made.astype(self.made_dtype)
        return np.ascontiguousarray(made).reshape(len(offsets), *self.shape)


def plain_recipe(dtype: str, shape: tuple[int, ...]) -> Recipe:
    """The recipe that only copies."""
    return Recipe(dtype, dtype, KEEP_LAST, max(1, math.prod(shape)), 1, shape)


def brain_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of values rounded to bfloat16, ties to even; no number becomes 0x7FC0."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def brain_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What bits of bfloat16 stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _number(name: str) -> int:
    return ELEMENTS.index("u1" if name == "bool" else name)


def _bytes(name: str) -> int:
    return 2 if name == "bf16" else numpy_dtype(name).itemsize

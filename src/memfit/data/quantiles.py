"""Quantiles of a column in one pass and bounded memory, with a stated error; exactly in a second pass.

A float32's bits, turned so that they sort as the values do, are counted by their leading half: 65,536 counts a channel
(512 KiB). Two such tables add up exactly, whatever the order. A quantile is then known to its bin, 1/128 wide relative to
the value; within it ranks are taken to be spread evenly. ``refine`` counts the trailing halves of just those bins in a
second pass, which gives the exact float32 order statistics. Bytes are counted whole: exact at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit import _core
from memfit.data.moments import channels_of
from memfit.data.schema import Column

RELATIVE_ERROR = 2.0**-7
MOST_CHANNELS = 2048
"""Channels whose counts still take no more than 1 GiB."""

_BINS = 1 << 16


class Quantiles:
    """The counts of one column so far."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.channels, self.inner = channels_of(column)
        self.bytes = column.dtype in ("u1", "bool")
        self.counts = np.zeros((self.channels, 256 if self.bytes else _BINS), np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count rows of the column, an array [rows, *shape]."""
        if self.bytes:
            together = self.inner if self.column.channels == "first" else 1
            flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            _core.add_byte_counts(flat, self.channels, together, self.counts.reshape(-1))
        else:
            _core.add_float_counts(self._matrix(values), self.channels, self.counts.reshape(-1))

    def add_slowly(self, values: NDArray[Any]) -> None:
        """The twin of ``add``."""
        matrix = self._matrix(values).reshape(-1, self.channels)
        for c in range(self.channels):
            kept = matrix[:, c][~np.isnan(matrix[:, c])]
            codes = kept.astype(np.int64) if self.bytes else (code_of(kept) >> np.uint32(16)).astype(np.int64)
            self.counts[c] += np.bincount(codes, minlength=self.counts.shape[1])

    def _matrix(self, values: NDArray[Any]) -> NDArray[np.float32]:
        if self.column.channels == "first" and self.inner > 1:
            values = values.reshape(len(values), self.channels, -1).swapaxes(1, 2)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, np.float32).reshape(-1)

    def at(self, shares: Iterable[float]) -> NDArray[np.float64]:
        """Quantiles [share, channel], as NumPy's default interpolates; not a number where nothing was counted."""
        return np.array([[self._one(c, share) for c in range(self.channels)] for share in shares])

    def _one(self, channel: int, share: float) -> float:
        ends = np.cumsum(self.counts[channel])
        total = int(ends[-1])
        if not total:
            return float("nan")
        rank = share * (total - 1)
        low, high = int(np.floor(rank)), int(np.ceil(rank))
        first, second = self._ranked(channel, ends, low), self._ranked(channel, ends, high)
        return first if first == second else first + (rank - low) * (second - first)

    def _ranked(self, channel: int, ends: NDArray[np.int64], rank: int) -> float:
        place = int(np.searchsorted(ends, rank, side="right"))
        if self.bytes:
            return float(place)
        inside = rank - (int(ends[place - 1]) if place else 0)
        held = int(self.counts[channel, place])
        low, high = value_of(place << 16), value_of(min((place << 16) | 0xFFFF, 0xFF800000))
        if not np.isfinite([low, high]).all():
            return low if np.isinf(low) else high
        return float(low + (high - low) * (inside + 0.5) / held)

    def refine(self, blocks: Iterable[NDArray[Any]], shares: Iterable[float]) -> NDArray[np.float64]:
        """Exact quantiles [share, channel] of float32 values, by a second pass over the same rows."""
        shares = list(shares)
        if self.bytes:
            return self.at(shares)
        ends = np.cumsum(self.counts, axis=1)
        total = ends[:, -1]
        ranks = np.array([[np.floor(s * (total - 1)), np.ceil(s * (total - 1))] for s in shares]).reshape(
            -1, self.channels
        )
        bins = np.array([np.searchsorted(ends[c], ranks[:, c], side="right") for c in range(self.channels)])
        bins = np.where(total[:, None] > 0, np.minimum(bins, _BINS - 1), -1)
        unique = [np.unique(row) for row in bins]
        each = max(len(row) for row in unique)
        prefixes = np.full((self.channels, each), -1, np.int32)
        for c, row in enumerate(unique):
            prefixes[c, : len(row)] = row
        tails = np.zeros((self.channels, each, _BINS), np.int64)
        for block in blocks:
            _core.add_tail_counts(self._matrix(block), self.channels, prefixes.reshape(-1), tails.reshape(-1))
        found = np.full(ranks.shape, np.nan)
        for c in range(self.channels):
            for r in range(len(ranks)):
                place = bins[c, r]
                if place < 0:
                    continue
                before = int(ends[c, place - 1]) if place else 0
                inside = np.cumsum(tails[c, int(np.searchsorted(unique[c], place))])
                tail = int(np.searchsorted(inside, int(ranks[r, c]) - before, side="right"))
                found[r, c] = value_of(int(place) << 16 | tail)
        low, high = found[0::2], found[1::2]
        part = np.array([s * (total - 1) for s in shares]) - ranks[0::2]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(low == high, low, low + part * (high - low)))


def code_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Bits that sort as the values do."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits & np.uint32(0x80000000), ~bits, bits | np.uint32(0x80000000))


def value_of(code: int) -> float:
    """The float32 that a code stands for."""
    bits = code & 0x7FFFFFFF if code & 0x80000000 else ~code & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])

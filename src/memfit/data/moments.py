"""Count, mean, standard deviation, least and greatest of a column, per channel or feature, in one pass over its blocks.

Blocks are merged exactly (Chan, Golub, LeVeque 1983), so the order and the size of the blocks hardly matter and a state
can be saved and gone on with. float32 goes through native/core/column_moments (float32 sums of 512 rows about a mean
near them, double above); bytes are counted, which makes their figures exact; other types are summed in float64.
Values that are no numbers are left out and not counted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit import _core
from memfit.data.schema import Column
from memfit.errors import DataError

_TAKEN = 4 << 20  # values of other types that are widened to float64 at a time
_MOST_COUNTED = 1 << 14  # channels whose bytes are counted: the counts take 2 KiB of each


class Moments:
    """The figures of one column so far. ``channels``: how many there are; arrays have one number for each."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.channels, self.inner = channels_of(column)
        self.state = np.zeros((self.channels, 5))

    def add(self, values: NDArray[Any]) -> None:
        """Merge rows of the column, an array [rows, *shape]. Cost: one read of them."""
        if values.dtype == np.float32 and self.inner == 1:
            _core.add_moments(np.ascontiguousarray(values).reshape(-1), self.channels, self.state.reshape(-1))
        elif values.dtype in (np.uint8, np.bool_) and self.channels <= _MOST_COUNTED:
            counts = np.zeros(256 * self.channels, np.int64)
            together = self.inner if self.column.channels == "first" else 1
            _core.add_byte_counts(
                np.ascontiguousarray(values).reshape(-1).view(np.uint8), self.channels, together, counts
            )
            self._merge(_of_counts(counts.reshape(self.channels, 256)))
        else:
            self.add_slowly(values)

    def add_slowly(self, values: NDArray[Any]) -> None:
        """The twin of ``add``, in float64."""
        shaped = values.reshape(len(values), self.channels, -1) if self._first else values.reshape(-1, self.channels)
        step = max(1, _TAKEN // max(1, math.prod(shaped.shape[1:])))
        for start in range(0, len(shaped), step):
            part = shaped[start : start + step].astype(np.float64)
            part = part.swapaxes(1, 2).reshape(-1, self.channels) if self._first else part
            there = ~np.isnan(part)
            count = there.sum(axis=0).astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(count > 0, np.where(there, part, 0).sum(axis=0) / count, 0)
                squares = (np.where(there, part - mean, 0) ** 2).sum(axis=0)
            least = np.where(there, part, np.inf).min(axis=0, initial=np.inf)
            greatest = np.where(there, part, -np.inf).max(axis=0, initial=-np.inf)
            self._merge(np.stack([count, mean, squares, least, greatest], axis=1))

    @property
    def _first(self) -> bool:
        return self.column.channels == "first" and self.inner > 1

    def _merge(self, other: NDArray[np.float64]) -> None:
        mine = self.state
        total = mine[:, 0] + other[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(total > 0, other[:, 0] / total, 0)
            distance = np.where(mine[:, 0] > 0, other[:, 1] - mine[:, 1], 0)
            mean = np.where(mine[:, 0] > 0, mine[:, 1] + distance * share, other[:, 1])
            squares = mine[:, 2] + other[:, 2] + distance**2 * mine[:, 0] * share
        new, old = other[:, 0] > 0, mine[:, 0] > 0
        least = np.where(old & new, np.minimum(mine[:, 3], other[:, 3]), np.where(new, other[:, 3], mine[:, 3]))
        greatest = np.where(old & new, np.maximum(mine[:, 4], other[:, 4]), np.where(new, other[:, 4], mine[:, 4]))
        changed = np.stack([total, mean, squares, least, greatest], axis=1)
        mine[new] = changed[new]

    def merge(self, other: Moments) -> None:
        """Merge the figures of other rows of the same column."""
        self._merge(other.state)

    @property
    def count(self) -> NDArray[np.int64]:
        """Values counted."""
        return self.state[:, 0].astype(np.int64)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Means; not a number where nothing was counted."""
        return np.where(self.state[:, 0] > 0, self.state[:, 1], np.nan)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variances of the values as the whole population (divided by their number)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.state[:, 2] / self.state[:, 0])

    @property
    def std(self) -> NDArray[np.float64]:
        """Square roots of ``variance``."""
        return np.sqrt(self.variance)

    @property
    def least(self) -> NDArray[np.float64]:
        """Least values."""
        return np.where(self.state[:, 0] > 0, self.state[:, 3], np.nan)

    @property
    def greatest(self) -> NDArray[np.float64]:
        """Greatest values."""
        return np.where(self.state[:, 0] > 0, self.state[:, 4], np.nan)

    def to_json(self) -> dict[str, Any]:
        """The figures, and the sums to go on from (``squares``); numbers that are none as None."""
        figures = {
            "count": self.count, "mean": self.mean, "std": self.std, "min": self.least, "max": self.greatest,
            "squares": self.state[:, 2],
        }  # fmt: skip
        return {name: [_plain(x) for x in values] for name, values in figures.items()}

    @classmethod
    def from_json(cls, column: Column, saved: dict[str, Any]) -> Moments:
        """What ``to_json`` saved.

        Raises:
            DataError: it is of a column of other channels.
        """
        made = cls(column)
        names = ("count", "mean", "squares", "min", "max")
        try:
            values = [[0.0 if x is None else float(x) for x in saved[name]] for name in names]
            made.state[:] = np.array(values).T
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(column.name, "its saved statistics are of another column") from error
        return made


def channels_of(column: Column) -> tuple[int, int]:
    """Channels of a row, and values of each: of images the colours, of a vector its features, else one."""
    if column.ragged or not column.shape:
        return 1, 1
    if column.channels == "first":
        return column.shape[0], math.prod(column.shape[1:])
    if column.channels == "last":
        return column.shape[-1], math.prod(column.shape[:-1])
    return (column.shape[0], 1) if len(column.shape) == 1 else (1, math.prod(column.shape))


def _of_counts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    value = np.arange(256)
    count = counts.sum(axis=1)
    total, squares = counts @ value, counts @ value**2
    made = np.zeros((len(counts), 5))
    for c in range(len(counts)):
        if not count[c]:
            continue
        seen = np.flatnonzero(counts[c])
        n, s, q = int(count[c]), int(total[c]), int(squares[c])
        made[c] = n, s / n, (q * n - s * s) / n, seen[0], seen[-1]
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    return float(value) if math.isfinite(value) else None

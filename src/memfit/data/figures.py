"""The figures of a data set's columns in one streaming pass: moments and quantiles, in the memory of one block.

Blocks are read in the order of the file through the map; what was read is given back behind (``page_cache.Behind``), so
that the pass neither fills the memory nor evicts others' pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.dataset import Dataset
from memfit.data.moments import Moments
from memfit.data.page_cache import Behind
from memfit.data.quantiles import MOST_CHANNELS, RELATIVE_ERROR, Quantiles
from memfit.errors import DataError

BLOCK_BYTES = 8 << 20
SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)

Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class ColumnFigures:
    """Of one column: moments, and quantiles [share, channel] where they were asked for; ``error``: relative, of those."""

    name: str
    moments: Moments
    quantiles: NDArray[np.float64] | None
    error: float

    def to_json(self) -> dict[str, Any]:
        """The figures as plain data, one number per channel."""
        figures = {key: value for key, value in self.moments.to_json().items() if key != "squares"}
        if self.quantiles is not None:
            figures["quantiles"] = {str(s): row.tolist() for s, row in zip(SHARES, self.quantiles, strict=True)}
            figures["quantile_error"] = self.error
        return figures


def blocks_of(data: Dataset, name: str) -> Iterator[NDArray[Any]]:
    """A fixed column's rows in blocks of 8 MiB, dropped behind."""
    column, values = data.describe(name), data.column(name)
    step = max(1, BLOCK_BYTES // column.item_bytes)
    file = data.file(name)
    with Behind(file) as behind:
        for start in range(0, len(data), step):
            file.check_size()
            yield values[start : start + step]
            behind.passed((start + step) * column.item_bytes)


def statistics(
    data: Dataset, names: Sequence[str] | None = None, quantiles: bool = True, exact: bool = False,
    progress: Progress | None = None,
) -> dict[str, ColumnFigures]:  # fmt: skip
    """Figures of the columns ``names`` (all of one shape, where left out), in one pass; ``exact`` takes a second one.

    Raises:
        DataError: a column does not exist or is ragged.

    Cost: one read of the columns; memory of a block and of the counts (512 KiB a channel with quantiles).
    """
    chosen = list(names) if names else [c.name for c in data.schema.columns if not c.ragged]
    figures = {}
    for name in chosen:
        column = data.describe(name)
        if column.ragged:
            raise DataError(
                str(data.folder), f"column {name!r} has rows of different lengths", hint="name another column"
            )
        moments, counted = Moments(column), Quantiles(column) if quantiles else None
        if counted is not None and counted.channels > MOST_CHANNELS:
            counted = None
        done = 0
        for block in blocks_of(data, name):
            moments.add(block)
            if counted is not None:
                counted.add(block)
            done += len(block)
            if progress is not None:
                progress(f"reading {name}", done, len(data))
        found, error = None, 0.0
        if counted is not None:
            refined = exact and not counted.bytes and column.dtype in ("f4", "f2", "i1", "u2", "i2")
            found = counted.refine(blocks_of(data, name), SHARES) if refined else counted.at(SHARES)
            error = 0.0 if refined or counted.bytes else RELATIVE_ERROR
        figures[name] = ColumnFigures(name, moments, found, error)
    return figures

"""The pattern of an embedding gather: rows of a table copied out by index, as a trace of addresses.

Indices are drawn by Zipf's law over shuffled rows, as words and users are; another order of the same copies is another trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit.errors import NestError
from memfit.ir.nest import MOST_BYTES

Ints = npt.NDArray[np.int64]
_MOST_ACCESSES = 1 << 28
_PAGE = 4096


@dataclass(frozen=True)
class Gather:
    """``lookups`` copies of rows of ``width`` float32 out of a table of ``rows``."""

    rows: int
    width: int
    lookups: int

    def indices(self, skew: float = 1.1, seed: int = 0) -> Ints:
        """The rows looked up, by Zipf's law with ``skew`` over shuffled rows."""
        draw = np.random.default_rng(seed)
        shares = 1.0 / np.arange(1, self.rows + 1) ** skew
        picked = np.searchsorted(np.cumsum(shares / shares.sum()), draw.random(self.lookups))
        return draw.permutation(self.rows)[np.minimum(picked, self.rows - 1)].astype(np.int64)

    def arrays(self) -> dict[str, tuple[int, int]]:
        """Half-open byte ranges of the table and of the result."""
        end = _PAGE + self.rows * self.width * 4
        out = -(-end // _PAGE) * _PAGE
        return {"table": (_PAGE, end), "out": (out, out + self.lookups * self.width * 4)}

    def trace(self, read: Ints, written: Ints) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
        """Addresses and marks of writes where row ``read[l]`` is copied to row ``written[l]``, l in turn."""
        column = np.arange(0, self.width * 4, 4, dtype=np.uint64)
        starts = {name: np.uint64(low) for name, (low, _) in self.arrays().items()}
        row = np.uint64(self.width * 4)
        reads = read.astype(np.uint64)[:, None] * row + starts["table"] + column
        writes = written.astype(np.uint64)[:, None] * row + starts["out"] + column
        addresses = np.stack([reads, writes], axis=-1).reshape(-1)
        return addresses, np.tile(np.array([0, 1], np.uint8), len(read) * self.width)


def parse_gather(text: str) -> Gather:
    """``"gather:ROWS,WIDTH,LOOKUPS"``; what is left out is 100000, 64, 20000.

    Raises:
        NestError: sizes that are none, or too large.
    """
    _, _, rest = text.partition(":")
    try:
        values = [int(part) for part in rest.split(",") if part.strip()]
    except ValueError as error:
        raise NestError(repr(text), "its sizes are no numbers", "write gather:ROWS,WIDTH,LOOKUPS") from error
    if len(values) > 3:
        raise NestError(repr(text), f"{len(values)} sizes", "write gather:ROWS,WIDTH,LOOKUPS")
    found = Gather(*(*values, *(100_000, 64, 20_000)[len(values) :]))
    if min(found.rows, found.width, found.lookups) <= 0:
        raise NestError(repr(text), "a size that is not positive", "sizes are positive")
    if found.rows * found.width * 4 > MOST_BYTES // 8 or found.lookups * found.width * 2 > _MOST_ACCESSES:
        raise NestError(repr(text), "more than can be simulated as a trace", "take smaller sizes")
    return found

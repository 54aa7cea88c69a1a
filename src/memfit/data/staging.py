"""Rows read past the page cache into memory of the loader's own: what data larger than memory needs.

Runs of rows are read as pieces that start and end at 4 KiB borders, many in flight (io_uring, else threads), with
O_DIRECT where the file system has it: nothing enters the page cache. Elsewhere the pieces go through the page cache and
are dropped from it afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit import _core
from memfit.data.batch_ring import fresh_memory
from memfit.data.column_file import HEADER_BYTES
from memfit.data.dataset import MappedFile
from memfit.errors import DataError
from memfit.units import align

SECTOR = 4096
DEPTH = 64


@dataclass(frozen=True)
class Staged:
    """Rows in memory: run i of rows starts at row ``starts[i]``, at byte ``targets[i]`` of ``memory``."""

    memory: NDArray[np.uint8]
    starts: NDArray[np.int64]
    targets: NDArray[np.int64]
    row_bytes: int

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows lie in the memory; all must have been staged."""
        run = np.searchsorted(self.starts, rows, side="right") - 1
        return self.targets[run] + (rows - self.starts[run]) * self.row_bytes


def runs_of(rows: NDArray[np.int64], gap: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows as sorted runs [start, stop) of neighbours; up to ``gap`` rows between two may be taken along."""
    ordered = np.unique(rows)
    if not len(ordered):
        return ordered, ordered
    breaks = np.flatnonzero(np.diff(ordered) > 1 + gap)
    starts = ordered[np.concatenate([[0], breaks + 1]).astype(np.int64)]
    stops = ordered[np.concatenate([breaks, [len(ordered) - 1]]).astype(np.int64)] + 1
    return starts, stops


class DirectColumn:
    """One fixed column read past the page cache. ``direct``: whether O_DIRECT is used; ``ring``: whether io_uring is."""

    def __init__(self, file: MappedFile, row_bytes: int) -> None:
        self.file, self.row_bytes = file, row_bytes
        self.ring = _core.ring_here()
        try:
            self.descriptor = os.open(file.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            self.direct = True
            os.preadv(self.descriptor, [fresh_memory(SECTOR).data], 0)
        except OSError:
            if hasattr(self, "descriptor"):
                os.close(self.descriptor)
            self.descriptor, self.direct = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC), False

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def bytes_for(self, runs: int, rows: int) -> int:
        """Memory that so many rows in so many runs need at most."""
        return rows * self.row_bytes + runs * 2 * SECTOR

    def read(self, starts: NDArray[np.int64], stops: NDArray[np.int64], memory: NDArray[np.uint8]) -> Staged:
        """Rows of the runs [starts, stops) into ``memory``.

        Raises:
            DataError: the disk fails, or the file was cut short.
        """
        first = HEADER_BYTES + starts * self.row_bytes
        last = HEADER_BYTES + stops * self.row_bytes
        offsets = first // SECTOR * SECTOR
        lengths = -(-last // SECTOR) * SECTOR - offsets
        places = np.cumsum(lengths) - lengths
        size = HEADER_BYTES + self.file.value_bytes
        piece, error = _core.read_pieces(self.descriptor, offsets, lengths, places, memory, size, DEPTH, self.ring)
        if piece >= 0:
            why = os.strerror(error) if error else "the file was cut short while it was read"
            raise DataError(self.file.path, why, int(offsets[piece]))
        if not self.direct and len(starts):
            os.posix_fadvise(
                self.descriptor, int(offsets.min()), int(last.max() - offsets.min()), os.POSIX_FADV_DONTNEED
            )
        return Staged(memory, starts, places + (first - offsets), self.row_bytes)


def staging_memory(nbytes: int) -> NDArray[np.uint8]:
    """Memory to stage into."""
    return fresh_memory(align(nbytes, SECTOR))

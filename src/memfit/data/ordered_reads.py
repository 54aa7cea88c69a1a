"""Rows in the file's own order, through the page cache, which is given back behind: the fastest way where nothing is shuffled.

The system reads ahead of a reader that it sees go forward in large steps, and a fault of the map for every few pages
would cost more than the copy. So a piece of about 1 MiB is read at a time, into the batch itself where the rows are only
copied, else into a small memory that is still in the processor's cache when they are scaled. One thread reads at a time:
two in one file would look to the system like no order.
"""

from __future__ import annotations

import os
import threading

import numpy as np
from numpy.typing import NDArray

from memfit.data.batch_ring import fresh_memory
from memfit.data.column_file import HEADER_BYTES
from memfit.data.dataset import MappedFile
from memfit.data.gather import Recipe
from memfit.data.page_cache import Behind
from memfit.errors import DataError

PIECE_BYTES = 1 << 20


def piece_rows(row_bytes: int) -> int:
    """Rows that are read at a time."""
    return max(1, PIECE_BYTES // max(row_bytes, 1))


class OrderedColumn:
    """One fixed column read forward. Safe to call from several threads."""

    def __init__(self, file: MappedFile, row_bytes: int) -> None:
        self.file, self.row_bytes = file, row_bytes
        self.descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._turn = threading.Lock()
        self._memory: NDArray[np.uint8] | None = None
        self._behind: Behind | None = None

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def fill(self, start: int, stop: int, recipe: Recipe, out: NDArray[np.uint8]) -> None:
        """Rows [start, stop) into ``out``, as the recipe says.

        Raises:
            DataError: the disk fails, or the file was cut short.
        """
        with self._turn:
            if start == 0 or self._behind is None:
                self._behind = Behind(self.file)
            if recipe.copies:
                self._read(start * self.row_bytes, out[: (stop - start) * self.row_bytes])
            else:
                self._through_memory(start, stop, recipe, out)
            self._behind.passed(stop * self.row_bytes)
            if stop * self.row_bytes >= self.file.value_bytes:
                self._behind.end()

    def _through_memory(self, start: int, stop: int, recipe: Recipe, out: NDArray[np.uint8]) -> None:
        step = piece_rows(self.row_bytes)
        if self._memory is None:
            self._memory = fresh_memory(step * self.row_bytes)
        for first in range(start, stop, step):
            count = min(step, stop - first)
            self._read(first * self.row_bytes, self._memory[: count * self.row_bytes])
            made = out[(first - start) * recipe.made_bytes : (first - start + count) * recipe.made_bytes]
            recipe.run(self._memory, np.arange(count, dtype=np.int64) * self.row_bytes, made)

    def _read(self, at: int, into: NDArray[np.uint8]) -> None:
        done = 0
        while done < len(into):
            place = HEADER_BYTES + at + done
            try:
                read = os.preadv(self.descriptor, [into[done : done + PIECE_BYTES].data], place)
            except OSError as error:
                raise DataError(self.file.path, error.strerror or str(error), place) from error
            if read == 0:
                raise DataError(self.file.path, "the file was cut short while it was read", place)
            done += read

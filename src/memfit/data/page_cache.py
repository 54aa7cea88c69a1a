"""What of a file lies in the page cache, and giving it back behind a reader.

Behind a sequential reader pages are dropped with a lag of 32 MiB: the system's own read-ahead and its large pages reach
past the reader, and dropping right behind it leaves most of them there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from types import TracebackType

import numpy as np

from memfit.data.column_file import HEADER_BYTES
from memfit.data.dataset import MappedFile

LAG_BYTES = 32 << 20
_STEP = 8 << 20


def resident_bytes(file: MappedFile) -> int:
    """Bytes of the file's values that are in the page cache now. Cost: a byte per page, read by ``mincore``."""
    if not file.value_bytes:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    start = file.bytes.ctypes.data
    pages = -(-file.value_bytes // page)
    held = 0
    step = 1 << 20
    for first in range(0, pages, step):
        count = min(step, pages - first)
        found = np.empty(count, np.uint8)
        if (
            libc.mincore(
                ctypes.c_void_p(start + first * page), ctypes.c_size_t(count * page), ctypes.c_void_p(found.ctypes.data)
            )
            != 0
        ):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file.path)
        held += int((found & 1).sum())
    return min(held * page, file.value_bytes)


def cached_share(file: MappedFile) -> float:
    """Share of the values in the page cache."""
    return resident_bytes(file) / file.value_bytes if file.value_bytes else 1.0


def forget(file: MappedFile, start: int = 0, stop: int | None = None) -> None:
    """Give back the pages of values [start, stop) (bytes): first the map's, then the cache's."""
    stop = file.value_bytes if stop is None else min(stop, file.value_bytes)
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = stop - first
    if stop < file.value_bytes:
        length = length // mmap.PAGESIZE * mmap.PAGESIZE
    if length <= 0 or file.map is None:
        return
    file.map.madvise(mmap.MADV_DONTNEED, HEADER_BYTES + first, length)
    os.posix_fadvise(file.descriptor, HEADER_BYTES + first, length, os.POSIX_FADV_DONTNEED)


class Behind:
    """Drops what a sequential reader has passed. A file that was in the cache already is left there."""

    def __init__(self, file: MappedFile, keep_cached: bool = True) -> None:
        self.file, self.dropped = file, 0
        self.active = not (keep_cached and cached_share(file) > 0.9)
        if self.active and file.map is not None:
            file.map.madvise(mmap.MADV_SEQUENTIAL)

    def passed(self, position: int) -> None:
        """The reader has passed ``position`` (bytes of values)."""
        stop = position - LAG_BYTES
        if self.active and stop - self.dropped >= _STEP:
            # Large pages over the last border did not go with either side: the last step is given back once more.
            forget(self.file, max(0, self.dropped - _STEP), stop)
            self.dropped = stop // mmap.PAGESIZE * mmap.PAGESIZE

    def end(self) -> None:
        """The reader is through: nothing of the file stays."""
        if self.active:
            forget(self.file)
            if self.file.map is not None:
                self.file.map.madvise(mmap.MADV_NORMAL)

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

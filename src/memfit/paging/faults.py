"""What the system's own pager did: page faults of this process, and which pages of a mapping are in memory.

A *minor* fault found its page in memory (first touch, page cache); a *major* one had to read it. Counts are of the
process since it began, measured by the kernel (getrusage); resident pages are asked of it (mincore), which counts the
page cache's pages of a mapped file, touched by this process or not.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE
_SLICE = 1 << 18
"""Pages asked about at once."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Measured. ``resident_pages`` of ``mapped_pages`` (of ``page_bytes`` each): 0 where no mapping was named.

    Subtracting an earlier one leaves the faults in between, and the resident pages of the later.
    """

    minor: int
    major: int
    resident_pages: int = 0
    mapped_pages: int = 0
    page_bytes: int = PAGE

    def __sub__(self, earlier: Faults) -> Faults:
        return Faults(
            self.minor - earlier.minor,
            self.major - earlier.major,
            self.resident_pages,
            self.mapped_pages,
            self.page_bytes,
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes of the mapping that are in memory, in whole pages."""
        return self.resident_pages * self.page_bytes


def faults(mapping: Any = None) -> Faults:
    """Page faults of this process so far, and what of ``mapping`` is in memory.

    >>> before = faults()
    >>> touched = bytearray(64 << 20)
    >>> (faults() - before).minor > 0
    True

    Args:
        mapping: anything with a buffer (an mmap, a NumPy array or memmap, a memoryview), or (address, bytes).

    Raises:
        OSError: the range is not mapped.
        TypeError: ``mapping`` is no contiguous buffer.
    Cost: 1 us, and about 10 ns a page of the mapping. Linux.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    if mapping is None:
        return Faults(usage.ru_minflt, usage.ru_majflt)
    address, nbytes = mapping if isinstance(mapping, tuple) else _range(mapping)
    start = address - address % PAGE
    pages = -(-(address + nbytes - start) // PAGE) if nbytes else 0
    return Faults(usage.ru_minflt, usage.ru_majflt, _resident(start, pages), pages)


def _range(mapping: Any) -> tuple[int, int]:
    """Address and bytes of a buffer, read-only ones too, without touching it."""
    view = memoryview(mapping)
    if not view.contiguous:
        raise TypeError("the mapping's buffer is not contiguous; name its base instead")
    if not view.nbytes:
        return 0, 0
    array = np.frombuffer(view.cast("B"), np.uint8)
    return int(array.ctypes.data), int(array.nbytes)


@cache
def _mincore() -> Any:
    call = ctypes.CDLL(None, use_errno=True).mincore
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    call.restype = ctypes.c_int
    return call


def _resident(start: int, pages: int) -> int:
    found = 0
    for first in range(0, pages, _SLICE):
        count = min(_SLICE, pages - first)
        answer = np.zeros(count, np.uint8)
        if _mincore()(start + first * PAGE, count * PAGE, answer.ctypes.data):
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)}: {pages * PAGE} bytes at {start:#x} are not all mapped")
        found += int((answer & 1).sum())
    return found

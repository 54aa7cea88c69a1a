"""Frames of memory that move along a reserved line of addresses, and are never more than a given number.

    addresses   |..|F1|..|..|F2|F3|..|..|..|        . reserved: no memory, touching it ends the process
    move 1 -> 7 |..|..|..|..|F2|F3|..|F1|..|        the pages move, nothing is copied, zeroed or faulted

The kernel moves the page table's entries (``mremap`` with ``MREMAP_DONTUNMAP``, Linux 5.7): 14 us for a huge page. Where it
cannot, the old frame is given back and a new one taken. Frames are private memory of this process, so every limit on memory
counts them (``RLIMIT_DATA`` too); the reserved line counts for ``RLIMIT_AS`` alone.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

from memfit.runtime.weight_layout import LARGEST_CHUNK

_NONE, _READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
_RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
_FIXED = 0x10
_MAYMOVE, _MOVE_FIXED, _DONTUNMAP = 1, 2, 4
_HUGEPAGE = 14
_FAILED = ctypes.c_void_p(-1).value


def _system() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype = library.mremap.restype = pointer
    library.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    library.mremap.argtypes = [pointer, size, size, number, pointer]
    library.mprotect.argtypes = library.madvise.argtypes = [pointer, size, number]
    library.munmap.argtypes = [pointer, size]
    return library


class PageFrames:
    """At most ``frames`` chunks of memory on a line of ``chunks``. For one thread at a time.

    Raises:
        MemoryError: the line cannot be reserved, or the system has no memory for a frame.
    """

    def __init__(self, chunks: int, frames: int, chunk_bytes: int, *, moves: bool = True) -> None:
        """Reserve the line. ``moves``: whether frames may move by ``mremap`` (off: always freed and taken anew)."""
        self.chunks, self.frames, self.chunk_bytes = chunks, frames, chunk_bytes
        self.taken = 0
        self._moves = moves and sys.platform == "linux"
        self._system = _system()
        self._reserved = chunks * chunk_bytes + LARGEST_CHUNK
        address = self._system.mmap(None, self._reserved, _NONE, _RESERVED, -1, 0)
        if address == _FAILED or address is None:
            raise MemoryError(f"{self._reserved} bytes of address space could not be reserved ({_last_error()})")
        self._mapped: int = address
        self.base = -(-address // LARGEST_CHUNK) * LARGEST_CHUNK
        if chunk_bytes % LARGEST_CHUNK == 0:
            self._system.madvise(self.base, chunks * chunk_bytes, _HUGEPAGE)

    def address(self, chunk: int) -> int:
        """Where a chunk begins."""
        place: int = self.base + chunk * self.chunk_bytes
        return place

    def place(self, chunk: int) -> None:
        """Take a frame that nobody has yet for ``chunk``.

        Raises:
            MemoryError: all frames are taken, or the system has no memory.
        """
        if self.taken >= self.frames:
            raise MemoryError(f"all {self.frames} frames are taken")
        if self._system.mprotect(self.address(chunk), self.chunk_bytes, _READ_WRITE):
            raise MemoryError(f"no memory for a frame of {self.chunk_bytes} bytes ({_last_error()})")
        self.taken += 1

    def move(self, old: int, new: int) -> None:
        """Move the frame of chunk ``old`` to ``new``; what it held is lost. Raises as ``place``."""
        size = self.chunk_bytes
        if self._moves:
            there = self._system.mremap(
                self.address(old), size, size, _MAYMOVE | _MOVE_FIXED | _DONTUNMAP, self.address(new)
            )
            if there == self.address(new):
                self._system.mprotect(self.address(old), size, _NONE)
                return
            self._moves = ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS)
        self.drop(old)
        self.place(new)

    def drop(self, chunk: int) -> None:
        """Give the frame of ``chunk`` back to the system."""
        if self._system.mmap(self.address(chunk), self.chunk_bytes, _NONE, _RESERVED | _FIXED, -1, 0) == _FAILED:
            raise MemoryError(f"a frame could not be given back ({_last_error()})")
        if self.chunk_bytes % LARGEST_CHUNK == 0:
            self._system.madvise(self.address(chunk), self.chunk_bytes, _HUGEPAGE)
        self.taken -= 1

    def view(self, chunk: int) -> memoryview:
        """The bytes of a chunk that has a frame, to be written."""
        return memoryview((ctypes.c_ubyte * self.chunk_bytes).from_address(self.address(chunk))).cast("B")

    def close(self) -> None:
        """Give everything back; no address of the line may be used afterwards."""
        if self._mapped:
            self._system.munmap(self._mapped, self._reserved)
            self._mapped = 0


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())

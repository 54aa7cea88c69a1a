"""Batch buffers used again and again: a few slots, aligned, on large pages, touched once.

A fresh buffer costs its page faults at each batch, which is more than the whole gather. A slot is used again as soon as
nobody holds an array over it, which Python's reference counts tell exactly: who keeps batches keeps their memory, and
finds it unchanged; the loader then makes further slots, and frees them when they come back.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.units import align

_LARGE_PAGE = 2 << 20


def fresh_memory(nbytes: int) -> NDArray[np.uint8]:
    """Anonymous memory at a page's start, on large pages where the system has them; touched, so that it is there."""
    # Python's default is memory shared with children, which systems rarely give large pages.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapped = mmap.mmap(-1, max(align(nbytes, mmap.PAGESIZE), mmap.PAGESIZE), flags=private)
    if nbytes >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    memory: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)
    memory[:: mmap.PAGESIZE] = 0
    return memory


class Slot:
    """The memory of one batch; ``parts``: bytes of each column."""

    def __init__(self, parts: dict[str, int], memory: NDArray[np.uint8] | None = None) -> None:
        starts, at = {}, 0
        for name, nbytes in parts.items():
            starts[name] = at
            at += align(nbytes, 64)
        self.memory = fresh_memory(at) if memory is None else memory
        self.parts = {name: (starts[name], nbytes) for name, nbytes in parts.items()}
        self._shaped: dict[str, NDArray[Any]] = {}
        self._idle = sys.getrefcount(self.memory)

    @property
    def held(self) -> bool:
        """Whether anybody has an array over this memory."""
        return sys.getrefcount(self.memory) > self._idle

    def bytes_of(self, name: str, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes of a column's part, as an array that keeps the slot held."""
        start, _ = self.parts[name]
        return self.memory[start : start + nbytes]

    def shaped(self, name: str, dtype: str, width: int) -> NDArray[Any]:
        """A column's whole part as rows of ``width``, made once; it does not hold the slot, a slice of it does."""
        found = self._shaped.get(name)
        if found is None:
            before = sys.getrefcount(self.memory)
            found = self.bytes_of(name, self.parts[name][1]).view(dtype).reshape(-1, width)
            self._shaped[name] = found
            self._idle += sys.getrefcount(self.memory) - before
        return found


class Ring:
    """Slots of one size. ``slots``: how many are kept; more are made while all are held."""

    def __init__(self, parts: dict[str, int], slots: int, allocate: Any = None) -> None:
        self.parts, self.kept, self._allocate = parts, slots, allocate
        self.slot_bytes = sum(align(nbytes, 64) for nbytes in parts.values())
        self._slots: list[Slot] = []

    @property
    def bytes(self) -> int:
        """Bytes of the slots that are kept."""
        return self.kept * align(self.slot_bytes, mmap.PAGESIZE)

    def take(self) -> Slot:
        """A slot that nobody holds. From one thread only."""
        for slot in self._slots:
            if not slot.held:
                if len(self._slots) > self.kept:
                    self._trim(slot)
                return slot
        made = Slot(self.parts, self._allocate(self.slot_bytes) if self._allocate is not None else None)
        self._slots.append(made)
        return made

    def _trim(self, chosen: Slot) -> None:
        spare = [slot for slot in self._slots if slot is not chosen and not slot.held]
        for slot in spare[: len(self._slots) - self.kept]:
            self._slots.remove(slot)

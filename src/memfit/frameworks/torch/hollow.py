"""Hollow tensors: CPU tensors with every property of real ones, over memory that is never touched.

PyTorch decides a lot by device, layout and dispatch key (which attention, which recurrent kernel, whether a gradient is
stolen or copied). A meta or fake tensor answers such questions differently from the CPU tensor that it stands for. A
hollow tensor *is* a CPU tensor: its storage points into one reserved range of address space that no kernel writes to::

    address space   |<------------------- reserved, nothing committed ------------------->|
    storages             [ a: 4 MB )[ b: 12 GB                     )[ c: 64 B )   ...        bump pointer, wraps around

Storages die as real ones do, when the last tensor goes; a range may be handed out again while an old one still lives,
which does no harm as nothing is stored. A read sees zeros. Cost: about 3 us for a tensor, no memory of any size.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

_LARGEST = 1 << 46
_SMALLEST = 1 << 33
_CPU = torch.device("cpu")
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class _Range:
    """One reserved range of address space and a bump pointer into it."""

    def __init__(self) -> None:
        size, access = _LARGEST, mmap.PROT_READ | mmap.PROT_WRITE
        while True:
            try:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
                self._map = mmap.mmap(-1, size, flags=flags, prot=access)
                break
            except (OSError, ValueError, OverflowError):
                if size > _SMALLEST:
                    size //= 2
                elif access & mmap.PROT_WRITE:  # a limit on private memory counts what could be written, used or not
                    size, access = _LARGEST, mmap.PROT_READ
                else:
                    raise
        self.size = size
        self.base = np.frombuffer(self._map, np.uint8).ctypes.data
        self._cursor = 0

    def take(self, nbytes: int) -> int:
        """An address with at least ``nbytes`` of range after it (MemoryError where the whole range is smaller)."""
        if nbytes > self.size:
            raise MemoryError(f"one storage of {nbytes} bytes; {self.size} bytes of address space could be reserved")
        if self._cursor + nbytes > self.size:
            self._cursor = 0
        address = self.base + self._cursor
        self._cursor += -(-max(nbytes, 1) // 64) * 64
        return address


@cache
def _range() -> _Range:
    return _Range()


def hollow_storage(nbytes: int) -> torch.UntypedStorage:
    """A CPU storage of ``nbytes`` bytes without memory behind it."""
    return torch._C._construct_storage_from_data_pointer(_range().take(nbytes), _CPU, nbytes)


def hollow_tensor(
    storage: torch.UntypedStorage, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype, offset: int = 0
) -> torch.Tensor:
    """A tensor over ``storage``; ``offset`` in elements. Call it with no dispatch mode active."""
    return torch.empty(0, dtype=dtype).set_(storage, offset, shape, stride)


def storage_bytes(shape: Sequence[int], stride: Sequence[int], itemsize: int, offset: int = 0) -> int:
    """Bytes that a storage needs to hold such a tensor.

    >>> storage_bytes((2, 3), (3, 1), 4), storage_bytes((0, 3), (3, 1), 4), storage_bytes((2, 3), (0, 1), 4)
    (24, 0, 12)
    """
    last = offset
    for length, step in zip(shape, stride, strict=True):
        if length == 0:
            return 0
        last += (length - 1) * step
    return (last + 1) * itemsize


def hollow_like(tensor: torch.Tensor) -> torch.Tensor:
    """A hollow tensor with the layout of ``tensor`` (strided, on the CPU) and a storage as large as its storage."""
    storage = hollow_storage(tensor.untyped_storage().nbytes())
    return hollow_tensor(storage, tensor.shape, tensor.stride(), tensor.dtype, tensor.storage_offset())

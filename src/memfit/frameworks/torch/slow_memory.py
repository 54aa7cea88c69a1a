"""Slow memory for tensors that wait: one unlinked temporary file per fitted step, and file-mapped optimizer state.

``$MEMFIT_OFFLOAD`` names the folder (default: the system's for temporary files). Bytes go out with one positioned write
and come back with one read into fresh memory; ``prefetch`` asks the kernel to read ahead, so that the read itself finds
the bytes in its cache while no tensor memory is taken yet.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import torch


class SlowMemory:
    """A file of slots. Not for several threads at once."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="memfit-offload-", dir=os.environ.get("MEMFIT_OFFLOAD"))  # noqa: SIM115
        self.slots: dict[int, tuple[int, int]] = {}
        self.end = 0

    def save(self, slot: int, tensor: torch.Tensor) -> None:
        """Write the storage of ``tensor`` (contiguous bytes on the CPU) to ``slot``."""
        view = _bytes_of(tensor)
        if slot not in self.slots:
            self.slots[slot] = (self.end, len(view))
            self.end += -(-len(view) // 4096) * 4096
        start, length = self.slots[slot]
        done = 0
        while done < length:
            done += os.pwrite(self.file.fileno(), view[done:], start + done)

    def load(self, slot: int, like: torch.Tensor) -> torch.Tensor:
        """A fresh tensor with the bytes of ``slot`` and the layout of ``like`` (any tensor, fake ones too)."""
        start, length = self.slots[slot]
        made = torch.empty(length, dtype=torch.uint8)
        view = memoryview(made.numpy())
        done = 0
        while done < length:
            got = os.preadv(self.file.fileno(), [view[done:]], start + done)
            if not got:
                raise OSError("the offload file ended early; is its disk full?")
            done += got
        return made.view(like.dtype).as_strided(tuple(like.shape), tuple(like.stride()), like.storage_offset())

    def prefetch(self, slot: int) -> None:
        """Tell the kernel that ``slot`` is read soon."""
        start, length = self.slots[slot]
        os.posix_fadvise(self.file.fileno(), start, length, os.POSIX_FADV_WILLNEED)


def transfer_speed() -> float:
    """Bytes per second of CPU time that a save or load moves here: the least of three rounds of 8 MiB."""
    memory = SlowMemory()
    tensor = torch.zeros(8 * 2**20, dtype=torch.uint8)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        memory.save(0, tensor)
        memory.load(0, tensor)
        best = min(best, time.process_time() - start)
    memory.file.close()
    return 2 * tensor.numel() / max(best, 1e-6)


def map_state(state: dict[str, Any]) -> None:
    """Move the tensors of one parameter's optimizer state (1 KiB and more) into file-mapped memory, in place, once."""
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() >= 1024 and not _is_mapped(value):
            state[key] = _mapped_copy(value)


def _is_mapped(value: torch.Tensor) -> bool:
    return bool(getattr(value, "_memfit_mapped", False))


def _mapped_copy(value: torch.Tensor) -> torch.Tensor:
    nbytes = value.untyped_storage().nbytes()
    folder = os.environ.get("MEMFIT_OFFLOAD") or tempfile.gettempdir()
    handle, path = tempfile.mkstemp(prefix="memfit-state-", dir=folder)
    try:
        os.ftruncate(handle, nbytes)
        flat = torch.from_file(path, shared=True, size=nbytes, dtype=torch.uint8)
    finally:
        os.close(handle)
        os.unlink(path)
    mapped = flat.view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())
    mapped.copy_(value)
    mapped._memfit_mapped = True  # type: ignore[attr-defined]
    return mapped


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    raw = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())  # type: ignore[call-overload]
    return memoryview(raw.numpy())

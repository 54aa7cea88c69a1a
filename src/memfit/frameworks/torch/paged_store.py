"""Two stores behind paged weights: one that records the order of use without any weights, and one that serves them.

The recorder runs the model once on the tape (``tape_mode``), where nothing is computed and no memory is taken: it notes
which weights each operation takes, and the bytes of everything else that lives then. The server lends tensors over the
pager's memory and holds a weight until nobody shows it any more.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memfit.errors import MemfitError
from memfit.frameworks.torch.hollow import hollow_storage, hollow_tensor
from memfit.frameworks.torch.steps import call_model
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.safetensors_header import StoredTensor
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_pager import WeightPager

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""Dtypes of the format that tensors of PyTorch have."""

_STATM = Path("/proc/self/statm")
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class DryPass:
    """One pass without weights. ``order``: weights of each access; ``live``: bytes of everything else, at most; projected.

    ``needs``: the weights that must be there at each access: its own, and those that the program still shows or uses.
    """

    order: tuple[tuple[int, ...], ...]
    live: int
    needs: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()


class UseRecorder:
    """A store that lends hollow tensors and writes down who asked."""

    def __init__(self, tensors: Sequence[StoredTensor]) -> None:
        self.tensors = tensors
        self.order: list[tuple[int, ...]] = []
        self.needs: list[tuple[int, ...]] = []
        self._open: list[tuple[int, ...]] = []
        self._shown: set[int] = set()
        self._alone: dict[int, int] = {}
        self._made: dict[int, torch.Tensor] = {}

    def lend(self, weights: tuple[int, ...], use: Callable[[dict[int, torch.Tensor]], Any]) -> Any:
        """Note ``weights`` and run ``use`` on hollow tensors."""
        self._shown = {weight for weight in self._shown if _holders(self._made[weight]) > self._alone[weight]}
        self.order.append(weights)
        self.needs.append(tuple(sorted({*weights, *self._shown, *(w for held in self._open for w in held)})))
        self._open.append(weights)
        try:
            return use({weight: self._hollow(weight).detach() for weight in weights})
        finally:
            self._open.pop()
            self._shown.update(weights)

    def rows(self, weight: int, ids: torch.Tensor) -> torch.Tensor:
        """Rows that nobody reads; a lookup takes no weight."""
        stored = self.tensors[weight]
        return torch.empty((ids.numel(), stored.shape[1]), dtype=DTYPES[stored.dtype])

    def _hollow(self, weight: int) -> torch.Tensor:
        if weight not in self._made:
            stored = self.tensors[weight]
            with torch.utils._python_dispatch._disable_current_modes():
                strides = [1]
                for extent in reversed(stored.shape[1:]):
                    strides.insert(0, strides[0] * extent)
                storage = hollow_storage(stored.nbytes)
                self._made[weight] = hollow_tensor(
                    storage, stored.shape, strides[: len(stored.shape)], DTYPES[stored.dtype]
                )
                self._alone[weight] = _holders(self._made[weight])
        return self._made[weight]

    def record(self, model: Any, inputs: Any) -> DryPass:
        """Run ``model`` on ``inputs`` once, on the tape.

        Raises:
            Exception: whatever the model raises.
        """
        tape = Tape()
        try:
            with torch.no_grad(), tape:
                tape.begin("forward")
                output = call_model(model, inputs)
                del output
        finally:
            tape.stop()
            self._made = {}
        deltas = np.array([delta for _, delta, _ in tape.events], np.int64)
        live = int(np.cumsum(deltas).max()) if len(deltas) else 0
        return DryPass(tuple(self.order), live, tuple(self.needs), tuple(tape.notes))


class WeightServer:
    """A store over a pager. Tensors are made once, over addresses that never change."""

    def __init__(self, pager: WeightPager, tensors: Sequence[StoredTensor], base: int = 0) -> None:
        """``base``: private memory of the process (bytes) before it, for ``private``."""
        self.pager, self.tensors, self.base = pager, tensors, base
        self.private = 0
        self._statm = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC) if _STATM.exists() else -1
        self._real = [self._tensor(weight) for weight in range(len(tensors))]
        self._alone = [_holders(tensor) for tensor in self._real]
        self._versions = [tensor._version for tensor in self._real]

    def _tensor(self, weight: int) -> torch.Tensor:
        stored = self.tensors[weight]
        dtype = DTYPES[stored.dtype]
        with torch.inference_mode(False):
            if not stored.nbytes:
                return torch.empty(stored.shape, dtype=dtype)
            address = self.pager.memory.base + self.pager.layout.begin[weight]
            storage = torch._C._construct_storage_from_data_pointer(address, torch.device("cpu"), stored.nbytes)
            flat = torch.empty(0, dtype=dtype).set_(storage)  # type: ignore[call-overload]
            return flat.view(stored.shape)

    def lend(self, weights: tuple[int, ...], use: Callable[[dict[int, torch.Tensor]], Any]) -> Any:
        """Run ``use`` on the real tensors. Raises as ``WeightPager.borrow``; MemfitError where it writes into one."""
        chunks = self.pager.borrow(weights)
        try:
            lent = {weight: self._real[weight].detach() for weight in weights}
            result = use(lent)
            self._measure()
            written = [weight for weight in weights if lent[weight]._version != self._versions[weight]]
            lent.clear()
        finally:
            alone = [(self._real[weight], self._alone[weight]) for weight in weights]
            self.pager.release(chunks, lambda: all(_holders(tensor) <= count for tensor, count in alone))
        if written:
            error = MemfitError(
                f"weight {self.tensors[written[0]].name!r} was written in place, but paged weights are read-only; page the "
                "model again, and change the file instead"
            )
            self.pager.fail(error)
            raise error
        return result

    def close(self) -> None:
        """Close the pager; memory that a view of a weight still shows stays, as reading it would end the process."""
        shown = any(_holders(tensor) > alone for tensor, alone in zip(self._real, self._alone, strict=True))
        self.pager.close(keep_memory=shown)
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _measure(self) -> None:
        """Growth of the process's private memory at its largest so far: measured whenever an operation with weights ends."""
        if self._statm < 0:
            return
        resident, shared = os.pread(self._statm, 128, 0).split()[1:3]
        self.private = max(self.private, (int(resident) - int(shared)) * _PAGE - self.base)

    def rows(self, weight: int, ids: torch.Tensor) -> torch.Tensor:
        """The rows, read from the file; neighbours in one read."""
        stored = self.tensors[weight]
        count, width = stored.shape
        if ids.numel() and (int(ids[0]) < 0 or int(ids[-1]) >= count):
            raise IndexError(f"index out of range: {int(ids[0])}..{int(ids[-1])} in a table of {count} rows")
        rows = torch.empty((ids.numel(), width), dtype=DTYPES[stored.dtype])
        if not rows.numel():
            return rows
        self.pager.read_rows(stored, self.pager.layout.sources[weight][0], ids.numpy(), _bytes_of(rows))
        return rows


def _holders(tensor: torch.Tensor) -> int:
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.view(torch.uint8).reshape(-1).numpy())


def read_tensor(files: WeightFiles, name: str) -> torch.Tensor:
    """A tensor of the files, in memory of its own.

    Raises:
        WeightFileError: as ``WeightFiles.read_into``.
    """
    file, stored = files.tensors[name]
    made = torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
    if stored.nbytes:
        flat = torch.empty(0, dtype=torch.uint8).set_(made.untyped_storage())  # type: ignore[call-overload]
        files.read_into(memoryview(flat.numpy()), file, stored.begin)
    return made

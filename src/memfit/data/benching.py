"""A loader over a data set against what this machine can do in the same minute: memory traffic and disk; what binds."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass

import numpy as np

from memfit.data.batch_ring import fresh_memory
from memfit.data.dataset import Dataset
from memfit.data.loader import Loader
from memfit.data.page_cache import forget
from memfit.data.staging import DEPTH, SECTOR, DirectColumn
from memfit.machine.process import process_bytes

_COPIED = 256 << 20


@dataclass(frozen=True)
class Bench:
    """Measured, except ``limit_*``, which follow from measured bandwidths. Bytes are those read and written by a batch."""

    samples_per_second: float
    samples_per_cpu_second: float
    bytes_per_second: float
    limit_bytes_per_second: float
    memory_bytes_per_second: float
    disk_bytes_per_second: float | None
    share: float
    binds: str
    access: str
    peak_resident: int
    randomness: float

    def to_json(self) -> dict[str, object]:
        """The figures as plain data."""
        return asdict(self)


def memory_traffic() -> float:
    """Bytes read and written per second by a copy of 256 MiB on one thread, the best of 5."""
    source, target = fresh_memory(_COPIED), fresh_memory(_COPIED)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        target[:] = source
        best = min(best, time.perf_counter() - began)
    return 2 * _COPIED / best


def disk_bandwidth(data: Dataset, name: str, row_bytes: int, seconds: float = 1.0) -> float:
    """Bytes per second of random direct reads of pieces like a row (at least 128 KiB) of a column's file."""
    file = data.file(name)
    column = DirectColumn(file, 1)
    piece = min(max(row_bytes, 128 << 10), max(file.value_bytes, 1))
    memory = fresh_memory(DEPTH * (piece + 2 * SECTOR))
    places = np.random.default_rng(0)
    read, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        starts = np.unique(places.integers(0, max(1, (file.value_bytes - piece) // piece + 1), DEPTH)) * piece
        column.read(starts, np.minimum(starts + piece, file.value_bytes), memory)
        read += len(starts) * piece
    return read / (time.perf_counter() - began)


def bench(loader: Loader, epochs: int = 3, cold: bool = False, most_seconds: float = 60.0) -> Bench:
    """Run epochs of a loader and hold the best against the machine; ``cold``: the files' pages are dropped before each."""
    data, names = loader.dataset, list(loader._plans)
    fixed = {n: plan.recipe for n, plan in loader._plans.items() if plan is not None}
    read = sum(recipe.row_bytes for recipe in fixed.values())
    written = sum(recipe.made_bytes for recipe in fixed.values())
    best, cheapest, began = float("inf"), float("inf"), time.perf_counter()
    samples = 0
    for _ in range(epochs):
        if cold:
            for name in names:
                os.fsync(data.file(name).descriptor)
                forget(data.file(name))
        start, cpu, samples = time.perf_counter(), time.process_time(), 0
        for batch in loader:
            values = batch if isinstance(batch, tuple) else tuple(batch.values())
            samples += len(values[0])
        best, cheapest = min(best, time.perf_counter() - start), min(cheapest, time.process_time() - cpu)
        if time.perf_counter() - began > most_seconds:
            break
    memory = memory_traffic()
    from_disk = cold or loader.access.way == "direct"
    disk = disk_bandwidth(data, max(fixed, key=lambda n: fixed[n].row_bytes), read) if from_disk and fixed else None
    by_memory = memory / max(read + written, 1)
    by_disk = disk / max(read, 1) if disk is not None else float("inf")
    rate, limit = samples / best, min(by_memory, by_disk)
    share = rate / limit
    binds = "the disk" if by_disk < by_memory else "memory traffic"
    if share < 0.5:
        binds = "the loader's own work (batches too small, steps in Python, or other programs' load)"
    return Bench(
        rate, samples / max(cheapest, 1e-9), rate * (read + written), limit * (read + written), memory, disk, share, binds,
        loader.access.way, process_bytes("VmHWM") or 0, loader.randomness,
    )  # fmt: skip


__all__ = ["Bench", "bench", "disk_bandwidth", "memory_traffic"]

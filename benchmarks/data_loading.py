"""Loaders, statistics, scaling and tokens: memfit and what else installs here, sums checked, against this machine's limits.

    python benchmarks/data_loading.py [FOLDER [SECTION ...]]    FOLDER: where some GB may lie (default: a temporary one)

Images: uint8 3x224x224, shuffled, batch 64, to float32 normalised, warm. *Limit*: the rows per second that a copy's memory
traffic allows for the bytes read and written; *written*: that stores past the caches allow. CPU time counts children.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers.data_loaders import BATCH, MEAN, PEERS, STD
from record import write

from memfit.data import Dataset, Loader, StandardScaler, TokenLoader, cast, convert, normalize
from memfit.data.benching import memory_traffic
from memfit.data.column_file import HEADER_BYTES
from memfit.data.moments import Moments
from memfit.data.order import Order, distinct_share
from memfit.data.page_cache import forget, resident_bytes
from memfit.data.schema import Column
from memfit.data.staging import DirectColumn, staging_memory
from memfit.machine.probe import measure_machine

ROWS, EPOCHS = 4000, 4


def cpu() -> float:
    """Seconds of this process and of children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def epochs(epoch: Callable[[], Any], check: np.ndarray[Any, Any] | None, times: int = EPOCHS) -> dict[str, Any]:
    """Best and median rows per second, rows per CPU second; the first epoch's sums are compared."""
    total, seen = np.zeros(3), 0
    for batch in epoch():
        values = np.asarray(batch, np.float32) if check is not None else np.empty((len(batch), 0))
        seen += len(values)
        if check is not None:
            total += values.sum(axis=(0, 2, 3), dtype=np.float64)
    if seen != ROWS or (check is not None and not np.allclose(total, check, rtol=1e-3, atol=abs(check).max() * 1e-4)):
        return {"wrong": f"{seen} rows, sums {total.tolist()} where {None if check is None else check.tolist()}"}
    del values, batch
    walls, costs = [], []
    for _ in range(times):
        gc.collect()
        began, used = time.perf_counter(), cpu()
        for batch in epoch():
            batch.reshape(-1)[:: 1 << 16].sum()
        walls.append(time.perf_counter() - began)
        costs.append(cpu() - used)
        del batch
        if sum(walls) > 25:
            break
    return {
        "rows_per_second": ROWS / min(walls), "median": ROWS / statistics.median(walls),
        "rows_per_cpu_second": ROWS / min(costs),
        "epochs": len(walls),
    }  # fmt: skip


def prepare(folder: Path) -> None:
    rng = np.random.default_rng(0)
    if not (folder / "images.npy").exists():
        np.save(folder / "images.npy", rng.integers(0, 256, (ROWS, 3, 224, 224), dtype=np.uint8))
    if not (folder / "images.set").exists():
        convert(folder / "images.npy", folder / "images.set")


def images(folder: Path) -> dict[str, Any]:
    stored = np.load(folder / "images.npy", mmap_mode="r")
    sums = np.zeros(3)
    for part in np.array_split(stored, 20):
        sums += part.sum(axis=(0, 2, 3), dtype=np.float64)
    wanted = (sums - ROWS * 224 * 224 * MEAN.reshape(3)) / STD.reshape(3)
    data = Dataset(folder / "images.set")
    steps = [normalize(MEAN.reshape(3), STD.reshape(3))]
    table: dict[str, Any] = {}
    copies = [memory_traffic()]  # before, between and after: a neighbour's load is in some of them
    for threads in (0, 1, 2):
        for kind in ("float32", "bfloat16", "float16"):
            loader = Loader(
                data, BATCH, [*steps, cast(kind)], shuffle=True, threads=threads, access="mapped", tuples=True
            )
            check = None if kind == "bfloat16" else wanted
            table[f"memfit {kind}, {threads} threads"] = epochs(lambda loader=loader: (b for (b,) in loader), check)
            loader.close()
        copies.append(memory_traffic())
    for name, make in PEERS.items():
        try:
            table[name] = epochs(make(folder), wanted, 2)
        except ImportError as error:
            table[name] = {"absent": str(error)}
        except Exception as error:
            table[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
        print(name, table[name], flush=True)
    copies.append(memory_traffic())
    traffic = max(copies)
    limit = traffic / (5 * 150528)
    for row in table.values():
        if "rows_per_second" in row:
            row["percent_of_copy_traffic"] = 100 * row["rows_per_second"] / limit
    return {"table": table, "copy_traffic_bytes_per_second": traffic, "copies": copies, "limit_rows_per_second": limit}


def cold(folder: Path) -> dict[str, Any]:
    """The same images with nothing in the page cache at the start of each epoch."""
    data = Dataset(folder / "images.set")
    file = data.file("images")
    steps = [normalize(MEAN.reshape(3), STD.reshape(3))]
    table = {}
    for name, way in (("memfit direct", "direct"), ("memfit mapped", "mapped")):
        loader = Loader(data, BATCH, steps, shuffle=True, access=way, threads=2, ahead=3, tuples=True)
        rates = []
        for _ in range(3):
            forget(file)
            began = time.perf_counter()
            for (batch,) in loader:
                batch.reshape(-1)[:: 1 << 16].sum()
            rates.append(ROWS / (time.perf_counter() - began))
        table[name] = {"rows_per_second": max(rates), "page_cache_left": resident_bytes(file), "memory": loader.memory}
        loader.close()
    for name in ("torch DataLoader, a row at a time", *COLD):
        try:
            epoch = PEERS[name](folder)
            drop_all(folder)
            began, seen = time.perf_counter(), 0
            for batch in epoch():
                seen += len(batch)
                batch.reshape(-1)[:: 1 << 16].sum()
            table[name] = {"rows_per_second": seen / (time.perf_counter() - began)}
        except ImportError as error:
            table[name] = {"absent": str(error)}
        except Exception as error:
            table[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
        print("cold", name, table[name], flush=True)
    return table


COLD = (
    "webdataset (buffer 1,000)", "Hugging Face datasets", "LitData", "Mosaic streaming", "zarr", "Grain (2 threads)",
    "SPDL (2 threads)", "tf.data (buffer 1,000, 2 threads)", "DALI (CPU, 2 threads)", "FFCV (2 threads, its own layout)",
)  # fmt: skip


def drop_all(folder: Path) -> None:
    """Nothing of the prepared copies stays in the page cache, save what a peer holds mapped."""
    gc.collect()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def larger(folder: Path) -> dict[str, Any]:
    """150 KB rows of a file of 2.56 GB: 4,000 at random, and all in order; bytes per second, page cache left after each."""
    rows = 17_000
    if not (folder / "large.set").exists():
        made = np.lib.format.open_memmap(folder / "large.npy", mode="w+", dtype=np.uint8, shape=(rows, 3, 224, 224))
        small = np.load(folder / "images.npy", mmap_mode="r")
        for start in range(0, rows, 1000):
            made[start : start + 1000] = small[start % 4000 : start % 4000 + 1000]
        made.flush()
        del made
        convert(folder / "large.npy", folder / "large.set")
    data = Dataset(folder / "large.set")
    file, row = data.file("large"), 150528
    os.fsync(file.descriptor)
    table: dict[str, Any] = {}

    def measured(name: str, run: Callable[[], int]) -> None:
        rates, left = [], 0
        for _ in range(3):
            forget(file)
            before, began = read_bytes(), time.perf_counter()
            seen = run()
            rates.append(seen * row / (time.perf_counter() - began))
            left, read = resident_bytes(file), read_bytes() - before
        table[name] = {
            "bytes_per_second": max(rates), "median": statistics.median(rates), "page_cache_left": left,
            "read_for_each_byte": read / (seen * row),
        }  # fmt: skip
        print(name, table[name], flush=True)

    def loader(shuffle: bool, way: str, most: int) -> Callable[[], int]:
        made = Loader(data, BATCH, shuffle=shuffle, access=way, threads=2, ahead=3, tuples=True)

        def run() -> int:
            seen = 0
            for (batch,) in made:
                seen += len(batch)
                batch.reshape(-1)[:: 1 << 12].sum()
                if seen >= most:
                    break
            return seen

        return run

    def direct() -> int:
        column, places = DirectColumn(file, row), np.random.default_rng(0).permutation(rows)[:4096]
        memory = staging_memory(column.bytes_for(64, 64))
        for start in range(0, len(places), 64):
            picked = np.sort(places[start : start + 64])
            column.read(picked, picked + 1, memory)
        return len(places)

    def mapped() -> int:
        places = np.random.default_rng(0).permutation(rows)[:1024]
        for at in places:
            file.bytes[at * row : (at + 1) * row].copy()
        return len(places)

    def lagging() -> int:
        block, at, dropped = bytearray(256 << 10), 0, 0
        while at < file.value_bytes:
            at += os.preadv(file.descriptor, [block], HEADER_BYTES + at)
            if at - dropped >= (40 << 20):
                os.posix_fadvise(
                    file.descriptor, HEADER_BYTES + dropped, at - (32 << 20) - dropped, os.POSIX_FADV_DONTNEED
                )
                dropped = at - (32 << 20)
        os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return rows

    measured("random: io_uring, direct, alone", direct)
    measured("random: memfit", loader(True, "direct", 4096))
    measured("random: numpy.memmap", mapped)
    measured("in order: pread, dropped 32 MiB behind", lagging)
    measured("in order: memfit", loader(False, "sequential", rows))
    return table


def read_bytes() -> int:
    """Bytes that this process had fetched from the disk."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def memory_over_epochs(folder: Path) -> dict[str, Any]:
    """Private bytes (anonymous, of the kernel's count) after each of ten epochs of a data set four times the budget."""

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous"))

    before = private()
    loader = Loader(
        folder / "images.set", 32, [cast("bfloat16")], shuffle=True, memory_budget="150MiB", access="direct", threads=1
    )
    held, order = [], 0
    for _ in range(10):
        for batch in loader:
            order += len(batch["images"])
        del batch
        held.append(private() - before)
    stated = loader.memory
    loader.close()
    return {
        "stated": stated,
        "stated_private": stated["ring"] + stated["staging"],
        "after_each_epoch": held,
        "rows": order,
    }


def best(run: Callable[[], Any], times: int = 4) -> float:
    walls = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        walls.append(time.perf_counter() - began)
    return min(walls)


def columns() -> dict[str, Any]:
    rows = 10_000_000
    values = np.random.default_rng(0).standard_normal((rows, 64), dtype=np.float32)
    values += np.float32(1000)
    true = np.mean([part.mean(0, dtype=np.float64) for part in np.array_split(values, 50)], axis=0)
    made = Moments(Column("x", "f4", (64,)))

    def moments() -> None:
        made.__init__(made.column)  # type: ignore[misc]
        made.add(values)

    memory = measure_machine().levels[-1]
    table: dict[str, Any] = {
        "this machine, one thread": {
            "read_bytes_per_second": memory.bandwidth,
            "copy_bytes_per_second": memory.copy_bandwidth,
            "write_bytes_per_second": memory.write_bandwidth,
        },
        "memfit moments": {
            "bytes_per_second": values.nbytes / best(moments),
            "error_in_std": float(abs(made.mean - true).max()),
        },
    }
    small = values[:8192].copy()
    inner = Moments(Column("x", "f4", (64,)))
    table["memfit moments, in a cache"] = {"bytes_per_second": small.nbytes / best(lambda: inner.add(small), 50)}
    part = values[:400_000]
    table["NumPy float32 mean and std"] = {
        "bytes_per_second": part.nbytes / best(lambda: (part.mean(0), part.std(0)), 2),
        "error_in_std": float(abs(values.mean(0) - true).max()),
    }
    scaler, out = StandardScaler().fit(part), np.empty((8192, 64), np.float32)

    def pass_(scale: Callable[[Any], Any]) -> Callable[[], None]:
        return lambda: [scale(part[i : i + 8192]) for i in range(0, len(part) - 8192, 8192)] and None  # type: ignore[return-value]

    table["memfit scaling"] = {"bytes_per_second": part.nbytes / best(pass_(lambda x: scaler.transform(x, out=out)))}
    try:
        from sklearn.preprocessing import StandardScaler as Theirs

        theirs = Theirs().fit(part)
        table["scikit-learn partial_fit"] = {
            "bytes_per_second": part.nbytes / best(lambda: Theirs().partial_fit(part), 2)
        }
        table["scikit-learn scaling"] = {"bytes_per_second": part.nbytes / best(pass_(theirs.transform), 2)}
    except ImportError:
        table["scikit-learn"] = {"absent": True}
    table["memfit moments"]["percent_of_read"] = 100 * table["memfit moments"]["bytes_per_second"] / memory.bandwidth
    return table


def tokens(folder: Path) -> dict[str, Any]:
    """Microseconds of CPU time for 32 windows of 1,024 out of 500 million."""
    if not (folder / "tokens.set").exists():
        np.random.default_rng(0).integers(0, 50000, 500_000_000, dtype=np.uint16).tofile(folder / "tokens.bin")
        convert(folder / "tokens.bin", folder / "tokens.set")
    values = Dataset(folder / "tokens.set").column("tokens")
    values[::2048].sum()
    rng = np.random.default_rng(1)
    windows, made = np.lib.stride_tricks.sliding_window_view(values, 1025), np.empty((32, 1025), np.int64)

    def nano() -> Any:
        starts = rng.integers(0, len(values) - 1024, 32)
        x = np.stack([values[i : i + 1024].astype(np.int64) for i in starts])
        return x, np.stack([values[i + 1 : i + 1025].astype(np.int64) for i in starts])

    def nano_reopened() -> Any:
        import torch

        again = np.memmap(folder / "tokens.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(again) - 1024, (32,))
        x = torch.stack([torch.from_numpy(again[i : i + 1024].astype(np.int64)) for i in starts])
        return x, torch.stack([torch.from_numpy(again[i + 1 : i + 1025].astype(np.int64)) for i in starts])

    def strided() -> None:
        made[:] = windows[rng.integers(0, len(values) - 1025, 32)]

    running = iter(TokenLoader(folder / "tokens.set", 1024, 32))
    found: dict[str, list[float]] = {"memfit": [], "slices stacked": [], "NumPy strided": []}
    for _ in range(5):  # in turn, so that a neighbour's load meets all
        for name, run in (
            ("memfit", lambda: next(running)),
            ("slices stacked", nano),
            ("map opened each time, tensors stacked (nanoGPT)", nano_reopened),
            ("NumPy strided", strided),
        ):
            used = time.process_time()
            for _ in range(400):
                run()
            found.setdefault(name, []).append((time.process_time() - used) / 400 * 1e6)
    return {name: {"microseconds": min(taken), "median": statistics.median(taken)} for name, taken in found.items()}


def order_and_resume(folder: Path) -> dict[str, Any]:
    loader = Loader(folder / "images.set", BATCH, shuffle=True, access="mapped")
    state = {**loader.state_dict(), "row": 2048}
    used = time.perf_counter()
    other = Loader(folder / "images.set", BATCH, shuffle=True, access="mapped", threads=0)
    other.load_state_dict(state)
    next(iter(other))
    rows = 1_281_167
    return {
        "resume_seconds": time.perf_counter() - used, "state_bytes": len(str(state)), "bytes_per_sample": 0,
        "distinct_share_1024_chunks_of_28": distinct_share(Order(rows, 0, 0, 28, 1024)),
        "distinct_share_full": distinct_share(Order(rows, 0, 0)),
    }  # fmt: skip


def tuned(folder: Path) -> dict[str, Any]:
    from memfit.data.tuning import measure, untune

    gain = measure(PEERS["torch DataLoader, a batch at a time"](folder).__call__, rounds=2)
    untune()
    return {
        "factor": gain.factor,
        "before_seconds": gain.before,
        "after_seconds": gain.after,
        "price_bytes": gain.price,
    }


SECTIONS: dict[str, Callable[[Path], Any]] = {
    "larger": larger, "memory": memory_over_epochs, "tokens": tokens, "order": order_and_resume,
    "columns": lambda folder: columns(), "tuner": tuned, "images": images, "cold": cold,
}  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        prepare(folder)
        result: dict[str, Any] = {}
        for name in sys.argv[2:] or SECTIONS:
            result[name] = SECTIONS[name](folder)
            print(name, result[name], flush=True)
            write(
                "data_loading" if len(sys.argv) < 3 else f"data_loading-{name}",
                {name: result[name]} if sys.argv[2:] else result,
            )


if __name__ == "__main__":
    main()

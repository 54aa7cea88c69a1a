"""The CPU pool beside glibc, mallopt and the allocators people preload: ``results/pool.json``.

Training steps (MLP 8192x1024, CNN 32x3x96x96, transformer of 4 layers): CPU time of one thread a step, minor page faults a
step in the steady state, peak resident size; each allocator in a fresh process, all of them in turns within a round, so
that a round is a pair with each peer. Large and small tensors: a fresh tensor filled and added against a reused buffer.

Peers are preloaded (Debian: libgoogle-perftools4, libjemalloc2, libmimalloc2.0); one that is absent is said so and left
out. ``mallopt`` is what the pool falls back to without a compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
PRELOADS = {"tcmalloc": "libtcmalloc.so.4", "jemalloc": "libjemalloc.so.2", "mimalloc": "libmimalloc.so.2.0"}
MODELS = ("mlp", "cnn", "transformer")
SIZES = {"1 KiB": 1 << 10, "16 KiB": 16 << 10, "64 KiB": 64 << 10, "256 KiB": 256 << 10, "1 MiB": 1 << 20,
         "16 MiB": 16 << 20, "64 MiB": 64 << 20}  # fmt: skip


def preload(name: str) -> str | None:
    return next((path for folder in FOLDERS if os.path.exists(path := f"{folder}/{PRELOADS[name]}")), None)


def step_of(name: str) -> Callable[[], None]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name == "mlp":
        model: nn.Module = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.GELU())])
        batch = torch.randn(8192, 1024)
    elif name == "cnn":
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        batch = torch.randn(32, 3, 96, 96)
    else:
        layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
        model = nn.TransformerEncoder(layer, 4)
        batch = torch.randn(16, 256, 256)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    return step


def training(name: str, pooled: bool) -> dict[str, Any]:
    step = step_of(name)
    for _ in range(4):  # the pool needs three to know a period
        step()
    times, faults = [], []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_THREAD)
        begun = time.thread_time()
        step()
        times.append(time.thread_time() - begun)
        after = resource.getrusage(resource.RUSAGE_THREAD)
        faults.append(after.ru_minflt - before.ru_minflt)
    out = {"seconds": min(times), "faults": statistics.median(faults), "peak_resident": peak_resident()}
    if pooled:
        import memfit

        out["pool"] = memfit.pool.statistics().to_json()
    return out


def peak_resident() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def tensors() -> dict[str, Any]:
    import numpy as np
    import torch

    out: dict[str, Any] = {}
    for name, nbytes in SIZES.items():
        count = nbytes // 4
        source, target = torch.ones(count), torch.empty(count)
        array = np.empty(count, np.float32)
        calls = max(1, min(2000, (4 << 20) // nbytes))
        runs: dict[str, Callable[[], Any]] = {
            "empty": lambda count=count: torch.empty(count),
            "fill fresh": lambda count=count: torch.empty(count).fill_(1.0),
            "fill reused": lambda target=target: target.fill_(1.0),
            "add fresh": lambda source=source: torch.add(source, source),
            "add reused": lambda source=source, target=target: torch.add(source, source, out=target),
            "array empty": lambda count=count: np.empty(count, np.float32),
            "array fill fresh": lambda count=count: np.empty(count, np.float32).fill(1.0),
            "array fill reused": lambda array=array: array.fill(1.0),
        }
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(15):
            for kind, run in runs.items():
                begun = time.thread_time()
                for _ in range(calls):
                    run()
                best[kind] = min(best[kind], (time.thread_time() - begun) / calls)
        out[name] = best
    return out


def worker(what: str, allocator: str) -> None:
    if allocator == "memfit":
        import memfit

        memfit.pool.install()
    elif allocator == "mallopt":
        library = ctypes.CDLL(None)
        assert library.mallopt(-4, 0) == 1
        assert library.mallopt(-1, 2**31 - 1) == 1
    import torch

    torch.set_num_threads(1)
    print(json.dumps(tensors() if what == "tensors" else training(what, allocator == "memfit")))


def run(what: str, allocator: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if allocator in PRELOADS:
        environment["LD_PRELOAD"] = str(preload(allocator))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--worker", what, allocator],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{what} under {allocator} failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--worker", nargs=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", nargs="*", default=[*MODELS, "tensors"])
    options.add_argument(
        "--allocators", nargs="*", default=["glibc", "memfit", "tcmalloc", "mallopt", "jemalloc", "mimalloc"]
    )
    options.add_argument(
        "--raw", type=Path, help="append the rounds to this file; with --rounds 0 only report what it holds"
    )
    asked = options.parse_args()
    if asked.worker:
        worker(*asked.worker)
        return
    import record

    absent = [name for name in asked.allocators if name in PRELOADS and preload(name) is None]
    for name in absent:
        print(f"{name} is not here: {PRELOADS[name]} was not found; left out")
    allocators = [name for name in asked.allocators if name not in absent]
    result: dict[str, Any] = {"absent": absent, "rounds": {}, "models": {}, "tensors": {}}
    known = asked.raw.read_text().splitlines() if asked.raw and asked.raw.exists() else []
    for what in asked.only:
        rounds = [turn for line in known if (turn := json.loads(line).get(what))]
        for _ in range(asked.rounds):
            rounds.append({name: run(what, name) for name in allocators})
            if asked.raw:
                with asked.raw.open("a") as file:
                    file.write(json.dumps({what: rounds[-1]}) + "\n")
        if not rounds:
            continue
        result["rounds"][what] = len(rounds)
        if what == "tensors":
            result["tensors"] = tensor_table(rounds, allocators)
        else:
            result["models"][what] = model_table(rounds, allocators)
            for name, row in result["models"][what].items():
                print(
                    f"{what:12} {name:9} {row['seconds'] * 1e3:8.1f} ms  {row['of_glibc'] * 100 - 100:+6.1f} %  "
                    f"{row['faults']:9.0f} faults  peak {row['peak_resident'] >> 20:6} MiB", flush=True,
                )  # fmt: skip
    if asked.raw is None or asked.rounds == 0:
        print(record.write("pool", result).name)


def model_table(rounds: list[dict[str, Any]], allocators: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in allocators:
        seconds = [turn[name]["seconds"] for turn in rounds]
        paired = [turn[name]["seconds"] / turn[allocators[0]]["seconds"] for turn in rounds]
        out[name] = {
            "seconds": statistics.median(seconds), "spread": [min(seconds), max(seconds)],
            "of_glibc": statistics.median(paired), "faults": statistics.median(turn[name]["faults"] for turn in rounds),
            "peak_resident": statistics.median(turn[name]["peak_resident"] for turn in rounds),
        }  # fmt: skip
        if "pool" in rounds[-1][name]:
            out[name]["pool"] = rounds[-1][name]["pool"]
    return out


def tensor_table(rounds: list[dict[str, Any]], allocators: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for size in SIZES:
        out[size] = {
            name: {kind: min(turn[name][size][kind] for turn in rounds) for kind in rounds[0][name][size]}
            for name in allocators
        }
        for name in allocators:
            row = out[size][name]
            print(
                f"{size:8} {name:9} " + "  ".join(f"{kind} {seconds * 1e6:.2f}" for kind, seconds in row.items()), flush=True
            )  # fmt: skip
    return out


if __name__ == "__main__":
    main()

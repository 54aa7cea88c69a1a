"""Write a result file: what was measured, by which commit, with which versions, on what machine, how often."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "torch", "transformers", "diffusers", "numpy", "scipy", "memray", "torchao", "onnx", "onnxruntime", "onnxscript",
    "onnxslim", "onnxsim", "onnxoptimizer", "webdataset", "datasets", "litdata", "zarr", "grain", "scikit-learn",
    "torchdata", "mosaicml-streaming", "spdl", "tensorflow-cpu", "jax", "nvidia-dali-cuda130", "ffcv",
)  # fmt: skip


def fastest(repeats: int, run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the quickest of some runs, and the last answer."""
    best, answer = float("inf"), None
    for _ in range(repeats):
        begun = time.process_time()
        answer = run()
        best = min(best, time.process_time() - begun)
    return best, answer


def machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python."""
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model, "cores": os.cpu_count(), "memory_bytes": pages, "kernel": platform.release(),
        "python": platform.python_version(), "shared": True,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the packages that matter, where installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that ran, with ``+`` where the tree had changes."""
    folder = Path(__file__).parent
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


def write(name: str, result: dict[str, Any]) -> Path:
    """``results/<name>.json`` with ``result`` and where it came from; whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    # Where something lies on this machine is nobody's business: of a path, its name.
    arguments = [Path(text).name if os.path.isabs(text) else text for text in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])
    whole = {
        "benchmark": name, "commit": commit(), "command": command, "versions": versions(),
        "machine": machine(), **result,
    }  # fmt: skip
    part = path.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(part, path)
    return path

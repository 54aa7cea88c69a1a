"""What watching for leaks costs a training step: `memfit leaks`, `memfit.watch.serve()`, memray and tracemalloc, in turn.

Each run is a process of its own; the loop alone is timed, in CPU seconds of the process, after a warm-up. The ratio is of
each run to the plain run of the same round; median and spread over the rounds. A peer that is not installed is left out.
malloc's thresholds are fixed for all alike: left to themselves they move with whatever was freed before, and a tool that once
freed a large array makes every later step of the program faster. The service's looks are few and early, so its ratio over
these short runs includes its start.

    python benchmarks/leak_overhead.py [--rounds 2] [--steps 250]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import write

LOOP = """
import sys, time
mode, steps = sys.argv[1], int(sys.argv[2])
if mode == "tracemalloc":
    import tracemalloc; tracemalloc.start(1)
if mode == "service":
    import memfit; memfit.watch.serve()
import torch
torch.set_num_threads(1); torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
                            torch.nn.Linear(1024, 10))
optimizer = torch.optim.AdamW(model.parameters())
def train(steps, warm):
    for step in range(steps):
        if step == warm:
            began = time.process_time()
        loss = model(torch.randn(64, 256)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        if step == steps - 1:
            print("SECONDS", time.process_time() - began, file=sys.stderr)
train(steps, 2)
"""
FIXED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20), "OMP_NUM_THREADS": "1"}
MODES = {
    "plain": [], "memfit leaks": ["-m", "memfit.cli.main", "leaks"], "memfit.watch.serve": [],
    "memray": ["-m", "memray", "run", "-qfo"],
    "tracemalloc": [],
}  # fmt: skip


def seconds(mode: str, folder: Path, steps: int) -> float:
    """CPU seconds of the loop under one tool."""
    prefix = [*MODES[mode], *([str(folder / "memray.bin")] if mode == "memray" else [])]
    word = {"tracemalloc": "tracemalloc", "memfit.watch.serve": "service"}.get(mode, "plain")
    run = subprocess.run([sys.executable, *prefix, "loop.py", word, str(steps)], cwd=folder, capture_output=True, text=True,
                         check=True, env={**os.environ, **FIXED})  # fmt: skip
    return float(next(line for line in run.stderr.splitlines() if line.startswith("SECONDS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=250)
    arguments = parser.parse_args()
    modes = [mode for mode in MODES if mode != "memray" or importlib.util.find_spec("memray")]
    print("not installed, left out:", [mode for mode in MODES if mode not in modes])
    rows: dict[str, list[float]] = {mode: [] for mode in modes}
    plain: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "loop.py").write_text(LOOP)
        for _ in range(arguments.rounds):
            base = seconds("plain", folder, arguments.steps)
            plain.append(base)
            for mode in modes[1:]:
                rows[mode].append(seconds(mode, folder, arguments.steps) / base)
    found = {
        mode: {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        for mode, ratios in rows.items() if ratios
    }  # fmt: skip
    for mode, row in found.items():
        print(f"{mode:20} {row['ratio']:.3f}x ({row['least']:.3f} to {row['most']:.3f})")
    write("leak-overhead", {"steps": arguments.steps, "rounds": arguments.rounds, "plain_seconds": statistics.median(plain),
                             "ratios": found})  # fmt: skip


if __name__ == "__main__":
    main()

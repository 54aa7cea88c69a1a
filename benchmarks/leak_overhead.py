"""What watching for leaks costs a training step: `memfit leaks`, `memfit.watch.serve()`, memray and tracemalloc, in turn.

Other programs of the machine shift the time of a step by more than what is looked for, so each tool runs beside the plain
program, at the same moment, each on a core of its own; the cores change from round to round. Both begin their loop together.
Compared are CPU seconds of the process: of the whole loop after two steps of warm-up (``ratio``: the looks at some steps
included, a verdict after the last step not), and of the median step (``steady``). Median and spread over the rounds.
``beside``: CPU seconds of the process's other threads in the loop, as a share of all: exact, whatever the neighbours do.
Service mode does all its work there.

malloc's thresholds are fixed for all alike: left to themselves they move with whatever was freed before, and a tool that once
freed a large array makes every later step of the program faster. A peer that is not installed is left out; tools that are not
named keep their rows of the last result.

    python benchmarks/leak_overhead.py [--rounds 6] [--steps 400] [--tools "memfit leaks" ...]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, write

LOOP = """
import array, os, sys, time
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
def meet():
    open(sys.argv[3], "w").close()
    while not os.path.exists(sys.argv[4]):
        time.sleep(0.005)
def beside():
    tasks = [t for t in os.listdir("/proc/self/task") if int(t) != os.getpid()] if os.path.isdir("/proc/self/task") else []
    return sum(int(open(f"/proc/self/task/{t}/schedstat").read().split()[0]) for t in tasks) / 1e9
def train(steps, warm):
    times = array.array("d", bytes(8 * (steps + 1)))
    for step in range(steps):
        times[step] = time.process_time()
        loss = model(torch.randn(64, 256)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        times[step + 1] = time.process_time()
        if step == steps - 1:
            each = sorted(later - sooner for sooner, later in zip(times[warm:], times[warm + 1:]))
            print("SECONDS", times[-1] - times[warm], each[len(each) // 2], beside() - before, file=sys.stderr)
meet()
before = beside()
train(steps, 2)
"""
FIXED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20), "OMP_NUM_THREADS": "1"}
MODES = {
    "plain": [], "memfit leaks": ["-m", "memfit.cli.main", "leaks"], "memfit.watch.serve": [],
    "memray": ["-m", "memray", "run", "-qfo"],
    "tracemalloc": [],
}  # fmt: skip


def begin(mode: str, folder: Path, steps: int, core: int, own: str, other: str) -> subprocess.Popen[str]:
    """Start the loop under one tool, on one core; it waits for the file ``other``."""
    prefix = [*MODES[mode], *([str(folder / "memray.bin")] if mode == "memray" else [])]
    word = {"tracemalloc": "tracemalloc", "memfit.watch.serve": "service"}.get(mode, "plain")
    return subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, *prefix, "loop.py", word, str(steps), own, other], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **FIXED},
    )  # fmt: skip


def seconds(run: subprocess.Popen[str]) -> tuple[float, float, float]:
    """CPU seconds of its loop, of the median step, and of other threads in the loop."""
    _, errors = run.communicate(timeout=200)
    whole, step, beside = next(line for line in errors.splitlines() if line.startswith("SECONDS")).split()[1:]
    return float(whole), float(step), float(beside)


def pair(mode: str, steps: int, cores: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The plain program and one tool, side by side."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "loop.py").write_text(LOOP)
        plain = begin("plain", folder, steps, cores[0], "plain", "watched")
        watched = begin(mode, folder, steps, cores[1], "watched", "plain")
        return seconds(plain), seconds(watched)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tools", nargs="*", choices=[mode for mode in MODES if mode != "plain"])
    arguments = parser.parse_args()
    modes = arguments.tools or [mode for mode in MODES if mode != "plain"]
    modes = [mode for mode in modes if mode != "memray" or importlib.util.find_spec("memray")]
    earlier = RESULTS / "leak-overhead.json"
    found: dict[str, Any] = json.loads(earlier.read_text()).get("ratios", {}) if earlier.exists() else {}
    found = {mode: row for mode, row in found.items() if "steady" in row}
    first, second = sorted(os.sched_getaffinity(0))[:2]
    for mode in modes:
        ratios, steady, plain, shares = [], [], [], []
        for number in range(arguments.rounds):
            (base, base_step, _), (whole, step, beside) = pair(
                mode, arguments.steps, (first, second) if number % 2 else (second, first)
            )
            ratios.append(whole / base)
            steady.append(step / base_step)
            plain.append(base)
            shares.append(beside / whole)
        found[mode] = {
            "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "steady": statistics.median(steady),
            "beside": statistics.median(shares), "rounds": arguments.rounds, "steps": arguments.steps,
            "plain_seconds": statistics.median(plain),
        }  # fmt: skip
        row = found[mode]
        print(
            f"{mode:20} {row['ratio']:.3f}x ({row['least']:.3f} to {row['most']:.3f}), steady {row['steady']:.3f}x, "
            f"other threads {row['beside']:.2%}"
        )
        write("leak-overhead", {"ratios": found})


if __name__ == "__main__":
    main()

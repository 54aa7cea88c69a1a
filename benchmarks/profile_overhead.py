"""What recording costs: CPU time of a training loop under memfit, memray and torch.profiler, over the bare loop.

    python benchmarks/profile_overhead.py [--rounds 25] [--models mlp tiny g r]

All run in one process, interleaved round by round; the figure is the median over rounds of (recorded / bare) with its
quartiles. Only the loop is timed; what a tool does afterwards is told apart. memray is taken from the environment whose
Python ``$MEMFIT_PEERS_PYTHON`` names (with the same torch); everything then runs there. Without it memray is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from record import write

ROOT = Path(__file__).resolve().parents[1]
STEPS = {"mlp": 100, "tiny": 200, "g": 2, "r": 4}
GOALS = {"memfit": 1.05, "memfit_every_step": 1.25}


def model_of(name: str) -> tuple[Any, Any, Any]:
    """(model, inputs, loss). mlp: 3 layers of 512 on 64 rows; tiny: 3 layers of 64 on 8; g, r: see the README."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    if name in ("mlp", "tiny"):
        width, rows = (512, 64) if name == "mlp" else (64, 8)
        layers = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
        return nn.Sequential(*layers), torch.randn(rows, width), lambda output: output.square().mean()
    if name == "g":
        block = nn.TransformerEncoderLayer(256, 4, 1024, 0.0, "gelu", batch_first=True, norm_first=True)
        return nn.TransformerEncoder(block, 8), torch.randn(4, 256, 256), lambda output: output.square().mean()

    class Block(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, 2 if before < after else 1, 1), nn.BatchNorm2d(after), nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after),
            )  # fmt: skip
            self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1, 2)

        def forward(self, inputs: Any) -> Any:
            return functional.relu(self.body(inputs) + self.short(inputs))

    widths = [32, 32, 32, 32, 64, 64, 64, 128, 128, 128]
    blocks = [Block(before, after) for before, after in pairwise(widths)]
    model = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return model, torch.randn(16, 3, 32, 32), lambda output: output.square().mean()


@contextlib.contextmanager
def memfit(every_step: bool) -> Iterator[Callable[[int, Callable[..., None]], None]]:
    """What ``memfit profile`` does around each step."""
    from memfit.frameworks.torch.run_recorder import RunRecorder

    recorder = RunRecorder(every_step=every_step)
    recorder.start()

    def run(number: int, step: Callable[..., None]) -> None:
        recorder.begin_step(number)
        step(lambda phase: recorder.phase(number, phase))
        recorder.end_step(number)

    try:
        yield run
    finally:
        recorder.finish()


def plain(number: int, step: Callable[..., None]) -> None:
    """A step that nobody marks."""
    step(lambda phase: None)


@contextlib.contextmanager
def bare() -> Iterator[Callable[..., None]]:
    """Nothing records."""
    yield plain


@contextlib.contextmanager
def memray(native: bool) -> Iterator[Callable[..., None]]:
    """memray's tracker, as its command line starts it."""
    import memray as tool

    with tempfile.TemporaryDirectory() as folder, tool.Tracker(Path(folder) / "capture.bin", native_traces=native):
        yield plain


@contextlib.contextmanager
def profiler(stacks: bool) -> Iterator[Callable[..., None]]:
    """torch.profiler with memory events."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True, with_stack=stacks, record_shapes=stacks):
        yield plain


def tools() -> dict[str, Callable[[], Any]]:
    """The contestants; those that are not installed are left out."""
    found: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "memfit": lambda: memfit(False),
        "memfit_every_step": lambda: memfit(True),
        "torch_profiler": lambda: profiler(False),
        "torch_profiler_stacks": lambda: profiler(True),
    }
    try:
        import memray as tool  # noqa: F401
    except ImportError:
        return found
    return {**found, "memray": lambda: memray(False), "memray_native": lambda: memray(True)}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """CPU seconds of each tool's loops on one model, and the ratios to the bare loop of the same round."""
    import torch

    torch.set_num_threads(1)
    model, inputs, loss = model_of(name)
    optimizer = torch.optim.AdamW(model.parameters())

    def step(mark: Callable[[str], None]) -> None:
        mark("forward")
        value = loss(model(inputs))
        mark("backward")
        value.backward()
        mark("optimizer")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mark("between")

    count = STEPS[name]
    for number in range(3):
        plain(number, step)
    seconds: dict[str, list[float]] = {tool: [] for tool in tools()}
    after: dict[str, list[float]] = {tool: [] for tool in tools()}
    for turn in range(rounds + 1):
        for tool, start in tools().items():
            with start() as run:
                began = time.process_time()
                for number in range(count):
                    run(number, step)
                ended = time.process_time()
            if turn:  # the first round warms up
                seconds[tool].append(ended - began)
                after[tool].append(time.process_time() - ended)
        print(f"{name}: round {turn} of {rounds}", file=sys.stderr)
    rows = {}
    for tool, values in seconds.items():
        ratios = [value / bare_value for value, bare_value in zip(values, seconds["bare"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        rows[tool] = {
            "overhead": statistics.median(ratios), "quartiles": [quartiles[0], quartiles[2]],
            "step_cpu_seconds": statistics.median(values) / count, "after_cpu_seconds": statistics.median(after[tool]),
        }  # fmt: skip
    return {"steps": count, "rounds": rounds, "tools": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--models", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--dry", action="store_true", help="print, and leave the committed result as it is")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    peers = os.environ.get("MEMFIT_PEERS_PYTHON")
    if not options.here and peers:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        return subprocess.run([peers, __file__, *sys.argv[1:], "--here"], env=environment, check=False).returncode
    if "memray" not in tools():
        print("memray is not here (name a Python that has it in MEMFIT_PEERS_PYTHON): left out", file=sys.stderr)
    result: dict[str, Any] = {
        "what": "CPU time of a training loop while recorded, over the bare loop of the same round (median, quartiles)",
        "goals": GOALS,
        "models": {name: measure(name, options.rounds) for name in options.models},
    }  # fmt: skip
    if not options.dry:
        write("profile-overhead", result)
    for name, found in result["models"].items():
        for tool, row in found["tools"].items():
            low, high = row["quartiles"]
            step = f"{row['step_cpu_seconds'] * 1e3:.3f} ms a step"
            print(f"{name:5} {tool:22} {row['overhead']:.3f}  [{low:.3f}, {high:.3f}]  {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

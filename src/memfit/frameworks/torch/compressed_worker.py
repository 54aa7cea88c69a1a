"""One side of a compression's report, in a fresh process: the model as it is or compressed, run on the calibration batch.

Started as ``python -m memfit.frameworks.torch.compressed_worker REQUEST RESULT`` with JSON files. Reports the bytes of all
parameters and buffers, the peak of all tensors of a forward (allocator hook, weights and inputs included), the operations
of a forward, and the least wall and CPU seconds of ``repeats`` of them, warm.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.errors import MemfitError
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.compressed_file import load_into, read_recipe, without_values
from memfit.frameworks.torch.step_meter import held_bytes
from memfit.frameworks.torch.steps import autocast_of, call_model
from memfit.ir.step import Step
from memfit.machine.process import process_bytes


class _Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def build(source: dict[str, Any], compressed: Path | None) -> Any:
    """The model that ``source`` names (a target or a folder), or the compressed one."""
    from memfit.frameworks.target import build_step
    from memfit.frameworks.torch.model_folder import load_folder

    if compressed is not None:
        return load_into(empty_model(source), compressed)
    if source["kind"] == "folder":
        return load_folder(Path(source["folder"]))[0]
    return build_step(source["target"], source["settings"]).model


def empty_model(source: dict[str, Any]) -> Any:
    """The modules that ``source`` names, without weights."""
    import tempfile

    from memfit.frameworks.target import build_step
    from memfit.frameworks.torch.model_folder import skeleton

    if source["kind"] == "folder":
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(source["config"]))
            return skeleton(Path(folder))
    with without_values():
        return build_step(source["target"], source["settings"]).model


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The figures of one side."""
    allocator_hook.install()
    if request.get("threads"):
        torch.set_num_threads(int(request["threads"]))
    before = allocator_hook.live_bytes()
    inputs = torch.load(request["inputs"], weights_only=True)
    compressed = Path(request["compressed"]) if request.get("compressed") else None
    if compressed is not None:
        read_recipe(compressed)
    model = build(request["source"], compressed).eval()
    step = Step(model, inputs, train=False, autocast=request.get("autocast"))

    def forward() -> Any:
        with torch.no_grad(), autocast_of(step):
            return call_model(model, inputs)

    forward()
    allocator_hook.reset_peak()
    forward()
    peak = allocator_hook.peak_bytes() - before
    walls, seconds = [], []
    for _ in range(request["repeats"]):
        start, cpu = time.perf_counter(), time.process_time()
        forward()
        walls.append(time.perf_counter() - start)
        seconds.append(time.process_time() - cpu)
    with _Counting() as counting:
        forward()
    constants = held_bytes(Step(model, (), train=False))
    return {
        "peak": peak, "constants": constants, "wall_seconds": min(walls), "cpu_seconds": min(seconds),
        "nodes": counting.count, "resident": process_bytes("VmHWM"),
    }  # fmt: skip


def main(request_path: str, result_path: str) -> int:
    """Run the request; the result file holds ``{"error": ...}`` where it could not run."""
    try:
        result = run(json.loads(Path(request_path).read_text()))
    except (MemfitError, RuntimeError, MemoryError) as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(result_path).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

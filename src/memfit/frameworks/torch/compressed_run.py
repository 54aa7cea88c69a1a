"""Before and after of a compression: both models on the calibration batch, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memfit.errors import TargetError, VerifyError
from memfit.ir.step import Step


def inference_step(name: str, step: Step) -> Step:
    """The step as inference, its model in evaluation mode.

    Raises:
        TargetError: its model is no module, or it has no inputs to measure on.
    """
    if not isinstance(step.model, nn.Module):
        raise TargetError(name, f"its model is a {type(step.model).__name__}, not a torch module", "give the module")
    if step.inputs is None or (isinstance(step.inputs, (dict, tuple, list)) and not step.inputs):
        raise TargetError(
            name, "it has no inputs: errors are measured on a calibration batch", "--calibration file.py:function"
        )
    step.model.eval()
    return replace(step, train=False, loss=None, optimizer=None)


def run_sides(step: Any, here: dict[str, Any], source: dict[str, Any], out: Path, repeats: int) -> tuple[Any, Any]:
    """Figures of the original and of the compressed model, each in a process of its own (``compressed_worker``).

    Raises:
        VerifyError: one of them did not run.
    """
    with tempfile.TemporaryDirectory(prefix="memfit-compress-") as folder:
        inputs = Path(folder) / "inputs.pt"
        plain = dict(step.inputs) if isinstance(step.inputs, Mapping) else step.inputs
        torch.save(plain, inputs)
        request = {
            "inputs": str(inputs), "repeats": repeats, "autocast": step.autocast, "threads": torch.get_num_threads(),
        }  # fmt: skip
        before = _run_side(folder, {**request, "source": here, "compressed": None})
        return before, _run_side(folder, {**request, "source": source, "compressed": str(out.resolve())})


def _run_side(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    paths = [str(Path(folder) / name) for name in ("request.json", "result.json")]
    Path(paths[0]).write_text(json.dumps(request))
    Path(paths[1]).unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "memfit.frameworks.torch.compressed_worker", *paths],
        stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if not Path(paths[1]).is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VerifyError("a run of the model in a fresh process", "figures", last)
    result: dict[str, Any] = json.loads(Path(paths[1]).read_text())
    if "error" in result:
        raise VerifyError("a run of the model in a fresh process", "figures", result["error"])
    return result

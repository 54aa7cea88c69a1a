"""Running a model in ONNX Runtime: two models compared, a process measured.

Two models are compared at two sizes of their open dimensions, so that an axis that was fixed by mistake shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memfit.analyses.lowering import numbers_for
from memfit.errors import MissingFrameworkError, TargetError
from memfit.frameworks.comparing import Compared, difference, inputs_for
from memfit.ir.program import Program

PLAIN: dict[str, Any] = {}
"""Session settings of ONNX Runtime's own defaults."""
LEAN: dict[str, Any] = {"session.disable_prepacking": "1", "enable_cpu_mem_arena": False, "enable_mem_pattern": False}
"""Session settings under which the runtime holds weights once and gives memory back."""
ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What makes the C library give freed memory back to the system at once."""


def session(model: str | bytes, settings: Mapping[str, Any] = PLAIN, *, optimise: bool = True, threads: int = 0) -> Any:
    """An inference session on the CPU.

    Raises:
        MissingFrameworkError: onnxruntime is not installed.
        TargetError: the runtime cannot run the model (a custom operator, for one).
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingFrameworkError("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in settings.items():
        if "." in name:
            options.add_session_config_entry(name, str(value))
        else:
            setattr(options, name, value)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds, all of them bad models or missing kernels
        name = model if isinstance(model, str) else "the model"
        raise TargetError(
            name, f"ONNX Runtime cannot load it ({_first_line(error)})",
            "a custom operator needs its own library; --no-verify writes without running",
        ) from error  # fmt: skip


def compare(
    before: Program, models: tuple[str | bytes, str | bytes], bound: Mapping[str, int], sizes: Sequence[int] = (2, 5),
    inputs: Mapping[str, Any] | None = None,
) -> Compared:  # fmt: skip
    """Run two models on the same inputs and compare every output.

    Args:
        before: the program of the first, from which inputs are made.
        models: paths or serialised models.
        bound: numbers of dimensions; the others take each of ``sizes``.
        inputs: a user's own, instead of random ones.
    """
    left, right = _runners(models)
    worst, equal, used = 0.0, True, []
    free = set(before.dimensions) - set(bound)
    for turn, size in enumerate(sizes if free and inputs is None else sizes[:1]):
        numbers = numbers_for(before, bound, default=size)
        given = dict(inputs) if inputs is not None else inputs_for(before, numbers, turn)
        used.append({name: numbers[name] for name in before.dimensions})
        try:
            expected = left.run(None, given)
        except Exception as error:
            raise TargetError(
                before.name, f"it does not run on inputs of the sizes {used[-1]} ({_first_line(error)})",
                "bind dimensions that depend on each other with --bind, or leave the check out with --no-verify",
            ) from error  # fmt: skip
        try:
            found = right.run(None, given)
        except Exception as error:
            raise TargetError(before.name, f"the new model does not run at {used[-1]}: {_first_line(error)}") from error
        for a, b in zip(expected, found, strict=True):
            gap, same = difference(a, b)
            worst, equal = max(worst, gap), equal and same
    return Compared(worst, equal, tuple(used))


def _runners(models: tuple[str | bytes, str | bytes]) -> tuple[Any, Any]:
    """Both in ONNX Runtime; where it has no kernels for the first (operators of old versions), in onnx's own evaluator."""
    try:
        return session(models[0], threads=1), session(models[1], threads=1)
    except TargetError as refused:
        from onnx.reference import ReferenceEvaluator

        try:
            return ReferenceEvaluator(models[0]), ReferenceEvaluator(models[1])
        except Exception:
            raise refused from None


_CHILD = """
import json, sys
import numpy as np, onnxruntime
def status(field):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(field + ":"))
job = json.loads(sys.stdin.read())
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
for name, value in job["settings"].items():
    if "." in name:
        options.add_session_config_entry(name, str(value))
    else:
        setattr(options, name, value)
inputs = dict(np.load(job["inputs"]))
empty = status("VmRSS")
session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
loaded = status("VmRSS")
for _ in range(job["runs"]):
    outputs = session.run(None, inputs)
    total = float(sum(np.asarray(o, dtype=np.float64).sum() for o in outputs if o.dtype.kind in "fiub" and o.size < 1 << 20))
    del outputs
print(json.dumps({"empty": empty, "loaded": loaded, "peak": status("VmHWM")}))
"""


def process_peak(
    model: str | Path, inputs: Mapping[str, Any], settings: Mapping[str, Any], folder: str | Path, runs: int = 2,
    environment: Mapping[str, str] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Resident bytes of a fresh process that loads and runs a model: ``empty`` (before), ``loaded``, ``peak``. Measured.

    Args:
        model: a file.
        inputs: arrays by name.
        settings: of the session, see ``LEAN``.
        folder: where the inputs are written for the child.
        runs: how often it runs.
        environment: variables set on top of this process's own.
    """
    file = Path(folder) / "inputs.npz"
    np.savez(file, **dict(inputs))
    job = {"model": str(model), "inputs": str(file), "settings": dict(settings), "runs": runs}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(job), capture_output=True, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise TargetError(
            str(model), f"it does not run in a process of its own ({(done.stderr.splitlines() or ['?'])[-1][:200]})"
        )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

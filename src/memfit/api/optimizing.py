"""`optimize`: a model file with fewer operations and bytes; outputs held against the original's by running both.

Exact passes only; what changes numbers on purpose (fewer bits, zeros) is the verb's other half. Bytes decide: constants +
live peak never rise. Where a runtime's defaults would take back what was saved (weights packed twice, an arena that keeps),
the session settings that do not are part of the answer, and both are measured in fresh processes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower, numbers_for
from memfit.api.model_files import no_settings
from memfit.errors import TargetError
from memfit.ir.program import Program
from memfit.report.optimize_summary import ModelFigures, OptimizeReport

Progress = Callable[[str, int | None, int | None], None]
SIZE = 8
"""What dimensions that nothing binds are taken to be in the figures."""
_UNDONE = 0.05


def optimize(
    target: Any, *, output: str | Path | None = None, bound: Mapping[str, int] | None = None, verify: bool = True,
    reorder: bool = True, measure: bool = False, settings: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> OptimizeReport:  # fmt: skip
    """Shrink a model file without changing what it computes.

    Args:
        target: an ``.onnx`` or ``.pt2`` file, a SavedModel folder, a ``.keras`` file, or a function that returns a step of
            PyTorch's, JAX's or TensorFlow's at inference.
        output: where to write the new model; None: only the report. A SavedModel folder for TensorFlow, a ``.pt2`` file
            for PyTorch.
        bound: numbers for the model's open dimensions, used for figures and checks; the model keeps them open.
        verify: run both models and compare outputs; without it nothing is run.
        reorder: put operations in the order with the least peak.
        measure: also run both in fresh processes and measure their memory (ONNX files).
        settings: keyword arguments for a function.
        progress: called with (description, done, total).

    Raises:
        MissingFrameworkError: onnx, or onnxruntime where models are run, is not installed.
        TargetError: the file cannot be used. VerifyError: outputs differ; nothing was written.
        OutputError: the new file cannot be written.
    Cost: about 0.5 ms a node, and the runs.
    """
    begun = time.perf_counter()
    say = progress or (lambda text, done, total: None)
    path = Path(target) if isinstance(target, str | Path) else Path()
    if path.suffix.lower() != ".onnx":
        if measure:
            raise TargetError(str(target), "--measure runs ONNX files only", "leave it out")
        from memfit.api.optimizing_programs import optimize_other

        return optimize_other(
            target, None if output is None else str(output), dict(bound or {}), settings, verify=verify, reorder=reorder,
            say=say, begun=begun,
        )  # fmt: skip
    no_settings(target, settings)
    from memfit.frameworks.onnx import optimizing as onnx
    from memfit.frameworks.onnx.running import ENVIRONMENT, LEAN
    from memfit.frameworks.onnx.writing import file_bytes

    numbers = dict(bound or {})
    found = onnx.smaller(path, bound=numbers, reorder=reorder, progress=lambda text: say(text, None, None))
    seconds = time.perf_counter() - begun
    say("checking the new model", None, None)
    written, compared = onnx.write_checked(found, path, output, numbers, verify=verify)
    program, new = found.captured.program, found.optimized.program
    resident: dict[str, int] = {}
    if measure:
        say("measuring both in fresh processes", None, None)
        resident = _measured(onnx, found, path, output, numbers)
    sizes = numbers_for(program, numbers, default=SIZE)
    before = ModelFigures(
        program.node_count,
        file_bytes(path),
        program.constant_bytes,
        projected_peak(program, sizes),
        resident.get("original_default"),
    )
    after = ModelFigures(new.node_count, written, new.constant_bytes, projected_peak(new, sizes), resident.get("lean"))
    runtime: dict[str, Any] = {"settings": dict(LEAN), "environment": dict(ENVIRONMENT), **resident}
    notes = []
    if resident:
        runtime["undone"] = resident["default"] > resident["lean"] * (1 + _UNDONE)
        if runtime["undone"]:
            notes.append(
                "with its default settings ONNX Runtime takes back what was saved "
                f"({resident['default']} bytes instead of {resident['lean']}): it packs weights again and keeps an arena"
            )
    if found.optimized.refused:
        notes.append(f"left out, because constants + live peak would rise: {', '.join(found.optimized.refused)}")
    return OptimizeReport(
        str(target), before, after, None if output is None else str(output), compared.max_error if compared else None,
        compared.equal if compared else None, {name: sizes[name] for name in program.dimensions}, found.optimized.log, runtime,
        seconds, tuple(notes),
    )  # fmt: skip


def _measured(
    onnx: Any, found: Any, path: Path, output: str | Path | None, numbers: Mapping[str, int]
) -> dict[str, int]:
    if output is not None:
        result: dict[str, int] = onnx.measured(found, path, output, numbers, SIZE)
        return result
    from memfit.frameworks.onnx.writing import write_model

    with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
        draft = Path(folder) / "model.onnx"
        write_model(found.optimized.program, found.captured.weights, draft)
        measured: dict[str, int] = onnx.measured(found, path, draft, numbers, SIZE)
        return measured


def projected_peak(program: Program, numbers: Mapping[str, int]) -> int:
    """Constants + live peak in stored order, bytes."""
    graph = lower(program, numbers, in_place=False)
    return simulate(graph, range(len(graph.ops))).peak if graph.ops else graph.base_bytes

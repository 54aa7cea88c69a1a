"""A model file -> a smaller one: capture, exact passes, written, run beside the original, its process measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.analyses.lowering import numbers_for
from memfit.errors import OutputError, TargetError, VerifyError
from memfit.frameworks.comparing import Compared, inputs_for
from memfit.frameworks.onnx.bench import Bench
from memfit.frameworks.onnx.capture import Captured, capture, check_known
from memfit.frameworks.onnx.rewrites import REWRITES
from memfit.frameworks.onnx.running import ENVIRONMENT, LEAN, PLAIN, compare, process_peak
from memfit.frameworks.onnx.writing import model_proto, write_model
from memfit.passes.exact import Optimized, optimize_program

TOLERANCE = 1e-4
"""Largest relative difference of an output that rounding at other places explains; above it nothing is written."""


@dataclass(frozen=True)
class Smaller:
    """A captured model and what the passes made of it."""

    captured: Captured
    optimized: Optimized


def smaller(
    path: str | Path, *, bound: Mapping[str, int] | None = None, reorder: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Smaller:  # fmt: skip
    """Capture a file and run the exact passes. Errors: as ``capture``. Cost: about 0.5 ms a node."""
    if progress is not None:
        progress("reading the model")
    captured = capture(path)
    check_known(captured.program)
    bench = Bench(captured.weights, captured.program.meta["opsets"])
    done = optimize_program(
        captured.program, bench, rewrites=REWRITES, bound=bound, reorder=reorder, progress=progress
    )  # fmt: skip
    return Smaller(captured, done)


def verified(found: Smaller, path: str | Path, new: str | Path, bound: Mapping[str, int]) -> Compared:
    """Both models run on the same inputs, at two sizes of the open dimensions.

    Raises:
        VerifyError: outputs differ by more than rounding explains.
    """
    compared = compare(found.captured.program, (str(path), str(new)), bound)
    if not compared.max_error <= TOLERANCE:
        raise VerifyError("outputs of the optimised model", f"a difference of at most {TOLERANCE}", compared.max_error)
    return compared


def write_checked(
    found: Smaller, path: str | Path, output: str | Path | None, bound: Mapping[str, int], *, verify: bool
) -> tuple[int, Compared | None]:  # fmt: skip
    """Write the model where ``output`` says, after it was checked; the bytes of its files, and the comparison.

    Raises:
        OutputError: the file cannot be written, or is the original whose weights lie beside it.
        VerifyError: see ``verified``.
    """
    program, weights = found.optimized.program, found.captured.weights
    if output is not None and Path(output).resolve() == Path(path).resolve() and _reads_beside(found):
        raise OutputError(str(output), "its weights are being read from beside it")
    with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
        draft = Path(folder) / "model.onnx"
        nbytes = write_model(program, weights, draft)
        compared = verified(found, path, draft, bound) if verify else None
    if output is not None:
        nbytes = write_model(program, weights, output)
    return nbytes, compared


def _reads_beside(found: Smaller) -> bool:
    return found.captured.weights.maps_files


def measured(
    found: Smaller, path: str | Path, new: str | Path, bound: Mapping[str, int], size: int
) -> dict[str, Any]:  # fmt: skip
    """Resident growth of fresh processes in ONNX Runtime: the original and the new model, by default and with LEAN settings."""
    program = found.captured.program
    inputs = inputs_for(program, numbers_for(program, bound, default=size))

    def growth(model: str | Path, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> int:
        with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
            peak = process_peak(model, inputs, settings, folder, environment=environment)
        return peak["peak"] - peak["empty"]

    return {
        "original_default": growth(path, PLAIN), "original_lean": growth(path, LEAN, ENVIRONMENT),
        "default": growth(new, PLAIN), "settings_alone": growth(new, LEAN), "lean": growth(new, LEAN, ENVIRONMENT),
    }  # fmt: skip


def serialised(found: Smaller) -> bytes:
    """The new model in memory.

    Raises:
        TargetError: it passes protobuf's 2 GiB.
    """
    try:
        data: bytes = model_proto(found.optimized.program, found.captured.weights).SerializeToString()
    except ValueError as error:
        raise TargetError(found.captured.program.name, "it is too large for one message") from error
    return data

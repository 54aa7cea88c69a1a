"""`compress` of an ONNX file: formats per layer from what onnxruntime has, chosen by measured error, the whole measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memfit.errors import BudgetError, TargetError
from memfit.files import check_writable, write_atomically
from memfit.passes.allocation import Choice, allocate, smallest
from memfit.report.compression_summary import CompressedSide, CompressionReport, LayerChoice

if TYPE_CHECKING:
    from memfit.api.compressing import Wanted

Progress = Callable[[str, int | None, int | None], None]
_TRIES = 6


def compress_onnx(
    path: str, want: Wanted, calibration: str | None, metric: str | None, output: str | None, seconds: float,
    repeats: int, progress: Progress | None,
) -> CompressionReport:  # fmt: skip
    """As ``compress``, of an ONNX file."""
    from memfit.api.compressing import _metric
    from memfit.frameworks.onnx import quantize

    began = time.monotonic()
    say = progress or (lambda description, done, total: None)
    out = Path(output or f"{Path(path).stem}.compressed.onnx")
    if out.suffix != ".onnx":
        raise TargetError(str(out), "a compressed ONNX model is written as .onnx", "name it so")
    check_writable(out)
    if want.form is not None and want.form not in quantize.FORMATS:
        raise TargetError(
            want.form,
            "ONNX has no such format here",
            f"known: {', '.join(name for name in quantize.FORMATS if name != 'keep')}",
        )
    original = quantize.read_model(path)
    model = quantize.prepared(original)
    layers = quantize.layers_of(model)
    if not layers:
        raise TargetError(
            path, "it has no node with a constant weight matrix to compress", "MatMul, Gemm and Gather have one"
        )
    inputs = _inputs(calibration, path)
    plain = quantize.session_of(original)
    reference = quantize.run(plain, inputs)
    names = tuple(name for name in want.formats if name in quantize.FORMATS)
    data = model.SerializeToString()
    rest = len(data) - sum(layer.nbytes for layer in layers)
    errors: dict[tuple[str, str], float] = {}
    extra: dict[str, int] = {}
    least, gap = None, None
    if want.budget is not None:
        extra = quantize.node_bytes(model, layers, names)
        errors = quantize.probe(model, layers, names, inputs, reference, seconds, say)
        picks, least, gap = _within(want.budget, rest, layers, names, errors, extra, path)
    else:
        extra = quantize.node_bytes(model, layers, (str(want.form),))
        picks = {layer.name: want.form if want.form in layer.formats() else "keep" for layer in layers}  # type: ignore[misc]
    for attempt in range(_TRIES):
        say("writing", None, None)
        changed = quantize.converted(model, {name: form for name, form in picks.items() if form != "keep"})
        result = changed.SerializeToString()
        if want.budget is None or len(result) <= want.budget:
            break
        # the names of nodes that the quantisers add differ in length
        rest += len(result) - want.budget
        if attempt == _TRIES - 1:
            raise BudgetError(len(result), want.budget, "what the quantisers wrote")
        picks, least, gap = _within(want.budget, rest, layers, names, errors, extra, path)
    write_atomically(out, result)
    fitted = quantize.session_of(str(out))
    relative, largest = quantize.compare(reference, quantize.run(fitted, inputs))
    judge = _metric(metric)
    constants = [quantize.constant_bytes(item) for item in (original, changed)]
    peaks = [_peak(str(Path(file).resolve()), inputs) if repeats else None for file in (path, str(out))]
    projected = rest + sum(layer.stored_bytes(picks[layer.name]) + extra.get(picks[layer.name], 0) for layer in layers)
    return CompressionReport(
        model=path, budget=want.budget,
        before=CompressedSide(len(original.graph.node), _file_bytes(path, original), constants[0], peaks[0],
                              _seconds(plain, inputs, repeats), judge(plain)),
        after=CompressedSide(len(changed.graph.node), len(result), constants[1], peaks[1],
                             _seconds(fitted, inputs, repeats), judge(fitted)),
        max_error=largest, relative_error=relative, output=str(out), recipe=None,
        projected_bytes=projected, smallest=least, gap=gap,
        layers=tuple(
            LayerChoice(layer.name, picks[layer.name], (layer.rows, layer.columns), layer.nbytes,
                        layer.stored_bytes(picks[layer.name]),
                        errors[layer.name, picks[layer.name]] ** 0.5 if (layer.name, picks[layer.name]) in errors else None)
            for layer in layers
        ),
        seconds=time.monotonic() - began,
        notes=("peak: growth of a fresh process's resident memory, from before the session to the end of a run",),
    )  # fmt: skip


def _within(
    budget: int, rest: int, layers: list[Any], names: tuple[str, ...], errors: Mapping[tuple[str, str], float],
    extra: Mapping[str, int], path: str,
) -> tuple[dict[str, str], int, float]:  # fmt: skip
    options = [[form for form in layer.formats() if form in names] or ["keep"] for layer in layers]
    table = [
        [Choice(layer.stored_bytes(form) + extra.get(form, 0), errors.get((layer.name, form), 0.0)) for form in forms]
        for layer, forms in zip(layers, options, strict=True)
    ]
    least = rest + smallest(table)
    if least > budget:
        raise BudgetError(least, budget, f"{rest} bytes of {path} that stay as they are and {len(layers)} layers")
    found = allocate(table, budget - rest)
    picks = {layer.name: forms[pick] for layer, forms, pick in zip(layers, options, found.picks, strict=True)}
    return picks, least, found.gap


def _inputs(calibration: str | None, path: str) -> dict[str, Any]:
    if calibration is None:
        raise TargetError(
            path, "an ONNX file brings no calibration batch, and the output error is measured on one",
            "--calibration inputs.npz or file.py:function that returns a dict of arrays",
        )  # fmt: skip
    if calibration.endswith(".npz"):
        try:
            with np.load(calibration, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise TargetError(calibration, f"it cannot be read as an .npz file: {error}") from error
    from memfit.frameworks.target import load_function

    given = load_function(calibration)()
    if not isinstance(given, Mapping):
        raise TargetError(calibration, f"it returned {type(given).__name__}, not a dict of input name -> array")
    return {str(name): np.asarray(value) for name, value in given.items()}


def _file_bytes(path: str, model: Any) -> int:
    """Bytes of the file and of the weights beside it."""
    return max(Path(path).stat().st_size, int(model.ByteSize()))


def _seconds(session: Any, inputs: Mapping[str, Any], repeats: int) -> float | None:
    from memfit.frameworks.onnx import quantize

    if not repeats:
        return None
    quantize.run(session, inputs)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        quantize.run(session, inputs)
        best = min(best, time.perf_counter() - start)
    return best


def _peak(path: str, inputs: Mapping[str, Any]) -> int | None:
    """Growth of a fresh process's largest resident size from before the session is made to after a run."""
    import subprocess
    import sys
    import tempfile

    with tempfile.TemporaryDirectory(prefix="memfit-onnx-") as folder:
        file = str(Path(folder) / "inputs.npz")
        np.savez(file, **inputs)
        done = subprocess.run(
            [sys.executable, "-m", "memfit.frameworks.onnx.peak_worker", path, file],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            return int(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return None

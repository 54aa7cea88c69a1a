"""`compress`: a model file that keeps a byte budget, each layer in the format that costs the output least; measured.

MODEL is a target of a torch program, a folder of safetensors files, or an ONNX file. What was asked for is either a budget,
which chooses formats per layer by measured error, or one format for all layers. Before and after are run in fresh processes.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.errors import BudgetError, MissingFrameworkError, TargetError
from memfit.files import check_writable
from memfit.ir.tensor_file import file_bytes
from memfit.passes.formats import BUDGET_FORMATS, FORMATS
from memfit.report.compression_summary import CompressedSide, CompressionReport, LayerChoice, TradePoint
from memfit.units import parse_bytes

if TYPE_CHECKING:
    from memfit.fitting.compression import Chosen, Compression

Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for. ``budget``: bytes of the file; or ``form`` for all layers with ``zeros``, the share dropped.

    ``sparse``: the form was asked for by a share alone, and layers that it would not make smaller are kept.
    """

    budget: int | None
    form: str | None
    zeros: float
    formats: tuple[str, ...]
    sparse: bool = False


def wanted(
    budget: int | str | None, quantize: str | None, sparsify: str | float | None, formats: tuple[str, ...] | None
) -> Wanted:
    """Check the request.

    Raises:
        TargetError: nothing or too much was asked for, an unknown format or share, a budget that is none.
    """
    if sum(value is not None for value in (budget, quantize, sparsify)) != 1:
        raise TargetError(
            "request", "ask for exactly one of a budget, a format to quantise to, and a sparsity",
            "--budget 20MiB, --quantize int4 or --sparsify 2:4",
        )  # fmt: skip
    names = tuple(formats) if formats else BUDGET_FORMATS
    integer = tuple(name for name, form in FORMATS.items() if form.kind in ("int", "keep"))
    for name in names:
        if name not in integer:
            raise TargetError(name, "there is no such format to choose from", f"known: {', '.join(integer)}")
    single = tuple(name for name, form in FORMATS.items() if form.kind in ("int", "torch"))
    if quantize is not None and quantize not in single:
        raise TargetError(quantize, "there is no such format to quantise to", f"known: {', '.join(single)}")
    if budget is not None:
        return Wanted(parse_bytes(budget), None, 0.0, names)
    if quantize is not None:
        return Wanted(None, quantize, 0.0, names)
    text = str(sparsify).strip()
    if text == "2:4":
        return Wanted(None, "2:4", 0.5, names)
    kind, colon, share = text.rpartition(":")
    try:
        zeros = float(share)
    except ValueError:
        zeros = math.nan
    if not 0 < zeros < 1 or (colon and kind not in ("csr", "bitmap")):
        raise TargetError(text, "it is no sparsity", "2:4, a share of zeros such as 0.8, csr:0.8 or bitmap:0.8")
    return Wanted(None, kind or "bitmap", zeros, names, sparse=not kind)


def compress(
    model: str, *, budget: int | str | None = None, quantize: str | None = None, sparsify: str | float | None = None,
    formats: tuple[str, ...] | None = None, calibration: str | None = None, metric: str | None = None,
    settings: Mapping[str, Any] | None = None, output: str | None = None, seconds: float = 60.0, repeats: int = 5,
    tradeoff: bool = False, progress: Progress | None = None,
) -> CompressionReport:  # fmt: skip
    """Write a compressed copy of ``model`` and say what it costs, measured.

    Args:
        model: ``file.py:function`` (torch), a folder with ``config.json`` and safetensors files, or an ``.onnx`` file.
        budget: bytes of the written file, or a text size; the formats are chosen per layer.
        quantize: one format for all layers (``int8``, ``int4``, ...).
        sparsify: ``2:4``, or the share of zeros (0 to 1), stored as ``csr:`` or ``bitmap:`` (default: the smaller).
        formats: what a budget may choose from; left out, ``BUDGET_FORMATS``.
        calibration: ``file.py:function`` that returns the inputs, or an ``.npz`` of them; a torch target brings its own.
        metric: ``file.py:function`` of the model (an onnxruntime session for ONNX) that returns a number.
        output: the file to write; left out, named after the model, here.
        repeats: timed runs of each side in a fresh process, for peak and time; 0: none.
        seconds: how long layers may be measured one by one, at most, about; the same again for the trade-off.
        tradeoff: also measure the whole model in other formats and sparsities, for the picture (torch, with a batch).

    Raises:
        BudgetError: the budget is below the smallest reachable; TargetError: a model or request that cannot be used.
    """
    want = wanted(budget, quantize, sparsify, formats)
    if model.endswith(".onnx"):
        from memfit.api.compressing_onnx import compress_onnx

        return compress_onnx(model, want, calibration, metric, output, seconds, repeats, progress)
    if importlib.util.find_spec("torch") is None:
        raise MissingFrameworkError("torch", "torch")
    return _compress_torch(model, want, calibration, metric, settings, output, seconds, repeats, tradeoff, progress)


def load_compressed(path: str, model: Any = None) -> Any:
    """The model of a compressed file, without its original weights.

    Args:
        path: the ``.safetensors`` file; its recipe lies beside it.
        model: modules of the same architecture, whose parameters may be on ``meta``; left out, they are built as the
            recipe says, which for a target runs its function.

    Returns:
        the model, in evaluation mode; no parameter of it needs gradients.

    Raises:
        TraceError: files that are none, or of another model.
    Cost: peak memory of the compressed model and one tensor.
    """
    from memfit.frameworks.torch.compressed_file import load_into, read_recipe
    from memfit.frameworks.torch.compressed_worker import empty_model

    where = Path(path)
    source = read_recipe(where)["source"]
    return load_into(empty_model(source) if model is None else model, where).eval()


def _compress_torch(
    name: str, want: Wanted, calibration: str | None, metric: str | None, settings: Mapping[str, Any] | None,
    output: str | None, seconds: float, repeats: int, tradeoff: bool, progress: Progress | None,
) -> CompressionReport:  # fmt: skip
    from memfit.fitting.compression import Compression
    from memfit.frameworks.torch import compressed_file
    from memfit.frameworks.torch.compressed_run import run_sides
    from memfit.frameworks.torch.compressible import layers_of

    began = time.monotonic()
    say = progress or (lambda description, done, total: None)
    folder = Path(name) if ":" not in name and Path(name).is_dir() else None
    out = Path(output or f"{folder.name if folder else name.rpartition(':')[2]}.compressed.safetensors")
    if out.suffix != ".safetensors":
        raise TargetError(str(out), "a compressed torch model is written as .safetensors", "name it so")
    check_writable(out)
    check_writable(out.with_suffix(".json"))
    if folder is not None and calibration is None:
        if metric is not None:
            raise TargetError(
                name, "a metric is told of the model before and after, and a folder without inputs is never loaded whole",
                "--calibration file.py:function that returns the model's inputs",
            )  # fmt: skip
        return _stream(folder, want, out, say, began)
    step, source, here = _step_of(name, folder, calibration, settings)
    layers = layers_of(step.model)
    if not layers:
        raise TargetError(name, "its model has no linear layer or embedding to compress", "only those are packed")
    plain = compressed_file.tensors_of(step.model)
    before_bytes = file_bytes(compressed_file.table_of(plain), {"format": "pt"})
    say("running the model on the calibration batch", None, None)
    work = Compression(step, layers, seconds=seconds, progress=progress)
    judge = _metric(metric)
    before_metric = judge(step.model)
    chosen = _chosen(work, want)
    after_metric = judge(step.model)
    kept = {
        layer.name: getattr(
            getattr(layer.places[0].parent._modules[layer.places[0].attribute], "packed", None), "kept", None
        )
        for layer in layers
    }
    picks = {row: (form.name, kept[row]) for row, form in chosen.formats.items() if form.kind != "keep"}
    projected = file_bytes(compressed_file.table_of(compressed_file.tensors_of(step.model)), {"format": "pt"})
    if want.budget is not None and projected > want.budget:
        raise BudgetError(projected, want.budget, "the file as it would be written")
    say("writing", None, None)
    size = compressed_file.save(out, step.model, compressed_file.recipe_of(picks, source))
    if repeats:
        say("running both models in fresh processes", None, None)
        before, after = run_sides(step, here, source, out, repeats)
    else:
        before, after = (
            {"constants": sum(t.nbytes for t in held.values())}
            for held in (plain, compressed_file.tensors_of(step.model))
        )
    points: tuple[TradePoint, ...] = ()
    if tradeoff:
        from memfit.fitting.compression_tradeoff import tradeoff as measured_tradeoff

        tried = measured_tradeoff(work, want.formats, chosen.errors if want.budget else {}, judge, seconds)
        written = TradePoint("chosen", "written", size, chosen.error.relative, after_metric)
        points = (*(TradePoint(*row) for row in tried), written)
    return CompressionReport(
        model=name, budget=want.budget,
        before=_side(before, before_bytes, before_metric), after=_side(after, size, after_metric),
        max_error=chosen.error.largest, relative_error=chosen.error.relative, output=str(out),
        recipe=str(out.with_suffix(".json")), projected_bytes=projected, smallest=chosen.smallest, gap=chosen.gap,
        layers=tuple(
            LayerChoice(layer.name, chosen.formats[layer.name].name, (layer.rows, layer.columns), layer.weight.nbytes,
                        layer.stored_bytes(chosen.formats[layer.name], kept[layer.name]),
                        _root(chosen.errors.get((layer.name, chosen.formats[layer.name].name))))
            for layer in layers
        ),
        seconds=time.monotonic() - began, notes=chosen.notes, tradeoff=points,
    )  # fmt: skip


def _side(found: Mapping[str, Any], file: int, metric: float | None) -> CompressedSide:
    return CompressedSide(
        found.get("nodes"), file, found["constants"], found.get("peak"), found.get("wall_seconds"), metric
    )


def _root(squared: float | None) -> float | None:
    return None if squared is None else math.sqrt(squared)


def _step_of(
    name: str, folder: Path | None, calibration: str | None, settings: Mapping[str, Any] | None
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The inference step, the source that a recipe keeps, and the source to build the original from here."""
    from dataclasses import replace

    from memfit.frameworks.target import build_step, load_function
    from memfit.frameworks.torch.compressed_run import inference_step
    from memfit.frameworks.torch.model_folder import load_folder, source_of
    from memfit.ir.step import Step

    if folder is not None:
        assert calibration is not None
        inputs = load_function(calibration)()
        step = Step(load_folder(folder)[0], inputs.inputs if isinstance(inputs, Step) else inputs, train=False)
        return step, source_of(folder), {"kind": "folder", "folder": str(folder)}
    step = build_step(name, settings)
    if calibration is not None:
        given = load_function(calibration)()
        step = replace(step, inputs=given.inputs if isinstance(given, Step) else given)
    step = inference_step(name, step)
    source = {"kind": "target", "target": name, "settings": dict(settings or {})}
    return step, source, source


def _chosen(work: Compression, want: Wanted) -> Chosen:
    from memfit.fitting.compression import Chosen, uniform

    if want.budget is not None:
        return work.choose(want.budget, want.formats)
    assert want.form is not None
    formats, notes = uniform(work.layers, FORMATS[want.form], want.zeros)
    if FORMATS[want.form].kind in ("2:4", "csr", "bitmap"):
        from memfit.passes.sparsify import break_even

        widest = max(layer.columns for layer in work.layers)
        even = break_even(work.layers[0].dtype.itemsize, widest)
        notes.append(
            f"break-even: smaller than dense above {even['csr']:.1%} zeros as csr, above {even['bitmap']:.1%} as bitmap; "
            "2:4 and bitmap are made dense on each use, so that the peak of a run holds one whole layer"
        )
    error = work.measured(formats, want.zeros)
    return Chosen(formats, error, {}, notes=tuple(notes))


def _metric(text: str | None) -> Callable[[Any], float | None]:
    if text is None:
        return lambda model: None
    from memfit.frameworks.target import load_function

    function = load_function(text)

    def judge(model: Any) -> float:
        try:
            return float(function(model))
        except (TypeError, ValueError) as error:
            raise TargetError(
                str(text), f"it is no metric: {error}", "a function of the model that returns a number"
            ) from error

    return judge


def _stream(folder: Path, want: Wanted, out: Path, say: Progress, began: float) -> CompressionReport:
    """A folder without calibration: one format for all, quantised as it is read; no output error can be measured."""
    from memfit.frameworks.torch import compressed_file
    from memfit.frameworks.torch.compressible import layers_of, takes
    from memfit.frameworks.torch.model_folder import load_folder, skeleton, source_of

    if want.budget is not None:
        raise TargetError(
            str(folder), "a budget chooses formats by their error on a calibration batch, and there is none",
            "--calibration file.py:function that returns the model's inputs, or --quantize int4",
        )  # fmt: skip
    form = FORMATS[want.form or "keep"]
    layers = layers_of(skeleton(folder))
    if not layers:
        raise TargetError(
            str(folder), "its model has no linear layer or embedding to compress", "only those are packed"
        )
    rows = [(layer.name, layer.rows, layer.columns) for layer in layers]
    stored: dict[str, int] = {}

    def choose(layer: Any) -> Any:
        stored[layer.name] = layer.weight.nbytes
        return form if takes(layer, form) else FORMATS["keep"], want.zeros

    model, chosen = load_folder(folder, choose, progress=lambda done, total: say("packing weights", done, total))
    size = compressed_file.save(out, model, compressed_file.recipe_of(chosen, source_of(folder)))
    tensors = compressed_file.tensors_of(model)
    constants = sum(tensor.nbytes for tensor in tensors.values())
    after = {name: FORMATS[chosen[name][0]] if name in chosen else FORMATS["keep"] for name, _, _ in rows}
    sizes = {
        name: after[name].stored_bytes(r, c, layer.dtype.itemsize, chosen.get(name, ("", None))[1])
        for (name, r, c), layer in zip(rows, layers, strict=True)
    }
    original = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return CompressionReport(
        model=str(folder), budget=None, before=CompressedSide(None, original, original, None),
        after=CompressedSide(None, size, constants, None), max_error=None, relative_error=None, output=str(out),
        recipe=str(out.with_suffix(".json")),
        projected_bytes=file_bytes(compressed_file.table_of(tensors), {"format": "pt"}),
        layers=tuple(LayerChoice(n, after[n].name, (r, c), stored[n], sizes[n], None) for n, r, c in rows),
        seconds=time.monotonic() - began,
        notes=("no calibration batch was given: the output error was not measured (--calibration)",),
    )  # fmt: skip

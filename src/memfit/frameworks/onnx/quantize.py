"""Weights of an ONNX model in fewer bits: what onnxruntime's own quantisers do, layer by layer, and the error measured.

    keep        as it is
    int8        dynamic quantisation: 8-bit weights, inputs rounded to 8 bits at run time (MatMul, Gather)
    int4        MatMulNBits, 4 bits per 32 values, products of 8-bit inputs (accuracy level 4)    (MatMul)
    int4-g128   the same, per 128 values                                                          (MatMul)

A layer is a node with a constant weight matrix; a Gemm is split into MatMul and Add first, which is what the quantisers
know. Errors are of the graph's outputs on the calibration batch, one layer at a
time while there is time, else scaled from the error of the weight alone. Cost: one session for each layer and format.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.errors import MissingFrameworkError, TargetError

try:
    import onnx
    import onnxruntime
    from onnx import numpy_helper
except ImportError as error:
    raise MissingFrameworkError(str(error.name or "onnxruntime").partition(".")[0], "onnx") from error

Arrays = Mapping[str, npt.NDArray[Any]]
FORMATS = {"keep": (), "int8": ("MatMul", "Gather"), "int4": ("MatMul",), "int4-g128": ("MatMul",)}
"""Format -> the operators that have it."""
_BLOCKS = {"int4": 32, "int4-g128": 128}


@dataclass(frozen=True)
class OnnxLayer:
    """A node with a constant weight of ``rows`` x ``columns`` (as the node has it); ``shared``: nodes that use it."""

    name: str
    op: str
    weight: str
    rows: int
    columns: int
    itemsize: int
    shared: int

    @property
    def nbytes(self) -> int:
        """Bytes of the weight as it is."""
        return self.rows * self.columns * self.itemsize

    def stored_bytes(self, form: str) -> int:
        """Projected bytes of the weight in ``form``, scales and zero points included."""
        if form == "keep":
            return self.nbytes
        if form == "int8":
            return self.rows * self.columns + self.itemsize + 1
        per_column = (self.rows + _BLOCKS[form] - 1) // _BLOCKS[form]
        blocks, zeros = self.columns * per_column, self.columns * ((per_column + 1) // 2)
        return blocks * (_BLOCKS[form] // 2) + blocks * self.itemsize + zeros

    def formats(self) -> list[str]:
        """The formats that its operator has."""
        return [name for name, ops in FORMATS.items() if name == "keep" or self.op in ops]


def read_model(path: str) -> Any:
    """The model with its weights.

    Raises:
        TargetError: no file, or no valid ONNX model.
    """
    if not Path(path).is_file():
        raise TargetError(path, "there is no such file", f"looked in {Path.cwd()}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise TargetError(path, f"it is no valid ONNX model: {text}") from error
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{number}"
    return model


def prepared(model: Any) -> Any:
    """A copy in which every Gemm with a constant weight, used once and not scaled, is a MatMul and an Add."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {value.name: value for value in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    nodes = []
    for node in graph.node:
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        weight = weights.get(node.input[1]) if node.op_type == "Gemm" else None
        plain = given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        if weight is None or not plain or uses[weight.name] != 1:
            nodes.append(node)
            continue
        if given.get("transB", 0):
            turned = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
        added = len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if added else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", node.input[:2], [product], node.name))
        if added:
            nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], node.output, f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def layers_of(model: Any) -> list[OnnxLayer]:
    """Nodes of the main graph with a constant float weight matrix, each weight once."""
    weights = {value.name: value for value in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    found = []
    for node in model.graph.node:
        at = 0 if node.op_type == "Gather" else 1
        if node.op_type not in FORMATS["int8"] or len(node.input) <= at or node.input[at] not in weights:
            continue
        value = weights[node.input[at]]
        if len(value.dims) != 2 or value.data_type != onnx.TensorProto.FLOAT or uses[value.name] != 1:
            continue
        found.append(OnnxLayer(node.name, node.op_type, value.name, int(value.dims[0]), int(value.dims[1]), 4, 1))
    return found


def converted(model: Any, formats: Mapping[str, str]) -> Any:
    """A copy of ``model`` with each node of ``formats`` in its format."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    result = onnx.ModelProto()
    result.CopyFrom(model)
    with _quiet():
        for form, block in _BLOCKS.items():
            names = [name for name, wanted in formats.items() if wanted == form]
            if names:
                # with weights of their own: the quantiser changes the model that it is given
                quantizer = MatMulNBitsQuantizer(
                    result, bits=4, block_size=block, accuracy_level=4, nodes_to_include=names
                )
                quantizer.process()
                result = quantizer.model.model
        names = [name for name, wanted in formats.items() if wanted == "int8"]
        if names:
            with tempfile.TemporaryDirectory(prefix="memfit-onnx-") as folder:
                path = os.path.join(folder, "model.onnx")
                quantize_dynamic(
                    result, path, nodes_to_quantize=names, weight_type=QuantType.QInt8,
                    op_types_to_quantize=list(FORMATS["int8"]),
                )  # fmt: skip
                result = onnx.load(path)
    return result


def constant_bytes(model: Any) -> int:
    """Bytes of the main graph's constants."""
    return sum(int(numpy_helper.to_array(value).nbytes) for value in model.graph.initializer)


def node_bytes(model: Any, layers: list[OnnxLayer], names: tuple[str, ...]) -> dict[str, int]:
    """Format -> bytes of a file that a layer in it takes beside its weight (nodes and names), as the quantiser writes it."""
    found: dict[str, int] = {}
    size = model.ByteSize()
    for form in names:
        layer = next((layer for layer in layers if form in layer.formats() and form != "keep"), None)
        if layer is not None:
            more = converted(model, {layer.name: form}).ByteSize() - size
            found[form] = max(0, more + layer.nbytes - layer.stored_bytes(form))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def session_of(model: Any, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU for a model or the path of one.

    Raises:
        TargetError: onnxruntime cannot run the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    given = model if isinstance(model, str) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise TargetError("model", f"onnxruntime cannot run it: {text}") from error


def run(session: Any, inputs: Arrays) -> list[npt.NDArray[Any]]:
    """The floating-point outputs on ``inputs``.

    Raises:
        TargetError: inputs that the model does not take, or no floating-point output.
    """
    names = {value.name for value in session.get_inputs()}
    if names - set(inputs):
        raise TargetError(
            "calibration", f"it lacks the inputs {sorted(names - set(inputs))}", f"given: {sorted(inputs)}"
        )
    try:
        values = session.run(None, {name: np.asarray(inputs[name]) for name in names})
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise TargetError("calibration", f"the model does not run on it: {text}") from error
    found = [value for value in values if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    if not found:
        raise TargetError("model", "it has no floating-point output to compare")
    return found


def compare(reference: list[npt.NDArray[Any]], found: list[npt.NDArray[Any]]) -> tuple[float, float]:
    """(relative error in the 2-norm, largest difference over the largest value), of the worst output."""
    relative = largest = 0.0
    for old, new in zip(reference, found, strict=True):
        gap = np.asarray(new, np.float64) - old
        if not np.isfinite(gap).all():
            return float("inf"), float("inf")
        if gap.size:
            relative = max(relative, float(np.linalg.norm(gap) / max(float(np.linalg.norm(old)), 1e-30)))
            largest = max(largest, float(np.abs(gap).max() / max(float(np.abs(old).max()), 1e-30)))
    return relative, largest


def weight_error(model: Any, layer: OnnxLayer, form: str) -> float:
    """Squared relative error of rounding the weight alone, to nearest: what scales an error that was not measured."""
    value = next(item for item in model.graph.initializer if item.name == layer.weight)
    weight = numpy_helper.to_array(value).astype(np.float32)
    if form == "int8":
        step = np.abs(weight).max() / 127
    else:
        block = _BLOCKS[form]
        rows = -(-weight.shape[0] // block) * block
        wide = np.zeros((rows, weight.shape[1]), np.float32)
        wide[: weight.shape[0]] = weight
        blocks = wide.reshape(-1, block, weight.shape[1])
        spread = np.maximum(blocks.max(1), 0) - np.minimum(blocks.min(1), 0)
        return float((spread**2).sum() * block / 15**2 / 12 / max(float((weight**2).sum()), 1e-30))
    return float(step**2 / 12 * weight.size / max(float((weight**2).sum()), 1e-30))


def probe(
    model: Any, layers: list[OnnxLayer], names: tuple[str, ...], inputs: Arrays, reference: list[npt.NDArray[Any]],
    seconds: float, say: Callable[[str, int | None, int | None], None],
) -> dict[tuple[str, str], float]:  # fmt: skip
    """Squared output error of each layer in each of its formats, alone; the largest layers are measured first."""
    errors: dict[tuple[str, str], float] = {}
    ratios: list[float] = []
    deadline = time.monotonic() + seconds
    work = [
        (layer, form)
        for layer in sorted(layers, key=lambda layer: -layer.nbytes)
        for form in layer.formats()
        if form in names
    ]
    for number, (layer, form) in enumerate(work):
        if form == "keep":
            errors[layer.name, form] = 0.0
            continue
        alone = weight_error(model, layer, form)
        if time.monotonic() < deadline or not ratios:
            changed = session_of(converted(model, {layer.name: form}))
            errors[layer.name, form] = compare(reference, run(changed, inputs))[0] ** 2
            if alone:
                ratios.append(errors[layer.name, form] / alone)
        else:
            errors[layer.name, form] = alone * float(np.median(ratios))
        say("measuring each layer in each format", number + 1, len(work))
    return errors

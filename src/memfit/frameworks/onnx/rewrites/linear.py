"""Scales and shifts folded into the weights of the linear operator before them; pads into convolutions; MatMul + Add to Gemm.

    Conv -> BatchNormalization, Mul, Div, Add, Sub by a constant per channel     one Conv with other weights
    Gemm, MatMul of matrices -> BatchNormalization                               one Gemm with other weights
    BatchNormalization -> Mul, Add ... by a constant per channel                 one BatchNormalization
    Pad with zeros -> Conv                                                       Conv with pads
    MatMul -> [Add] -> views -> Mul by one number                                the number goes into weight and bias
    MatMul of matrices -> Add of a vector                                        Gemm

Numerics: weights are rounded once more (in float64, then to their own type), so results differ in the last bits; a pad is
bit-identical. Only weights that nothing else reads are changed, so no constant is ever held twice for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from memfit.frameworks.onnx.rewrites.matching import Sight, operation
from memfit.ir.program import Operation, Program
from memfit.passes.fold import SMALL
from memfit.passes.workbench import Workbench

_FLOATS = frozenset(("float32", "float64"))
_AFFINE = ("Mul", "Div", "Add", "Sub")
_VIEWS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")


def fold_into_linear(program: Program, bench: Workbench) -> Program:
    """``program`` with constant scales and shifts inside the weights before them."""
    sight = Sight(program, bench)
    if 0 < sight.opset < 7:
        return program
    for index, given in enumerate(program.operations):
        operator = given.kind.removeprefix("onnx.")
        if index in sight.touched:
            continue
        if operator == "BatchNormalization":
            _normalised(sight, index, given)
        elif operator in _AFFINE:
            _affine(sight, index, given, operator)
        elif operator == "Conv":
            _padded(sight, index, given)
    return sight.done()


def _own(sight: Sight, name: str) -> Any:
    """The content of a constant that one operation alone reads, once; None else."""
    return sight.array(name) if len(sight.program.readers.get(name, ())) == 1 else None


def _channel_constants(sight: Sight, given: Operation) -> tuple[Any, Any] | None:
    """Scale and shift per channel of a BatchNormalization that only infers."""
    if any(given.outputs[1:]) or given.attribute("training_mode", 0) or sight.opset < 9:
        return None
    found = [sight.array(name) for name in given.inputs[1:5]]
    if any(value is None for value in found) or sight.dtype(given.inputs[0]) not in _FLOATS:
        return None
    scale, shift, mean, variance = (np.asarray(value, dtype=np.float64) for value in found)
    factor = scale / np.sqrt(variance + given.attribute("epsilon", 1e-5))
    return factor, shift - mean * factor


def _normalised(sight: Sight, index: int, given: Operation) -> None:
    factors = _channel_constants(sight, given)
    if factors is not None and not _into_convolution(sight, index, given, given.inputs[0], *factors):
        _into_matrix(sight, index, given, given.inputs[0], *factors)


def _into_convolution(sight: Sight, index: int, given: Operation, source: str, scale: Any, shift: Any) -> bool:
    """Put ``scale`` and ``shift`` per channel into the Conv that makes ``source``."""
    before = sight.maker(source, "Conv")
    if before is None or not sight.alone(source):
        return False
    weight = _changeable(sight, before.inputs[1])
    if weight is None or sight.dtype(before.inputs[1]) not in _FLOATS:
        return False
    bias_name = before.inputs[2] if len(before.inputs) > 2 else ""
    bias = sight.array(bias_name) if bias_name else None
    if bias_name and bias is None:
        return False
    channels = weight.shape[0]
    scale, shift = np.broadcast_to(scale, (channels,)), np.broadcast_to(shift, (channels,))
    new = (np.asarray(weight, np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
    moved = (np.zeros(channels) if bias is None else np.asarray(bias, np.float64)) * scale + shift
    names = (
        before.inputs[0],
        sight.numbers(new, before.inputs[1]),
        sight.numbers(moved.astype(weight.dtype), bias_name or "bias"),
    )
    sight.put(index, replace(before, inputs=names, outputs=given.outputs[:1]))
    sight.put(sight.program.producer[source])
    return True


def _into_matrix(sight: Sight, index: int, given: Operation, source: str, scale: Any, shift: Any) -> bool:
    """Put ``scale`` and ``shift`` per column into the product of matrices that makes ``source``."""
    before = sight.maker(source, "Gemm", "MatMul")
    if before is None or not sight.alone(source) or len(sight.shape(source) or ()) != 2:
        return False
    if any(before.attribute(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    weight = _changeable(sight, before.inputs[1])
    if weight is None or weight.ndim != 2 or sight.dtype(before.inputs[1]) not in _FLOATS:
        return False
    bias_name = before.inputs[2] if len(before.inputs) > 2 else ""
    bias = sight.array(bias_name) if bias_name else np.zeros(1)
    columns = weight.shape[0 if before.attribute("transB", 0) else 1]
    if bias is None or bias.size not in (1, columns) or bias.shape[:-1] not in ((), (1,)):
        return False
    factors = np.broadcast_to(scale, (columns,))
    wide = np.asarray(weight, np.float64)
    new = wide * (factors[:, None] if before.attribute("transB", 0) else factors)
    moved = np.asarray(bias, np.float64).reshape(-1) * factors + shift
    names = (
        before.inputs[0],
        sight.numbers(new.astype(weight.dtype), before.inputs[1]),
        sight.numbers(moved.astype(weight.dtype), bias_name or "bias"),
    )
    sight.put(index, replace(before, kind="onnx.Gemm", inputs=names, outputs=given.outputs[:1]))
    sight.put(sight.program.producer[source])
    return True


def _changeable(sight: Sight, name: str) -> Any:
    """A weight that may be changed: one that the file's author shared would be held twice, unless it is small."""
    constant = sight.program.constants.get(name)
    shared = constant is not None and constant.nbytes > SMALL and name in sight.program.meta.get("shared", ())
    return None if shared else sight.array(name)


def _affine(sight: Sight, index: int, given: Operation, operator: str) -> None:
    if len(given.inputs) != 2 or sight.dtype(given.outputs[0]) not in _FLOATS:
        return
    left, right = given.inputs
    constant, source = sight.array(right), left
    if constant is None and operator in ("Mul", "Add"):
        constant, source = sight.array(left), right
    if constant is None:
        if operator == "Add":
            _gemm(sight, index, given)
        return
    if sight.shape(source) != sight.shape(given.outputs[0]) or source in sight.program.constants:
        return
    value = np.asarray(constant, np.float64)
    scale = value if operator == "Mul" else 1 / value if operator == "Div" and (value != 0).all() else None
    shift = value if operator == "Add" else -value if operator == "Sub" else None
    if scale is None and shift is None:
        return
    shape = sight.shape(source) or ()
    per_channel = _per_channel(value, len(shape), shape[1] if len(shape) > 1 else 0)
    if per_channel is not None:
        own = per_channel if scale is None else (per_channel if operator == "Mul" else 1 / per_channel)
        signed = own if operator != "Sub" else -own
        pair = (own, np.zeros(1)) if scale is not None else (np.ones(1), signed)
        if _into_convolution(sight, index, given, source, *pair) or _into_normalisation(
            sight, index, given, source, *pair
        ):
            return
    if (
        scale is not None
        and value.size == 1
        and _into_product(sight, index, given, source, float(scale.reshape(-1)[0]))
    ):
        return
    if operator == "Add":
        _gemm(sight, index, given)


def _per_channel(value: Any, rank: int, channels: Any) -> Any:
    """``value`` as one number per channel (axis 1 of ``rank``), None where it is none."""
    if value.size == 1 and value.ndim <= rank:
        return value.reshape(1)
    if rank < 3 or not isinstance(channels, int) or value.size != channels or value.ndim > rank:
        return None
    padded = (1,) * (rank - value.ndim) + value.shape
    return value.reshape(-1) if padded[1] == channels else None


def _into_normalisation(sight: Sight, index: int, given: Operation, source: str, scale: Any, shift: Any) -> bool:
    before = sight.maker(source, "BatchNormalization")
    if before is None or not sight.alone(source) or _channel_constants(sight, before) is None:
        return False
    old_scale, old_shift = (sight.array(name) for name in before.inputs[1:3])
    channels = old_scale.shape[0]
    scale, shift = np.broadcast_to(scale, (channels,)), np.broadcast_to(shift, (channels,))
    names = list(before.inputs)
    names[1] = sight.numbers((np.asarray(old_scale, np.float64) * scale).astype(old_scale.dtype), names[1])
    names[2] = sight.numbers((np.asarray(old_shift, np.float64) * scale + shift).astype(old_shift.dtype), names[2])
    sight.put(index, replace(before, inputs=tuple(names), outputs=given.outputs))
    sight.put(sight.program.producer[source])
    return True


def _into_product(sight: Sight, index: int, given: Operation, source: str, number: float) -> bool:
    """One number into the weight (and bias) of a product, past views that lie between."""
    path = []
    name = source
    while True:
        if not sight.alone(name):
            return False
        view = sight.maker(name, *_VIEWS)
        if view is None:
            break
        path.append(name)
        name = view.inputs[0]
    if given.outputs[0] in sight.outputs and not path:
        pass
    add = sight.maker(name, "Add")
    bias_name, product_name = "", name
    if add is not None:
        bias_name = next((n for n in add.inputs if _own(sight, n) is not None), "")
        product_name = next((n for n in add.inputs if n != bias_name), "")
        if not bias_name or not sight.alone(product_name):
            return False
    product = sight.maker(product_name, "MatMul", "Gemm")
    if product is None or (product.kind == "onnx.Gemm" and len(product.inputs) > 2 and add is not None):
        return False
    if product.kind == "onnx.Gemm" and len(product.inputs) > 2 and product.inputs[2]:
        bias_name = product.inputs[2]
        if _own(sight, bias_name) is None:
            return False
    weight = _own(sight, product.inputs[1])
    if weight is None or sight.dtype(product.inputs[1]) not in _FLOATS:
        return False
    scaled = sight.numbers((np.asarray(weight, np.float64) * number).astype(weight.dtype), product.inputs[1])
    new_bias = ""
    if bias_name:
        bias = sight.array(bias_name)
        new_bias = sight.numbers((np.asarray(bias, np.float64) * number).astype(bias.dtype), bias_name)

    def moved(n: str) -> str:
        return scaled if n == product.inputs[1] else new_bias if bias_name and n == bias_name else n

    at = sight.program.producer[product_name]
    sight.put(at, replace(product, inputs=tuple(moved(n) for n in product.inputs)))
    if add is not None:
        sight.put(sight.program.producer[name], replace(add, inputs=tuple(moved(n) for n in add.inputs)))
    output = given.outputs[0]
    maker = sight.program.operations[sight.program.producer[source]]
    if output in sight.outputs:
        if sight.program.producer[source] in sight.touched:
            maker = sight._now[sight.program.producer[source]][0]
        sight.put(sight.program.producer[source], replace(maker, outputs=given.outputs))
    else:
        sight.rename(output, source)
    sight.put(index)
    return True


def _padded(sight: Sight, index: int, given: Operation) -> None:
    before = sight.maker(given.inputs[0], "Pad")
    if before is None or not sight.alone(given.inputs[0]) or before.attribute("mode", "constant") != "constant":
        return
    if given.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return
    if len(before.inputs) > 1:
        pads = sight.array(before.inputs[1])
        value = sight.scalar(before.inputs[2]) if len(before.inputs) > 2 and before.inputs[2] else 0.0
        axes = sight.array(before.inputs[3]) if len(before.inputs) > 3 and before.inputs[3] else None
        if axes is None and len(before.inputs) > 3 and before.inputs[3]:
            return
    else:
        pads, value, axes = np.array(before.attribute("pads") or ()), before.attribute("value", 0.0), None
    rank = len(sight.shape(given.inputs[0]) or ())
    if pads is None or value != 0 or rank < 3:
        return
    whole = np.zeros(2 * rank, dtype=np.int64)
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    for at, axis in enumerate(places):
        whole[axis], whole[axis + rank] = pads[at], pads[at + len(places)]
    if whole[:2].any() or whole[rank : rank + 2].any() or (whole < 0).any():
        return
    own = given.attribute("pads") or (0,) * (2 * (rank - 2))
    added = [int(a + b) for a, b in zip(own, [*whole[2:rank], *whole[rank + 2 :]], strict=True)]
    attributes = {**dict(given.attributes), "pads": tuple(added), "auto_pad": "NOTSET"}
    new = replace(given, inputs=(before.inputs[0], *given.inputs[1:]), attributes=tuple(sorted(attributes.items())))
    sight.put(index, new)
    sight.put(sight.program.producer[given.inputs[0]])


def _gemm(sight: Sight, index: int, given: Operation) -> None:
    """MatMul of two matrices and an addition that broadcasts to the result."""
    for source, other in (given.inputs, given.inputs[::-1]):
        product = sight.maker(source, "MatMul")
        if product is None or not sight.alone(source) or sight.dtype(source) not in _FLOATS:
            continue
        left, right = (sight.shape(name) for name in product.inputs)
        bias, made = sight.shape(other), sight.shape(given.outputs[0])
        if (
            left is None
            or right is None
            or bias is None
            or len(left) != 2
            or len(right) != 2
            or made != sight.shape(source)
        ):
            continue
        if len(bias) > 2 or other not in sight.program.constants:
            continue
        sight.put(index, operation("Gemm", (*product.inputs, other), given.outputs[0], given.label))
        sight.put(sight.program.producer[source])
        return

"""Activations and normalisations written out by exporters, as the standard's own operators.

    x * 0.5 * (1 + erf(x / sqrt 2))              Gelu(x)                        from opset 20
    0.5 * x * (1 + tanh(0.797 * (x + 0.044 x^3)))  Gelu(x, approximate="tanh")  from opset 20
    x * HardSigmoid(x, 1/6, 1/2)                 HardSwish(x)                   from opset 14
    x * Reciprocal(y)                            x / y
    x / sqrt(mean(x^2) + e) * w                  x / sqrt(sum of squares + n e) * (w sqrt n)
    Where(Not(c), a, b)                          Where(c, b, a)

The last three remove whole-size intermediates. Numerics: the same function, rounded at other places (about 1e-7 relative).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from memfit.frameworks.onnx.rewrites.matching import Sight, operation
from memfit.ir.program import Operation, Program, Type
from memfit.passes.workbench import Workbench

_FLOATS = frozenset(("float32", "float64"))


def fuse_activations(program: Program, bench: Workbench) -> Program:
    """``program`` with written-out activations as single operators."""
    sight = Sight(program, bench)
    for index, given in enumerate(program.operations):
        operator = given.kind.removeprefix("onnx.")
        if index in sight.touched or not given.outputs or given.outputs[0] not in sight.types:
            continue
        if sight.dtype(given.outputs[0]) not in _FLOATS:
            continue
        if operator == "Mul":
            _ = _gelu(sight, index, given) or _hard_swish(sight, index, given) or _division(sight, index, given)
        elif operator == "Where":
            inverse = sight.maker(given.inputs[0], "Not")
            if inverse is not None:
                sight.put(index, replace(given, inputs=(inverse.inputs[0], given.inputs[2], given.inputs[1])))
        elif operator == "Div":
            _root_mean_square(sight, index, given)
    return sight.done()


def _factors(sight: Sight, name: str, depth: int = 0) -> tuple[float, list[str]]:
    """A product taken apart: its numbers multiplied, its other factors; only through values that nothing else reads."""
    number = sight.scalar(name)
    if number is not None:
        return number, []
    before = sight.maker(name, "Mul", "Div")
    if before is None or depth > 4 or (depth and not sight.alone(name)):
        return 1.0, [name]
    left, right = (_factors(sight, n, depth + 1) for n in before.inputs)
    if before.kind == "onnx.Div":
        if right[1] or right[0] == 0:
            return 1.0, [name]
        return left[0] / right[0], left[1]
    return left[0] * right[0], [*left[1], *right[1]]


def _gelu(sight: Sight, index: int, given: Operation) -> bool:
    if sight.opset < 20:
        return False
    number, factors = _factors(sight, given.outputs[0])
    if not _near(number, 0.5) or len(factors) != 2:
        return False
    for x, gate in (factors, factors[::-1]):
        add = sight.maker(gate, "Add")
        if add is None or not sight.alone(gate):
            continue
        inner = next((n for n in add.inputs if sight.scalar(n) is None), "")
        if not inner or not any(_near(sight.scalar(n), 1.0) for n in add.inputs) or not sight.alone(inner):
            continue
        source = x
        erf, tanh = sight.maker(inner, "Erf"), sight.maker(inner, "Tanh")
        if erf is not None:
            scale, rest = _factors(sight, erf.inputs[0])
            if rest == [source] and _near(scale, math.sqrt(0.5)):
                sight.put(index, operation("Gelu", (source,), given.outputs[0], given.label))
                return True
        if tanh is not None and _cubic(sight, tanh.inputs[0], source):
            sight.put(index, operation("Gelu", (source,), given.outputs[0], given.label, approximate="tanh"))
            return True
    return False


def _cubic(sight: Sight, name: str, source: str) -> bool:
    """Whether ``name`` is sqrt(2/pi) * (source + 0.044715 * source^3)."""
    scale, rest = _factors(sight, name)
    if len(rest) != 1 or not _near(scale, math.sqrt(2 / math.pi)):
        return False
    add = sight.maker(rest[0], "Add")
    if add is None:
        return False
    for plain, power in (add.inputs, add.inputs[::-1]):
        factor, cubes = _factors(sight, power)
        if plain != source or not _near(factor, 0.044715):
            continue
        if cubes == [source] * 3:
            return True
        raised = sight.maker(cubes[0], "Pow") if len(cubes) == 1 else None
        if raised is not None and raised.inputs[0] == source and _near(sight.scalar(raised.inputs[1]), 3.0):
            return True
    return False


def _near(number: float | None, wanted: float) -> bool:
    return number is not None and abs(number - wanted) <= 1e-5 * abs(wanted)


def _hard_swish(sight: Sight, index: int, given: Operation) -> bool:
    if sight.opset < 14:
        return False
    for x, gate in (given.inputs, given.inputs[::-1]):
        before = sight.maker(gate, "HardSigmoid")
        if before is None or before.inputs[0] != x or not sight.alone(gate):
            continue
        if _near(before.attribute("alpha", 0.2), 1 / 6) and _near(before.attribute("beta", 0.5), 0.5):
            sight.put(index, operation("HardSwish", (x,), given.outputs[0], given.label))
            return True
    return False


def _division(sight: Sight, index: int, given: Operation) -> bool:
    for x, inverse in (given.inputs, given.inputs[::-1]):
        before = sight.maker(inverse, "Reciprocal")
        if before is not None and sight.alone(inverse):
            sight.put(index, operation("Div", (x, before.inputs[0]), given.outputs[0], given.label))
            return True
    return False


def _root_mean_square(sight: Sight, index: int, given: Operation) -> None:
    """x / sqrt(mean(x^2) + e), then * w: the mean's division goes into e and w, the squares are never held."""
    x = given.inputs[0]
    root = sight.maker(given.inputs[1], "Sqrt")
    add = sight.maker(root.inputs[0], "Add") if root is not None else None
    if (
        root is None
        or add is None
        or not all(sight.alone(n) for n in (given.inputs[1], root.inputs[0], given.outputs[0]))
    ):
        return
    mean_name = next((n for n in add.inputs if sight.scalar(n) is None), "")
    epsilon = next((sight.scalar(n) for n in add.inputs if sight.scalar(n) is not None), None)
    mean = sight.maker(mean_name, "ReduceMean") if mean_name else None
    if mean is None or epsilon is None or not sight.alone(mean_name) or not sight.alone(mean.inputs[0]):
        return
    power = sight.maker(mean.inputs[0], "Pow", "Mul")
    squared = power is not None and power.inputs[0] == x and (
        power.inputs[1] == x if power.kind == "onnx.Mul" else sight.scalar(power.inputs[1]) == 2.0
    )  # fmt: skip
    shape, kept = sight.shape(x), sight.shape(mean_name)
    if not squared or power is None or shape is None or kept is None or len(kept) != len(shape):
        return
    axes = [axis for axis, (a, b) in enumerate(zip(shape, kept, strict=True)) if a != b]
    count = 1
    for axis in axes:
        size = shape[axis]
        if not isinstance(size, int):
            return
        count *= size
    scaled_at = sight.reader(given.outputs[0])
    scale = sight.program.operations[scaled_at] if scaled_at >= 0 else None
    if scale is None or scale.kind != "onnx.Mul" or count < 2:
        return
    weight_name = next((n for n in scale.inputs if n != given.outputs[0]), "")
    weight = sight.array(weight_name) if weight_name and len(sight.program.readers[weight_name]) == 1 else None
    if weight is None or weight.dtype.name not in _FLOATS:
        return
    dtype = np.dtype(sight.dtype(x))
    new_weight = sight.numbers((np.asarray(weight, np.float64) * math.sqrt(count)).astype(weight.dtype), weight_name)
    new_epsilon = sight.numbers(np.array(epsilon * count, dtype=dtype), "epsilon")
    squares = operation("ReduceSumSquare", mean.inputs, mean_name, mean.label, **dict(mean.attributes))
    if mean.inputs[1:] or mean.attribute("axes") is not None:
        squares = replace(squares, inputs=(x, *mean.inputs[1:]))
    else:
        return
    if sight.opset < 18 and len(mean.inputs) > 1:
        return
    sight.types[mean_name] = Type(sight.dtype(x), kept)
    sight.put(sight.program.producer[mean.inputs[0]])
    sight.put(sight.program.producer[mean_name], squares)
    sight.put(
        sight.program.producer[root.inputs[0]], replace(add, inputs=(mean_name, new_epsilon)),
    )  # fmt: skip
    sight.put(scaled_at, replace(scale, inputs=(given.outputs[0], new_weight)))
    sight.touched.update((index, sight.program.producer[given.inputs[1]]))

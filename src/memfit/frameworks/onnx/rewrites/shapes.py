"""Shape arithmetic folded away: values known as numbers become constants, reshapes get targets that need no arithmetic.

    Reshape(x, Concat(Shape(x)[0], Shape(x)[1], 12, 64))   ->   Reshape(x, [0, 0, 12, 64])
    Reshape(Reshape(x, a), b), Unsqueeze(Unsqueeze(x)) ...  ->   Reshape(x, b)
    CastLike(x, y)                                          ->   Cast(x)
    two small tensors that hold the same sizes              ->   one of them

Bit-identical: only views change. What computed the old targets is left for dead code.
"""

from __future__ import annotations

import numpy as np

from memfit.frameworks.onnx.element_types import dtype_number
from memfit.frameworks.onnx.rewrites.matching import Sight, operation, target_of
from memfit.frameworks.onnx.shapes import numeric
from memfit.ir.program import Operation, Program
from memfit.passes.workbench import Workbench

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_LONGEST = 64
_NUMBERS = frozenset(("int64", "int32", "bool", "float32"))


def simplify_shapes(program: Program, bench: Workbench) -> Program:
    """``program`` with constant reshape targets, one reshape where there were several, and known values as constants."""
    sight = Sight(program, bench)
    known: dict[tuple[str, ...], str] = {}
    for index, given in enumerate(program.operations):
        operator = given.kind.removeprefix("onnx.")
        if _known_value(sight, index, given) or _known_before(sight, index, given, known):
            continue
        if operator in _VIEWS:
            _view(sight, index, given)
        elif operator == "CastLike":
            target = dtype_number(sight.dtype(given.inputs[1]))
            if target:
                sight.put(index, operation("Cast", given.inputs[:1], given.outputs[0], given.label, to=target))
    return sight.done()


def _known_value(sight: Sight, index: int, given: Operation) -> bool:
    """A small tensor whose numbers inference followed becomes a constant."""
    if len(given.outputs) != 1 or given.outputs[0] in sight.outputs or given.bodies:
        return False
    output = given.outputs[0]
    value = sight.values.get(output)
    kind = sight.types[output]
    if value is None or value.size > _LONGEST or kind.dtype not in _NUMBERS or kind.form or not numeric(value):
        return False
    if tuple(value.shape) != kind.shape or (kind.dtype == "float32" and value.size > 1):
        return False
    constant = sight.bench.keep(np.array(value.tolist(), dtype=kind.dtype).reshape(value.shape))
    sight.put(index)
    sight.constants[output] = constant
    return True


def _known_before(sight: Sight, index: int, given: Operation, known: dict[tuple[str, ...], str]) -> bool:
    """A small tensor of sizes that an earlier one holds too, whatever they were computed from."""
    if len(given.outputs) != 1 or given.outputs[0] in sight.outputs or given.bodies:
        return False
    output = given.outputs[0]
    value, kind = sight.values.get(output), sight.types[output]
    if value is None or value.size > _LONGEST or kind.dtype not in ("int64", "int32") or kind.form:
        return False
    key = (kind.dtype, str(value.shape), *(str(item) for item in value.reshape(-1)))
    first = known.setdefault(key, output)
    if first == output:
        return False
    sight.rename(output, first)
    sight.put(index)
    return True


def _view(sight: Sight, index: int, given: Operation) -> None:
    source, output = given.inputs[0], given.outputs[0]
    wanted = sight.shape(output)
    if wanted is None:
        return
    through = source
    while True:  # past other views
        before = sight.maker(through, *_VIEWS)
        if before is None or sight.shape(before.inputs[0]) is None:
            break
        through = before.inputs[0]
    shape = sight.shape(through)
    if shape is None:
        return
    kind = given.kind.removeprefix("onnx.")
    fixed = kind == "Reshape" and sight.array(given.inputs[1]) is not None
    if through == source and kind != "Reshape":
        return
    if through != source and shape == wanted and output not in sight.outputs:
        sight.rename(output, through)
        sight.put(index)
        return
    target = target_of(shape, wanted)
    if target is None and through != source:
        through, shape = source, sight.shape(source) or ()
        target = target_of(shape, wanted) if kind == "Reshape" else None
    if target is None:
        return
    if through == source and fixed and tuple(sight.array(given.inputs[1]).tolist()) == target and not given.attributes:
        return
    name = sight.numbers(np.array(target, dtype=np.int64), "shape")
    sight.put(index, operation("Reshape", (through, name), output, given.label))

"""Transposes that can be fewer, or need not copy at all.

    Transpose(Transpose(x))                                   one, or none
    Transpose that moves only sizes of 1                      a Reshape, which copies nothing
    Reshape that merges axes, Transpose, Reshape that splits  one Transpose
    MatMul(x, Transpose(w)), w held for others too            a product with w as it lies: the copy of w goes
    MatMul(x, v), v the transpose of a w held for others      the same: v goes

The last is how a tied embedding is held once. Two-dimensional x: Gemm with transB. Else ``FusedMatMul`` of ONNX Runtime,
written with a function of that name inside the model, so that other runtimes run Transpose and MatMul as before.
All bit-identical but the products, whose sums may be taken in another order.
"""

from __future__ import annotations

import numpy as np

from memfit.frameworks.onnx.rewrites.matching import Sight, operation, target_of
from memfit.ir.dimension import Shape, Size
from memfit.ir.program import Operation, Program
from memfit.passes.workbench import Workbench

_TWIN = 1 << 12
FUSED = "com.microsoft:FusedMatMul"


def simplify_transposes(program: Program, bench: Workbench) -> Program:
    """``program`` with fewer transposes."""
    sight = Sight(program, bench)
    for index, given in enumerate(program.operations):
        operator = given.kind.removeprefix("onnx.")
        if operator == "Transpose":
            _transpose(sight, index, given)
        elif operator == "Reshape":
            _around(sight, index, given)
        elif operator in ("MatMul", "Gemm"):
            _product(sight, index, given)
    return sight.done()


def _order(sight: Sight, given: Operation) -> tuple[int, ...] | None:
    shape = sight.shape(given.inputs[0])
    if shape is None:
        return None
    return tuple(given.attribute("perm") or reversed(range(len(shape))))


def _transpose(sight: Sight, index: int, given: Operation) -> None:
    order = _order(sight, given)
    if order is None:
        return
    before = sight.maker(given.inputs[0], "Transpose")
    if before is not None and (inner := _order(sight, before)) is not None:
        both = tuple(inner[axis] for axis in order)
        if both == tuple(range(len(both))) and given.outputs[0] not in sight.outputs:
            sight.rename(given.outputs[0], before.inputs[0])
            sight.put(index)
        else:
            sight.put(index, operation("Transpose", before.inputs[:1], given.outputs[0], given.label, perm=both))
        return
    shape = sight.shape(given.inputs[0]) or ()
    moving = [axis for axis in order if shape[axis] != 1]
    if moving == sorted(moving) and given.inputs[0] not in sight.program.constants:
        target = target_of(shape, tuple(shape[axis] for axis in order))
        if target is not None:
            name = sight.numbers(np.array(target, dtype=np.int64), "shape")
            sight.put(index, operation("Reshape", (given.inputs[0], name), given.outputs[0], given.label))


def _groups(given: Shape, merged: Shape) -> list[list[int]] | None:
    """Which axes of ``given`` each axis of ``merged`` is the product of; None where it is no such merge."""
    groups: list[list[int]] = []
    axis = 0
    for size in merged:
        group: list[int] = []
        product: Size = 1
        while axis < len(given) and (not group or product != size):
            product = product * given[axis]
            group.append(axis)
            axis += 1
        if product != size:
            return None
        groups.append(group)
    return groups if axis == len(given) else None


def _around(sight: Sight, index: int, given: Operation) -> None:
    """Reshape after Transpose after Reshape, where the two reshapes only merge axes and split them again."""
    middle = sight.maker(given.inputs[0], "Transpose")
    if middle is None:
        return
    first = sight.maker(middle.inputs[0], "Reshape")
    order = _order(sight, middle)
    if first is None or order is None:
        return
    shape, merged, wanted = sight.shape(first.inputs[0]), sight.shape(middle.inputs[0]), sight.shape(given.outputs[0])
    if shape is None or merged is None or wanted is None:
        return
    groups = _groups(shape, merged)
    if groups is None:
        return
    axes = [axis for place in order for axis in groups[place]]
    if tuple(shape[axis] for axis in axes) == wanted:
        sight.put(index, operation("Transpose", first.inputs[:1], given.outputs[0], given.label, perm=tuple(axes)))


def _product(sight: Sight, index: int, given: Operation) -> None:
    """A product with the transpose of a constant that stays anyway."""
    right = given.inputs[1]
    turned = sight.maker(right, "Transpose")
    if right in sight.program.constants and right not in sight.replaceable and right not in sight.outputs:
        other = _turned_twin(sight, right)
        if other:
            _as_it_lies(sight, index, given, other)
        return
    if turned is None or turned.inputs[0] not in sight.program.constants or _order(sight, turned) != (1, 0):
        return
    weight = turned.inputs[0]
    if set(sight.program.readers[weight]) == {sight.program.producer[right]}:
        return  # folding turns it for good
    _as_it_lies(sight, index, given, weight)


def _turned_twin(sight: Sight, name: str) -> str:
    """A constant that holds the transpose of ``name``, is read otherwise too, and so stays; '' for none."""
    size = sight.program.constants[name]
    shape = size.type.shape or ()
    if len(shape) != 2 or size.nbytes < _TWIN or size.type.dtype != "float32":
        return ""
    for other, constant in sight.program.constants.items():
        if constant.type.shape != shape[::-1] or constant.type.dtype != "float32" or other == name:
            continue
        if other in sight.replaceable or not _read_as_it_is(sight, other):
            continue
        mine, theirs = sight.array(name), sight.array(other)
        corner = (slice(0, 8), slice(0, 8))
        if np.array_equal(mine[corner], theirs[corner].T) and np.array_equal(mine, theirs.T):
            return other
    return ""


def _read_as_it_is(sight: Sight, name: str) -> bool:
    """Whether something but a product reads a constant: what only products read might be turned to its twin as well."""
    readers = [sight.program.operations[at] for at in sight.program.readers.get(name, ())]
    return any(reader.kind not in ("onnx.MatMul", "onnx.Gemm") for reader in readers)


def _as_it_lies(sight: Sight, index: int, given: Operation, weight: str) -> None:
    """The product with the transpose of ``weight``, without making it."""
    left = given.inputs[0]
    shape, made = sight.shape(left), sight.types[given.outputs[0]]
    if shape is None:
        return
    if given.kind == "onnx.Gemm":
        attributes = dict(given.attributes)
        attributes["transB"] = 1 - attributes.get("transB", 0)
        sight.put(
            index, operation("Gemm", (left, weight, *given.inputs[2:]), given.outputs[0], given.label, **attributes)
        )
    elif len(shape) == 2:
        sight.put(index, operation("Gemm", (left, weight), given.outputs[0], given.label, transB=1))
    elif made.dtype == "float32" and len(shape) > 2:
        sight.put(index, operation(FUSED, (left, weight), given.outputs[0], given.label, transB=1))

"""What the sizes of an ONNX program must keep, each breach said in one sentence: none is below zero, axes exist, parts fit.

The inference of ``onnx`` refuses most (``model_file``); what it lets pass and runtimes reject is looked for here. Only what is
known as a number is judged: a symbol may turn out right. Cost: O(operations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from memfit.errors import TargetError
from memfit.ir.program import Operation, Program

_BY_AXIS = frozenset(("Gather", "GatherElements", "ScatterElements", "LayerNormalization"))


def check_sizes(program: Program, target: str) -> None:
    """Raise where an operation of ``program`` asks for what its operands' sizes do not allow.

    Args:
        program: typed; small integer constants known in ``meta["values"]``.
        target: what the message calls the model.

    Raises:
        TargetError: which operation, and why.
    """
    values = program.meta.get("values", {})
    for operation in program.operations:
        why = _wrong(program, operation, values)
        if why:
            what = f"its operation {operation.kind.removeprefix('onnx.')} that makes {operation.outputs[0]!r}"
            raise TargetError(target, f"{what} {why}", "export it again")


def _wrong(program: Program, operation: Operation, values: Mapping[str, Any]) -> str:
    """What is wrong with an operation's sizes; '' where nothing is."""
    kind = operation.kind.removeprefix("onnx.")
    shapes = [program.types[name].shape if name in program.types else None for name in operation.inputs]
    for name in filter(None, operation.outputs):
        shape = program.types[name].shape if name in program.types else None
        if any(isinstance(size, int) and size < 0 for size in shape or ()):
            return f"would have a size below zero: {list(shape or ())}"
    given = shapes[0] if shapes else None
    if given is None:
        return ""
    wrong = [axis for axis in _axes(operation, kind, values) if not -len(given) <= axis < len(given)]
    if wrong:
        return f"has axis {wrong[0]}, and its tensor has {len(given)}"
    return _wrong_parts(program, operation, kind, shapes, values)


def _axes(operation: Operation, kind: str, values: Mapping[str, Any]) -> list[int]:
    """The axes of its first operand that an operation names."""
    if kind in _BY_AXIS:
        return [int(operation.attribute("axis", -1 if kind == "LayerNormalization" else 0))]
    if kind == "ReverseSequence":
        return [int(operation.attribute("batch_axis", 1)), int(operation.attribute("time_axis", 0))]
    if kind == "CumSum" and len(operation.inputs) > 1:
        known = values.get(operation.inputs[1])
        return [int(axis) for axis in np.asarray(known).reshape(-1)] if _numbers(known) else []
    return []


def _wrong_parts(
    program: Program, operation: Operation, kind: str, shapes: list[Any], values: Mapping[str, Any]
) -> str:
    given, second = shapes[0], shapes[1] if len(shapes) > 1 else None
    if kind == "Transpose":
        order = operation.attribute("perm")
        return f"orders {len(order)} axes of {len(given)}" if order and len(order) != len(given) else ""
    if kind == "Reshape":
        made = program.types[operation.outputs[0]].shape
        if made is None or not all(isinstance(size, int) for size in (*given, *made)):
            return ""
        before, after = math.prod(given), math.prod(made)
        return f"makes {list(made)} of {list(given)}: {after} elements of {before}" if before != after else ""
    if kind == "Conv" and second is not None and len(given) > 1 and len(second) > 1:
        channels, wanted, groups = given[1], second[1], int(operation.attribute("group", 1))
        if isinstance(channels, int) and isinstance(wanted, int) and wanted * groups != channels:
            return f"has a weight for {wanted * groups} channels, and its tensor has {channels}"
    if kind == "DepthToSpace" and len(given) > 1 and isinstance(given[1], int):
        parts = int(operation.attribute("blocksize", 1)) ** 2
        return f"divides {given[1]} channels into blocks of {parts}" if given[1] % parts else ""
    if kind == "Gather" and len(operation.inputs) > 1:
        size, places = given[int(operation.attribute("axis", 0))], values.get(operation.inputs[1])
        if isinstance(size, int) and _numbers(places):
            far = [int(place) for place in np.asarray(places).reshape(-1) if not -size <= place < size]
            return f"reads place {far[0]} of {size}" if far else ""
    return ""


def _numbers(value: Any) -> bool:
    """Whether a followed value is whole numbers only, without symbols."""
    return value is not None and all(
        isinstance(one, (int, np.integer)) and not isinstance(one, bool)
        for one in np.asarray(value, object).reshape(-1)
    )

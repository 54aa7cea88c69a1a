"""Operations that do nothing: their output is an input, byte for byte or value for value.

Reshapes to the same shape, casts to the same type, transposes that move nothing, slices of everything, additions of zero,
multiplications by one, pads by nothing, concatenations of one. Adding 0 turns -0.0 into 0.0, which compares equal; all else
is bit-identical. Decisions use types and small constants only. Cost: O(operations).
"""

from __future__ import annotations

from typing import Any

from memfit.ir.ops.table import facts
from memfit.ir.program import Operation, Program
from memfit.passes.workbench import Rewriting, Workbench

_NEUTRAL = {"Add": 0, "BiasAdd": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}
_RESHAPING = frozenset(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Pad", "Cast",
                        "CastLike", "Concat", "Sum", "Mean", "Max", "Min", "Dropout", "Resize"))  # fmt: skip


def remove_identities(program: Program, bench: Workbench) -> Program:
    """``program`` with operations that change nothing left out."""
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        if facts(operation).name == "IdentityN" and not work.outputs.intersection(operation.outputs):
            for source, output in zip(operation.inputs, operation.outputs, strict=True):
                work.rename(output, source)
            work.replace(index)
            continue
        source = _same_as(program, operation, bench)
        if not source:
            continue
        output = operation.outputs[0]
        if output not in work.outputs:
            work.rename(output, source)
            work.replace(index)
        elif operation.kind.endswith(".Identity"):
            _take_over(program, work, index, source, output)
    return work.done()


def _take_over(program: Program, work: Rewriting, index: int, source: str, output: str) -> None:
    """An Identity in front of an output: its producer makes the output instead, where that is a plain value here."""
    maker = program.producer.get(source)
    if maker is None or source in work.outputs or source != work.resolved(source):
        return
    before = program.operations[maker]
    if work._now[maker] != (before,) or maker > index:
        return
    from dataclasses import replace

    work.replace(maker, replace(before, outputs=tuple(output if name == source else name for name in before.outputs)))
    work.replace(index)
    work.rename(source, output)


def _same_as(program: Program, operation: Operation, bench: Workbench) -> str:
    """The input that the only used output equals, or ''."""
    what = facts(operation)
    if not what.pure or not operation.inputs or not operation.inputs[0]:
        return ""
    if any(name and index for index, name in enumerate(operation.outputs)) and what.name != "Dropout":
        return ""
    if what.name == "Dropout":
        mask = operation.outputs[1] if len(operation.outputs) > 1 else ""
        return (
            operation.inputs[0] if not mask or (not program.readers.get(mask) and mask not in program.outputs) else ""
        )
    source, output = operation.inputs[0], operation.outputs[0]
    given, made = program.types.get(source), program.types[output]
    if given is None:
        return ""
    if what.name in _NEUTRAL:
        return _neutral(program, operation, what.name, what.commutative, bench)
    if what.name == "Transpose":
        order = operation.attribute("perm")
        return source if order is not None and list(order) == sorted(order) else ""
    if what.name not in _RESHAPING or given.form or given.shape is None or given != made:
        return ""
    if what.name in ("Concat", "Sum", "Mean", "Max", "Min"):
        return source if len(operation.inputs) == 1 else ""
    if what.name == "Slice":
        return source if _forward(program, operation, bench) else ""
    if what.name == "Pad":
        return source if _constant_is(program, operation, 1, 0, bench) else ""
    if what.name == "Resize":
        return ""
    return source


def _forward(program: Program, operation: Operation, bench: Workbench) -> bool:
    """Whether a slice that keeps the size walks forward: steps are left out or all 1."""
    return len(operation.inputs) <= 4 or not operation.inputs[4] or _constant_is(program, operation, 4, 1, bench)


def _neutral(program: Program, operation: Operation, name: str, commutative: bool, bench: Workbench) -> str:
    if len(operation.inputs) != 2:
        return ""
    for other, kept in ((1, 0), (0, 1)) if commutative else ((1, 0),):
        source = operation.inputs[kept]
        same = source in program.types and program.types[source] == program.types[operation.outputs[0]]
        if same and _constant_is(program, operation, other, _NEUTRAL[name], bench):
            return source
    return ""


def _constant_is(program: Program, operation: Operation, index: int, number: Any, bench: Workbench) -> bool:
    """Whether an input is a constant of nothing but ``number``."""
    if index >= len(operation.inputs):
        return False
    constant = program.constants.get(operation.inputs[index])
    if constant is None or operation.inputs[index] in program.meta.get("inputs", {}) or constant.type.dtype == "string":
        return False
    array = bench.array(constant)
    return bool(array.size and array.reshape(-1)[0] == number and (array == number).all())

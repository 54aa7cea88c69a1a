"""Expand in front of operators that broadcast by themselves: the wide copy is never made.

Kept where the reader's result would change its shape without it. Bit-identical.
"""

from __future__ import annotations

from memfit.frameworks.onnx.rewrites.matching import Sight
from memfit.frameworks.onnx.shape_rules import broadcast
from memfit.ir.dimension import Shape
from memfit.ir.ops.table import facts
from memfit.ir.program import Program
from memfit.passes.workbench import Workbench

_SPREADING = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Where", "Equal", "Greater", "GreaterOrEqual",
                        "Less", "LessOrEqual", "Max", "Min", "Mod"))  # fmt: skip


def remove_expansions(program: Program, bench: Workbench) -> Program:
    """``program`` in which readers that broadcast read what an Expand would have widened."""
    sight = Sight(program, bench)
    for index, given in enumerate(program.operations):
        if given.kind.removeprefix("onnx.") not in _SPREADING or not facts(given).pure:
            continue
        inputs = list(given.inputs)
        shapes = [sight.shape(name) for name in inputs]
        wanted = sight.shape(given.outputs[0])
        if wanted is None or any(shape is None for shape in shapes):
            continue
        changed = False
        for place, name in enumerate(inputs):
            before = sight.maker(name, "Expand")
            narrow = None if before is None else sight.shape(before.inputs[0])
            if before is None or narrow is None:
                continue
            tried: list[Shape] = [shape or () for shape in shapes]
            tried[place] = narrow
            if broadcast(*tried) == wanted:
                inputs[place], shapes[place], changed = before.inputs[0], narrow, True
        if changed:
            from dataclasses import replace

            sight.put(index, replace(given, inputs=tuple(inputs)))
    return sight.done()

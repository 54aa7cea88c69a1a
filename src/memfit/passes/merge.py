"""Common subexpressions and equal constants: what is computed or held twice is computed and held once.

Two operations are one where the ops table calls them mergeable (pure, not random) and kind, attributes and inputs are equal
(the first two in any order where the operator commutes). Constants are one where their references, that is contents, are
equal; ones that callers may replace stay apart. One sweep finds all, since inputs are renamed as it goes.

Sharing a value can lengthen its life, so the pipeline holds the bytes after it against those before. Cost: O(operations).
"""

from __future__ import annotations

from typing import Any

from memfit.ir.ops.table import facts
from memfit.ir.program import Program
from memfit.passes.workbench import Rewriting, Workbench


def merge_equal(program: Program, bench: Workbench) -> Program:
    """``program`` with equal operations and equal constants merged."""
    work = Rewriting(program)
    replaceable = program.meta.get("inputs", {})
    first: dict[str, str] = {}
    for name, constant in program.constants.items():
        if name in replaceable:
            continue
        keep = first.setdefault(constant.reference, name)
        if keep != name and name not in work.outputs:
            work.rename(name, keep)
    seen: dict[Any, tuple[str, ...]] = {}
    for index, operation in enumerate(program.operations):
        what = facts(operation)
        if not what.mergeable or operation.bodies:
            continue
        inputs = tuple(work.resolved(name) for name in operation.inputs)
        if what.commutative and len(inputs) >= 2:
            inputs = (*sorted(inputs[:2]), *inputs[2:])
        key = (operation.kind, operation.attributes, inputs, tuple(bool(name) for name in operation.outputs))
        known = seen.setdefault(key, operation.outputs)
        if known is operation.outputs or work.outputs.intersection(operation.outputs):
            continue
        for name, same in zip(operation.outputs, known, strict=True):
            if name:
                work.rename(name, same)
        work.replace(index)
    return work.done()

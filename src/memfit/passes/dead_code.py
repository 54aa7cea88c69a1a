"""Operations and constants that nobody reads go; so do outputs of operations that may leave one out.

An operation goes where the ops table says that it may (pure, or random) and no output is read. Cost: O(operations + reads).
"""

from __future__ import annotations

from dataclasses import replace

from memfit.ir.ops.table import facts
from memfit.ir.program import Operation, Program
from memfit.passes.workbench import Workbench


def remove_dead_code(program: Program, bench: Workbench) -> Program:
    """``program`` without what no output depends on."""
    needed = {name for name in program.outputs if name}
    kept: list[Operation] = []
    for operation in reversed(program.operations):
        if not needed.intersection(operation.outputs) and facts(operation).removable:
            continue
        needed.update(operation.reads)
        kept.append(operation)
    constants = {
        name: c for name, c in program.constants.items() if name in needed or name in program.meta.get("inputs", {})
    }
    if len(kept) == len(program.operations) and len(constants) == len(program.constants):
        return program
    made = {name for op in kept for name in op.outputs} | {*program.inputs, *constants}
    types = {name: given for name, given in program.types.items() if name in made}
    return replace(program, operations=tuple(reversed(kept)), constants=constants, types=types)

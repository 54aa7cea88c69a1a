"""Whether a Program keeps its rules: each name made once and before it is read, typed, outputs there. Shares no pass code.

Run between passes, so that a fault is found at the pass that made it. Cost: O(operations + reads).
"""

from __future__ import annotations

from collections.abc import Collection

from memfit.errors import ProgramError
from memfit.ir.program import Program


def verify(program: Program, *, where: str = "the program", around: Collection[str] = ()) -> None:
    """Raise where ``program`` breaks a rule.

    Args:
        program: looked through, bodies too.
        where: what the message calls it ("the program after constant folding").
        around: names that the programs around this one make.

    Raises:
        ProgramError: which operation, which name, which rule.
    """
    made = {*around, *program.constants}
    for name in program.inputs:
        if name in program.constants:
            raise ProgramError(where, f"{name!r} is both an input and a constant")
        made.add(name)
    for name in (*program.inputs, *program.constants):
        if name not in program.types:
            raise ProgramError(where, f"{name!r} has no type")
    own: set[str] = {*program.inputs, *program.constants}
    for index, operation in enumerate(program.operations):
        at = f"operation {index} ({operation.kind}{f' {operation.label}' if operation.label else ''})"
        for name in operation.inputs:
            if name and name not in made:
                raise ProgramError(where, f"{at} reads {name!r}, which nothing before it makes")
        for attribute, body in operation.bodies:
            verify(body, where=f"{attribute} of {at} in {where}", around=made)
        for name in operation.outputs:
            if not name:
                continue
            if name in own:
                raise ProgramError(where, f"{at} makes {name!r}, which exists already")
            if name not in program.types:
                raise ProgramError(where, f"{at} makes {name!r} without a type")
            own.add(name)
            made.add(name)
    for name in program.outputs:
        if name and name not in made:
            raise ProgramError(where, f"its output {name!r} is made by nothing")

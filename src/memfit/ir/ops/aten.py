"""What operators of PyTorch do to memory, as their own schemas say: the front end notes it as the attribute ``memory``.

    pure      new memory; same inputs, same outputs          view      the output shares the bytes of input ``of``
    writes    the output is input ``of``, written over       random    draws numbers, or drops out
    (none)    unknown: impure, and may hold on to all inputs

Eager PyTorch gives every result memory of its own, so nothing is written in place that the program does not write so. A
branch or loop does what its bodies do.
"""

from __future__ import annotations

from memfit.ir.ops.table import UNKNOWN, Facts, Table, facts
from memfit.ir.program import Operation

_NAMES = {
    "add.Tensor": "Add", "sub.Tensor": "Sub", "mul.Tensor": "Mul", "div.Tensor": "Div", "view.default": "Reshape",
    "reshape.default": "Reshape", "_unsafe_view.default": "Reshape", "unsqueeze.default": "Unsqueeze",
    "squeeze.dim": "Squeeze", "squeeze.default": "Squeeze", "flatten.using_ints": "Reshape", "expand.default": "Expand",
    "_to_copy.default": "Cast", "alias.default": "Reshape", "detach.default": "Reshape", "to.dtype": "Cast",
    "to.dtype_layout": "Cast", "to.device": "Cast", "lift_fresh_copy.default": "Reshape", "where.self": "Where",
    "logical_and.default": "And", "logical_or.default": "Or", "logical_not.default": "Not", "eq.Tensor": "Equal",
    "gt.Tensor": "Greater", "lt.Tensor": "Less", "neg.default": "Neg", "cat.default": "", "repeat.default": "",
}  # fmt: skip
_COMMUTATIVE = frozenset(("mul.Tensor", "logical_and.default", "logical_or.default", "eq.Tensor"))


def _refine(operation: Operation, row: Facts) -> Facts:
    """What the schema says; see the module text."""
    operator = operation.kind.partition(".")[2]
    memory = operation.attribute("memory", "")
    if operation.bodies:
        inside = [facts(inner) for _, body in operation.bodies for inner in body.operations]
        if memory != "pure" or any(not f.pure and not f.random for f in inside):
            return UNKNOWN
        return Facts(random=True) if any(f.random for f in inside) else Facts(pure=True)
    name = _NAMES.get(operator, "")
    if memory == "pure":
        return Facts(name, pure=True, commutative=operator in _COMMUTATIVE)
    if memory == "view":
        return Facts(name, pure=True, view=operation.attribute("of", 0))
    if memory == "writes":
        return Facts(view=operation.attribute("of", 0))
    return Facts(random=True) if memory == "random" else UNKNOWN


TABLE = Table({}, _refine)
